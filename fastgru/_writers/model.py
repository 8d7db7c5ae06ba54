"""Models in fastgru's own files: as `native` has it, with the nodes in the header.

fastgru.npy                {"format": 1, "class_name": "Model", "config": {...}}
0.kernel.npy, ...          the arrays of a node, after its number
3.layer.0.npy, ...         the weights of its layer, with the names that `native` gives them
"""

import dataclasses
from typing import Any

import numpy as np

from fastgru import activations
from fastgru._writers import native

LAYER = "layer."


def save_model(model: Any, path: Any) -> None:
    """Write a model; `Model.save` has the rest."""
    nodes: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for number, node in enumerate(model.nodes):
        config, own = _described(node)
        nodes.append({"class_name": type(node).__name__, "config": config})
        arrays |= {f"{number}.{name}": array for name, array in own.items()}
    bad = next((name for name, array in arrays.items() if not np.isfinite(array).all()), None)
    if bad is not None:
        raise ValueError(f"the model {model.name} must have finite weights to be saved, got others in {bad}")
    config = {
        "name": model.name,
        "dtype": model.dtype,
        "weights_dtype": model.weights_dtype,
        "inputs": [one._asdict() for one in model.inputs],
        "outputs": [one._asdict() for one in model.output_values],
        "states": model.state_names,
        "batch": model.batch,
        "nodes": nodes,
    }
    native.write({"format": native.FORMAT, "class_name": "Model", "config": config}, arrays, path)


def _described(node: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plain fields of a node, and its arrays."""
    config: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = value
        elif field.name == "activation":
            config[field.name] = activations.serialize(activations.get(value))
        elif field.name == "layer":
            layer = value._described()
            config[field.name] = {"class_name": layer.cls.__name__, "config": native.config(layer)}
            arrays |= {f"{LAYER}{name}": array for name, array in native.weights(layer).items()}
        elif value is not None:
            config[field.name] = value
    return config, arrays
