"""Layers models of TensorFlow.js: a model.json, and shards of weights in the same folder."""

import bisect
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastgru._errors import FormatError
from fastgru._keras_config import an_object, major
from fastgru.formats import _file, _model, _zip
from fastgru.formats._keras_by_name import model_by_names
from fastgru.formats._keras_by_place import model_by_places
from fastgru.formats._keras_layers import Array
from fastgru.formats._keras_weights import Architecture
from fastgru.formats._model import Makers

DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in ("float32", "float16", "int32", "uint8", "uint16", "bool")
}
QUANTIZED = ("uint8", "uint16")
PLACE = re.compile("(?:.*/)?vars/[0-9]+", re.S)  # a name by place


class _Weight(NamedTuple):
    """A weight in the manifest.

    Attributes
    ----------
    shards : _Shards
        Of its group.
    start : int
        Of its bytes among those of the group.
    shape : tuple of int
    dtype : numpy.dtype
        As stored.
    scale, least : float
        A quantized weight is the stored number times `scale`, plus `least`.
    """

    shards: "_Shards"
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    least: float


class _Shards:
    """Files whose bytes, one file after the other, are those of a group of weights."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._paths = [folder / name for name in names]
        self._ends = list(itertools.accumulate(_part(path, 0, 0)[1] for path in self._paths))
        self.size = self._ends[-1] if self._ends else 0

    def read(self, start: int, size: int) -> bytes:
        """Bytes from a place on."""
        parts = []
        i = bisect.bisect_right(self._ends, start)
        while size:
            before = self._ends[i - 1] if i else 0
            wanted = min(size, self._ends[i] - start)
            part, _ = _part(self._paths[i], start - before, wanted)
            if len(part) != wanted:
                raise FormatError(f"{self._paths[i].name} has become shorter while it was read")
            parts.append(part)
            start, size, i = start + wanted, size - wanted, i + 1
        return b"".join(parts)


def _part(path: Path, start: int, size: int) -> tuple[bytes, int]:
    """As `_file.read_part`, of a shard."""
    try:
        return _file.read_part(path, start, size)
    except OSError as error:
        if error.errno is None:  # a signal handler's, not the system's
            raise
        raise FormatError(f"the shard {path.name} cannot be read: {error.strerror}") from error


class _Manifest:
    """The weights that a model.json names.

    Attributes
    ----------
    by_place : bool
        The model was a .keras, whose weights the converter names by their paths in model.weights.h5.
        Otherwise it was an .h5 or one of TensorFlow.js, and they have the names that Keras gave them.
    attributes : dict
        weight_names of the one group that all are in, "", or by place the groups.
    shapes : dict
        Of every weight, by its path: group, slash and name.
    """

    def __init__(self, groups: Any, folder: Path) -> None:
        if not isinstance(groups, list):
            raise FormatError(f"weightsManifest must be a list of groups, got {groups!r:.80}")
        self._weights: dict[str, _Weight] = {}
        shards: set[str] = set()
        for group in groups:
            group = an_object("a group of weightsManifest", group)
            names = group.get("paths")
            if not isinstance(names, list) or not isinstance(group.get("weights"), list):
                raise FormatError("a group of weightsManifest must have lists of paths and of weights")
            for name in names:
                _check_shard(name)
                if name in shards:
                    raise FormatError(f"the shard {name} is named twice")
                shards.add(name)
            self._add(group["weights"], _Shards(folder, names))
        self.by_place = any(PLACE.fullmatch(name) for name in self._weights)
        self.attributes: dict[str, dict[str, str | list[str]]] = {"": {"weight_names": list(self._weights)}}
        if self.by_place:
            self.attributes = {name.rpartition("/")[0]: {} for name in self._weights}
        else:
            self._weights = {f"/{name}": weight for name, weight in self._weights.items()}
        self.shapes = {path: weight.shape for path, weight in self._weights.items()}

    def _add(self, weights: Sequence[Any], shards: _Shards) -> None:
        """The weights of a group, which are all that its shards hold."""
        start = 0
        for weight in weights:
            weight = an_object("a weight of weightsManifest", weight)
            name, shape = weight.get("name"), weight.get("shape")
            if not isinstance(name, str) or len(name) > _model.LONGEST:
                raise FormatError(f"a weight must have a name, got {name!r:.80}")
            if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
                raise FormatError(f"{name} must have a shape, got {shape!r:.80}")
            if name in self._weights:
                raise FormatError(f"two weights have the name {name}")
            dtype, scale, least = _stored(name, weight)
            size = _model.check_size(name, shape, dtype.itemsize, shards.size - start)
            self._weights[name] = _Weight(shards, start, tuple(shape), dtype, scale, least)
            start += size
        if start != shards.size:
            raise FormatError(f"the shards of a group have {shards.size} bytes, its weights {start}")

    def floats(self, path: str) -> Array:
        """A weight, finite, as float32 if it is quantized."""
        weight = self._weights[path]
        name = path.removeprefix("/")
        size = _model.check_size(name, weight.shape, weight.dtype.itemsize, weight.shards.size)
        array = np.frombuffer(weight.shards.read(weight.start, size), weight.dtype).reshape(weight.shape)
        if weight.dtype.name in QUANTIZED:
            with np.errstate(over="ignore", invalid="ignore"):  # refused below
                array = (array * weight.scale + weight.least).astype(np.float32)
        elif weight.dtype.name == "float16":  # quantized, too: weights of TensorFlow.js are of float32
            array = array.astype(np.float32)
        return _model.floats(name, array.astype(array.dtype.newbyteorder("="), copy=False))


def _check_shard(name: Any) -> None:
    """Refuse what is no plain name of a file in the same folder."""
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\:\0"):
        raise FormatError(f"a shard must be a file in the folder of the model, got {name!r:.80}")


def _stored(name: str, weight: dict[str, Any]) -> tuple[np.dtype[Any], float, float]:
    """The dtype that a weight is stored in, scale and least value."""
    quantization = weight.get("quantization")
    dtype = weight.get("dtype")
    scale: Any = 1.0
    least: Any = 0.0
    if quantization is not None:
        quantization = an_object(f"quantization of {name}", quantization)
        dtype = quantization.get("dtype")
        if dtype in QUANTIZED:
            scale, least = quantization.get("scale"), quantization.get("min")
            if not all(type(number) in (int, float) and abs(number) < 1e300 for number in (scale, least)):
                raise FormatError(f"{name} must be quantized by finite numbers scale and min")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise FormatError(f"{name} must be of {', '.join(DTYPES)}, got {dtype!r:.50}")
    return DTYPES[dtype], scale, least


def _bytes_beside(folder: Path) -> int:
    """Bytes of all possible shards, which bound the memory that the text may take."""
    with os.scandir(folder) as entries:
        return sum(
            entry.stat(follow_symlinks=False).st_size
            for entry in entries
            if entry.name.endswith(".bin") and entry.is_file(follow_symlinks=False)
        )


def layers(data: bytes, folder: Path | None) -> Makers:
    """The layers of a model.json.

    Parameters
    ----------
    data : bytes
        The whole file.
    folder : pathlib.Path, optional
        Where its shards are; None if that is not known.

    Raises
    ------
    FormatError
        If it is no layers model, its manifest and the shards do not agree, or a shard is missing or is a
        link.
    """
    size = len(data) + (0 if folder is None else _bytes_beside(folder))
    model = an_object("the text", _zip.parse_json("the text", data, size))
    if "modelTopology" not in model:
        if "class_name" in model and "config" in model:
            raise FormatError(
                "the architecture of a Keras model, without weights: load the file of its weights with this "
                "one as its config, load('weights.h5', config='model.json')"
            )
        raise FormatError("no model file of Keras, PyTorch, ONNX or fastgru, but some other JSON")
    topology = model["modelTopology"]
    if model.get("format") == "graph-model" or (isinstance(topology, dict) and "node" in topology):
        raise FormatError(
            "a graph model of TensorFlow.js, which has lost its layers: convert the Keras model as a layers "
            "model"
        )
    topology = an_object("modelTopology", topology)
    config = an_object("the model's config", topology.get("model_config", topology))
    version = topology.get("keras_version")
    if isinstance(version, str) and not version[:1].isdigit():
        version = "2"  # tfjs-layers 4.22.0: it computes as Keras 2 does
    if folder is None:
        raise FormatError("a model of TensorFlow.js, whose weights lie in files beside it: give its path")
    weights = _Manifest(model.get("weightsManifest"), folder)
    joined = _model.Names(_model.size_limit(size))
    architecture = Architecture(config, major(version))
    if weights.by_place:
        return model_by_places(weights, architecture, joined)
    return model_by_names(weights, architecture, "", joined, together=True)
