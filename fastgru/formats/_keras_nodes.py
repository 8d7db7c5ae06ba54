"""Layers of Keras -> nodes: one small function for each class, or for classes that do the same."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastgru import _nodes, activations
from fastgru._compile import CALL_MASK, NO_MASK
from fastgru._keras_config import Config, activation_of, an_object, cells_of, is_recurrent
from fastgru.formats._keras_kinds import (
    KINDS,
    LAST,
    At,
    Refusal,
    activation_refused,
    in_range,
    inner_of,
    is_on,
    kind,
)
from fastgru.formats._keras_layers import Array, layer_of
from fastgru.formats._keras_model import PASSING
from fastgru.stack import Stack

__all__ = ["KINDS"]  # which this file fills


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
    (table,) = at.arrays((at.size("input_dim"), at.size("output_dim")))
    at.node(_nodes.Embedding, table=table, mask_zero=at.flag("mask_zero", False))


# ---- step by step ----------------------------------------------------------------------------


@kind(*PASSING, "Identity", each_step=True)
def _passing(at: At) -> None:
    at.node(_nodes.Identity)


@kind("Activation", refusal=activation_refused, each_step=True)
def _activation(at: At) -> None:
    at.node(_nodes.Activation, activation=at.activation())


def _threshold(config: Config, version: int) -> Refusal:
    threshold = config.get("threshold")
    return f"threshold={threshold!r:.40}" if threshold not in (None, 0, 0.0) else ""


@kind("ReLU", refusal=_threshold, each_step=True)
def _relu(at: At) -> None:
    slope = at.number("negative_slope", 0.0) if at.config.get("negative_slope") is not None else 0.0
    if at.config.get("max_value") is None:
        _leaky(at, slope)
        return
    _scaled_below(at, slope, at.inputs, at.between())
    least = -sys.float_info.max
    at.node(_nodes.Clip, inputs=(at.between(),), least=least, most=at.number("max_value"))


@kind("LeakyReLU", each_step=True)
def _leaky_relu(at: At) -> None:
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
    alpha = at.number("alpha", 1.0)
    if float(np.float32(alpha)) == alpha:
        at.node(_nodes.Activation, activation=activations.ELU(alpha))
        return
    at.node(_nodes.Activation, output=at.between(), activation=activations.ELU(1.0))
    _scaled_below(at, alpha, (at.between(),), at.output)


@kind("Softmax", each_step=True)
def _softmax(at: At) -> None:
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
    """Weights that there are if an option is true, which is missing then."""
    return lambda config: [name for key, name in options.items() if is_on(config, key)]


def _scales(at: At, moving: int = 0) -> tuple[Array, Array, list[Array]]:
    """gamma, beta and as many others, all (width,)."""
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
    _check_axis(at)
    gamma, beta, _ = _scales(at)
    at.node(_nodes.LayerNormalization, gamma=gamma, beta=beta, epsilon=at.number("epsilon", 1e-3))


@kind("RMSNormalization", weights=lambda _: ["scale"], passes_mask=False, each_step=True)
def _rms_normalization(at: At) -> None:
    _check_axis(at)
    (gamma,) = at.arrays((at.width,))
    epsilon, beta = at.number("epsilon", 1e-6), np.zeros_like(gamma)
    at.node(_nodes.LayerNormalization, gamma=gamma, beta=beta, epsilon=epsilon, centered=False)


@kind("Masking")
def _masking(at: At) -> None:
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
    at.builder.spend(2 * at.width)
    at.node(_nodes.Merge, mode=MERGES[at.layer.class_name], any_mask=at.version >= 3)


@kind("Concatenate")
def _concatenate(at: At) -> None:
    _check_axis(at)
    at.node(_nodes.Concatenate, any_mask=at.version >= 3)


# ---- shapes ----------------------------------------------------------------------------------


def _target_refused(config: Config, _: int) -> Refusal:
    shape = config.get("target_shape")
    return "" if isinstance(shape, list) and len(shape) in (1, 2) else f"target_shape={shape!r:.40}"


@kind("Reshape", refusal=_target_refused, passes_mask=False)
def _reshape(at: At) -> None:
    shape = at.config["target_shape"]
    if not all(type(size) is int and (size == -1 or 1 <= size < 2**31) for size in shape):
        raise at.wrong(f"must have a target_shape of sizes, got {shape!r:.80}")
    at.node(_nodes.Reshape, shape=tuple(shape))


@kind("Flatten", wants=LAST, each_step=True, passes_mask=False)
def _flatten(at: At) -> None:
    if at.each_step or len(at.values[0].shape) == 1:
        at.node(_nodes.Identity)
    else:
        at.node(_nodes.Reshape, shape=(-1,))


def _dims_refused(config: Config, _: int) -> Refusal:
    dims = config.get("dims")
    return "" if dims in ([2, 1], [1, 2], [1]) else f"dims={dims!r:.40}"


@kind("Permute", refusal=_dims_refused, passes_mask=False)
def _permute(at: At) -> None:
    if len(at.config["dims"]) != len(at.values[0].shape):
        raise at.wrong(f"must have a dim for each axis, got {at.config['dims']} for {at.values[0].shape}")
    at.node(_nodes.Transpose if at.config["dims"] == [2, 1] else _nodes.Identity)


@kind("RepeatVector", passes_mask=False)
def _repeat_vector(at: At) -> None:
    at.node(_nodes.Repeat, times=at.size("n"))


@kind(
    *("GlobalAveragePooling1D", "GlobalAvgPool1D", "GlobalMaxPooling1D", "GlobalMaxPool1D"),
    wants=LAST,
    passes_mask=False,
)
def _global_pooling(at: At) -> None:
    largest = "Max" in at.layer.class_name
    at.node(_nodes.Pool, largest=largest, keepdims=at.flag("keepdims", False))


@kind(*("AveragePooling1D", "AvgPool1D", "MaxPooling1D", "MaxPool1D"), wants=LAST, passes_mask=False)
def _pooling(at: At) -> None:
    size = at.size("pool_size", 2)
    at.node(
        _nodes.WindowPool,
        size=size,
        largest="Max" in at.layer.class_name,
        padding=at.choice("padding", "valid"),
        strides=size if at.config.get("strides") is None else at.size("strides"),
    )


# ---- wrappers and recurrent layers -----------------------------------------------------------


def _distributed_refused(config: Config, version: int) -> Refusal:
    class_name, inner = inner_of(config)
    known = KINDS.get(class_name)
    if known is None or not known.each_step:
        return f"of {class_name:.80}"
    why = known.refused(inner, version)
    return f"of {class_name} with {why}" if why else ""


def _distributed_weights(config: Config) -> list[str]:
    class_name, inner = inner_of(config)
    return KINDS[class_name].weights(inner)


@kind("TimeDistributed", weights=_distributed_weights, refusal=_distributed_refused)
def _time_distributed(at: At) -> None:
    class_name, inner = inner_of(at.config)
    if at.values[0].clock is None or at.values[0].indices:
        raise at.wrong(f"must read (timesteps, features), got {at.values[0].shape}")
    KINDS[class_name].make(
        At(at.builder, at.layer, inner, at.inputs, at.values, at.output, True, at.passes_mask)
    )


def _directions(class_name: str, config: Config) -> list[tuple[str, dict[str, Any]]]:
    """Class and config of each direction or cell of a recurrent layer."""
    cells = cells_of({"class_name": class_name, "config": config})
    if cells is not None:
        return [("GRUCell", an_object("config of a cell", cell.get("config"))) for cell in cells]
    if class_name == "RNN":
        return [inner_of(config, "cell")]
    if class_name != "Bidirectional":
        return [(class_name, dict(config))]
    forward = inner_of(config)
    backward = inner_of(config, "backward_layer") if config.get("backward_layer") is not None else forward
    return [*_directions(*forward), *_directions(*backward)]


def _weights_of(class_name: str, config: Config) -> list[str]:
    return [
        name
        for one, own in _directions(class_name, config)
        for name in (
            "kernel",
            "recurrent_kernel",
            *(["bias"] if one == "CuDNNGRU" or is_on(own, "use_bias") else []),
        )
    ]


def _gru_refused(class_name: str, config: Config, version: int) -> Refusal:
    if not is_recurrent({"class_name": class_name, "config": config}):
        inner = config.get("cell" if class_name == "RNN" else "layer")
        return f"of {inner.get('class_name') if isinstance(inner, dict) else inner!r:.80}"
    wrapped = [config, *(config[key]["config"] for key in ("layer", "backward_layer") if config.get(key))]
    if any(one.get("time_major") for one in wrapped):
        return "time_major=True"
    if cells_of({"class_name": class_name, "config": config}) is not None and config.get("go_backwards"):
        return "several cells with go_backwards=True"
    for one, own in _directions(class_name, config):
        if one == "CuDNNGRU":
            continue
        for key, default in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
            try:
                function = activations.get(activation_of(own.get(key, default), version))
            except (ValueError, TypeError, KeyError, AttributeError):
                function = None
            if getattr(function, "kernel", None) is None:
                return f"{key}={own.get(key)!r:.40}"
    return ""


def _recurrent_kind(class_name: str) -> None:
    kind(
        class_name,
        weights=lambda config: _weights_of(class_name, config),
        refusal=lambda config, version: _gru_refused(class_name, config, version),
    )(_recurrent)


def _recurrent(at: At) -> None:
    layers = at.builder.once(at.layer, lambda: _layers_of(at))
    x, *states = at.inputs
    cells = len(layers)
    if states and cells > 1 and len(states) != cells:
        raise at.wrong(f"must start from {cells} states, got {len(states)}")
    # Keras 3 gives a layer the mask of what it reads only if that is one value
    reads_mask = not states or at.version < 3 or at.is_given_mask
    for number, layer in enumerate(layers):
        is_last = number == cells - 1
        own = states if cells == 1 else states[number : number + 1]
        first = [at.output] if is_last else [at.between(number)]
        if getattr(layer, "merge_mode", "one") is None:
            first.append(f"{at.output}:1")
        after = len(first) if cells == 1 else 1 + number
        count = (2 if at.layer.class_name == "Bidirectional" else 1) if layer.return_state else 0
        last = [f"{at.output}:{after + i}" for i in range(count)]
        at.builder.add(
            _nodes.Recurrent(
                name=at.layer.name,
                inputs=(x, *own),
                outputs=(*first, *last),
                layer=layer,
                passes_mask=at.passes_mask,
                reads_mask=reads_mask,
            )
        )
        x = first[0]


def _layers_of(at: At) -> Sequence[Any]:
    """The layers of fastgru that a recurrent layer is: one, or one for each cell."""
    arrays = at.builder.arrays(at.layer)
    split = []
    for class_name, config in _directions(at.layer.class_name, at.config):
        count = 3 if class_name == "CuDNNGRU" or is_on(config, "use_bias") else 2
        split.append(arrays[:count])
        arrays = arrays[count:]
    config = {**at.config, "name": at.layer.names[-1]}
    given = {"stateful": False, "weights_dtype": at.builder.weights_dtype}
    layer = layer_of(at.layer.class_name, config, at.version, split, given)
    return layer.layers if isinstance(layer, Stack) else (layer,)


for _name in ("GRU", "CuDNNGRU", "RNN", "Bidirectional"):
    _recurrent_kind(_name)
