"""Layers of Keras -> nodes: a small function for each class, or for classes that are the same in inference.

The first paragraph of its docstring says what is computed: `docs/supported.py` makes a table of them.
"""

import sys
from typing import Any

import numpy as np

from fastgru import _nodes, activations
from fastgru._compile import CALL_MASK, NO_MASK
from fastgru._keras_config import Config
from fastgru.formats._keras_kinds import (
    KINDS,
    LAST,
    At,
    Refusal,
    activation_refused,
    in_range,
    is_on,
    kind,
)
from fastgru.formats._keras_layers import Array
from fastgru.formats._keras_model import PASSING

__all__ = ["KINDS"]


def _with_bias(*names: str) -> Any:
    """The weights of a product."""
    return lambda config: [*names, *(["bias"] if is_on(config, "use_bias") else [])]


# ---- products --------------------------------------------------------------------------------


def _product(at: At, shape: tuple[int, ...], units: int) -> dict[str, Any]:
    """Kernel and bias of a node, and its activation."""
    has_bias = at.flag("use_bias")
    kernel, *bias = at.arrays(shape, *([(units,)] if has_bias else []))
    return {"kernel": kernel, "bias": bias[0] if has_bias else None, "activation": at.activation()}


def _windows(at: At) -> dict[str, Any]:
    return {
        "padding": at.choice("padding", "valid"),
        "strides": at.size("strides", 1),
        "dilation": at.size("dilation_rate", 1),
    }


@kind("Dense", weights=_with_bias("kernel"), refusal=activation_refused, each_step=True)
def _dense(at: At) -> None:
    """Along the features, of each timestep."""
    units = at.size("units")
    at.node(_nodes.Dense, **_product(at, (at.width, units), units))


@kind(
    "Conv1D",
    "Convolution1D",
    weights=_with_bias("kernel"),
    wants={**LAST, "groups": (1,)},
    refusal=activation_refused,
    passes_mask=False,
)
def _convolution(at: At) -> None:
    """Along time. It streams with `padding="causal"` and strides of 1, or with a kernel of one timestep."""
    filters = at.size("filters")
    shape = at.size("kernel_size"), at.width, filters
    at.node(_nodes.Convolution, **_product(at, shape, filters), **_windows(at))


@kind(
    "DepthwiseConv1D",
    weights=_with_bias("depthwise_kernel"),
    wants=LAST,
    refusal=activation_refused,
    passes_mask=False,
)
def _depthwise(at: At) -> None:
    """Along time. It streams as Conv1D does."""
    multiplier = at.size("depth_multiplier", 1)
    shape = at.size("kernel_size"), at.width, multiplier
    at.node(_nodes.Depthwise, **_product(at, shape, at.width * multiplier), **_windows(at))


@kind(
    "SeparableConv1D",
    "SeparableConvolution1D",
    weights=_with_bias("depthwise_kernel", "pointwise_kernel"),
    wants=LAST,
    refusal=activation_refused,
    passes_mask=False,
)
def _separable(at: At) -> None:
    """Along time. It streams as Conv1D does."""
    multiplier, filters = at.size("depth_multiplier", 1), at.size("filters")
    between = at.width * multiplier
    bias_shape = [(filters,)] if at.flag("use_bias") else []
    depthwise, pointwise, *bias = at.arrays(
        (at.size("kernel_size"), at.width, multiplier), (1, between, filters), *bias_shape
    )
    at.node(_nodes.Depthwise, output=at.between(), kernel=depthwise, **_windows(at))
    at.node(
        _nodes.Dense,
        inputs=(at.between(),),
        kernel=at.builder.once(at.layer, lambda: pointwise[0]),
        bias=bias[0] if bias else None,
        activation=at.activation(),
    )


@kind("Embedding", weights=lambda _: ["embeddings"])
def _embedding(at: At) -> None:
    """Of the integers in an input of the model, with no other layer in between."""
    (table,) = at.arrays((at.size("input_dim"), at.size("output_dim")))
    at.node(_nodes.Embedding, table=table, mask_zero=at.flag("mask_zero", False))


# ---- step by step ----------------------------------------------------------------------------


@kind(*PASSING, "Identity", each_step=True)
def _passing(at: At) -> None:
    """Nothing, as in inference."""
    at.node(_nodes.Identity)


@kind("Activation", refusal=activation_refused, each_step=True)
def _activation(at: At) -> None:
    """Any activation that has a kernel, see below."""
    at.node(_nodes.Activation, activation=at.activation())


def _threshold(config: Config, version: int) -> Refusal:
    threshold = config.get("threshold")
    return f"threshold={threshold!r:.40}" if threshold not in (None, 0, 0.0) else ""


@kind("ReLU", refusal=_threshold, each_step=True)
def _relu(at: At) -> None:
    """A `threshold` of 0; any `max_value` and `negative_slope`."""
    slope = at.number("negative_slope", 0.0) if at.config.get("negative_slope") is not None else 0.0
    if at.config.get("max_value") is None:
        _leaky(at, slope)
        return
    _scaled_below(at, slope, at.inputs, at.between())
    least = -sys.float_info.max
    at.node(_nodes.Clip, inputs=(at.between(),), least=least, most=at.number("max_value"))


@kind("LeakyReLU", each_step=True)
def _leaky_relu(at: At) -> None:
    """Any slope."""
    _leaky(at, at.number("negative_slope" if "negative_slope" in at.config else "alpha", 0.3))


def _leaky(at: At, slope: float) -> None:
    """x where x >= 0, else slope * x, with the slope in float32, as TensorFlow has it."""
    at.node(_nodes.Activation, activation=activations.LeakyReLU(slope) if slope else activations.relu)


def _scaled_below(at: At, slope: float, inputs: tuple[str, ...], output: str) -> None:
    """x where x >= 0, else slope * x, with all digits of the slope."""
    at.builder.spend(at.width)
    at.node(_nodes.PReLU, inputs, output, alpha=np.full(at.width, slope))


@kind("ELU", each_step=True)
def _elu(at: At) -> None:
    """Any `alpha`."""
    alpha = at.number("alpha", 1.0)
    if float(np.float32(alpha)) == alpha:
        at.node(_nodes.Activation, activation=activations.ELU(alpha))
        return
    at.node(_nodes.Activation, output=at.between(), activation=activations.ELU(1.0))
    _scaled_below(at, alpha, (at.between(),), at.output)


@kind("Softmax", each_step=True)
def _softmax(at: At) -> None:
    """Along the features, of a sequence without a mask."""
    if not at.is_last_axis(at.config.get("axis", -1)):
        raise at.wrong(f"must have the axis of the features, got axis={at.config.get('axis')!r:.40}")
    if at.values[0].mask not in (NO_MASK, CALL_MASK):  # Keras takes the mask for one of features
        raise at.wrong(
            "reads a sequence that is masked, which Keras cannot compute for most shapes: use "
            "Activation('softmax')"
        )
    at.node(_nodes.Activation, activation=activations.softmax)


@kind("PReLU", weights=lambda _: ["alpha"], each_step=True)
def _prelu(at: At) -> None:
    """The same slopes for all timesteps, `shared_axes=[1]`."""
    shared = at.config.get("shared_axes") or []
    shared = [shared] if isinstance(shared, int) else an_axes_list(at, shared)
    shape = (at.width,) if at.each_step else at.values[0].shape
    wanted = tuple(1 if number + 1 in shared else size for number, size in enumerate(shape))
    if len(wanted) == 2 and wanted[0] != 1:
        raise at.wrong("must have one alpha for all timesteps, shared_axes=[1], got one for each")
    (alpha,) = at.arrays(tuple(size or 1 for size in wanted))
    at.builder.spend(at.width)
    alpha = at.builder.once(at.layer, lambda: np.array(np.broadcast_to(alpha.reshape(-1), (at.width,))))
    at.node(_nodes.PReLU, alpha=alpha)


def an_axes_list(at: At, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise at.wrong(f"must have shared_axes that are a list, got {value!r:.80}")
    return value


# ---- norms -----------------------------------------------------------------------------------


def _optional(**options: str) -> Any:
    """Weights that a layer has only if an option is true; a missing option is true."""
    return lambda config: [name for key, name in options.items() if is_on(config, key)]


def _scales(at: At, moving: int = 0) -> tuple[Array, Array, list[Array]]:
    """gamma, beta, and `moving` other weights, all of shape (width,)."""
    width = (at.width,)
    flags = at.flag("scale"), at.flag("center")
    found = at.arrays(*[width] * (sum(flags) + moving))
    at.builder.spend(2 * at.width)
    gamma = found.pop(0) if flags[0] else np.ones(width)
    beta = found.pop(0) if flags[1] else np.zeros(width)
    return gamma, beta, found


def _batch_weights(config: Config) -> list[str]:
    return [*_optional(scale="gamma", center="beta")(config), "moving_mean", "moving_variance"]


@kind(
    "BatchNormalization",
    "BatchNormalizationV1",
    "BatchNormalizationV2",
    weights=_batch_weights,
    wants={"virtual_batch_size": (None,), "renorm": (False, None)},
    each_step=True,
)
def _batch_normalization(at: At) -> None:
    """Along the features. It is folded into a Dense layer or convolution before it, if that has no activation
    and nothing else reads it.
    """
    _check_axis(at)
    gamma, beta, (mean, variance) = _scales(at, 2)
    variance = variance.astype(np.float64) + at.number("epsilon", 1e-3)
    if not (variance > 0).all():
        raise at.wrong("must have a moving_variance, with epsilon, above 0")
    factor = gamma / np.sqrt(variance)
    shift = beta - mean * factor
    if not (np.isfinite(factor).all() and np.isfinite(shift).all()):
        raise at.wrong("must scale by finite numbers, got a moving_variance that is too small")
    if not at.builder.fold(at.inputs[0], factor, shift, at.output):
        at.node(_nodes.Scale, factor=in_range(at, factor, mean.dtype), shift=in_range(at, shift, mean.dtype))


def _check_axis(at: At) -> None:
    axis = at.config.get("axis", -1)
    if not at.is_last_axis(axis):
        raise at.wrong(f"must have the axis of the features, got axis={axis!r:.40}")


@kind(
    "LayerNormalization",
    weights=_optional(scale="gamma", center="beta"),
    wants={"rms_scaling": (False,)},
    each_step=True,
)
def _layer_normalization(at: At) -> None:
    """Of the features."""
    _check_axis(at)
    gamma, beta, _ = _scales(at)
    at.node(_nodes.LayerNormalization, gamma=gamma, beta=beta, epsilon=at.number("epsilon", 1e-3))


@kind("RMSNormalization", weights=lambda _: ["scale"], passes_mask=False, each_step=True)
def _rms_normalization(at: At) -> None:
    """Of the features."""
    _check_axis(at)
    (gamma,) = at.arrays((at.width,))
    epsilon, beta = at.number("epsilon", 1e-6), np.zeros_like(gamma)
    at.node(_nodes.LayerNormalization, gamma=gamma, beta=beta, epsilon=epsilon, centered=False)


@kind("Masking")
def _masking(at: At) -> None:
    """Any `mask_value`."""
    at.node(_nodes.Masking, value=at.number("mask_value", 0.0))


# ---- merges ----------------------------------------------------------------------------------

MERGES = {
    "Add": "sum",
    "Multiply": "mul",
    "Subtract": "sub",
    "Average": "ave",
    "Maximum": "max",
    "Minimum": "min",
}


@kind(*MERGES)
def _merge(at: At) -> None:
    """Of values of one shape; some of them may lack timesteps."""
    at.builder.spend(2 * at.width)
    at.node(_nodes.Merge, mode=MERGES[at.layer.class_name], any_mask=at.version >= 3)


@kind("Concatenate")
def _concatenate(at: At) -> None:
    """Along the features, of values with the same timesteps."""
    _check_axis(at)
    at.node(_nodes.Concatenate, any_mask=at.version >= 3)


# ---- shapes ----------------------------------------------------------------------------------


def _target_refused(config: Config, _: int) -> Refusal:
    shape = config.get("target_shape")
    return "" if isinstance(shape, list) and len(shape) in (1, 2) else f"target_shape={shape!r:.40}"


@kind("Reshape", refusal=_target_refused, passes_mask=False)
def _reshape(at: At) -> None:
    """To `(features,)` or `(timesteps, features)`; the shape must be known. It does not stream."""
    shape = at.config["target_shape"]
    if not all(type(size) is int and (size == -1 or 1 <= size < 2**31) for size in shape):
        raise at.wrong(f"must have a target_shape of sizes, got {shape!r:.80}")
    at.node(_nodes.Reshape, shape=tuple(shape))


@kind("Flatten", wants=LAST, each_step=True, passes_mask=False)
def _flatten(at: At) -> None:
    """The shape must be known. It does not stream."""
    if at.each_step or len(at.values[0].shape) == 1:
        at.node(_nodes.Identity)
    else:
        at.node(_nodes.Reshape, shape=(-1,))


def _dims_refused(config: Config, _: int) -> Refusal:
    dims = config.get("dims")
    return "" if dims in ([2, 1], [1, 2], [1]) else f"dims={dims!r:.40}"


@kind("Permute", refusal=_dims_refused, passes_mask=False)
def _permute(at: At) -> None:
    """`dims=(2, 1)`; the shape must be known. It does not stream."""
    if len(at.config["dims"]) != len(at.values[0].shape):
        raise at.wrong(f"must have a dim for each axis, got {at.config['dims']} for {at.values[0].shape}")
    at.node(_nodes.Transpose if at.config["dims"] == [2, 1] else _nodes.Identity)


@kind("RepeatVector", passes_mask=False)
def _repeat_vector(at: At) -> None:
    """Of (batch, features). It does not stream."""
    at.node(_nodes.Repeat, times=at.size("n"))


@kind(
    *("GlobalAveragePooling1D", "GlobalAvgPool1D", "GlobalMaxPooling1D", "GlobalMaxPool1D"),
    wants=LAST,
    passes_mask=False,
)
def _global_pooling(at: At) -> None:
    """Of all timesteps; the mean leaves masked ones out. It does not stream."""
    largest = "Max" in at.layer.class_name
    at.node(_nodes.Pool, largest=largest, keepdims=at.flag("keepdims", False))


@kind(*("AveragePooling1D", "AvgPool1D", "MaxPooling1D", "MaxPool1D"), wants=LAST, passes_mask=False)
def _pooling(at: At) -> None:
    """Along time. It does not stream."""
    size = at.size("pool_size", 2)
    at.node(
        _nodes.WindowPool,
        size=size,
        largest="Max" in at.layer.class_name,
        padding=at.choice("padding", "valid"),
        strides=size if at.config.get("strides") is None else at.size("strides"),
    )
