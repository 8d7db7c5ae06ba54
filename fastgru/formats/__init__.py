"""Trained layers from files and objects of Keras, PyTorch and ONNX, and fastgru's own files.

`load` and `load_all` recognise formats by their content.
"""

import contextlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from fastgru._errors import FormatError
from fastgru._writers.native import HEADER
from fastgru.formats import _file, _tfjs, _torch_file, _zip, keras, native, onnx, torch
from fastgru.formats._file import Source
from fastgru.formats._keras_weights import Architecture
from fastgru.formats._model import NOT_OF_THE_FILE, Layer, Maker, Makers, check_arguments
from fastgru.formats.keras import from_keras
from fastgru.formats.onnx import from_onnx
from fastgru.formats.torch import from_torch

__all__ = ["FormatError", "from_keras", "from_onnx", "from_torch", "load", "load_all"]

HDF5 = b"\x89HDF\r\n\x1a\n"  # at the start, or after a block of a program's own, of one of these sizes
BLOCKS = (0, 512, 1024, 2048, 4096)
ONNX_FIRST = b"\x08\x12\x1a\x22\x28\x32\x3a\x42\x72\xa2\xca\xd2"  # tags of the fields of a ModelProto
# the start of a pickle by protocols 2 to 5, and of PyTorch's first one by protocol 1
PICKLE_FIRST = (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5", b"L%dL" % _torch_file.MAGIC)
TAR = 257, b"ustar"  # where an archive says what it is
TFLITE = 4, b"TFL3"
GZIP = b"\x1f\x8b"
GIT_LFS = b"version https://git-lfs.github.com/spec/"
HTML = b"<!doctype html", b"<html"
SAVED_MODEL_FIRST = b"\x08\x01\x12"  # version 1 of its schema, and a graph
CHECKPOINT_FIRST = b"model_checkpoint_path:"  # of the text beside the tables,
CHECKPOINT_LAST = bytes.fromhex("57fb808b247547db")  # and the last bytes of a table
MODEL_FILES = re.compile(  # in an archive of files
    r"\.(h5|hdf5|keras|onnx|pt|pth|ckpt|safetensors|npz|tflite)$|(^|/)(config\.json|model\.json|saved_model\.pb)$"
)


def recognised(data: bytes) -> tuple[str, Any]:
    """The format by the content, and what its reader gets: a `_zip.Archive`, or the bytes as they are.

    It is one of hdf5, keras, tfjs, fastgru, npz, safetensors, torch or onnx.
    """
    is_zip = data[:4] == b"PK\x03\x04"  # which may have a member of HDF5 where a block would end
    if not is_zip and any(data[start : start + len(HDF5)] == HDF5 for start in BLOCKS):
        return "hdf5", data
    if is_zip:
        archive = _zip.Archive(data)
        if any(name.endswith(("/data.pkl", "/model.json")) for name in archive.names):
            return "torch", archive
        if "config.json" in archive:
            return "keras", archive
        if not any(name.endswith(".npy") for name in archive.names):
            _refuse_files(archive)
        return "fastgru" if HEADER in archive else "npz", archive
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data):
        return "safetensors", data
    if data.startswith(PICKLE_FIRST):
        return "torch", data
    start, name = TAR
    if data[start : start + len(name)] == name:
        raise FormatError(
            "a tar archive, as PyTorch wrote before version 0.2: if you trust it, convert it by "
            "torch.save(torch.load(path, weights_only=False), 'model.pt')"
        )
    _refuse_known(data)
    if data.lstrip()[:1] == b"{":
        return "tfjs", data
    if data[:1] and data[:1] in ONNX_FIRST:
        return "onnx", data
    raise FormatError("no model file of Keras, PyTorch, ONNX or fastgru")


def _refuse_files(archive: _zip.Archive) -> None:
    """Say that a zip archive of files of models is one."""
    name = next(filter(MODEL_FILES.search, archive.names), None)
    if name is not None:
        raise FormatError(f"a zip archive with a model in it, {name:.80}: unpack it, and load that")


def _refuse_known(data: bytes) -> None:
    """Refuse files of known formats that are not read, by the name of the format."""
    if not data:
        raise FormatError("no model file: it is empty")
    place, mark = TFLITE
    if data[place : place + len(mark)] == mark:
        raise FormatError(
            "a model of TensorFlow Lite, which has lost its layers: save the Keras model that it was made of "
            "as .keras or .h5"
        )
    if data.startswith(GIT_LFS):
        raise FormatError("a pointer of Git LFS in place of the file: get the file by `git lfs pull`")
    if data[:1000].lstrip().lower().startswith(HTML):
        raise FormatError("a page of HTML in place of the file, as of a download that failed: get the file")
    if data.startswith(GZIP):
        raise FormatError("compressed by gzip: unpack it, and load what is in it")
    if data.startswith(SAVED_MODEL_FIRST):
        raise FormatError(_file.SAVED_MODEL)
    if data.startswith(CHECKPOINT_FIRST) or data.endswith(CHECKPOINT_LAST):
        raise FormatError(_file.CHECKPOINT)


def _reader(
    source: Source, architecture: Architecture | None = None
) -> AbstractContextManager[dict[str, Maker]]:
    """The layers of a file by name, to be made while the context lasts."""
    if isinstance(source.content, _file.Folder):
        told: tuple[str, Any] = "keras", source.content
        data = b""
    else:
        data = source.content
        told = recognised(data)
    if architecture is not None and told[0] != "hdf5":
        raise FormatError(
            f"config must be given with weights of Keras in HDF5, got it with a file of {told[0]}"
        )
    match told:
        case "hdf5", _:
            return keras.hdf5(data, architecture)
        case "keras", archive:
            return keras.archive(archive)
        case "tfjs", _:
            makers: dict[str, Maker] = _tfjs.layers(data, source.folder)
        case "onnx", _:
            makers = onnx.file(data, source.folder)
        case "safetensors", _:
            makers = torch.safetensors(data)
        case "torch", _zip.Archive() as archive:
            makers = torch.pickled(_torch_file.zipped(archive), len(data))
        case "torch", _:
            makers = torch.pickled(_torch_file.legacy(data), len(data))
        case "npz", archive:
            makers = torch.archive(archive)
        case _, archive:
            makers = native.archive(archive)
    return contextlib.nullcontext(makers)


@contextlib.contextmanager
def _layers(path: Any, config: Any = None) -> Iterator[dict[str, Maker]]:
    """The layers of a file, one or more, by name."""
    source = opened(path)
    architecture = None if config is None else architecture_beside(config, source)
    with blaming(path), _reader(source, architecture) as makers:
        if not makers:
            raise FormatError("the file holds no GRU")
        yield makers


def opened(path: Any) -> Source:
    """The content of a path, bytes or an open file; other objects are the caller's error, not the file's."""
    try:
        return _file.opened(path)
    except FormatError as error:
        raise FormatError(f"{_file.name_of(path)}: {error}") from error


def architecture_beside(config: Any, weights: Source) -> Architecture:
    """The architecture that a caller gives beside the weights."""
    source = opened(config)
    with blaming(config):
        data = source.data
        return keras.architecture_of("the architecture", data, len(data) + weights.size)


@contextlib.contextmanager
def blaming(path: Any) -> Iterator[None]:
    """Turn every error into a FormatError that names the file, except those of the system and the caller."""
    try:
        yield
    except NOT_OF_THE_FILE:
        raise
    except ValueError as error:  # FormatError, and what layers say of their arguments
        raise FormatError(f"{_file.name_of(path)}: {error}") from error
    except TypeError as error:  # they say so, too
        text = " ".join(map(str, error.args))
        raise FormatError(f"{_file.name_of(path)}: a value in it is of the wrong kind: {text}") from error
    except Exception as error:  # whatever a reader took for granted
        said = f"it is damaged ({type(error).__name__}: {error})"
        raise FormatError(f"{_file.name_of(path)}: {said}") from error


def format_of(path: Any) -> str:
    """The format of a file that holds a layer: as `recognised` has it."""
    content = opened(path).content
    with blaming(path):
        return "keras" if isinstance(content, _file.Folder) else recognised(content)[0]


def has_whole_model(path: Any) -> bool:
    """True of a file that `load_model` is for; False of one that holds layers alone."""
    content = opened(path).content
    with blaming(path):
        if isinstance(content, _file.Folder):
            return True
        told, members = recognised(content)
        if told == "fastgru":
            return bool(native.header(members, (*native.MAKERS, "Model"))["class_name"] == "Model")
        return told in ("hdf5", "keras", "onnx")


def with_and_without_config(path: Any) -> tuple[list[str], list[str]]:
    """Names of a file's layers that load without arguments, and of those whose weights are all it has."""
    with _layers(path) as makers:
        bare = makers.bare if isinstance(makers, Makers) else frozenset()
        return [name for name in makers if name not in bare], [name for name in makers if name in bare]


def load(path: Any, layer: str | None = None, *, config: Any = None, **arguments: Any) -> Layer:
    """Load the GRU layer of a model file. Nothing in the file is run.

    Parameters
    ----------
    path : str, path-like, bytes or binary file object
        A file of Keras (``.keras`` or the folder that Keras 3 makes with ``zipped=False``, ``.h5`` of a model
        or of weights, ``.weights.h5``), TensorFlow.js (``model.json``), ONNX, PyTorch (a state dict in
        ``.pt``, ``.safetensors`` or ``.npz``, a checkpoint that has state dicts, a module saved whole or as
        TorchScript) or fastgru (``.npz``). It is recognised by its content.
    layer : str, optional
        The name of one layer, if there are several.
    config : str, path-like, bytes or binary file object, optional
        For weights of Keras in ``.h5`` or ``.weights.h5``: the model's architecture, which its `to_json`
        returns.
    **arguments
        Arguments of `GRU` and `Bidirectional`, which override those in the file. A file of weights alone has
        no arguments: give all that the layer was made with. For a Stack they apply to all layers, except
        `name`, which is the Stack's, and `return_sequences` and `merge_mode`, which apply to the last one.

    Returns
    -------
    GRU, Bidirectional or Stack
        The layer is built. From ONNX it is time-major unless the node has layout=1, and returns what the
        network uses. From PyTorch it is batch-major, returns all outputs and the last states, and is a Stack
        if the module has `num_layers`. From Keras it is a Stack if no `layer` is named and all GRUs follow
        each other in one Sequential, with nothing between them but layers such as Dropout.

    Raises
    ------
    FormatError
        If the file is damaged, of an unknown format or holds no GRU that fastgru computes. It is a
        ValueError. No other file is read but data beside an ONNX file or a model.json, which cannot be found
        for bytes and open files.
    ValueError
        If there are several layers and none is named, or none has that name.
    ImportError
        If the format's library is not installed. The message names the extra that installs it.
    OSError
        If the file cannot be opened.
    TypeError
        If `path` or `config` is none of these.

    Examples
    --------
    >>> import tempfile
    >>> import fastgru
    >>> layer = fastgru.GRU(4, name="voice")
    >>> layer.build((None, None, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     layer.save(f"{folder}/voice.npz")
    ...     fastgru.load(f"{folder}/voice.npz", stateful=True, batch_size=1)
    <GRU 'voice': 3 features, 4 units, float32>
    """
    check_arguments(arguments)
    with _layers(path, config) as makers:
        names = list(makers)
        if layer is None and isinstance(makers, Makers) and makers.whole is not None:
            return makers.whole(arguments)
        wanted = names[0] if layer is None and len(names) == 1 else layer
        if wanted in names:
            return makers[wanted](arguments)
    known, where = ", ".join(map(repr, names)), _file.name_of(path)
    raise ValueError(f"layer must be one of {known}, the GRUs in {where}, got {layer!r}")


def load_all(path: Any, *, config: Any = None, **arguments: Any) -> dict[str, Layer]:
    """Load all GRU layers of a model file, by name and in the order of the file; otherwise as `load`.

    Layers of Keras come one by one, even if `load` makes a Stack of them.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import fastgru
    >>> kernels = {"weight_ih_l0": np.zeros((12, 3)), "weight_hh_l0": np.zeros((12, 4))}  # PyTorch's names
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/model.npz", **{f"voice.{name}": array for name, array in kernels.items()})
    ...     fastgru.load_all(f"{folder}/model.npz")
    {'voice': <GRU 'voice': 3 features, 4 units, float64>}
    """
    check_arguments(arguments)
    with _layers(path, config) as makers:
        return {name: make(arguments) for name, make in makers.items()}


class Found(NamedTuple):
    """What a file holds, as far as it can be loaded.

    Attributes
    ----------
    layers : dict of str to layer
        As `load_all` has them.
    errors : dict of str to FormatError
        What is wrong with those that cannot be made.
    bare : list of str
        Names of those of which the file has the weights only.
    """

    layers: dict[str, Layer]
    errors: dict[str, FormatError]
    bare: list[str]


def find(path: Any, **arguments: Any) -> Found:
    """All GRU layers of a model file that need no more arguments, and what else there is.

    Raises
    ------
    FormatError
        If the file cannot be read.
    """
    check_arguments(arguments)
    found = Found({}, {}, [])
    with _layers(path) as makers:
        bare = makers.bare if isinstance(makers, Makers) else frozenset()
        for name, make in makers.items():
            if name in bare:
                found.bare.append(name)
                continue
            try:
                with blaming(path):
                    found.layers[name] = make(arguments)
            except FormatError as error:
                found.errors[name] = error
    return found
