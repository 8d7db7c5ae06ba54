"""GRUs of PyTorch: state dicts in files, live modules, and out again.

PyTorch orders the gates r, z, n, stores matrices transposed, and has two biases in two arrays. Its reset
gate always comes after the product: Keras' `reset_after`.

Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html
"""

import contextlib
import io
import mmap
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fastgru import activations
from fastgru.formats import _model, _pickle, _zip
from fastgru.formats._model import Arguments, FormatError, Layer, Maker
from fastgru.gru import GRU
from fastgru.stack import Stack
from fastgru.wrappers import Bidirectional

Array = NDArray[Any]
Shapes = Mapping[str, tuple[int, ...]]
Read = Callable[[str], Array]  # a tensor by its key

KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
KEY = re.compile(  # of a GRU's tensor, or of a GRUCell's, which has no level
    r"(?:(?P<module>.*)\.)?(?P<kind>(?:weight|bias)_[ih]h)"
    r"(?:_l(?P<level>0|[1-9][0-9]{0,5})(?P<suffix>(?:_reverse)?))?",
    re.S,
)
ARGUMENTS = {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True}
SAFETENSORS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}
CHECKPOINTS = ("state_dict", "model_state_dict", "model")  # where training scripts keep the state dict
SAFER = "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"


def _swapped(array: Array) -> Array:
    """Blocks r | z | n along the first axis as z | r | n, or the other way round."""
    first, second, third = np.split(array, 3)
    return np.concatenate([second, first, third])


def _makers(shapes: Shapes, read: Read, batch_first: Mapping[str, bool]) -> dict[str, Maker]:
    """The GRUs of a state dict by their modules, in the order of the dict.

    Parameters
    ----------
    shapes : mapping of str to tuple
        Of every tensor, by its key.
    read : callable
    batch_first : mapping of str to bool
        Of modules by name, where it is known.
    """
    modules: dict[str, dict[int, dict[str, dict[str, str]]]] = {}  # levels, suffixes, kinds, then keys
    for key in shapes:
        if match := KEY.fullmatch(key):
            levels = modules.setdefault(match["module"] or "", {})
            directions = levels.setdefault(int(match["level"] or 0), {})
            kinds = directions.setdefault(match["suffix"] or "", {})
            if kinds.setdefault(match["kind"], key) != key:
                raise FormatError(f"{kinds[match['kind']]!r:.80} and {key!r:.80} are for the same weight")
    makers: dict[str, Maker] = {}
    for module, levels in modules.items():
        if not any(_is_gru(shapes, kinds) for ways in levels.values() for kinds in ways.values()):
            continue
        arguments = {"time_major": not batch_first.get(module, True), **ARGUMENTS}
        found = {}
        for level, directions in sorted(levels.items()):
            name = (module or "gru") + (f".l{level}" if len(levels) > 1 or level else "")
            found[level] = _maker(directions, shapes, read, {"name": name, **arguments})
        if len(levels) > 1:
            name = module or "gru"
        if name in makers:
            raise FormatError(f"two GRUs come to the name {name!r:.80}")
        makers[name] = _stack_maker(name, found) if len(levels) > 1 else found.popitem()[1]
    return makers


def _stack_maker(name: str, makers: Mapping[int, Maker]) -> Maker:
    """All levels of a module, by their number and in its order."""

    def made(given: Arguments) -> Layer:
        if list(makers) != list(range(len(makers))):
            raise FormatError(f"{name!r:.80} must have the levels 0, 1, ..., got {[*makers]!s:.80}")
        return _model.stack(name, list(makers.values()), given)

    return made


def _is_gru(shapes: Shapes, kinds: Mapping[str, str]) -> bool:
    """Three gates: an LSTM has four, an RNN one."""
    shape = shapes[kinds["weight_hh"]] if "weight_hh" in kinds else ()
    return len(shape) == 2 and shape[0] == 3 * shape[1] > 0


def _maker(
    directions: Mapping[str, Mapping[str, str]], shapes: Shapes, read: Read, arguments: Arguments
) -> Maker:
    """A layer to be made of one direction, with suffix "", or also of one with "_reverse"."""

    def made(given: Arguments) -> Layer:
        own = {"return_sequences": True, "return_state": True, **arguments, **given}
        layers = []
        for suffix in ("", "_reverse")[: len(directions)]:
            arrays = _arrays(directions.get(suffix, {}), shapes, read)
            backwards = {"go_backwards": True} if suffix else {}
            layers.append(_model.gru(arrays, own | {"use_bias": len(arrays) == 3} | backwards))
        if len(layers) == 1:
            return layers[0]
        both: Arguments = {key: own[key] for key in ("name", "merge_mode") if key in own}
        return _model.bidirectional(layers[0], layers[1], both)

    return made


def _arrays(kinds: Mapping[str, str], shapes: Shapes, read: Read) -> list[Array]:
    """kernel, recurrent_kernel and, if there is one, bias, from the keys of one direction by kind."""
    found = {kind: shapes[kinds[kind]] for kind in KINDS if kind in kinds}
    width = (*found.get("weight_hh", ()), 0)[0]
    features = found.get("weight_ih", ())[1:]
    wanted = {"weight_ih": (width, *features), "weight_hh": (width, width // 3)}
    biases = {"bias_ih": (width,), "bias_hh": (width,)}
    if found not in (wanted, wanted | biases) or len(features) != 1:
        raise FormatError(
            "a GRU has weight_ih (3 * units, features), weight_hh (3 * units, units) and bias_ih and bias_hh "
            f"(3 * units,), or no bias, got {found} in {', '.join(kinds.values()) or 'one direction':.200}"
        )
    kernel, recurrent_kernel, *rows = (_swapped(read(kinds[kind])) for kind in found)
    return [kernel.T, recurrent_kernel.T] + ([np.stack(rows)] if rows else [])


@contextlib.contextmanager
def safetensors(path: Path) -> Iterator[dict[str, Maker]]:
    """The GRUs of a .safetensors file."""
    _model.need("safetensors", "torch")
    from safetensors import SafetensorError
    from safetensors import deserialize as untyped

    deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = untyped
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _zip.JSON:
            raise FormatError(f"it has a header of {length} bytes")
        header = _zip.parse_json("the header", file.read(length))  # in which no name comes twice
        try:
            end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            raise FormatError("the header must say of every tensor where its data is") from None
        if path.stat().st_size != 8 + length + end:  # before all of it is read
            raise FormatError(f"its tensors must end where the file does, end at {8 + length + end!s:.40}")
        file.seek(0)
        try:
            tensors = dict(deserialize(file.read()))
        except SafetensorError as error:
            raise FormatError(f"no sound safetensors file: {error}") from error

    def read(key: str) -> Array:
        dtype, shape = tensors[key]["dtype"], tensors[key]["shape"]
        if dtype not in SAFETENSORS:
            raise FormatError(f"{key!r:.80} must be of {', '.join(SAFETENSORS)}, got {dtype}")
        array = np.frombuffer(tensors[key]["data"], SAFETENSORS[dtype]).reshape(shape)
        if dtype == "BF16":  # the upper half of a float32
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return _model.floats(key, array)

    yield _makers({key: tuple(tensor["shape"]) for key, tensor in tensors.items()}, read, {})


def archive(members: _zip.Archive) -> dict[str, Maker]:
    """The GRUs of an .npz file of the tensors of a state dict."""
    keys = [name.removesuffix(".npy") for name in members.names if name.endswith(".npy")]
    arrays = {key: members.array(f"{key}.npy") for key in keys if KEY.fullmatch(key)}
    shapes = {key: array.shape for key, array in arrays.items()}
    return _makers(shapes, lambda key: _model.floats(key, arrays[key]), {})


@contextlib.contextmanager
def pickled(path: Path) -> Iterator[dict[str, Maker]]:
    """The GRUs of a .pt or .pth file, which PyTorch reads, and only what it does without running code."""
    try:
        _model.need("torch", "torch")
    except ImportError:
        raise ImportError(
            f"torch is needed for {path}, a pickle; without it save the state dict where torch is: {SAFER}",
            name="torch",
        ) from None
    import torch

    try:
        with path.open("rb") as file:
            _look_through(file)
            file.seek(0)  # not the path, by whose extension PyTorch goes
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (FormatError, MemoryError):
        raise
    except Exception as error:  # of many kinds
        raise FormatError(
            "torch.load(weights_only=True) does not read it: it is damaged, or holds more than tensors; save "
            f"the state dict alone: {SAFER}"
        ) from error
    state = state_dict(state)
    if not isinstance(state, dict):
        raise FormatError(f"it holds no state dict, but a {type(state).__name__}")
    tensors = _tensors(state)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if size > _model.size_limit(path.stat().st_size):  # views of one storage, or with strides of 0
        raise FormatError(f"its tensors have {size} bytes, more than the file can hold")
    yield _of_tensors(tensors, {})


def state_dict(loaded: Any) -> Any:
    """The state dict of what a training script has saved, if it is in there."""
    for key in CHECKPOINTS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    return loaded


def _look_through(file: IO[bytes]) -> None:
    """Check all pickles of a file: in an archive, or as before PyTorch 1.6 one after the other."""
    if file.read(4) == b"PK\x03\x04":  # so does PyTorch tell them
        members = _zip.Archive(file)
        for name in members.names:
            if name.endswith("data.pkl"):
                _pickle.check(io.BytesIO(members.read(name)))
    else:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for _ in ("magic number", "version", "machine", "state dict", "keys of storages"):
                _pickle.check(data)


def _tensors(state: Mapping[Any, Any]) -> dict[str, Any]:
    """What may be tensors of a GRU among what a state dict holds."""
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    types = (np.ndarray, torch.Tensor) if torch else (np.ndarray,)
    return {
        key: value
        for key, value in state.items()
        if isinstance(key, str) and KEY.fullmatch(key) and isinstance(value, types)
    }


def _of_tensors(tensors: Mapping[str, Any], batch_first: Mapping[str, bool]) -> dict[str, Maker]:
    """The GRUs of a state dict in memory, of PyTorch's tensors or of arrays."""

    def read(key: str) -> Array:
        value = tensors[key]
        if not isinstance(value, np.ndarray):
            try:
                value = value.detach().cpu()
                value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
            except (TypeError, RuntimeError) as error:  # sparse, quantized, without values, of eight bits
                raise FormatError(f"{key!r:.80} is no plain tensor: {error}") from error
        return _model.floats(key, value)

    return _makers({key: tuple(value.shape) for key, value in tensors.items()}, read, batch_first)


def from_torch(module: Any) -> Layer | dict[str, Layer]:
    """The layers of a PyTorch module or state dict.

    Parameters
    ----------
    module : torch.nn.GRU, torch.nn.GRUCell, torch.nn.Module or mapping
        A module that is or has GRUs, or a state dict of tensors or arrays. The module's `batch_first`
        becomes the layer's `time_major`; where there is none, layers are batch-major.

    Returns
    -------
    GRU, Bidirectional, Stack or dict
        The layer, returning all outputs and the last states as PyTorch does, in the order of its h_n; with
        `num_layers` a Stack. For several modules a dict of them by name.

    Raises
    ------
    ValueError
        If there is no GRU in it, or a tensor has another shape or type.
    TypeError
        If it is neither module nor mapping.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgru
    >>> state = {"weight_ih_l0": np.zeros((12, 3)), "weight_hh_l0": np.zeros((12, 4))}  # module.state_dict()
    >>> layer = fastgru.from_torch(state)
    >>> layer.units, layer.reset_after, layer.return_sequences
    (4, True, True)
    """
    torch = sys.modules.get("torch")
    if isinstance(module, Mapping):
        makers = _of_tensors(_tensors(module), {})
    elif torch and isinstance(module, torch.nn.Module):
        tensors: dict[str, Any] = {}
        batch_first: dict[str, bool] = {}
        for name, inner in module.named_modules():
            if isinstance(inner, torch.nn.GRU | torch.nn.GRUCell):
                batch_first[name] = getattr(inner, "batch_first", True)
                tensors |= {f"{name}.{key}" if name else key: getattr(inner, key) for key in _keys(inner)}
        makers = _of_tensors(tensors, batch_first)
    else:
        raise TypeError(f"module must be a torch.nn.Module or a state dict, got {type(module).__name__}")
    if not makers:
        raise ValueError("module must have a GRU in it, got one that has none")
    layers = {name: maker({}) for name, maker in makers.items()}
    return layers if len(layers) > 1 else next(iter(layers.values()))


def _keys(module: Any) -> list[str]:
    """The attributes of a GRU or GRUCell that its weights are, also where others are behind them."""
    levels = [f"_l{level}" for level in range(module.num_layers)] if hasattr(module, "num_layers") else [""]
    suffixes = ["", "_reverse"] if getattr(module, "bidirectional", False) else [""]
    kinds = KINDS if module.bias else KINDS[:2]
    return [f"{kind}{level}{suffix}" for level in levels for suffix in suffixes for kind in kinds]


# ---- out -------------------------------------------------------------------------------------


def to_state_dict(layer: Layer) -> dict[str, Array]:
    """The tensors of the layer by PyTorch's names; `Layer.to_torch_state_dict` has the rest."""
    if not layer.built:
        raise ValueError(f"the layer {layer.name} must be built to be exported: it has no weights yet")
    layers = layer.layers if isinstance(layer, Stack) else [layer]
    levels = [_directions(one) for one in layers]
    for what, facts in (
        ("number of directions", [len(directions) for directions in levels]),
        ("hidden_size", [directions[0].units for directions in levels]),
        ("dtype", [directions[0].dtype for directions in levels]),
    ):
        if len(set(facts)) > 1:
            raise ValueError(f"PyTorch's GRU has one {what} for all layers, got {facts}")
    use_bias = any(one.use_bias for directions in levels for one in directions)
    state = {}
    for level, directions in enumerate(levels):
        for suffix, one in zip(("", "_reverse"), directions, strict=False):
            _check(one)
            kernel, recurrent_kernel, *rest = one.weights
            tensors = [kernel.T, recurrent_kernel.T]
            if use_bias:
                tensors += [*rest[0]] if rest else [np.zeros(3 * one.units, one.dtype)] * 2
            for kind, tensor in zip(KINDS, tensors, strict=False):
                state[f"{kind}_l{level}{suffix}"] = np.ascontiguousarray(_swapped(tensor))
    return state


def _directions(layer: GRU | Bidirectional) -> Sequence[GRU]:
    """The forward layer, and the backward one if there is one."""
    if isinstance(layer, Bidirectional):
        if layer.merge_mode != "concat":
            raise ValueError(
                f"PyTorch's GRU concatenates its directions, got merge_mode={layer.merge_mode!r}"
            )
        units = [one.units for one in (layer.forward_layer, layer.backward_layer)]
        if units[0] != units[1]:
            raise ValueError(f"PyTorch's GRU has one hidden_size for both directions, got {units}")
    layers = [layer.forward_layer, layer.backward_layer] if isinstance(layer, Bidirectional) else [layer]
    if layers[0].go_backwards:
        raise ValueError("PyTorch's GRU goes forward, or in both directions, got go_backwards=True")
    return layers


def _check(layer: GRU) -> None:
    """Can PyTorch compute this direction?"""
    if not layer.reset_after:
        raise ValueError(
            "PyTorch's GRU applies the reset gate after the recurrent product, got reset_after=False, which "
            "is another function: no weights of PyTorch compute it"
        )
    functions = layer.activation, layer.recurrent_activation
    if functions[0] is not activations.tanh or functions[1] is not activations.sigmoid:
        raise ValueError(
            "PyTorch's GRU has the activation tanh and the recurrent activation sigmoid, got "
            f"{functions[0]!r} and {functions[1]!r}"
        )
    if layer.default_state is not None:
        raise ValueError("PyTorch's GRU starts from zeros, got a default_state: give it as h_0")
