"""Keys of a state dict: which of them belong to a GRU, and how its weights are computed from them.

PyTorch's weight_norm, spectral_norm and prune, and WeightDrop of language models, keep other tensors in place
of a weight. Each is put together here as the module computes it in evaluation. Whatever else has the name of
a weight in its key is an error: nothing of a module is left out.

Source: torch/nn/utils/weight_norm.py, spectral_norm.py, parametrizations.py and prune.py of PyTorch 2.13.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru._errors import FormatError

Array = NDArray[Any]
Shapes = Mapping[str, tuple[int, ...]]
Read = Callable[[str], Array]  # a tensor by its key
Scales = Callable[[str], Array | None]  # what it has been multiplied by: one number, or one for each row

WEIGHT = re.compile(  # of a GRU, or of a GRUCell, which has no level
    r"(?P<kind>(?:weight|bias)_[ih]h)"
    r"(?:_l(?P<level>0|[1-9][0-9]{0,5})(?P<suffix>(?:_reverse)?))?(?P<part>.*)",
    re.S,
)
PARAMETRIZED = "parametrizations"  # before a weight's name, of torch.nn.utils.parametrize
LISTED = 6  # keys in a message


class Weight(NamedTuple):
    """A weight, or the tensors from which it is computed.

    Attributes
    ----------
    shape : tuple of int
    keys : tuple of str
        Of the tensors that it is made of.
    read : callable
        Returns it as an array.
    scales : callable or None
        Returns what it has been multiplied by if it is of symmetric bytes: one number, or one for each row.
    """

    shape: tuple[int, ...]
    keys: tuple[str, ...]
    read: Callable[[], Array]
    scales: Callable[[], Array | None] | None


Kinds = dict[str, Weight]  # by weight_ih, weight_hh, bias_ih, bias_hh
Levels = dict[int, dict[str, Kinds]]  # by level, then by "" or "_reverse"
Parts = dict[str, str]  # keys of what stands for a weight, by what comes behind its name


class Place(NamedTuple):
    """What a key says: the module, the weight in it, and what part of that weight it is."""

    module: str
    kind: str
    level: int
    suffix: str
    part: str


def place(key: str) -> Place | None:
    """What a key says of a GRU, if it has the name of a weight in it."""
    names = key.split(".")
    for i in range(len(names) - 1, -1, -1):
        match = WEIGHT.fullmatch(names[i])
        if match:
            before = names[:i]
            if before[-1:] == [PARAMETRIZED]:
                before.pop()
            part = ".".join((match["part"], *names[i + 1 :]))
            if len(before) < i:
                part = f"{PARAMETRIZED}{part}"
            return Place(
                ".".join(before), match["kind"], int(match["level"] or 0), match["suffix"] or "", part
            )
    return None


def modules(shapes: Shapes, read: Read, scales: Scales) -> dict[str, Levels | FormatError]:
    """The GRUs of a state dict by the names of their modules, in its order.

    Parameters
    ----------
    shapes : mapping of str to tuple
        Of every tensor, by its key.
    read, scales : callable

    Returns
    -------
    dict
        What a module has, or what is wrong with it.
    """
    found: dict[str, dict[tuple[int, str, str], Parts]] = {}  # by level, suffix and kind
    for key in shapes:
        if at := place(key):
            parts = found.setdefault(at.module, {}).setdefault((at.level, at.suffix, at.kind), {})
            if parts.setdefault(at.part, key) != key:
                raise FormatError(f"{parts[at.part]!r:.80} and {key!r:.80} are for the same weight")
    _move_raw(found)
    made: dict[str, Levels | FormatError] = {}
    for module, weights in found.items():
        if any(kind == "weight_hh" and _is_gru(parts, shapes) for (_, _, kind), parts in weights.items()):
            try:
                made[module] = _levels(module, weights, shapes, (read, scales))
            except FormatError as error:
                made[module] = error
    return made


def _move_raw(found: dict[str, dict[tuple[int, str, str], Parts]]) -> None:
    """Move what fastai's WeightDropout keeps beside its GRU, which it calls `module`, to the GRU."""
    for module in list(found):
        inside = f"{module}.module" if module else "module"
        if inside in found and all(parts.keys() == {"_raw"} for parts in found[module].values()):
            for weight, parts in found.pop(module).items():
                found[inside].setdefault(weight, {}).update(parts)


def _is_gru(parts: Parts, shapes: Shapes) -> bool:
    """True of recurrent weights of three gates: an LSTM has four, an RNN one."""
    found = [shapes[key] for key in parts.values()]
    return any(len(shape) == 2 and shape[0] == 3 * shape[1] > 0 for shape in found)


def _levels(
    module: str, weights: dict[tuple[int, str, str], Parts], shapes: Shapes, readers: tuple[Read, Scales]
) -> Levels:
    """The weights of a module, all of which must be there."""
    levels: Levels = {}
    for (level, suffix, kind), parts in weights.items():
        levels.setdefault(level, {}).setdefault(suffix, {})[kind] = _weight(module, parts, shapes, *readers)
    levels = dict(sorted(levels.items()))
    if list(levels) != list(range(len(levels))):
        raise FormatError(f"{module or 'gru'!r:.80} must have the levels 0, 1, ..., got {[*levels]!s:.80}")
    ways = [set(directions) for directions in levels.values()]
    if any(way != ways[0] for way in ways) or "" not in ways[0]:
        got = [sorted(suffix or "forward" for suffix in way) for way in ways]
        raise FormatError(
            f"{module or 'gru'!r:.80} must have the same directions at each level, got {got!s:.80}"
        )
    return levels


def _weight(module: str, parts: Parts, shapes: Shapes, read: Read, scales: Scales) -> Weight:
    """A weight, by the tensors that stand for it."""
    if "_raw" in parts:  # of WeightDrop, beside which is what the last step of training has used
        parts = {name: key for name, key in parts.items() if name}
    keys = tuple(parts.values())
    for names, together in STANDING.items():
        if parts.keys() == set(names):
            ordered = [parts[name] for name in names]
            plain = functools.partial(scales, ordered[0]) if together is _itself else None
            found = functools.partial(_put_together, together, ordered, read)
            return Weight(shapes[ordered[0]], keys, found, plain)
    more = f" and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    raise FormatError(
        f"{module or 'gru'!r:.80} has a weight that is kept in a way that is not read, in "
        f"{', '.join(f'{key:.80}' for key in keys[:LISTED])}{more}: save the module without what changes its "
        "weights, such as by torch.nn.utils.parametrize.remove_parametrizations"
    )


# ---- what stands for a weight ----------------------------------------------------------------


def _put_together(together: Callable[..., Array], keys: Sequence[str], read: Read) -> Array:
    weight: Array = together(*map(read, keys))
    return weight


def _itself(weight: Array) -> Array:
    return weight


def _normed(direction: Array, size: Array) -> Array:
    """weight_norm: direction * size / |direction|, by all axes along which there is one size."""
    axes = tuple(i for i in range(direction.ndim) if size.ndim == 0 or size.shape[i] == 1)
    if size.ndim not in (0, direction.ndim) or any(
        size.shape[i] != direction.shape[i] for i in range(size.ndim) if i not in axes
    ):
        raise FormatError(f"weight_norm has sizes {size.shape} for a weight {direction.shape}")
    norm = np.sqrt(np.square(direction, dtype=np.float64).sum(axes, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):  # a row of zeros, which PyTorch makes NaN of
        weight: Array = direction * (size / norm)
    return weight.astype(direction.dtype)


def _spectral(weight: Array, left: Array, right: Array) -> Array:
    """spectral_norm in evaluation: W / (u W v), the rows of W by u."""
    if weight.ndim != 2 or (left.shape, right.shape) != (weight.shape[:1], weight.shape[1:]):
        raise FormatError(
            f"spectral_norm has vectors {left.shape}, {right.shape} for a weight {weight.shape}"
        )
    wide = weight.astype(np.float64)
    scaled: Array = wide / (left @ wide @ right)
    return scaled.astype(weight.dtype)


def _pruned(weight: Array, mask: Array) -> Array:
    if weight.shape != mask.shape:
        raise FormatError(f"prune has a mask {mask.shape} for a weight {weight.shape}")
    pruned: Array = weight * mask.astype(weight.dtype)
    return pruned


# Suffixes of a weight's name in the keys of the tensors that stand for it, in the order of the arguments; the
# first tensor has the shape of the weight
STANDING: dict[tuple[str, ...], Callable[..., Array]] = {
    ("",): _itself,
    ("_raw",): _itself,
    ("_v", "_g"): _normed,
    ("_orig", "_u", "_v"): _spectral,
    ("_orig", "_mask"): _pruned,
    (f"{PARAMETRIZED}.original1", f"{PARAMETRIZED}.original0"): _normed,
    (f"{PARAMETRIZED}.original", f"{PARAMETRIZED}.0._u", f"{PARAMETRIZED}.0._v"): _spectral,
}
