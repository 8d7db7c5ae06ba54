"""What several test files share."""

import functools
import os

import pytest

import fastgru
from fastgru import _core


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
def isa(request, monkeypatch):
    """Every instruction set of this machine in turn, for all layers that the test makes."""
    monkeypatch.setattr(fastgru.gru, "Plan", functools.partial(_core.Plan, isa=request.param))
    return request.param
