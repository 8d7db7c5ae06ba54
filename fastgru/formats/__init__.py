"""Trained layers from files and objects of Keras, PyTorch and ONNX, and fastgru's own files.

`load` and `load_all` tell formats by their content. Everything that reorders gates is in here.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastgru.formats import _zip, keras, native, onnx, torch
from fastgru.formats._model import Arguments, FormatError, Layer, Maker, Makers
from fastgru.formats.keras import from_keras
from fastgru.formats.onnx import from_onnx
from fastgru.formats.torch import from_torch
from fastgru.gru import GRU
from fastgru.wrappers import Bidirectional

__all__ = ["FormatError", "from_keras", "from_onnx", "from_torch", "load", "load_all"]

HDF5 = b"\x89HDF\r\n\x1a\n"  # at the start, or after a block of a program's own: 512, 1024, ... bytes
ONNX_FIRST = b"\x08\x12\x1a\x22\x28\x32\x3a\x42\x72\xa2\xca\xd2"  # tags of the fields of a ModelProto


def _format(path: Path, file: IO[bytes]) -> str:
    """What the content is: hdf5, keras, fastgru, npz, safetensors, pickle or onnx."""
    start = file.read(16)
    if start[:8] == HDF5 or _hdf5_later(file):
        return "hdf5"
    if start[:4] == b"PK\x03\x04":
        names = _zip.Archive(file).names
        if any(name.endswith("/data.pkl") for name in names):
            return "pickle"
        if "config.json" in names:
            return "keras"
        return "fastgru" if native.HEADER in names else "npz"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return "safetensors"
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if start[:1] and start[:1] in ONNX_FIRST:
        return "onnx"
    raise FormatError("no model file of Keras, PyTorch, ONNX or fastgru")


def _reader(path: Path, file: IO[bytes]) -> AbstractContextManager[dict[str, Maker]]:
    """The layers of a file by name, to be made while the context lasts; by the format of its content."""
    match _format(path, file):
        case "hdf5":
            return keras.hdf5(path)
        case "pickle":
            return torch.pickled(path)
        case "safetensors":
            return torch.safetensors(path)
        case "onnx":
            return onnx.file(path)
        case "keras":
            return keras.archive(_zip.Archive(file))
        case archived:
            reader = native if archived == "fastgru" else torch
            return contextlib.nullcontext(reader.archive(_zip.Archive(file)))


def _hdf5_later(file: IO[bytes]) -> bool:
    """Does an HDF5 file begin after a block of a program's own?"""
    for place in (512, 1024, 2048, 4096):
        file.seek(place)
        if file.read(8) == HDF5:
            return True
    return False


@contextlib.contextmanager
def _layers(path: Path) -> Iterator[dict[str, Maker]]:
    """The layers of a file, one or more, by name; whatever is wrong with them is said with its name."""
    with _opened(path) as file:
        try:
            with _reader(path, file) as makers:
                if not makers:
                    raise FormatError("the file holds no GRU")
                yield makers
        except (ImportError, MemoryError, Warning):
            raise
        except ValueError as error:  # FormatError, and what layers say of their arguments
            raise FormatError(f"{path}: {error}") from error
        except TypeError as error:  # they say so, too
            text = " ".join(map(str, error.args))
            raise FormatError(f"{path}: a value in it is of the wrong kind: {text}") from error
        except Exception as error:  # whatever a reader took for granted
            raise FormatError(f"{path}: it is damaged ({type(error).__name__}: {error})") from error


def _opened(path: Path) -> IO[bytes]:
    """The file, which must be a plain one: to open a pipe waits for who writes into it."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode) and (path / "saved_model.pb").exists():
        raise FormatError(f"{path}: a SavedModel of TensorFlow: save the model as .keras or .h5")
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise FormatError(f"{path}: no plain file")
    return path.open("rb")


def format_of(path: Path) -> str:
    """The format of a file that holds a layer: as `_format` has it."""
    with _opened(path) as file:
        try:
            return _format(path, file)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error


def _check(arguments: Arguments) -> None:
    """Complain of the caller's arguments before the file is blamed for them."""
    if "weights" in arguments:
        raise TypeError("weights are what the file is for, got the argument weights")
    of_gru = {key: value for key, value in arguments.items() if key not in ("merge_mode", "name")}
    if "units" not in of_gru:  # whose number the file knows
        state: Any = of_gru.get("default_state")
        of_gru["units"] = max(1, 1, *np.shape(state)[-1:])
    layer = GRU(**of_gru, name="checked")
    Bidirectional(layer, merge_mode=arguments.get("merge_mode"), name=arguments.get("name"))


def load(path: str | os.PathLike[str], layer: str | None = None, **arguments: Any) -> Layer:
    """The GRU layer of a model file.

    Parameters
    ----------
    path : str or path-like
        Keras: ``.h5`` of a model or of weights, ``.keras``, ``.weights.h5``. ONNX. PyTorch: a state dict
        in ``.safetensors``, ``.npz`` or, if torch is installed, ``.pt``. fastgru's own ``.npz``. Told by
        content.
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
    _check(arguments)
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
    _check(arguments)
    with _layers(path) as makers:
        return {name: make(arguments) for name, make in makers.items()}
