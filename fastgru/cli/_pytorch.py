"""PyTorch's GRUs, from files that PyTorch itself or safetensors reads."""

import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastgru.cli._runtime import Array, File, Runtime, lengths, need

KEY = re.compile(  # of a weight of torch.nn.GRU or GRUCell, or of what stands for it
    r"(?:(?P<module>(?!parametrizations\.).*?)\.)?(?P<before>(?:parametrizations\.)?)"
    r"(?P<kind>(?:weight|bias)_[ih]h)(?:_l(?P<level>[0-9]+))?"
    r"(?P<suffix>(?:_reverse)?)(?P<behind>(?:_g|_v|_u|_orig|_mask|_raw|\.original[01]?|\.0\._[uv])?)",
    re.S,
)


def file(path: Path, kind: str) -> File:
    """The GRUs of a file of state dicts or modules, of its format."""
    loaded = _loaded(path, kind)
    found = dict(_tensors(loaded, ()))
    places = [where for (where, key), tensor in found.items() if _is_gru(key, tensor)] or [()]
    shared = len(os.path.commonprefix(places))  # noqa: RUF071 - of tuples

    def joined(where: tuple[str, ...], name: str) -> str:
        return ".".join(filter(None, (*where[shared:], name)))

    state = {joined(where, key): tensor for (where, key), tensor in found.items()}
    batch_first = {joined(where, name) or "gru": first for where, name, first in _orders(loaded, ())}

    def layer(name: str) -> Runtime:
        made = runtime(module(state, name))
        return made._replace(time_major=not batch_first[name]) if name in batch_first else made

    return File(_names(state), layer)


def _loaded(path: Path, kind: str) -> Any:
    """What a file holds: modules, tensors, and dicts and lists of them."""
    torch = need("torch", "to run PyTorch's models")
    if kind == "safetensors":
        return need("safetensors.torch", "to read .safetensors").load_file(path)
    if kind == "npz":
        with np.load(path) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays}
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return torch.jit.load(path, map_location="cpu")
    return torch.load(path, map_location="cpu", weights_only=False)


def _tensors(loaded: Any, where: tuple[str, ...]) -> Iterator[tuple[tuple[tuple[str, ...], str], Any]]:
    """The tensors of a checkpoint by the keys of dicts and lists that they lie in, and their own."""
    torch = need("torch", "to run PyTorch's models")
    if isinstance(loaded, torch.nn.Module):
        loaded = loaded.state_dict()
    items = loaded.items() if isinstance(loaded, Mapping) else enumerate(loaded)
    for key, value in items:
        if isinstance(value, torch.Tensor):
            yield (where, str(key)), value
        elif isinstance(value, Mapping | list | tuple | torch.nn.Module):
            yield from _tensors(value, (*where, str(key)))


def _orders(loaded: Any, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """For each GRU in a module saved whole: keys that the module lies under, its name in it, batch_first.

    Not for TorchScript: only its code says batch_first, which fastgru does not read. Layers are batch-major.
    """
    torch = need("torch", "to run PyTorch's models")
    if isinstance(loaded, torch.nn.Module):
        for name, inner in loaded.named_modules():
            if isinstance(inner, torch.nn.GRU):
                yield where, name, inner.batch_first
    elif isinstance(loaded, Mapping | list | tuple):
        for key, value in loaded.items() if isinstance(loaded, Mapping) else enumerate(loaded):
            yield from _orders(value, (*where, str(key)))


def _is_gru(key: str, tensor: Any) -> bool:
    """True of recurrent weights of three gates, or of what stands for them."""
    match = KEY.fullmatch(key)
    return (
        match is not None
        and match["kind"] == "weight_hh"
        and tensor.ndim == 2
        and tensor.shape[0] == 3 * tensor.shape[1]
    )


def _names(state: Mapping[str, Any]) -> list[str]:
    """The modules of GRUs in a state dict."""
    found = (KEY.fullmatch(key) for key, tensor in state.items() if _is_gru(key, tensor))
    modules = dict.fromkeys((match["module"] or "", match["behind"] == "_raw") for match in found if match)
    names = {module for module, raw in modules if not raw}
    for module, raw in modules:
        inner = f"{module}.module".removeprefix(".")
        if raw and inner not in names:  # beside the module that it is of
            names.add(inner if any(key.startswith(f"{inner}.") for key in state) else module)
    return [name or "gru" for name in names]


def module(state: Mapping[str, Any], name: str | None = None, batch_first: bool = True) -> Any:
    """The torch.nn.GRU of a name, by default the only one, with its tensors of a state dict.

    What PyTorch keeps other tensors for (weight_norm, spectral_norm, prune) is applied again, by PyTorch.
    """
    torch = need("torch", "to run PyTorch's models")
    found: dict[tuple[str, int, str], dict[str, Any]] = {}  # by kind, level and suffix; what stands for it
    for key, value in state.items():
        match = KEY.fullmatch(key)
        whole = match["module"] or "gru" if match else ""
        names = [None, whole, f"{whole}.l{match['level']}"] if match else []
        if match and match["behind"] == "_raw":  # WeightDrop may keep it beside the module that it is of
            names.append(f"{whole}.module")
        if match and name in names:
            tensor = torch.as_tensor(value)
            tensor = tensor.dequantize() if tensor.is_quantized else tensor
            low = tensor.dtype in (torch.float16, torch.bfloat16)  # which are computed in float32
            place = match["kind"], int(match["level"] or 0), match["suffix"]  # a cell has no level
            parts = found.setdefault(place, {})
            parts["/" * bool(match["before"]) + match["behind"]] = tensor.float() if low else tensor
    if not found:
        raise ValueError(f"PyTorch finds no GRU of the name {name!r}")
    levels = sorted({level for _, level, _ in found})
    shapes = {
        kind: max(found[kind, levels[0], ""].values(), key=lambda part: part.numel()).shape
        for kind in ("weight_ih", "weight_hh")
    }
    made = torch.nn.GRU(
        shapes["weight_ih"][1],
        shapes["weight_hh"][0] // 3,
        len(levels),
        bias=("bias_ih", levels[0], "") in found,
        batch_first=batch_first,
        bidirectional=("weight_ih", levels[0], "_reverse") in found,
        dtype=next(iter(found["weight_ih", levels[0], ""].values())).dtype,
    )
    own = {}
    for (kind, level, suffix), parts in found.items():
        weight = f"{kind}_l{levels.index(level)}{suffix}"
        if "_raw" in parts:  # what WeightDrop drops from
            parts = {"": parts["_raw"]}
        _applied(made, weight, parts)
        for part, tensor in parts.items():
            before, behind = ("parametrizations.", part[1:]) if part[:1] == "/" else ("", part)
            own[f"{before}{weight}{behind}"] = tensor
    made.load_state_dict(own)
    return made.eval()


def _applied(module: Any, weight: str, parts: Mapping[str, Any]) -> None:
    """Let PyTorch reparametrize a weight of a module as it was when these tensors were saved for it."""
    utils = need("torch.nn.utils", "to run PyTorch's models")
    if "_g" in parts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is a newer one
            utils.weight_norm(
                module, weight, dim=None if parts["_g"].ndim == 0 else int(parts["_g"].shape[0] == 1)
            )
    elif "_mask" in parts:
        need("torch.nn.utils.prune", "to run PyTorch's models").identity(module, weight)
    elif "_u" in parts:
        utils.spectral_norm(module, weight)
    elif "/.original0" in parts:
        dim = None if parts["/.original0"].ndim == 0 else int(parts["/.original0"].shape[0] == 1)
        utils.parametrizations.weight_norm(module, weight, dim=dim)
    elif "/.original" in parts:
        utils.parametrizations.spectral_norm(module, weight)


def runtime(module: Any) -> Runtime:
    """A torch.nn.GRU, batch-major."""
    torch = need("torch", "to run PyTorch's models")
    dtype = module.weight_ih_l0.dtype

    def run(x: Array, mask: Array | None, states: Sequence[Array] | None) -> list[Array]:
        rnn = torch.nn.utils.rnn
        h = None if states is None else torch.from_numpy(np.stack(states)).to(dtype)
        with torch.inference_mode():
            packed = rnn.pack_padded_sequence(
                torch.from_numpy(x).to(dtype),
                torch.from_numpy(lengths(mask, x)),
                batch_first=True,
                enforce_sorted=False,
            )
            packed, h_n = module(packed, h)
            y, _ = rnn.pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        return [y.numpy(), *h_n.numpy()]

    count = module.num_layers * (1 + module.bidirectional)
    return Runtime(module.input_size, (module.hidden_size,) * count, run)
