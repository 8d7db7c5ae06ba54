"""Trained layers from files and objects of Keras, PyTorch and ONNX, and fastgru's own files.

`load` and `load_all` tell formats by their content. Everything that reorders gates is in here.
"""

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from fastgru.formats import _file, _torch_file, _zip, keras, native, onnx, torch
from fastgru.formats._model import FormatError, Layer, Maker, Makers, check_arguments
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


def _told(data: bytes) -> tuple[str, Any]:
    """What the content is, and what is read of it: a zip archive as such, all else as it is.

    It is hdf5, keras, fastgru, npz, safetensors, torch or onnx.
    """
    if any(data[start : start + len(HDF5)] == HDF5 for start in BLOCKS):
        return "hdf5", data
    if data[:4] == b"PK\x03\x04":
        archive = _zip.Archive(data)
        if any(name.endswith(("/data.pkl", "/model.json")) for name in archive.names):
            return "torch", archive
        if "config.json" in archive:
            return "keras", archive
        return "fastgru" if native.HEADER in archive else "npz", archive
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
    if data[:1] and data[:1] in ONNX_FIRST:
        return "onnx", data
    raise FormatError("no model file of Keras, PyTorch, ONNX or fastgru")


def _reader(path: Path, data: bytes) -> AbstractContextManager[dict[str, Maker]]:
    """The layers of a file by name, to be made while the context lasts."""
    match _told(data):
        case "hdf5", _:
            return keras.hdf5(data)
        case "keras", archive:
            return keras.archive(archive)
        case "onnx", _:
            makers = onnx.file(data, path.parent)
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
def _layers(path: Path) -> Iterator[dict[str, Maker]]:
    """The layers of a file, one or more, by name."""
    with _blaming(path):
        data = _file.read(path)
        with _reader(path, data) as makers:
            if not makers:
                raise FormatError("the file holds no GRU")
            yield makers


@contextlib.contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Make a FormatError that names the file of every error, but for those of the system and the caller."""
    try:
        yield
    except (ImportError, MemoryError, OSError, Warning):
        raise
    except ValueError as error:  # FormatError, and what layers say of their arguments
        raise FormatError(f"{path}: {error}") from error
    except TypeError as error:  # they say so, too
        text = " ".join(map(str, error.args))
        raise FormatError(f"{path}: a value in it is of the wrong kind: {text}") from error
    except Exception as error:  # whatever a reader took for granted
        raise FormatError(f"{path}: it is damaged ({type(error).__name__}: {error})") from error


def format_of(path: Path) -> str:
    """The format of a file that holds a layer: as `_told` has it."""
    with _blaming(path):
        return _told(_file.read(path))[0]


def load(path: str | os.PathLike[str], layer: str | None = None, **arguments: Any) -> Layer:
    """The GRU layer of a model file.

    Parameters
    ----------
    path : str or path-like
        Keras: ``.h5`` of a model or of weights, ``.keras``, ``.weights.h5``. ONNX. PyTorch: a state dict
        in ``.pt``, ``.safetensors`` or ``.npz``, a checkpoint that has some, a module saved whole or as
        TorchScript. fastgru's own ``.npz``. Told by content.
    layer : str, optional
        Its name, where there are several.
    **arguments
        Of `GRU` and of `Bidirectional`; they come before what the file says. A file of weights alone says
        nothing: give all that the layer was made with. They are for all layers of a Stack, but that the name
        is its own, and `return_sequences` and `merge_mode` are for the last one.

    Returns
    -------
    GRU, Bidirectional or Stack
        Built. ONNX: time-major unless the node has layout=1, returning what the network uses. PyTorch:
        batch-major, returning all outputs and the last states; a Stack with `num_layers`. Keras: a Stack if
        no `layer` is named and all there are follow each other in one Sequential, with nothing between them
        but Dropout and the like.

    Raises
    ------
    FormatError
        If the file is damaged, of another format or holds no GRU that fastgru computes; it is a
        ValueError. Nothing in the file is run, and no other file is read but an ONNX file's data beside it.
    ValueError
        If there are several layers and none is named, or none of that name.
    ImportError
        If the format's library is not installed; names the extra that brings it.
    OSError
        If the file cannot be opened.

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
    path = Path(os.fspath(path))
    check_arguments(arguments)
    with _layers(path) as makers:
        names = list(makers)
        if layer is None and isinstance(makers, Makers) and makers.whole is not None:
            return makers.whole(arguments)
        wanted = names[0] if layer is None and len(names) == 1 else layer
        if wanted in names:
            return makers[wanted](arguments)
    raise ValueError(f"layer must be one of {', '.join(map(repr, names))}, the GRUs in {path}, got {layer!r}")


def load_all(path: str | os.PathLike[str], **arguments: Any) -> dict[str, Layer]:
    """All GRU layers of a model file, by name and in the order of the file; otherwise as `load`.

    Layers of Keras come one by one, also where `load` makes a Stack of them.

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
    path = Path(os.fspath(path))
    check_arguments(arguments)
    with _layers(path) as makers:
        return {name: make(arguments) for name, make in makers.items()}


def load_each(path: str | os.PathLike[str], **arguments: Any) -> dict[str, Layer | FormatError]:
    """All GRU layers of a model file as `load_all` has them, or what is wrong with one that cannot be made.

    Raises
    ------
    FormatError
        If the file cannot be read, or none of its layers be made.
    """
    path = Path(os.fspath(path))
    check_arguments(arguments)
    found: dict[str, Layer | FormatError] = {}
    with _layers(path) as makers:
        for name, make in makers.items():
            try:
                with _blaming(path):
                    found[name] = make(arguments)
            except FormatError as error:
                found[name] = error
    errors = [one for one in found.values() if isinstance(one, FormatError)]
    if len(errors) == len(found):
        raise errors[0]
    return found
