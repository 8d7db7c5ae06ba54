"""TensorFlow, under Keras 3 and tf_keras: eager tensors are read in place, and graphs call back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.eager import record
from tensorflow.python.ops import control_flow_util
from tensorflow.python.saved_model import save_context

from fastgru.keras._variant import Variant

Array = NDArray[Any]

COSTS = (
    "eager calls outside of tapes run on fastgru, in the memory of the tensors; tf.function (predict) goes "
    "through tf.numpy_function; Keras computes under XLA, in training, gradients, and what is exported as a "
    "SavedModel"
)
_EagerTensor = type(tf.constant(0))


def dtype(name: str) -> Any:
    """The type of that name."""
    return tf.dtypes.as_dtype(name)


def run(
    call: Any, variant: Variant, x: Any, states: list[Any], mask: Any, weights: list[Any]
) -> list[Any] | None:
    """The layer's outputs, and states if they are wanted; None if Keras has to compute them."""
    masks = [] if mask is None else [mask]
    if not tf.executing_eagerly():
        return _called_back(call, variant, x, states, masks, weights)
    if record.could_possibly_record():
        return None
    tensors = [x, *map(_read, [*states, *masks, *weights])]
    if any(type(tensor) is not _EagerTensor or "CPU" not in tensor.backing_device for tensor in tensors):
        return None
    return [
        _taken_over(array)
        for array in _computed(variant, list(map(np.asarray, tensors)), len(states), len(masks))
    ]


def _read(value: Any) -> Any:
    """The tensor of a variable, which its next change does not change; a tensor as it is."""
    if isinstance(value, tf.Variable):
        return tf.raw_ops.ReadVariableOp(resource=value.handle, dtype=value.dtype)
    return value


def _taken_over(array: Array) -> Any:
    """A tensor in an array's memory, if that starts where TensorFlow wants it; else a copy."""
    if array.__array_interface__["data"][0] % 64:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _computed(variant: Variant, arrays: Sequence[Array], states: int, masks: int) -> list[Array]:
    """The results from x, the states, the masks and the weights, the latter in their variables' memory.

    As long as somebody has the array of a weight, TensorFlow writes changes of the variable elsewhere.
    So the same address means the same values.
    """
    x, *others = arrays
    weights = others[states + masks :]
    key = tuple(weight.__array_interface__["data"][0] for weight in weights)
    layer = variant.packed(weights, key, lambda: weights)
    return variant.run(layer, x, others[:states], others[states] if masks else None)


def _called_back(
    call: Any, variant: Variant, x: Any, states: list[Any], masks: list[Any], weights: list[Any]
) -> list[Any] | None:
    """The results in a graph, whose gradients are those of Keras' own computation; or None, as for `run`."""
    graph = tf.compat.v1.get_default_graph()
    if (
        not isinstance(graph, tf.__internal__.FuncGraph)
        or control_flow_util.GraphOrParentsInXlaContext(graph)
        or save_context.in_save_context()
        or (call.layer.stateful and call.package == "tf_keras")
    ):
        return None
    counts = len(states), len(masks)

    def on_host(*arrays: Array) -> list[Array]:
        return _computed(variant, arrays, *counts)

    def forward(*operands: Any) -> Any:
        shapes = variant.shapes(operands[0].shape)
        results = tf.numpy_function(on_host, operands, [x.dtype] * len(shapes), stateful=False)
        for result, shape in zip(results, shapes, strict=True):
            result.set_shape(shape)

        def gradient(*upstream: Any) -> list[Any]:
            return _gradient(call, operands, counts, upstream)

        return results, gradient

    found = tf.custom_gradient(forward)(*map(tf.convert_to_tensor, [x, *states, *masks, *weights]))
    return list(found)


def _gradient(
    call: Any, operands: Sequence[Any], counts: tuple[int, int], upstream: Sequence[Any]
) -> list[Any]:
    """The gradients of the operands, of which Keras computes the results anew."""
    x, *others = operands
    states, masks, weights = others[: counts[0]], others[counts[0] : sum(counts)], others[sum(counts) :]
    sources = list(operands)
    with tf.GradientTape() as tape:
        tape.watch([operand for operand in operands if operand.dtype.is_floating])
        if call.package == "keras":
            from fastgru.keras._stateless import keras_own

            results = keras_own(call, x, states, masks, weights)
        else:
            sources[-len(weights) :] = call.variables()
            found = call.own(
                x, initial_state=states or None, mask=masks[0] if masks else None, training=False
            )
            results = found if isinstance(found, list) else [found]
    gradients: list[Any] = tape.gradient(results, sources, upstream)
    return gradients
