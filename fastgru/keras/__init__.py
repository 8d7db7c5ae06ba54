"""One line that makes the GRUs of a Keras model run on fastgru, and one line that undoes it.

For Keras 3 on each of its backends that runs a GRU (torch, jax, tensorflow, numpy), and for tf_keras.
"""

from importlib.util import find_spec

if find_spec("keras") is None and find_spec("tf_keras") is None:
    raise ImportError(
        "fastgru.keras needs Keras 3 or tf_keras, and neither is installed: pip install keras and one of its "
        "backends; or pip install tf_keras",
        name="keras",
    )

from fastgru.keras._model import Entry, Report, optimize, optimized, report, restore

__all__ = ["Entry", "Report", "optimize", "optimized", "report", "restore"]
