"""fastgru.keras: the models of every Keras, each in a process, as one process has one backend."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
pytestmark = pytest.mark.outside


def python(*arguments, cwd=None, **environment):
    """What a fresh interpreter prints."""
    path = os.pathsep.join(filter(None, [str(ROOT), str(HERE), os.environ.get("PYTHONPATH")]))
    run = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path} | environment,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.long
@pytest.mark.parametrize("flavour", ["jax", "tf_keras", "tensorflow", "torch", "numpy"])  # the longest first
def test_optimized_models_are_exact(flavour):
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--import-mode=importlib"]
    printed = python("-m", "pytest", *options, str(HERE / "keras_optimized.py"), FLAVOUR=flavour, cwd=ROOT)
    assert " passed" in printed
    assert "skipped" not in printed


WITHOUT_KERAS = """
import importlib.machinery, sys

class Missing(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in ("keras", "tf_keras"):
            return None
        return super().find_spec(name, path, target)

own = importlib.machinery.PathFinder
sys.meta_path[:] = [Missing if finder is own else finder for finder in sys.meta_path]
import fastgru
print(fastgru.GRU.__name__)
try:
    import fastgru.keras
except ImportError as error:
    print(error.name, error)
"""


def test_without_keras_the_import_is_one_clear_error():
    lines = python("-c", WITHOUT_KERAS).splitlines()
    assert lines[0] == "GRU"
    assert lines[1].startswith("keras fastgru.keras needs Keras 3 or tf_keras, and neither is installed: pip")


def test_the_import_brings_no_framework():
    frameworks = {"keras", "tf_keras", "tensorflow", "torch", "jax"}
    code = f"import sys, fastgru.keras; print({frameworks} & {{*sys.modules}})"
    assert python("-c", code).strip() == "set()"


SAVED = """
import pickle, sys, numpy as np, keras, fastgru.keras
model = keras.Sequential([keras.Input((None, 4)), keras.layers.Bidirectional(keras.layers.GRU(3))])
fastgru.keras.optimize(model)
x = np.ones((2, 5, 4), np.float32)
np.save("outputs.npy", model.predict(x, verbose=0))
model.save("model.keras")
with open("model.pickle", "wb") as file:
    pickle.dump(model, file)
"""
LOADED = """
import pickle, sys, numpy as np
sys.modules["fastgru"] = None  # as if it were not installed
import keras
x = np.ones((2, 5, 4), np.float32)
wanted = np.load("outputs.npy")
with open("model.pickle", "rb") as file:
    models = [pickle.load(file), keras.models.load_model("model.keras")]
print(max(np.abs(model.predict(x, verbose=0) - wanted).max() for model in models) < 3e-5)
"""


def test_saved_models_load_without_fastgru(tmp_path):
    python("-c", SAVED, cwd=tmp_path, KERAS_BACKEND="torch")
    assert python("-c", LOADED, cwd=tmp_path, KERAS_BACKEND="torch").strip() == "True"
