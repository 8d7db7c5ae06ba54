"""What several test files share."""

import os

import pytest

from fastgru import _config, _core


@pytest.fixture(scope="session")
def keras():
    """The original: tf_keras, imported only when a test asks for it."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tf_keras

    return tf_keras


@pytest.fixture(scope="session")
def tensorflow(keras):
    """What the original runs on."""
    import tensorflow

    return tensorflow


@pytest.fixture(params=_core.isas())
def isa(request):
    """Every instruction set of this machine in turn."""
    return request.param


CHOICES = [_config.Choice("packed", isa) for isa in _core.packed_isas()]
CHOICES += [_config.Choice("blas", isa) for isa in _core.isas()]


@pytest.fixture(params=CHOICES, ids="-".join)
def choice(request, monkeypatch):
    """Every engine on every instruction set in turn, for all layers that the test makes."""
    monkeypatch.setattr(_config, "CHOICE", request.param)
    return request.param
