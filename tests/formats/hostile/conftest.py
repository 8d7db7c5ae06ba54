"""What the tests of hostile files share."""

import pytest
from formats.hostile.campaign import Campaigns, RealFiles


@pytest.fixture(scope="session")
def real_files(tmp_path_factory):
    """A folder of real files for each writer."""
    return RealFiles(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="session")
def campaigns(real_files):
    """The program that judges files of a kind."""
    campaigns = Campaigns(real_files.folder)
    yield campaigns
    campaigns.close()
