"""The GRUs of a PyTorch model on fastgru: one line makes them run there, and one line undoes it."""

try:
    import torch as _torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "fastgru.torch needs PyTorch 2.3 or newer, which is not installed: pip install torch", name="torch"
    ) from None
if tuple(map(int, _torch.__version__.split(".")[:2])) < (2, 3):
    raise ImportError(f"fastgru.torch needs PyTorch 2.3 or newer, got {_torch.__version__}")

from fastgru.torch._modules import optimize, optimized, restore
from fastgru.torch._report import Entry, Report, report

__all__ = ["Entry", "Report", "optimize", "optimized", "report", "restore"]
