"""User input -> checked arrays and plain values, and the messages about it.

Messages name the argument, what was wanted and what was got. Checks against what a layer has been built for
are in the layer.
"""

import operator
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
T = TypeVar("T")

DTYPES = {name: np.dtype(name) for name in ("float32", "float64", "float16")}
BLAS_LIMIT = 2**31 - 1  # sizes are C int
MOST_THREADS = 64  # of a call


@dataclass(frozen=True)
class InputSpec:
    """What a layer expects of an array: its rank, or its shape, where None fits any size."""

    ndim: int | None = None
    shape: tuple[int | None, ...] | None = None


def converted(
    convert: Callable[[Any], T], value: Any, message: str, refusal: type[Exception] = ValueError
) -> T:
    """Convert a value, or raise a `refusal` with this message if it cannot be converted.

    The exceptions named here are those that NumPy, buffers, DLPack and the arrays of other libraries raise
    for such values. All others pass: they are about memory, a file or a signal, not about the value.
    """
    try:
        return convert(value)
    except RecursionError:  # a RuntimeError too, but about the stack
        raise
    except (TypeError, ValueError, OverflowError, BufferError, RuntimeError) as error:
        raise refusal(f"{message}, got {type(value).__name__}: {error}") from error


# ---- options ---------------------------------------------------------------------------------


def integer(name: str, value: Any) -> int:
    """A plain int."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}") from None


def positive(name: str, value: Any, most: int = BLAS_LIMIT) -> int:
    """A plain int from 1 on, that sizes of arrays can be made of."""
    number = integer(name, value)
    if number < 1:
        raise ValueError(f"{name} must be a positive integer, got {number}")
    if number > most:
        raise ValueError(f"{name} must be at most {most}, got {number}")
    return number


def units(value: Any) -> int:
    """Number of units as a plain positive int."""
    return positive("units", value, BLAS_LIMIT // 3)


def num_threads(value: Any) -> int:
    """A number of threads as a plain int from 1 to 64, or -1 for 'auto'."""
    if isinstance(value, str):
        if value != "auto":
            raise ValueError(f"num_threads must be 1 to {MOST_THREADS} or 'auto', got {value!r}")
        return -1
    return positive("num_threads", value, MOST_THREADS)


def duration(name: str, value: Any) -> float:
    """A duration in any unit: finite, not negative."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    if not 0 <= value <= sys.float_info.max:
        raise ValueError(f"{name} must be finite and not negative, got {value}")
    return float(value)


def rate(name: str, value: Any) -> float:
    """A dropout rate, clipped to [0, 1] as Keras clips it; NaN is 0."""
    if isinstance(value, (str, bytes)) or value is None:
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:  # an int beyond floats
        number = float("inf") if value > 0 else 0.0
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    return min(1.0, max(0.0, number))


def implementation(value: Any) -> int:
    """1 or 2; 0 runs as 2 does."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value in (0, 1, 2):
        return int(value)
    raise ValueError(f"implementation must be 1 or 2, got {value!r}")


def keras_version(value: Any) -> int:
    """2 or 3."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value in (2, 3):
        return int(value)
    raise ValueError(f"keras_version must be 2, which is version 1's too, or 3, got {value!r}")


def _type_name(value: Any) -> Any:
    """Name of a NumPy type, or a name itself."""
    return (
        value if isinstance(value, str) else getattr(value, "name", None) or getattr(value, "__name__", None)
    )


def dtype(value: Any) -> np.dtype[Any]:
    """One of DTYPES from a name, a NumPy type, or a Keras policy or its config; float32 for None."""
    if value is None:
        return DTYPES["float32"]
    if isinstance(value, dict):
        name = value.get("config", {}).get("name") if isinstance(value.get("config", {}), dict) else None
    else:
        name = _type_name(value)
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {value!r}")
    return DTYPES[name]


def weights_dtype(value: Any, computed: np.dtype[Any], convertible: bool) -> np.dtype[Any]:
    """The type of packed weights: that of the computation, int8, or float16 if the CPU converts that."""
    usable = ["float32", "float16", "int8"] if computed == np.float32 else [computed.name]
    name = computed.name if value is None else _type_name(value)
    if name not in usable:
        raise ValueError(
            f"weights_dtype must be None or one of {', '.join(usable)} where {computed} is computed in, "
            f"got {value!r}"
        )
    if name == "float16" and not convertible:
        raise ValueError(
            "weights_dtype='float16' needs a CPU that converts float16: AVX2 and F16C, AVX-512 or NEON; "
            "got one that does not, or FASTGRU_ISA without it"
        )
    return np.dtype(name)


def rounded(name: str, array: Array, packed_as: str | None, scales: Array | None = None) -> Array:
    """A kernel as its packed weights have it: of float32, if it is packed as 'float16' or 'int8'.

    Parameters
    ----------
    scales : ndarray, shape (3 * units,), optional
        The steps of the columns of an int8 kernel, of which all weights are multiples but for rounding.
    """
    if packed_as is None:
        return array
    with np.errstate(all="ignore"):
        return _halved(name, array) if packed_as == "float16" else _in_steps(name, array, scales)


def _halved(name: str, array: Array) -> Array:
    """Every value rounded to the nearest float16, which must have a finite one for it."""
    limit = float(np.finfo(np.float16).max)
    largest = float(np.nanmax(np.abs(array), initial=0))
    if largest > limit:
        raise ValueError(
            f"{name} must lie between {-limit:g} and {limit:g} with weights_dtype='float16', "
            f"got {largest:.9g}"
        )
    return array.astype(np.float16).astype(np.float32)


def _in_steps(name: str, array: Array, steps: Array | None) -> Array:
    """Every column rounded to multiples of its step, or of its largest value / 127; all must be finite."""
    others = array[~np.isfinite(array)]
    if others.size:
        raise ValueError(f"{name} must be finite with weights_dtype='int8', got {others[0]}")
    if steps is None:
        steps = np.abs(array).max(axis=0, initial=0) / np.float32(127)
        steps[steps == 0] = 1
    nearest: Array = np.rint(array / steps) * steps
    return nearest


def weight_list(value: Any) -> list[Any]:
    """Weights in a list, whatever they are."""
    if isinstance(value, (str, bytes, dict)) or not isinstance(value, Iterable):
        raise TypeError(f"weights must be a list of arrays, got {type(value).__name__}")
    return converted(list, value, "weights must be a list of arrays", TypeError)


def layer_name(value: Any) -> str:
    """A layer's name."""
    if not isinstance(value, str):
        raise TypeError(
            f"Expected `name` argument to be a string, got {value!r} of type {type(value).__name__}"
        )
    return value


def flag(name: str, value: Any) -> bool:
    """The truth of anything that has one."""
    return converted(bool, value, f"{name} must be true or false")


def trainable(value: Any) -> bool:
    """The trainable flag."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"Expected `trainable` argument to be a boolean, got {value!r}")
    return bool(value)


def training(value: Any, *rates: float) -> bool:
    """The training flag of a call: a bool, or 0 or 1; None is False. No rate may then be 1."""
    if value is None:
        return False
    if not isinstance(value, (bool, np.bool_, int, np.integer)) or value not in (0, 1):
        raise TypeError(f"training must be True, False or None, got {value!r}")
    if value and 1.0 in rates:
        raise ValueError("dropout in training must be in the range [0, 1), got 1.0")
    return bool(value)


def size(name: str, value: Any) -> int | None:
    """One entry of a shape: a non-negative int, or None for any size."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must hold integers and None, got {value!r}") from None
    if number < 0:
        raise ValueError(f"{name} must hold sizes of 0 or more, got {number}")
    return number


def shape(name: str, value: Any) -> tuple[int | None, ...]:
    """A shape as a tuple; of a list of shapes the first."""
    if isinstance(value, (str, bytes, dict)) or not isinstance(value, Iterable):
        raise ValueError(f"{name} must be a shape such as (batch, timesteps, features), got {value!r}")
    entries = converted(list, value, f"{name} must be a shape")
    if entries and isinstance(entries[0], (list, tuple)):
        entries = list(entries[0])
    return tuple(size(name, entry) for entry in entries)


def batch_input_shape(kwargs: dict[str, Any]) -> tuple[int | None, ...] | None:
    """Take Keras' five ways to name the input's shape out of `kwargs`: (batch, timesteps, features)."""
    given = {
        key: kwargs.pop(key, None)
        for key in ("batch_input_shape", "input_shape", "batch_size", "input_dim", "input_length")
    }
    if given["batch_input_shape"] is not None:
        return shape("batch_input_shape", given["batch_input_shape"])
    batch = size("batch_size", given["batch_size"])
    if given["input_shape"] is not None:
        return (batch, *shape("input_shape", given["input_shape"]))
    if given["input_dim"] is not None or given["input_length"] is not None:
        return (batch, size("input_length", given["input_length"]), size("input_dim", given["input_dim"]))
    return None


# ---- arrays ----------------------------------------------------------------------------------


def _array(name: str, value: Any) -> Array:
    """An array from anything that is one already: NumPy, buffers, other libraries' CPU arrays."""
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    return converted(_array_of, value, f"{name} must be an array", TypeError)


def _array_of(value: Any) -> Array:
    """An array from what has an array's interface or is a buffer; lists have neither."""
    if not any(hasattr(value, i) for i in ("__array__", "__array_interface__", "__dlpack__")):
        value = memoryview(value)
    return np.asarray(value)


def cast(array: Array, wanted: np.dtype[Any]) -> Array:
    """The array itself if it has the dtype, else a copy in it."""
    if array.dtype == wanted:
        return array
    with np.errstate(all="ignore"):  # float64 beyond float32 is infinite, quietly, as in Keras
        return array.astype(wanted)


def is_plain_float(array: Array) -> bool:
    """True of float16, float32 and float64 in the machine's byte order, which the engine casts by itself."""
    return array.dtype.char in "efd" and array.dtype.isnative


def frozen(array: Array) -> Array:
    """The array, read-only."""
    array.flags.writeable = False
    return array


def floats(name: str, value: Any, wanted: np.dtype[Any]) -> Array:
    """A float array, of whatever float type."""
    if type(value) is np.ndarray and value.dtype == wanted:
        return value  # the way of nearly every call
    array = _array(name, value)
    if array.dtype.kind != "f":
        raise TypeError(
            f"{name} must be an array of {wanted}, got {array.dtype}: cast it with .astype({wanted.name!r})"
        )
    return array


def indices(name: str, value: Any) -> Array:
    """An array of integers, or of whole numbers that Keras would cast to them."""
    array = _array(name, value)
    if array.dtype.kind not in "iu" and not (array.dtype.kind == "f" and np.all(array == np.rint(array))):
        raise TypeError(f"{name} must be an array of integers, got {array.dtype}")
    return array


def inputs_and_state(inputs: list[Any], initial_state: Any) -> tuple[Any, Any]:
    """Keras' list inputs: [x], or [x, state] unless a state is given apart."""
    if not inputs or not hasattr(inputs[0], "ndim"):
        raise TypeError(
            "inputs must be an array of shape (batch, timesteps, features) or a list of it and the state, "
            "got a list that starts with no array"
        )
    if len(inputs) == 1:
        return inputs[0], initial_state
    if initial_state is not None:
        raise ValueError(
            "initial_state must be given once, got it both in the list `inputs` and as an argument"
        )
    return inputs[0], inputs[1:]


def inputs(value: Any, layer: str, wanted: np.dtype[Any]) -> Array:
    """Input of rank 3 in the dtype `wanted`."""
    return cast(uncast_inputs(value, layer, wanted), wanted)


def uncast_inputs(value: Any, layer: str, wanted: np.dtype[Any]) -> Array:
    """Input of rank 3 that can be cast to the dtype `wanted`."""
    array = floats("inputs", value, wanted)
    if array.ndim != 3:
        raise ValueError(
            f'Input 0 of layer "{layer}" is incompatible with the layer: expected ndim=3, found '
            f"ndim={array.ndim}. Full shape received: {array.shape}"
        )
    return array


def state(name: str, value: Any, wanted_shape: tuple[int, int], wanted: np.dtype[Any]) -> Array:
    """A state, alone or in a list or tuple of one."""
    if isinstance(value, (list, tuple)):
        if len(value) != 1:
            raise ValueError(f"{name} must be one state, got {len(value)}")
        value = value[0]
    array = floats(name, value, wanted)
    if array.shape != wanted_shape:
        raise ValueError(f"{name} must have shape {wanted_shape}, got {array.shape}")
    return cast(array, wanted)


def default_state(value: Any, units: int, wanted: np.dtype[Any]) -> Array:
    """The state of calls without an initial state: (1, units) or (batch, units), a read-only copy."""
    array = np.atleast_2d(converted(np.asarray, value, "default_state must be an array"))
    if array.dtype.kind not in "iuf" or array.ndim != 2 or array.shape[1] != units or not len(array):
        raise ValueError(
            f"default_state must be numbers of shape ({units},) or (batch, {units}), got {array.dtype} of "
            f"shape {np.shape(value)}"
        )
    with np.errstate(all="ignore"):
        return frozen(array.astype(wanted, order="C"))


def broadcast_state(array: Array, batch: int) -> Array:
    """A default state for this many rows."""
    if len(array) not in (1, batch):
        raise ValueError(f"inputs must have the batch {len(array)} of default_state, got {batch}")
    return np.broadcast_to(array, (batch, array.shape[1]))


def recorded_state(value: Any, layer: str, wanted_shape: tuple[int, ...], wanted: np.dtype[Any]) -> Array:
    """A copy of a state, alone or in a list, tuple or dict of one; integers are cast, too."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, (list, tuple)):
        value = [value]
    if len(value) != 1:
        raise ValueError(f"Layer {layer} expects 1 states, but it received {len(value)} state values.")
    array: Array = converted(np.asarray, value[0], f"states must be an array of shape {wanted_shape}")
    if array.shape != wanted_shape:
        raise ValueError(
            f"State 0 is incompatible with layer {layer}: expected shape={wanted_shape}, "
            f"found shape={array.shape}"
        )
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise ValueError(f"states must have a dtype that can be cast to {wanted}, got {array.dtype}")
    with np.errstate(all="ignore"):
        return array.astype(wanted)


def initial_state_inputs(value: Any) -> Array:
    """The inputs of `get_initial_state`, which uses only their shape and dtype."""
    array: Array = converted(np.asarray, value, "inputs must be an array")
    if array.ndim != 3:
        raise ValueError(f"inputs must have shape (batch, timesteps, features), got {array.shape}")
    return array


def mask(value: Any, wanted_shape: tuple[int, int]) -> Array:
    """A mask as booleans, without the trailing axis that it may have."""
    if isinstance(value, (list, tuple)) and len(value) == 1 and getattr(value[0], "ndim", 0) >= 2:
        value = value[0]
    array: Array = converted(np.asarray, value, f"mask must have shape {wanted_shape}")
    if array.dtype.kind not in "biufc":
        raise ValueError(f"mask must be castable to bool, got {array.dtype}")
    if array.shape == (*wanted_shape, 1):
        array = array[..., 0]
    if array.shape != wanted_shape:
        raise ValueError(f"mask must have shape {wanted_shape}, got {array.shape}")
    return array.astype(bool, copy=False)


def lengths(value: Any, batch: int, timesteps: int) -> Array:
    """Steps of each row, (batch,), in an array of its own."""
    given: Array = converted(np.asarray, value, f"lengths must have shape ({batch},)").view()
    if given.shape != (batch,):
        raise ValueError(f"lengths must have shape ({batch},), one for each row, got {given.shape}")
    array = np.array(given)  # a copy, before the values are checked: another thread may write into `given`
    if batch and array.dtype.kind not in "iu":
        raise ValueError(f"lengths must be integers, got {array.dtype}")
    if batch and not 0 <= array.min() <= array.max() <= timesteps:
        raise ValueError(
            f"lengths must lie between 0 and the {timesteps} timesteps, got {array.min()} to {array.max()}"
        )
    return array.astype(np.intp, copy=False)


def mask_of_lengths(array: Array, timesteps: int, time_major: bool) -> Array:
    """The mask that lengths stand for: (batch, timesteps), or (timesteps, batch) if `time_major`."""
    try:
        mask: Array = np.arange(timesteps) < array[:, np.newaxis]
    except ValueError:  # NumPy, of more bytes than a size can say
        raise MemoryError(f"no memory for a mask of {len(array)} rows and {timesteps} timesteps") from None
    return np.ascontiguousarray(mask.T) if time_major else mask


def out(value: Any, wanted_shape: tuple[int, ...], wanted: np.dtype[Any], read: Sequence[Any]) -> Array:
    """An array to write the result into; it must not overlap arrays in `read`, which the call reads."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {type(value).__name__}")
    array: Array = np.asarray(value)  # subclasses may say anything of themselves
    if array.dtype != wanted:
        raise ValueError(f"out must have dtype {wanted}, got {array.dtype}")
    if array.shape != wanted_shape:
        raise ValueError(f"out must have shape {wanted_shape}, got {array.shape}")
    if not array.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    if any(isinstance(other, np.ndarray) and np.shares_memory(array, other) for other in read):
        raise ValueError(
            "out must not overlap the inputs, the mask, the states or the weights, got an array that does"
        )
    return array


def check_apart(targets: Sequence[Array]) -> None:
    """Refuse arrays to write results into of which some share memory."""
    if any(np.shares_memory(a, b) for i, a in enumerate(targets) for b in targets[:i]):
        raise ValueError("out must be arrays that do not overlap each other, got some that do")


def weight(layer: str, value: Any, wanted_shape: tuple[int, ...], wanted: np.dtype[Any]) -> Array:
    """A weight as a fresh, C-contiguous, read-only array of the layer's own dtype."""
    array: Array = converted(np.asarray, value, f"Layer {layer} weight must have shape {wanted_shape}")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"Layer {layer} weight must be an array of {wanted}, got {array.dtype}")
    if array.shape != wanted_shape:
        raise ValueError(
            f"Layer {layer} weight shape {wanted_shape} is not compatible with provided weight shape "
            f"{array.shape}."
        )
    with np.errstate(all="ignore"):
        copy = np.array(array, dtype=wanted, order="C", copy=True)
    return frozen(copy)
