"""What the tests of hostile files share."""

import pytest
from formats.hostile.campaign import RealFiles


@pytest.fixture(scope="session")
def real_files(tmp_path_factory):
    """A folder of real files for each writer."""
    return RealFiles(tmp_path_factory.mktemp("real"))
