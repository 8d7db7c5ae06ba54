"""GRUs of PyTorch: state dicts, checkpoints and modules, in files and in memory."""

import functools
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastgru._errors import FormatError
from fastgru.formats import (
    _model,
    _safetensors,
    _torch_file,
    _torch_keys,
    _torch_packed,
    _torch_walk,
    _zip,
)
from fastgru.formats._model import Layer, Maker
from fastgru.formats._torch_layers import Source, makers

Array = NDArray[Any]
T = TypeVar("T")

# ---- files -----------------------------------------------------------------------------------


def safetensors(data: bytes) -> dict[str, Maker]:
    """The GRUs of a .safetensors file."""
    tensors = _safetensors.Tensors(data)
    return makers([Source((), tensors.shapes, tensors.floats, _no_scales, {})])


def archive(members: _zip.Archive) -> dict[str, Maker]:
    """The GRUs of an .npz file of the tensors of a state dict."""
    keys = [name.removesuffix(".npy") for name in members.names if name.endswith(".npy")]
    arrays = {key: members.array(f"{key}.npy") for key in keys if _torch_keys.place(key)}
    shapes = {key: array.shape for key, array in arrays.items()}
    return makers([Source((), shapes, lambda key: _model.floats(key, arrays[key]), _no_scales, {})])


def _no_scales(key: str) -> None:
    """Those of tensors that are of floats."""


def pickled(saved: _torch_file.Saved, file_bytes: int) -> dict[str, Maker]:
    """The GRUs of a file of torch.save or torch.jit.save."""
    sources = []
    size = 0
    for group in saved.groups:
        shapes = {key: tensor.shape for key, tensor in group.tensors.items()}
        names, wrong = _torch_packed.named(shapes, group.bidirectional)
        group = group._replace(tensors=_renamed(group.tensors, names))
        tensors = {key: tensor for key, tensor in group.tensors.items() if _torch_keys.place(key)}
        size += sum(tensor.nbytes for tensor in tensors.values())
        if size > _model.size_limit(file_bytes):  # views of one storage, or with strides of 0
            raise FormatError(f"its tensors have {size} bytes, more than the file can hold")
        shapes = {key: tensor.shape for key, tensor in tensors.items()}
        shapes |= {key: () for key in group.others if _torch_keys.place(key)}
        read, scales = functools.partial(_read, saved, group), functools.partial(_scales, saved, group)
        sources.append(Source(group.where, shapes, read, scales, group.batch_first, wrong))
    made = makers(sources)
    if not made:
        raise FormatError(f"the file holds no GRU, but {saved.described()}")
    return made


def _read(saved: _torch_file.Saved, group: _torch_walk.Group, key: str) -> Array:
    """A tensor of a file, which must be of floats."""
    tensor = group.tensors.get(key)
    if tensor is None:
        raise FormatError(f"{key:.80} must be a tensor, got an object of {group.others[key]:.80}")
    if tensor.scale is not None:
        _warn_of_quantized(key)
    elif tensor.storage.kind not in _torch_file.FLOATS.values() and tensor.storage.kind != "bfloat16":
        raise FormatError(f"{key:.80} must be of float16, float32 or float64, got {tensor.dtype}")
    return _model.floats(f"{key:.80}", saved.array(tensor))


def _scales(saved: _torch_file.Saved, group: _torch_walk.Group, key: str) -> Array | None:
    return saved.scales(group.tensors[key]) if key in group.tensors else None


def _renamed(tensors: Mapping[str, T], names: Mapping[str, str]) -> dict[str, T]:
    """Tensors by other keys, where these have other names."""
    renamed: dict[str, T] = {}
    for key, tensor in tensors.items():
        name = names.get(key, key)
        if name in renamed:
            raise FormatError(f"{name!r:.80} and {key!r:.80} are for the same weight")
        renamed[name] = tensor
    return renamed


def _warn_of_quantized(key: str) -> None:
    module = getattr(_torch_keys.place(key), "module", "") or "gru"
    warnings.warn(
        f"{module:.80}: its quantized weights are read as the numbers that they stand for; PyTorch may "
        "quantize what it multiplies by them, too, and so compute something else",
        stacklevel=2,
    )


# ---- objects ---------------------------------------------------------------------------------


def from_torch(module: Any, layer: str | None = None, **arguments: Any) -> Layer | dict[str, Layer]:
    """The layers of a PyTorch module, state dict or checkpoint in memory.

    Parameters
    ----------
    module : torch.nn.Module or mapping
        A module that is or has a `torch.nn.GRU` or `GRUCell`, quantized ones included; or a state dict of
        tensors, arrays or lists of numbers, or a dict with such in it at any depth. A module's `batch_first`
        becomes the layer's `time_major`; where there is none, layers are batch-major.
    layer : str, optional
        The name of one GRU, where there are several.
    **arguments
        As for `load`.

    Returns
    -------
    GRU, Bidirectional, Stack or dict
        The layer, returning all outputs, with zeros beyond a row's length, and the last states as PyTorch
        does, in the order of its h_n; with `num_layers` a Stack. For several modules a dict of them by name.

    Raises
    ------
    ValueError
        If there is no GRU in it, or none of that name, or a tensor has another shape or type.
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
    _model.check_arguments(arguments)
    if not isinstance(module, Mapping) and not _is_module(module):
        raise TypeError(f"module must be a torch.nn.Module or a state dict, got {type(module).__name__}")
    made = makers(_sources(module, (), set()))
    if not made:
        raise ValueError(f"module must have a GRU in it, got {_described(module)}")
    if layer is not None and layer not in made:
        raise ValueError(f"layer must be one of {', '.join(map(repr, made))}, got {layer!r}")
    layers = {name: maker(arguments) for name, maker in made.items() if layer in (None, name)}
    return layers if len(layers) > 1 else next(iter(layers.values()))


def _is_module(value: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever has a module has imported it
    return torch is not None and isinstance(value, torch.nn.Module)


def _described(module: Any) -> str:
    """What there is in an object without a GRU."""
    if isinstance(module, Mapping):
        keys = [str(key) for key in module]
        more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
        return f"the keys {', '.join(f'{key:.60}' for key in keys[:8])}{more}" if keys else "an empty one"
    kinds = dict.fromkeys(type(inner).__name__ for inner in module.modules())
    return f"modules {', '.join(list(kinds)[:8])}"


def _sources(value: Any, where: tuple[str, ...], inside: set[int]) -> Iterator[Source]:
    """The state dicts in a module, a dict, or dicts and lists in it; `inside` has ids of what it lies in."""
    if id(value) in inside:
        return
    if _is_module(value):
        yield _of_module(value, where)
    elif isinstance(value, Mapping | list | tuple):
        items = list(value.items() if isinstance(value, Mapping) else enumerate(value))
        tensors = {
            key: item
            for key, item in items
            if isinstance(key, str) and _torch_keys.place(key) and _is_tensor(item)
        }
        packed = {key: item for key, item in items if isinstance(key, str) and _is_script(item)}
        unpacked, wrong = _unpacked(packed, {})
        yield _of_tensors(tensors | unpacked, where, {}, wrong)
        for key, item in items:
            if isinstance(key, str | int) and key not in tensors:
                yield from _sources(item, (*where, str(key)), inside | {id(value)})


def _is_tensor(value: Any) -> bool:
    """True of tensors, arrays, and lists of numbers or of such lists."""
    while isinstance(value, list) and value:
        value = value[0]
    torch = sys.modules.get("torch")
    return isinstance(value, np.ndarray | float | int) or (
        torch is not None and isinstance(value, torch.Tensor)
    )


def _is_script(value: Any) -> bool:
    """True of an object of a class of TorchScript, such as packed weights."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.ScriptObject)


def _unpacked(
    packed: Mapping[str, Any], bidirectional: Mapping[str, bool]
) -> tuple[dict[str, Any], dict[str, FormatError]]:
    """The tensors in packed weights, by their keys in a state dict, and GRUs of which these are unclear."""
    tensors: dict[str, Any] = {}
    for key, value in packed.items():
        tensors |= _torch_packed.tensors(key, value, _content)
    shapes = {key: tuple(np.shape(value)) for key, value in tensors.items()}
    names, wrong = _torch_packed.named(shapes, bidirectional)
    return _renamed(tensors, names), wrong


def _content(value: Any) -> tuple[str, Any]:
    """The class of an object of TorchScript, and its state."""
    match value.__getstate__() if _is_script(value) and hasattr(value, "__getstate__") else None:
        case state, str(name):
            return name, state
    return "", None


def _of_tensors(
    tensors: Mapping[str, Any],
    where: tuple[str, ...],
    batch_first: Mapping[str, bool],
    wrong: Mapping[str, FormatError],
) -> Source:
    """A state dict of PyTorch's tensors, arrays or lists."""
    arrays = {
        key: _from_list(key, value) if isinstance(value, list) else value for key, value in tensors.items()
    }

    def read(key: str) -> Array:
        value = arrays[key]
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

    def scales(key: str) -> Array | None:
        value = arrays[key]
        return None if isinstance(value, np.ndarray) or not value.is_quantized else _scales_of(value)

    shapes = {key: tuple(np.shape(value)) for key, value in arrays.items()}
    return Source(where, shapes, read, scales, batch_first, wrong)


def _scales_of(tensor: Any) -> Array | None:
    """What a tensor of symmetric bytes has been multiplied by: one number, or one for each row."""
    least = {"torch.qint8": -128, "torch.quint8": 0}.get(str(tensor.dtype))
    match str(tensor.qscheme()):
        case "torch.per_tensor_affine":
            zero_points, scales = np.array(tensor.q_zero_point()), np.array([tensor.q_scale()])
        case "torch.per_channel_affine" if tensor.q_per_channel_axis() == 0:
            parameters = tensor.q_per_channel_zero_points(), tensor.q_per_channel_scales()
            zero_points, scales = (parameter.numpy() for parameter in parameters)
        case _:
            return None
    symmetric = least is not None and bool(np.all(least - zero_points == -128))
    return scales.astype(np.float32) if symmetric else None


def _from_list(key: str, value: Sequence[Any]) -> Array:
    """An array of float32 if that holds the numbers, as it does where they have come from one."""
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise FormatError(f"{key!r:.80} must be lists of numbers, each as long as the others") from None
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    return narrow if np.array_equal(narrow, array, equal_nan=True) else array


def _of_module(module: Any, where: tuple[str, ...]) -> Source:
    """The tensors of the GRUs in a module.

    Those of a state dict, but for what only the module can put together: parametrizations of any kind, and
    packed weights of quantized modules.
    """
    state: dict[str, dict[str, Any]] = defaultdict(dict)  # tensors by module, then by key
    for key, tensor in module.state_dict().items():
        if at := _torch_keys.place(key):
            state[at.module][key] = tensor
    tensors: dict[str, Any] = {}
    batch_first = {}
    for name, inner in module.named_modules():
        if not _is_gru(inner):
            continue
        prefix = f"{name}." if name else ""
        first = getattr(inner, "batch_first", True)
        batch_first[name] = first if isinstance(first, bool) else True
        own = {**state[name]}
        if name.rpartition(".")[2] == "module":  # in a wrapper, which may keep what it drops from
            own |= state[name.removesuffix("module").removesuffix(".")]
        if hasattr(inner, "get_weight"):
            packed = inner.get_weight() | inner.get_bias()
            own |= {f"{prefix}{key}": packed[key] for key in packed}
        for weight in getattr(inner, "parametrizations", {}):
            parts = f"{prefix}parametrizations.{weight}."
            own = {key: tensor for key, tensor in own.items() if not key.startswith(parts)}
            own[f"{prefix}{weight}"] = getattr(inner, weight)
        tensors |= own
    return _of_tensors(tensors, where, batch_first, {})


def _is_gru(module: Any) -> bool:
    """True of a GRU or a GRUCell, of a quantized one, and of one that is compiled by TorchScript."""
    torch = sys.modules["torch"]
    if isinstance(module, torch.nn.GRU | torch.nn.GRUCell):
        return True
    if isinstance(module, torch.jit.ScriptModule):
        return module.original_name in ("GRU", "GRUCell")
    cls = type(module)
    return "nn.quantized.dynamic" in cls.__module__ and cls.__name__ in ("GRU", "GRUCell")
