"""What every format comes down to: arrays as Keras keeps them, arguments, and the layer made of both."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import _description, activations
from fastgru._errors import FormatError
from fastgru.gru import GRU
from fastgru.stack import Stack
from fastgru.wrappers import Bidirectional

Array = NDArray[Any]
Layer = GRU | Bidirectional | Stack
Arguments = Mapping[str, Any]
Maker = Callable[[Arguments], Layer]  # a file's layer, with the caller's arguments before the file's own

EXPANSION = 8  # a file may hold this many times its own size, compressed, and
ALLOWANCE = 1 << 20  # this many bytes besides: zeros compress well
AXES = 32  # of an array
LONGEST = 4096  # characters of a name, with all that it lies in

# Errors of the system and of the caller, for which no file is blamed. TimeoutError, which handlers of signals
# raise, is an OSError.
NOT_OF_THE_FILE = (ImportError, MemoryError, OSError, Warning)

OF_INPUTS = ("batch_input_shape", "input_shape", "batch_size", "input_dim", "input_length")


class Makers(dict[str, Maker]):
    """The layers of a file by name.

    Attributes
    ----------
    whole : Maker or None
        Makes all of them as one Stack, if they follow each other.
    bare : frozenset of str
        Names of layers of which the file has only the weights, so that they need the caller's arguments.
    """

    whole: Maker | None = None
    bare: frozenset[str] = frozenset()


def check_arguments(arguments: Arguments) -> None:
    """Complain of the caller's arguments before the file is blamed for them.

    Raises
    ------
    ValueError, TypeError
        As `GRU` and `Bidirectional`, or if they have weights.
    """
    if "weights" in arguments:
        raise TypeError("weights are what the file is for, got the argument weights")
    of_gru = {key: value for key, value in arguments.items() if key not in ("merge_mode", "name")}
    if "units" not in of_gru:  # whose number the file knows
        state: Any = of_gru.get("default_state")
        of_gru["units"] = max(1, 1, *np.shape(state)[-1:])
    layer = GRU(**of_gru, name="checked")
    Bidirectional(layer, merge_mode=arguments.get("merge_mode"), name=arguments.get("name"))


def size_limit(file_bytes: int) -> int:
    """The most bytes that a file of this size may claim to hold."""
    return EXPANSION * file_bytes + ALLOWANCE


class Names:
    """Puts together the names of things in a file, which repeat the names of what these lie in.

    Parameters
    ----------
    limit : int
        Bytes that all of them may take.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit

    def join(self, *parts: str) -> str:
        """The parts, one after the other.

        Raises
        ------
        FormatError
            If that is longer than LONGEST, or all names together take more than the limit.
        """
        size = sum(map(len, parts))
        if size > LONGEST:
            raise FormatError(f"a name must have at most {LONGEST} characters, got {size}: {parts[-1]!r:.80}")
        self.spend(size + 50)  # as CPython's strings
        return "".join(parts)

    def spend(self, size: int) -> None:
        """Count what is looked through to find names, as if it were part of them.

        Raises
        ------
        FormatError
            If the limit is reached.
        """
        self._left -= size
        if self._left < 0:
            raise FormatError("its names, with what they lie in, take more than a file of its size may hold")


def check_size(what: str, shape: Sequence[int], itemsize: int, limit: int) -> int:
    """Bytes of an array, which must be no more than `limit`: before anything is allocated for it."""
    size = itemsize
    for length in shape:
        size *= length
        if not 0 <= length <= limit or size > limit or len(shape) > AXES:
            raise FormatError(f"{what} has the shape {tuple(shape)!s:.80}, which the file cannot hold")
    return size


def of_bfloat16(halves: NDArray[np.uint16]) -> Array:
    """Numbers of bfloat16, which is the upper half of a float32, as float32."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def floats(what: str, array: Array) -> Array:
    """A trained weight: finite numbers of a float type."""
    if array.dtype not in (np.float32, np.float64, np.float16):
        raise FormatError(f"{what} must be of float16, float32 or float64, got {array.dtype}")
    if not np.isfinite(array).all():
        raise FormatError(f"{what} must be finite, got NaN or an infinity")
    return array


def scales_of(arrays: Sequence[Array], scales: Sequence[Any]) -> Array | None:
    """Scales with which int8 weights are exactly those of a file, or None if there are none.

    Parameters
    ----------
    arrays : sequence of ndarray
        kernel (features, 3 * units), recurrent_kernel (units, 3 * units), and others.
    scales : sequence of float, ndarray or None
        What the file multiplies the integers of each of both kernels by: one number, or one for each column.

    Returns
    -------
    ndarray, shape (2, 3 * units), or None
        float32. None unless every weight is an integer from -128 to 127 times its scale.
    """
    if len(scales) != 2 or any(scale is None for scale in scales):
        return None
    columns = arrays[1].shape[1:]
    if arrays[0].shape[1:] != columns:
        return None
    with np.errstate(all="ignore"):
        found = np.stack([np.broadcast_to(np.asarray(scale, np.float32), columns) for scale in scales])
        if not (np.isfinite(found).all() and (found > 0).all()):
            return None
        whole = all(_are_multiples(array, steps) for array, steps in zip(arrays, found, strict=False))
    return found if whole else None


def _are_multiples(kernel: Array, steps: Array) -> bool:
    """True if integers from -128 to 127 times the steps of its columns are exactly this kernel."""
    multiples = kernel / steps
    np.rint(multiples, out=multiples)
    if multiples.min(initial=0) < -128 or multiples.max(initial=0) > 127:
        return False
    multiples = np.multiply(multiples, steps, dtype=np.float32, casting="unsafe")
    return np.array_equal(multiples.astype(kernel.dtype, copy=False), kernel)


def describe(shapes: Sequence[tuple[int, ...]]) -> str:
    """Names and shapes of kernel, recurrent_kernel, bias as far as they are there."""
    names = ["kernel", "recurrent_kernel", "bias"] + ["alpha"] * (len(shapes) - 3)
    return ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=False))


def gru(arrays: Sequence[Array], arguments: Arguments, scales: Array | None = None) -> GRU:
    """A layer with these weights, as `fill` has them.

    Parameters
    ----------
    arrays : sequence of ndarray
    scales : ndarray, shape (2, 3 * units), optional
        As `scales_of` has them. With them `weights_dtype` is int8 by default if float32 is computed in.
    arguments : mapping
        Of the constructor. `units`, if it is not among them, is that of the recurrent kernel;
        `merge_mode` is not for a layer that goes one way.
    """
    _check_kernels(arrays)
    arguments = {"units": arrays[1].shape[0], "dtype": arrays[0].dtype.name} | dict(arguments)
    check_finite(arguments)
    arguments.pop("merge_mode", None)
    layer = GRU(**arguments)
    if scales is not None and "weights_dtype" not in arguments and layer.weights_dtype == "float32":
        layer = GRU(**arguments | {"weights_dtype": "int8"})
    fill(layer, arrays, scales)
    return layer


def fill(layer: GRU, arrays: Sequence[Array], scales: Array | None = None) -> None:
    """Build a layer with these weights; of a stateful one the first call gives the batch.

    Parameters
    ----------
    layer : GRU
        In and out: not built yet.
    arrays : sequence of ndarray
        kernel (features, 3 * units), recurrent_kernel (units, 3 * units), bias (3 * units,), or
        (2, 3 * units) with `reset_after`, if there is one, alphas of PReLU; columns z | r | h.
    scales : ndarray, shape (2, 3 * units), optional
        As `scales_of` has them; a layer with int8 weights keeps them.

    Raises
    ------
    FormatError
        If arrays and layer do not agree; says what the arrays are.
    """
    _check_kernels(arrays)
    features = arrays[0].shape[0]
    wanted = [spec.shape for spec in layer._weight_specs(features)]
    shapes = [array.shape for array in arrays]
    if shapes != wanted:
        raise FormatError(
            f"the file has {describe(shapes)} for {layer.name!r}, which is no layer of units={layer.units}, "
            f"use_bias={layer.use_bias}, reset_after={layer.reset_after}: that has {describe(wanted)}"
        )
    for activation in (layer.activation, layer.recurrent_activation):
        if isinstance(activation, activations.Softmax):  # the one that may not fit every array
            try:
                activation(np.zeros((1, layer.units)))
            except (ValueError, TypeError):
                raise FormatError(f"its activation {activation!r} is none of (batch, units)") from None
    check_finite(layer.get_config())
    layer._build_of(arrays, scales if layer.weights_dtype == "int8" else None)
    if not _description.is_finite(layer._described()):
        raise FormatError(f"its weights must be finite as {layer.dtype}, and so must its default_state")


def check_finite(config: Any, name: str = "") -> None:
    """Refuse a config in which a number is NaN or infinite, such as dropout or an activation's alpha."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            check_finite(value, name if key == "config" else f"{name}.{key}".removeprefix("."))
    elif isinstance(config, list | tuple):
        for value in config:
            check_finite(value, name)
    elif isinstance(config, float | np.floating) and not np.isfinite(config):
        raise FormatError(f"{name:.80} must be finite, got {config}")


def _check_kernels(arrays: Sequence[Array]) -> None:
    shapes = [array.shape for array in arrays]
    if len(shapes) < 2 or any(len(shape) != 2 for shape in shapes[:2]):
        held = describe(shapes) or "nothing"
        raise FormatError(f"a GRU has kernel, recurrent_kernel and bias, got {held}")


def bidirectional(forward: GRU, backward: GRU, arguments: Arguments) -> Bidirectional:
    """Both directions, of which `backward` goes the other way, with their weights."""
    layer = Bidirectional(forward, backward_layer=backward, **arguments)
    fill(layer.forward_layer, forward.weights, forward._scales)
    check_features(layer)
    return layer


def check_features(layer: Bidirectional) -> None:
    """Refuse directions that do not read the same inputs."""
    features = [one.weights[0].shape[0] for one in (layer.forward_layer, layer.backward_layer)]
    if features[0] != features[1]:
        raise FormatError(f"both directions must have the same features, got {features[0]} and {features[1]}")


def stack(name: str, makers: Sequence[Maker], given: Arguments, return_state: bool | None = None) -> Stack:
    """Layers on top of each other.

    Parameters
    ----------
    name : str
    makers : sequence of Maker
        The lowest first; all but the last return sequences.
    given : mapping
        The caller's arguments: the name is for the whole, the shape of inputs for the lowest layer, what is
        returned and how it is merged for the highest one, and all others are for every layer.
    return_state : bool, optional
        By default that of the highest layer.
    """
    layers: list[Any] = []
    for make in makers:
        not_for_it = {"name", *(OF_INPUTS if layers else ())}
        if len(layers) < len(makers) - 1:
            not_for_it |= {"return_sequences", "merge_mode"}
        layers.append(make({key: value for key, value in given.items() if key not in not_for_it}))
    return Stack(layers, given.get("return_state", return_state), name=given.get("name", name))
