"""GRUs of PyTorch: state dicts in files, live modules, and out again.

PyTorch orders the gates r, z, n, stores matrices transposed, and has two biases in two arrays. Its reset
gate always comes after the product: Keras' `reset_after`.

Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html
"""

import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import activations
from fastgru.formats import _model, _safetensors, _torch_file, _zip
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


def _swapped(array: Array) -> Array:
    """Blocks r | z | n along the first axis as z | r | n, or the other way round."""
    first, second, third = np.split(array, 3)
    return np.concatenate([second, first, third])


def _makers(
    shapes: Shapes, read: Read, batch_first: Mapping[str, bool] | None = None, where: str = ""
) -> dict[str, Maker]:
    """The GRUs of a state dict by their modules, in the order of the dict.

    Parameters
    ----------
    shapes : mapping of str to tuple
        Of every tensor, by its key.
    read : callable
    batch_first : mapping of str to bool, optional
        Of modules by name, where it is known.
    where : str, optional
        What names begin with, before a dot.
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
        arguments = {"time_major": not (batch_first or {}).get(module, True), **ARGUMENTS}
        whole = ".".join(filter(None, (where, module))) or "gru"
        found = {}
        for level, directions in sorted(levels.items()):
            name = whole + (f".l{level}" if len(levels) > 1 or level else "")
            found[level] = _maker(directions, shapes, read, {"name": name, **arguments})
        if len(levels) > 1:
            name = whole
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


def safetensors(data: bytes) -> dict[str, Maker]:
    """The GRUs of a .safetensors file."""
    tensors = _safetensors.Tensors(data)
    return _makers(tensors.shapes, tensors.floats)


def archive(members: _zip.Archive) -> dict[str, Maker]:
    """The GRUs of an .npz file of the tensors of a state dict."""
    keys = [name.removesuffix(".npy") for name in members.names if name.endswith(".npy")]
    arrays = {key: members.array(f"{key}.npy") for key in keys if KEY.fullmatch(key)}
    shapes = {key: array.shape for key, array in arrays.items()}
    return _makers(shapes, lambda key: _model.floats(key, arrays[key]))


def pickled(saved: _torch_file.Saved, file_bytes: int) -> dict[str, Maker]:
    """The GRUs of a file of torch.save or torch.jit.save.

    By the names of their modules; where several state dicts have some, behind the keys that these lie under.
    """
    found = []
    size = 0
    for group in saved.groups:
        tensors = {key: tensor for key, tensor in group.tensors.items() if KEY.fullmatch(key)}
        size += sum(tensor.nbytes for tensor in tensors.values())
        if size > _model.size_limit(file_bytes):  # views of one storage, or with strides of 0
            raise FormatError(f"its tensors have {size} bytes, more than the file can hold")
        shapes: Shapes = {key: tensor.shape for key, tensor in tensors.items()}
        if _makers(shapes, _reader(saved, group)):
            found.append((group, {**shapes, **{key: () for key in group.others if KEY.fullmatch(key)}}))
    if not found:
        raise FormatError(f"the file holds no GRU, but {saved.described()}")
    places = [group.where for group, _ in found]
    shared = len(places[0])  # keys that all of them lie under
    while any(place[:shared] != places[0][:shared] for place in places):
        shared -= 1
    makers: dict[str, Maker] = {}
    for group, shapes in found:
        where = ".".join(group.where[shared:])
        for name, maker in _makers(shapes, _reader(saved, group), group.batch_first, where).items():
            if name in makers:
                raise FormatError(f"two GRUs come to the name {name!r:.80}")
            makers[name] = maker
    return makers


def _reader(saved: _torch_file.Saved, group: _torch_file.Group) -> Read:
    """What reads the tensors of a group, of which those of GRUs must be of floats."""

    def read(key: str) -> Array:
        tensor = group.tensors[key]
        if tensor.scale is not None:
            _warn_of_quantized(key)
        elif tensor.storage.kind not in _torch_file.FLOATS.values() and tensor.storage.kind != "bfloat16":
            raise FormatError(f"{key:.80} must be of float16, float32 or float64, got {tensor.dtype}")
        return _model.floats(f"{key:.80}", saved.array(tensor))

    return read


def _warn_of_quantized(key: str) -> None:
    warnings.warn(
        f"{key:.80}: read as the numbers that its quantized ones stand for; PyTorch may quantize what it "
        "multiplies by them, too, and so compute something else",
        stacklevel=2,
    )


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
                if value.is_quantized:
                    _warn_of_quantized(key)
                    value = value.dequantize()
                value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
            except (TypeError, RuntimeError) as error:  # sparse, without values, of eight bits
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
