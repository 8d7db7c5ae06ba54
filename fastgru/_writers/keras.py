"""Configs that Keras takes."""

import re
from typing import Any

from fastgru import _keras_config, activations
from fastgru._description import GRU, Layer, Stack


def to_config(layer: Layer, version: int = 2) -> dict[str, Any]:
    """A config that Keras takes; `Layer.to_keras_config` has the rest."""
    if version not in (2, 3):
        raise ValueError(f"version must be 2 or 3, of Keras, got {version!r}")
    if isinstance(layer, GRU):
        return _gru_config(layer, version)
    if isinstance(layer, Stack):
        raise ValueError("Keras has no layer that is a Stack: write its `layers` one by one")
    config = layer.get_config()
    if version == 3:
        config.pop("batch_input_shape", None)
        if layer.trainable and layer.backward.trainable > layer.forward.trainable:
            raise ValueError(
                "Keras 3 has the forward layer's weights first, but get_weights() those of the backward "
                "layer, as only they are trainable: set trainable of the layer first"
            )
    for key, direction in (("layer", layer.forward), ("backward_layer", layer.backward)):
        name = re.sub("^(forward|backward)_", "", direction.name)
        of_direction = _gru_config(direction, version) | {"name": name}
        config[key] = _keras_config.serialized("GRU", of_direction)
    return config


def _gru_config(layer: GRU, version: int) -> dict[str, Any]:
    if layer.default_state is not None:
        raise ValueError(
            f"Keras {version} has only GRUs that start from zeros, got a default_state: give it to calls"
        )
    config = layer.get_config()
    config.pop("weights_dtype", None)
    config.pop("keras_version", None)
    for key in ("activation", "recurrent_activation"):
        config[key] = _keras_activation(key, getattr(layer, key), config[key], version)
    if version == 3:
        if config.pop("time_major"):
            raise ValueError("Keras 3 has only GRUs that are batch-major, got time_major=True")
        config.pop("implementation")
        config.pop("batch_input_shape", None)
    return config


def _keras_activation(key: str, activation: Any, identifier: Any, version: int) -> Any:
    """What Keras has for an activation whose config in fastgru is `identifier`."""
    of_onnx = (activations.HardSigmoid, activations.Affine, activations.ScaledTanh)
    of_2 = activation is activations.hard_sigmoid or isinstance(activation, activations.ThresholdedReLU)
    of_3 = any(activation is one for one in (activations.keras3_hard_sigmoid, *activations.KERAS_3))
    foreign = of_2 if version == 3 else of_3
    if foreign or isinstance(activation, of_onnx):
        raise ValueError(f"Keras {version} has no activation {activation!r}, which is the layer's {key}")
    if activation is activations.keras3_hard_sigmoid:
        return "hard_sigmoid"
    if version == 3 and isinstance(activation, activations.LeakyReLU):
        return identifier | {"config": {"negative_slope": activation.alpha}}
    return identifier
