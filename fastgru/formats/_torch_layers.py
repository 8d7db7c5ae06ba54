"""Weights of PyTorch's GRUs to layers.

PyTorch orders the gates r, z, n, stores matrices transposed, and has two biases in two arrays. Its reset
gate always comes after the product: Keras' `reset_after`.

Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html
"""

import functools
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru._errors import FormatError
from fastgru._writers.torch import KINDS, swapped
from fastgru.formats import _model, _torch_keys
from fastgru.formats._model import Arguments, Layer, Maker
from fastgru.formats._torch_keys import Kinds, Levels, Read, Scales, Shapes

Array = NDArray[Any]

ARGUMENTS = {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True}


class Source(NamedTuple):
    """A state dict.

    Attributes
    ----------
    where : tuple of str
        Keys of what it lies in.
    shapes : mapping of str to tuple
        Of every tensor, by its key.
    read, scales : callable
        As of `_torch_keys`.
    batch_first : mapping of str to bool
        Of modules by name, where it is known.
    wrong : mapping of str to FormatError
        GRUs that cannot be read, by the name of the module.
    """

    where: tuple[str, ...]
    shapes: Shapes
    read: Read
    scales: Scales
    batch_first: Mapping[str, bool]
    wrong: Mapping[str, FormatError] = MappingProxyType({})


def makers(sources: Iterable[Source]) -> dict[str, Maker]:
    """The GRUs of state dicts by the names of their modules, in their order.

    Names of several state dicts that have GRUs begin with the keys that tell these apart.
    """
    found = [
        (source, modules)
        for source in sources
        if (modules := _torch_keys.modules(source.shapes, source.read, source.scales) | dict(source.wrong))
    ]
    places = [source.where for source, _ in found]
    shared = min(map(len, places), default=0)  # keys that all of them lie under
    if len(found) > 1:
        while any(place[:shared] != places[0][:shared] for place in places):
            shared -= 1
    made: dict[str, Maker] = {}
    for source, modules in found:
        for module, levels in modules.items():
            name = ".".join(filter(None, (*source.where[shared:], module))) or "gru"
            if name in made:
                raise FormatError(f"two GRUs come to the name {name!r:.80}")
            made[name] = _maker(name, levels, not source.batch_first.get(module, True))
    return made


def _maker(name: str, levels: Levels | FormatError, time_major: bool) -> Maker:
    """A module's layer: a Stack of its levels if there are several."""

    def made(given: Arguments) -> Layer:
        if isinstance(levels, FormatError):
            raise levels
        arguments = {"name": name, "time_major": time_major, **ARGUMENTS}
        if len(levels) == 1:
            return _level(levels[0], arguments | dict(given))
        makers = [
            functools.partial(_named_level, directions, arguments | {"name": f"{name}.l{level}"})
            for level, directions in levels.items()
        ]
        return _model.stack(name, makers, given)

    return made


def _named_level(directions: Mapping[str, Kinds], arguments: Arguments, given: Arguments) -> Layer:
    return _level(directions, {**arguments, **given})


def _level(directions: Mapping[str, Kinds], arguments: Arguments) -> Layer:
    """A layer of one direction, with suffix "", or of one more with "_reverse".

    As PyTorch, it returns all outputs, zeros beyond a row's length, and the last states.
    """
    own = {"return_sequences": True, "return_state": True, **arguments}
    own.setdefault("zero_output_for_mask", own["return_sequences"])
    layers = []
    for suffix, kinds in sorted(directions.items()):
        arrays = _arrays(kinds)
        backwards = {"go_backwards": True} if suffix else {}
        layer = own | {"use_bias": len(arrays) == 3} | backwards
        layers.append(_model.gru(arrays, layer, _model.scales_of(arrays, _scales(kinds))))
    if len(layers) == 1:
        return layers[0]
    both: Arguments = {key: own[key] for key in ("name", "merge_mode") if key in own}
    return _model.bidirectional(layers[0], layers[1], both)


def _arrays(kinds: Kinds) -> list[Array]:
    """kernel, recurrent_kernel and, if there is one, bias, of one direction."""
    found = {kind: kinds[kind].shape for kind in KINDS if kind in kinds}
    width = (*found.get("weight_hh", ()), 0)[0]
    features = found.get("weight_ih", ())[1:]
    wanted = {"weight_ih": (width, *features), "weight_hh": (width, width // 3)}
    biases = {"bias_ih": (width,), "bias_hh": (width,)}
    if found not in (wanted, wanted | biases) or len(features) != 1:
        keys = [key for weight in kinds.values() for key in weight.keys]
        raise FormatError(
            "a GRU has weight_ih (3 * units, features), weight_hh (3 * units, units) and bias_ih and bias_hh "
            f"(3 * units,), or no bias, got {found} in {', '.join(keys):.200}"
        )
    kernel, recurrent_kernel, *rows = (swapped(kinds[kind].read()) for kind in found)
    return [kernel.T, recurrent_kernel.T] + ([np.stack(rows)] if rows else [])


def _scales(kinds: Kinds) -> list[Array | None]:
    """What both kernels have been multiplied by, in the order of columns of ours."""
    found = [kinds[kind].scales for kind in ("weight_ih", "weight_hh")]
    scales = [None if read is None else read() for read in found]
    return [swapped(each) if each is not None and each.size > 1 else each for each in scales]
