"""What several test files share."""

import os

import pytest


@pytest.fixture(scope="session")
def keras():
    """The original: tf_keras, imported only when a test asks for it."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tf_keras

    return tf_keras
