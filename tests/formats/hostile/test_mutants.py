"""Thousands of changes of real files: a layer or a FormatError, in little memory and time, and nothing else.

A failing seed is printed; `campaign.py` repeats it, or does a longer campaign.
"""

import pytest
from formats.hostile import campaign, judging
from formats.hostile.real_files import FILES, SIGMOID

pytestmark = pytest.mark.xdist_group("real files")  # which are written once


def test_real_files_load(real_files):
    for arguments in ({}, SIGMOID):
        paths = [real_files[one.writer] / one.name for one in FILES.values() if one.arguments == arguments]
        assert judging.judged(*paths, arguments=arguments) == ["loaded"] * len(paths)


@pytest.mark.parametrize("name", [name for name, kind in campaign.KINDS.items() if kind.real])
def test_a_changed_file_gives_a_layer_or_a_format_error(name, real_files, campaigns):
    kind = real_files.kind(name)
    ended = campaigns.run(name)
    assert sum(ended["outcomes"].values()) == kind.count
    assert ended["outcomes"]["loaded"] > kind.count // 50  # and the changes reach all the way
    assert len(ended["outcomes"]) > 5
