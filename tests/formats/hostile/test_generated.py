"""Thousands of files that grammars make up: a layer or a FormatError, in little memory and time, and no more.

A failing seed is printed; `campaign.py` repeats it, or does a longer campaign.
"""

import pytest
from formats.hostile import campaign


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, kind in campaign.KINDS.items() if kind.hostile])
def test_a_generated_file_gives_a_layer_or_a_format_error(name, campaigns):
    kind = campaign.KINDS[name]
    ended = campaigns.run(name)
    assert sum(ended["outcomes"].values()) == kind.count
    assert ended["outcomes"]["loaded"] > kind.count // 5
    if kind.count > 10 * len(kind.hostile):  # often enough for each
        assert set(ended["hostile"]) == set(kind.hostile)
