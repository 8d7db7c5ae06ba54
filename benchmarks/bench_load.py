"""A layer from a file: the time, by PyTorch's for its own file, and the memory it takes."""

from __future__ import annotations

import atexit
import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import fastgru
from benchmarks.bench_shares import share
from benchmarks.race.contenders.onnx import onnx_model
from benchmarks.race.contenders.torch import Torch
from benchmarks.tasks import Arrays, Shape, Task


def _npz(path: Path, task: Task, arrays: Arrays) -> None:
    weights = [arrays.kernel, arrays.recurrent_kernel, arrays.bias]
    layer = fastgru.GRU(task.shape.units, reset_after=True, weights=weights)
    layer.build(arrays.x.shape)
    layer.save(path)


def _pt(path: Path, task: Task, arrays: Arrays) -> None:
    import torch

    torch.save(Torch().layer(task, arrays).state_dict(), path)


def _safetensors(path: Path, task: Task, arrays: Arrays) -> None:
    from safetensors import torch

    torch.save_file(Torch().layer(task, arrays).state_dict(), path)


def _onnx(path: Path, task: Task, arrays: Arrays) -> None:
    path.write_bytes(onnx_model(task, arrays))


def _h5(path: Path, task: Task, arrays: Arrays) -> None:
    """As Keras 2 writes a model."""
    import h5py

    config = {"name": "gru", "units": task.shape.units, "reset_after": True}
    layers = [{"class_name": "GRU", "config": config}]
    weights = {f"gru/{name}:0": getattr(arrays, name) for name in ("kernel", "recurrent_kernel", "bias")}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.15.0"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": layers}})
        group = file.create_group("model_weights/gru")
        group.attrs["weight_names"] = [name.encode() for name in weights]
        for name, array in weights.items():
            group[name] = array


WRITE = {"npz": _npz, "pt": _pt, "safetensors": _safetensors, "onnx": _onnx, "h5": _h5}


class _File:
    """A file of one layer, as wide as its inputs; left out if what writes it is not installed."""

    folder: tempfile.TemporaryDirectory[str] | None = None
    path: Path

    def write(self, suffix: str, units: int) -> None:
        """Once: asv sets up again between the calls that it times."""
        if self.folder is not None:
            return
        task = Task(Shape(1, 1, units, units))
        self.folder = tempfile.TemporaryDirectory()
        atexit.register(self.folder.cleanup)
        self.path = Path(self.folder.name, f"model.{suffix}")
        self.arrays = task.arrays()
        try:
            WRITE[suffix](self.path, task, self.arrays)
        except ImportError as error:
            raise NotImplementedError(f"needs {error.name}") from error  # asv's word for: not this one
        self.load()

    def load(self) -> Any:
        return fastgru.load(self.path)


class Load(_File):
    """Every format, a small layer and one of 25 MB."""

    params = ([64, 1024], list(WRITE))
    param_names = ("units", "suffix")

    def setup(self, units: int, suffix: str) -> None:
        self.write(suffix, units)

    def time_load(self, *_: object) -> None:
        self.load()

    def track_peak(self, *_: object) -> float:
        """The most that is allocated at a time, with the layer; without the process that reads .h5."""
        tracemalloc.start()
        self.load()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return round(peak / self.path.stat().st_size, 2)

    track_peak.unit = "times the file"  # type: ignore[attr-defined]


class LoadTorch(_File):
    """A state dict, by what PyTorch takes to read it into a module that exists."""

    params = ([64, 1024],)
    param_names = ("units",)
    rounds = 30

    def setup(self, units: int) -> None:
        self.write("pt", units)
        import torch

        module = torch.nn.GRU(units, units)
        self.by_torch = lambda: module.load_state_dict(torch.load(self.path, weights_only=True))

    def track_share_of_torch(self, *_: object) -> float:
        return share(self.rounds, self.load, self.by_torch)

    track_share_of_torch.unit = "times"  # type: ignore[attr-defined]
