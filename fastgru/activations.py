"""Activations by Keras' names: callables on arrays, most of them with a kernel of their own."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgru import _kernels, constraints, initializers, regularizers
from fastgru._registry import Configurable, Registry

Array = NDArray[Any]


class Activation:
    """A callable on float arrays, elementwise unless it says otherwise.

    Attributes
    ----------
    kernel : (str, float) or None
        Name of the compiled kernel and its parameter; None if the activation runs in NumPy.
    """

    kernel: tuple[str, float] | None = None

    def __call__(self, x: ArrayLike) -> Array:
        """The activation of an array of real numbers, in its float type; integers give one that holds them.

        Float16 is computed in float32, integers in float64.

        Raises
        ------
        TypeError
            If they are no real numbers.
        """
        x = np.asarray(x)
        if x.dtype.kind not in "biuf":
            raise TypeError(f"activations take arrays of real numbers, got {x.dtype}")
        if x.dtype not in (np.float32, np.float64):
            # as in the layer: float16 is computed in float32
            compute = np.float32 if x.dtype == np.float16 else np.float64
            return self(x.astype(compute)).astype(np.result_type(x.dtype, np.float16))
        return self.compute(x)

    def compute(self, x: Array) -> Array:
        """The activation of a float32 or float64 array."""
        return (
            self.formula(x) if self.kernel is None else _kernels.activate(self.kernel[0], x, self.kernel[1])
        )

    def formula(self, x: Array) -> Array:
        """The activation in NumPy, where it has no kernel."""
        raise NotImplementedError


class Named(Activation):
    """An activation without arguments, known by its name alone."""

    def __init__(self, name: str, alpha: float = 0.0, kernel: str | None = None) -> None:
        self.__name__ = name
        self.kernel = (kernel or name, alpha)

    def __repr__(self) -> str:
        return f"fastgru.activations.{self.__name__}"

    def __reduce__(self) -> str:
        return self.__name__  # pickled and copied as the one object of this module


class NamedSoftmax(Named):
    """Softmax over the last axis, in a gate its units; with `log` its logarithm."""

    def __init__(self, name: str, log: bool) -> None:
        super().__init__(name)
        self.kernel = None
        self._log = log

    def formula(self, x: Array) -> Array:
        shifted = x - x.max(axis=-1, keepdims=True)
        total = exponential(shifted).sum(axis=-1, keepdims=True)
        result: Array = shifted - np.log(total) if self._log else exponential(shifted) / total
        return result


class NamedFormula(Named):
    """An activation that runs in NumPy, by a function of float arrays."""

    def __init__(self, name: str, function: Callable[[Array], Array]) -> None:
        super().__init__(name)
        self.kernel = None
        self._function = function

    def formula(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            return self._function(x)


def _hard_silu(x: Array) -> Array:
    return np.where(x > -3, x * keras3_hard_sigmoid(x), np.zeros_like(x))


def _hard_tanh(x: Array) -> Array:
    clipped: Array = np.clip(x, -1, 1)
    return clipped


def _hard_shrink(x: Array) -> Array:
    return np.where(np.abs(x) > 0.5, x, np.zeros_like(x))


def _soft_shrink(x: Array) -> Array:
    shrunk: Array = x - np.clip(x, -0.5, 0.5)
    return shrunk


def _tanh_shrink(x: Array) -> Array:
    rest: Array = x - tanh(x)
    return rest


def _log_sigmoid(x: Array) -> Array:
    return -softplus(-x)


def _sparse_plus(x: Array) -> Array:
    within = np.clip(x, -1, 1) + 1
    return np.where(x < 1, within * within / 4, x)


def _squareplus(x: Array) -> Array:
    root = np.hypot(x, x.dtype.type(2))
    # below zero the quotient, as a sum of two that differ in sign would cancel
    plus: Array = np.where(x < 0, 2 / (root - np.minimum(x, 0)), (np.maximum(x, 0) + root) / 2)
    return plus


def _sparsemax(x: Array) -> Array:
    """Sparsemax as Keras 3 computes it: its threshold adds up all partial sums of the support.

    Martins and Astudillo 2016, arXiv:1602.02068, use the last partial sum alone.
    """
    falling = -np.sort(-x, axis=-1)
    sums = np.cumsum(falling, axis=-1, dtype=x.dtype)
    inside = falling - (sums - 1) / np.arange(1, x.shape[-1] + 1, dtype=x.dtype) > 0
    count = inside.sum(axis=-1, keepdims=True).astype(x.dtype)
    total = np.where(inside, sums, 0).sum(axis=-1, keepdims=True, dtype=x.dtype)
    left: Array = np.maximum(x - (total - 1) / count, 0)
    return left


linear = Named("linear")
tanh = Named("tanh")
sigmoid = Named("sigmoid")
hard_sigmoid = Named("hard_sigmoid")
keras3_hard_sigmoid = Named("keras3_hard_sigmoid", 1 / 6, kernel="clipped_line")  # relu6(x + 3) / 6
relu = Named("relu")
relu6 = Named("relu6")
leaky_relu = Named("leaky_relu", float(np.float32(0.2)))  # the slope that TensorFlow takes is a float32
elu = Named("elu", 1.0)
selu = Named("selu")
gelu = Named("gelu")
swish = Named("swish")
mish = Named("mish")
softplus = Named("softplus")
softsign = Named("softsign")
exponential = Named("exponential")
softmax = NamedSoftmax("softmax", log=False)
log_softmax = NamedSoftmax("log_softmax", log=True)

celu = Named("celu", 1.0, kernel="elu")  # which it is for an alpha of 1
sparse_sigmoid = Named("sparse_sigmoid", 0.5, kernel="clipped_line")
hard_silu = NamedFormula("hard_silu", _hard_silu)
hard_tanh = NamedFormula("hard_tanh", _hard_tanh)
hard_shrink = NamedFormula("hard_shrink", _hard_shrink)
soft_shrink = NamedFormula("soft_shrink", _soft_shrink)
tanh_shrink = NamedFormula("tanh_shrink", _tanh_shrink)
log_sigmoid = NamedFormula("log_sigmoid", _log_sigmoid)
sparse_plus = NamedFormula("sparse_plus", _sparse_plus)
squareplus = NamedFormula("squareplus", _squareplus)
sparsemax = NamedFormula("sparsemax", _sparsemax)

KERAS_3 = (  # not in Keras 2
    celu, sparse_sigmoid, hard_silu, hard_tanh, hard_shrink, soft_shrink, tanh_shrink, log_sigmoid,
    sparse_plus, squareplus, sparsemax,
)  # fmt: skip


class LayerActivation(Configurable, Activation):
    """An activation that is a layer in Keras. Parameters are rounded to float32, as there."""

    @classmethod
    def from_config(cls, config: Any) -> Any:
        """From Keras' config of the layer, whose name, dtype and trainable mean nothing here."""
        return cls(**{k: v for k, v in config.items() if k not in ("name", "dtype", "trainable")})


def _rounded(name: str, value: Any, least: float | None = None) -> float:
    try:
        number = float(np.float32(float(value)))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a number, got {value!r}") from None
    if least is not None and not number >= least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    return number


class ReLU(LayerActivation):
    """max_value from max_value on, x from threshold on, below it negative_slope * (x - threshold).

    Raises
    ------
    ValueError
        If an argument is not a number, or is negative. The classes below check theirs, too.
    """

    def __init__(
        self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0
    ) -> None:
        self.max_value = None if max_value is None else _rounded("max_value", max_value, 0.0)
        self.negative_slope = _rounded("negative_slope", negative_slope, 0.0)
        self.threshold = _rounded("threshold", threshold, 0.0)

    @property
    def kernel(self) -> tuple[str, float] | None:  # type: ignore[override]
        if self.threshold == 0.0 and self.max_value is None:
            return ("leaky_relu", self.negative_slope) if self.negative_slope else ("relu", 0.0)
        return None

    def formula(self, x: Array) -> Array:
        below = self.negative_slope * (x - x.dtype.type(self.threshold)) if self.negative_slope else x * 0
        above = x if self.max_value is None else np.minimum(x, x.dtype.type(self.max_value))
        return np.where(x >= self.threshold, above, below).astype(x.dtype)


class LeakyReLU(LayerActivation):
    """x where x >= 0, else alpha * x."""

    def __init__(self, alpha: float = 0.3) -> None:
        self.alpha = _rounded("alpha", alpha)

    @property
    def kernel(self) -> tuple[str, float]:  # type: ignore[override]
        return "leaky_relu", self.alpha


class ELU(LayerActivation):
    """x where x > 0, else alpha * (e^x - 1)."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = _rounded("alpha", alpha)

    @property
    def kernel(self) -> tuple[str, float]:  # type: ignore[override]
        return "elu", self.alpha


class ThresholdedReLU(LayerActivation):
    """x where x > theta, else 0."""

    def __init__(self, theta: float = 1.0) -> None:
        self.theta = _rounded("theta", theta, 0.0)

    @property
    def kernel(self) -> tuple[str, float]:  # type: ignore[override]
        return "thresholded_relu", self.theta


class Parametric(LayerActivation):
    """An activation of ONNX that Keras lacks, with the parameters alpha and beta."""

    def __init__(self, alpha: float, beta: float) -> None:
        self.alpha = _rounded("alpha", alpha)
        self.beta = _rounded("beta", beta)


class HardSigmoid(Parametric):
    """max(0, min(1, alpha * x + beta)); with its defaults it is Keras' `hard_sigmoid`."""

    def __init__(self, alpha: float = 0.2, beta: float = 0.5) -> None:
        super().__init__(alpha, beta)

    @property
    def kernel(self) -> tuple[str, float] | None:  # type: ignore[override]
        return ("clipped_line", self.alpha) if self.beta == 0.5 else None

    def formula(self, x: Array) -> Array:
        line: Array = x * x.dtype.type(self.alpha) + x.dtype.type(self.beta)
        return np.clip(line, 0, 1)


class Affine(Parametric):
    """alpha * x + beta."""

    def __init__(self, alpha: float = 1.0, beta: float = 0.0) -> None:
        super().__init__(alpha, beta)

    @property
    def kernel(self) -> tuple[str, float] | None:  # type: ignore[override]
        return ("linear", 0.0) if (self.alpha, self.beta) == (1.0, 0.0) else None

    def formula(self, x: Array) -> Array:
        line: Array = x * x.dtype.type(self.alpha) + x.dtype.type(self.beta)
        return line


class ScaledTanh(Parametric):
    """alpha * tanh(beta * x)."""

    def __init__(self, alpha: float = 1.0, beta: float = 1.0) -> None:
        super().__init__(alpha, beta)

    @property
    def kernel(self) -> tuple[str, float] | None:  # type: ignore[override]
        return ("tanh", 0.0) if (self.alpha, self.beta) == (1.0, 1.0) else None

    def formula(self, x: Array) -> Array:
        scaled: Array = tanh(x * x.dtype.type(self.beta)) * x.dtype.type(self.alpha)
        return scaled


class Softmax(LayerActivation):
    """Softmax over an axis of (batch, units)."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def formula(self, x: Array) -> Array:
        return np.moveaxis(softmax(np.moveaxis(x, self.axis, -1)), -1, self.axis)


class PReLU(LayerActivation):
    """x where x >= 0, else alpha * x, with a trained alpha per unit.

    The layer that uses it owns alpha, as a weight after its own; `shared_axes=[1]` has one for all units.
    """

    def __init__(
        self,
        alpha_initializer: Any = "zeros",
        alpha_regularizer: Any = None,
        alpha_constraint: Any = None,
        shared_axes: Any = None,
    ) -> None:
        self.alpha_initializer = initializers.get(alpha_initializer)
        self.alpha_regularizer = regularizers.get(alpha_regularizer)
        self.alpha_constraint = constraints.get(alpha_constraint)
        self.shared_axes = (
            shared_axes if shared_axes is None or isinstance(shared_axes, (list, tuple)) else [shared_axes]
        )

    def get_config(self) -> dict[str, Any]:
        return {
            "alpha_initializer": initializers.serialize(self.alpha_initializer),
            "alpha_regularizer": regularizers.serialize(self.alpha_regularizer),
            "alpha_constraint": constraints.serialize(self.alpha_constraint),
            "shared_axes": self.shared_axes,
        }

    def alpha_shape(self, units: int) -> tuple[int]:
        """Shape of alpha in a layer of this many units."""
        return (1,) if self.shared_axes and 1 in self.shared_axes else (units,)

    def formula(self, x: Array) -> Array:
        raise ValueError("PReLU has no alpha of its own: call with_alpha(alpha), or give it to a layer")

    def with_alpha(self, alpha: Array) -> "BoundPReLU":
        """The activation with its weight."""
        return BoundPReLU(alpha)


class BoundPReLU(Activation):
    """x where x >= 0, else alpha * x; alpha has shape (units,) or (1,)."""

    def __init__(self, alpha: Array) -> None:
        self._alpha = alpha

    def formula(self, x: Array) -> Array:
        return np.where(x >= 0, x, self._alpha.astype(x.dtype) * x)


_registry: Registry[Any] = Registry(
    kind="activation",
    module="keras.layers",
    makers={
        "ReLU": ReLU,
        "LeakyReLU": LeakyReLU,
        "PReLU": PReLU,
        "ELU": ELU,
        "Softmax": Softmax,
        "ThresholdedReLU": ThresholdedReLU,
        "HardSigmoid": HardSigmoid,
        "Affine": Affine,
        "ScaledTanh": ScaledTanh,
    },
    functions={
        activation.__name__: activation
        for activation in (
            linear, tanh, sigmoid, hard_sigmoid, keras3_hard_sigmoid, relu, relu6, leaky_relu, elu, selu,
            gelu, swish, mish, softplus, softsign, exponential, softmax, log_softmax, *KERAS_3,
        )
    }
    | {"silu": swish, "hard_swish": hard_silu},
    wrong_type=TypeError,
)  # fmt: skip


def get(identifier: Any) -> Any:
    """The activation for a name, a config dict, None (linear), or a callable, which is kept as it is.

    Raises
    ------
    ValueError
        If a name is unknown (the message lists the known ones), or a config is malformed.
    TypeError
        If it is of another type, or a config has a wrong argument.
    """
    return linear if identifier is None else _registry.get(identifier)


def serialize(activation: Any) -> Any:
    """What Keras writes for it into a config: a name, a dict, or the callable itself."""
    return _registry.serialize(activation)
