"""Keras' initializers: the values that weights start from."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastgru._random import generator
from fastgru._registry import Configurable, Registry

if TYPE_CHECKING:
    from numpy.random import Generator


class Initializer(Configurable):
    """Base of all initializers; subclasses define ``__call__(shape, dtype)``."""

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """A new array.

        Parameters
        ----------
        shape : sequence of int
        dtype : dtype, optional
            None is float32 too. Random values are drawn in float64 and rounded to `dtype`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(shape, dtype)")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """An initializer from the result of `get_config`; the ``dtype`` that TensorFlow 1 adds is dropped."""
        return cls(**{name: value for name, value in config.items() if name != "dtype"})


class Zeros(Initializer):
    """All 0."""

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        return np.zeros(shape, _dtype(dtype))


class Ones(Initializer):
    """All 1."""

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        return np.ones(shape, _dtype(dtype))


class Constant(Initializer):
    """All `value`; or, as in Keras, the elements of an array in row-major order.

    Raises
    ------
    TypeError
        When called, if `value` is not made of numbers, or has neither one element nor as many as the shape.
    """

    def __init__(self, value: Any = 0) -> None:
        self.value = value

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        value = np.asarray(self.value)
        if value.dtype.kind in "cmMOSU":
            raise TypeError(f"value must be a number or an array of numbers, got {self.value!r}")
        result = np.empty(shape, _dtype(dtype))
        if value.size not in (1, result.size):
            raise TypeError(f"value must have 1 or {result.size} elements for {shape}, got {value.size}")
        result[...] = value.reshape(() if value.size == 1 else result.shape)
        return result


class _Random(Initializer):
    """Base of the initializers that draw: from the process-wide generator, or the same values for a `seed`.

    A subclass defines ``_draw(rng, shape)``, which returns float64.

    Raises
    ------
    ValueError
        When called with a `dtype` that is not floating.
    TypeError
        When called, if `seed` is neither None nor an integer.
    """

    seed: int | None

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        dtype = _floating(dtype)
        return np.asarray(self._draw(generator(self.seed), tuple(shape)), dtype)

    def _draw(self, rng: "Generator", shape: tuple[int, ...]) -> NDArray[np.float64]:
        raise NotImplementedError


class RandomUniform(_Random):
    """Uniform in [minval, maxval)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        self.minval = minval
        self.maxval = maxval
        self.seed = seed

    def _draw(self, rng: "Generator", shape: tuple[int, ...]) -> NDArray[np.float64]:
        return self.minval + (self.maxval - self.minval) * rng.random(shape)


class RandomNormal(_Random):
    """Normal of the given mean and standard deviation."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        self.mean = mean
        self.stddev = stddev
        self.seed = seed

    def _draw(self, rng: "Generator", shape: tuple[int, ...]) -> NDArray[np.float64]:
        return self.mean + self.stddev * rng.standard_normal(shape)


class TruncatedNormal(RandomNormal):
    """Normal cut at two standard deviations from the mean; `stddev` is the one before the cut."""

    def _draw(self, rng: "Generator", shape: tuple[int, ...]) -> NDArray[np.float64]:
        return self.mean + self.stddev * _truncated_normal(rng, shape)


class VarianceScaling(_Random):
    """Mean 0 and variance ``scale / n``, where n is a number of connections of a unit.

    The shape ``(..., features, units)`` has a receptive field of ``prod(...)`` positions:
    ``fan_in = prod(...) * features`` and ``fan_out = prod(...) * units``. With fewer than two axes both are
    the size.

    Parameters
    ----------
    scale : float
        Positive.
    mode : {'fan_in', 'fan_out', 'fan_avg'}
        What n is, at least 1; ``fan_avg`` is ``(fan_in + fan_out) / 2``.
    distribution : {'truncated_normal', 'untruncated_normal', 'uniform'}
        Case-insensitive; ``normal`` means ``truncated_normal``.
    seed : int, optional

    Raises
    ------
    ValueError
        If an argument is none of these.
    """

    scale: float
    mode: str
    distribution: str

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ) -> None:
        if scale <= 0:
            raise ValueError(f"scale must be positive, got {scale}")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ValueError(f"mode must be 'fan_in', 'fan_out' or 'fan_avg', got {mode!r}")
        spelled = str(distribution).lower()
        if spelled not in ("normal", "truncated_normal", "untruncated_normal", "uniform"):
            raise ValueError(
                "distribution must be 'truncated_normal', 'untruncated_normal' or 'uniform', "
                f"got {distribution!r}"
            )
        self.scale = scale
        self.mode = mode
        self.distribution = "truncated_normal" if spelled == "normal" else spelled
        self.seed = seed

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """An initializer from the result of `get_config`; unset ``*_axes``, as Keras 3 adds, are dropped."""
        unset = {name for name in ("input_axes", "output_axes") if config.get(name, ...) is None}
        return super().from_config({name: value for name, value in config.items() if name not in unset})

    def _draw(self, rng: "Generator", shape: tuple[int, ...]) -> NDArray[np.float64]:
        fan_in, fan_out = _fans(shape)
        fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
        stddev = math.sqrt(self.scale / max(1.0, fans[self.mode]))
        if self.distribution == "uniform":
            return math.sqrt(3.0) * stddev * (2.0 * rng.random(shape) - 1.0)
        if self.distribution == "untruncated_normal":
            return stddev * rng.standard_normal(shape)
        return stddev / _TRUNCATED_STDDEV * _truncated_normal(rng, shape)


class _Preset(VarianceScaling):
    """A `VarianceScaling` whose arguments but the seed are set by the class."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed


class GlorotUniform(_Preset):
    """Uniform within ``sqrt(6 / (fan_in + fan_out))`` (Glorot and Bengio 2010)."""

    scale, mode, distribution = 1.0, "fan_avg", "uniform"


class GlorotNormal(_Preset):
    """Truncated normal of variance ``2 / (fan_in + fan_out)`` (Glorot and Bengio 2010)."""

    scale, mode, distribution = 1.0, "fan_avg", "truncated_normal"


class HeUniform(_Preset):
    """Uniform within ``sqrt(6 / fan_in)`` (He et al. 2015)."""

    scale, mode, distribution = 2.0, "fan_in", "uniform"


class HeNormal(_Preset):
    """Truncated normal of variance ``2 / fan_in`` (He et al. 2015)."""

    scale, mode, distribution = 2.0, "fan_in", "truncated_normal"


class LecunUniform(_Preset):
    """Uniform within ``sqrt(3 / fan_in)`` (LeCun et al. 1998)."""

    scale, mode, distribution = 1.0, "fan_in", "uniform"


class LecunNormal(_Preset):
    """Truncated normal of variance ``1 / fan_in`` (LeCun et al. 1998)."""

    scale, mode, distribution = 1.0, "fan_in", "truncated_normal"


class Orthogonal(_Random):
    """`gain` times a matrix with orthonormal rows or columns, whichever are fewer (Saxe et al. 2014).

    The shape ``(..., columns)`` is that of the matrix ``(prod(...), columns)``. All such matrices are equally
    likely: Q of the QR decomposition of a normal matrix, with the signs that make the diagonal of R positive.

    Raises
    ------
    ValueError
        When called with a shape of fewer than two axes.
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        self.gain = gain
        self.seed = seed

    def _draw(self, rng: "Generator", shape: tuple[int, ...]) -> NDArray[np.float64]:
        if len(shape) < 2:
            raise ValueError(f"shape must have at least 2 axes for Orthogonal, got {shape}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(tall)
        q *= np.copysign(1.0, np.diagonal(r))
        return self.gain * (q.T if rows < columns else q).reshape(shape)


class Identity(Initializer):
    """`gain` on the diagonal, 0 elsewhere.

    Raises
    ------
    ValueError
        When called with a shape of other than two axes, or a `dtype` that is not floating.
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        dtype = _floating(dtype)
        if len(shape) != 2:
            raise ValueError(f"shape must have 2 axes for Identity, got {tuple(shape)}")
        rows, columns = shape
        return np.asarray(self.gain * np.eye(rows, columns), dtype)


zeros, ones, constant, orthogonal, identity = Zeros, Ones, Constant, Orthogonal, Identity
random_uniform, random_normal, truncated_normal = RandomUniform, RandomNormal, TruncatedNormal
variance_scaling = VarianceScaling
glorot_uniform, he_uniform, lecun_uniform = GlorotUniform, HeUniform, LecunUniform
glorot_normal, he_normal, lecun_normal = GlorotNormal, HeNormal, LecunNormal

_TRUNCATED_STDDEV = 0.87962566103423978  # of the standard normal cut at two standard deviations


def _truncated_normal(rng: "Generator", shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Standard normal cut at +-2: what lies outside is drawn again."""
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > 2.0).any():
        values[outside] = rng.standard_normal(np.count_nonzero(outside))
    return values


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of `VarianceScaling`."""
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


def _dtype(dtype: DTypeLike) -> np.dtype[Any]:
    return np.dtype(np.float32 if dtype is None else dtype)  # NumPy reads None as float64


def _floating(dtype: DTypeLike) -> np.dtype[Any]:
    checked = _dtype(dtype)
    if checked.kind not in "fV":  # V: bfloat16 of ml_dtypes
        raise ValueError(f"dtype must be floating, got {checked}")
    return checked


_BY_NAME = {
    "zeros": Zeros,
    "ones": Ones,
    "constant": Constant,
    "random_uniform": RandomUniform,
    "random_normal": RandomNormal,
    "truncated_normal": TruncatedNormal,
    "variance_scaling": VarianceScaling,
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
    "lecun_uniform": LecunUniform,
    "lecun_normal": LecunNormal,
    "orthogonal": Orthogonal,
    "identity": Identity,
}
_registry: Registry[Callable[..., NDArray[Any]]] = Registry(
    "initializer",
    "keras.initializers",
    makers=_BY_NAME
    | {cls.__name__: cls for cls in _BY_NAME.values()}
    | {f"{cls.__name__}V2": cls for cls in _BY_NAME.values()}
    | {f"{name}V2": cls for name, cls in _BY_NAME.items() if issubclass(cls, _Preset)}
    | {"uniform": RandomUniform, "normal": RandomNormal, "one": Ones, "zero": Zeros}
    | {"OrthogonalInitializer": Orthogonal},  # Keras 3.0 to 3.6
)
get = _registry.get
serialize = _registry.serialize
