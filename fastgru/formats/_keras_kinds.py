"""Classes of Keras' layers: their weights, the options that are computed, and functions that make nodes."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from fastgru import activations
from fastgru._errors import FormatError
from fastgru._keras_config import Config, activation_of, an_object
from fastgru._nodes import Array, Node, Value, is_compiled
from fastgru.formats._keras_graph import Layer

LARGEST = 2**31 - 1  # of sizes in a config


class Builder(Protocol):
    """Takes the nodes of a model, and gives out weights."""

    version: int
    weights_dtype: str | None

    def add(self, node: Node) -> list[Value]:
        """Add a node after those before it."""

    def arrays(self, layer: Layer, shapes: Sequence[tuple[int, ...]] | None = None) -> list[Array]:
        """The weights of a layer, which must have these shapes if shapes are given."""

    def once(self, layer: Layer, make: Callable[[], Any]) -> Any:
        """The result of `make`, which is called once for a layer, however often the layer is called."""

    def fold(self, value: str, factor: Array, shift: Array, output: str) -> bool:
        """Fold a scale into the product that writes a value, if that is possible; return True if so."""

    def spend(self, numbers: int) -> None:
        """Count numbers that the file does not hold."""


@dataclasses.dataclass(eq=False)
class At:
    """A call of a layer, for which nodes are made.

    Attributes
    ----------
    builder : Builder
    layer : Layer
        The layer that has the weights: for a layer in a TimeDistributed, the TimeDistributed.
    config : dict
        Of the layer that is called.
    inputs : tuple of str
    values : list of Value
    output : str
    each_step : bool
        True in TimeDistributed: the layer sees vectors.
    passes_mask : bool
    is_given_mask : bool
        True if the call has the argument `mask`.
    """

    builder: Builder
    layer: Layer
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    values: list[Value]
    output: str
    each_step: bool
    passes_mask: bool
    is_given_mask: bool = False

    @property
    def version(self) -> int:
        """Keras' major version."""
        return self.builder.version

    @property
    def width(self) -> int:
        """The width of the first value."""
        return self.values[0].width

    def node(
        self,
        kind: Callable[..., Node],
        inputs: tuple[str, ...] | None = None,
        output: str | None = None,
        **fields: Any,
    ) -> list[Value]:
        """Add a node of this kind."""
        settings = {
            "name": self.layer.name,
            "inputs": self.inputs if inputs is None else inputs,
            "outputs": (self.output if output is None else output,),
            "passes_mask": self.passes_mask,
        }
        return self.builder.add(kind(**settings, **fields))

    def between(self, number: int = 0) -> str:
        """The name of a value between two nodes of the call."""
        return f"{self.output}/{number}"

    def arrays(self, *shapes: tuple[int, ...]) -> list[Array]:
        """The layer's weights, of these shapes."""
        return self.builder.arrays(self.layer, shapes)

    def wrong(self, what: str) -> FormatError:
        """An error that names the layer."""
        return FormatError(f"{self.layer.class_name} {self.layer.name!r:.200} {what}")

    # ---- the config ------------------------------------------------------------------------

    def size(self, key: str, default: int | None = None) -> int:
        """A positive integer, which may be in a list of one."""
        value = self.config.get(key, default)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if type(value) is not int or not 1 <= value <= LARGEST:
            raise self.wrong(f"must have a {key} of 1 or more, got {value!r:.80}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.config.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(f"must have a finite {key}, got {value!r:.80}")
        return float(value)

    def choice(self, key: str, default: str) -> str:
        """A string."""
        value = self.config.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(f"must have a {key} that is a string, got {value!r:.80}")
        return value

    def flag(self, key: str, default: bool = True) -> bool:
        """True or False."""
        return is_on(self.config, key, default)

    def activation(self) -> Any:
        """The activation, as fastgru has it; None for the identity."""
        function = activations.get(activation_of(self.config.get("activation"), self.version))
        return None if function is activations.linear else function

    def is_last_axis(self, value: Any) -> bool:
        """True of the axis of the features, as a number or in a list."""
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        axes = len(self.values[0].shape) + (0 if self.each_step else 1)
        return type(value) is int and value in (-1, axes - 1)


def is_on(config: Config, key: str, default: bool = True) -> bool:
    """A flag of a config."""
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise FormatError(f"{key} must be true or false, got {value!r:.80}")
    return value


Refusal = str  # why a layer cannot be computed; "" if it can


@dataclasses.dataclass(frozen=True)
class Kind:
    """A class of layers.

    Attributes
    ----------
    make : callable
        Adds the nodes of a call.
    weights : callable
        Takes a config, and returns the names of the weights in Keras' order.
    wants : mapping
        The values that options may have. An option that is missing has one of them.
    refusal : callable
        Takes a config and Keras' major version, and returns another reason why it is not computed, or "".
    each_step : bool
        True if TimeDistributed may be around it.
    passes_mask : bool
        True if Keras passes masks on through it.
    """

    make: Callable[[At], object]
    weights: Callable[[Config], list[str]]
    wants: Mapping[str, tuple[Any, ...]]
    refusal: Callable[[Config, int], Refusal]
    each_step: bool
    passes_mask: bool

    def refused(self, config: Config, version: int) -> Refusal:
        """Why such a layer cannot be computed; "" if it can."""
        for key, allowed in self.wants.items():
            if key in config and not any(
                type(config[key]) is type(one) and config[key] == one for one in allowed
            ):
                return f"{key}={config[key]!r:.40}"
        return self.refusal(config, version)


KINDS: dict[str, Kind] = {}
LAST = {"data_format": ("channels_last", None)}


def kind(
    *class_names: str,
    weights: Callable[[Config], list[str]] = lambda _: [],
    wants: Mapping[str, tuple[Any, ...]] | None = None,
    refusal: Callable[[Config, int], Refusal] = lambda *_: "",
    each_step: bool = False,
    passes_mask: bool = True,
) -> Callable[[Callable[[At], object]], Callable[[At], object]]:
    """Register a function that makes the nodes of these classes of layers."""

    def entered(make: Callable[[At], object]) -> Callable[[At], object]:
        for name in class_names:
            KINDS[name] = Kind(make, weights, wants or {}, refusal, each_step, passes_mask)
        return make

    return entered


def activation_refused(config: Config, version: int, *keys: str) -> Refusal:
    """What is wrong with activations, "" if nothing."""
    for key in keys or ("activation",):
        value = config.get(key)
        try:
            function = activations.get(activation_of(value, version))
        except (ValueError, TypeError, KeyError, AttributeError):
            function = None
        if not is_compiled(function):
            name = value.get("class_name") if isinstance(value, dict) else value
            return f"{key}={name!r:.40}"
    return ""


def inner_of(config: Config, key: str = "layer") -> tuple[str, dict[str, Any]]:
    """Class and config of a layer in a wrapper."""
    inner = an_object(key, config.get(key))
    return str(inner.get("class_name")), an_object(f"config of {key}", inner.get("config"))


def in_range(at: At, array: Array, dtype: Any) -> Array:
    """An array in another type, in which it must be finite."""
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if not np.isfinite(cast).all():
        raise at.wrong(f"must have weights that are finite as {np.dtype(dtype)}")
    return cast
