"""ONNX models whose nodes are layers."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import _description
from fastgru._description import GRU, Bidirectional, Layer, Stack
from fastgru._errors import need
from fastgru._writers import _onnx_gru

Array = NDArray[Any]

AXES_ARE_AN_INPUT = 13  # of Squeeze, from this opset on

STEPS = 10  # the first opset in which Slice has steps, and so can reverse an axis


def to_onnx(layer: Layer, opset: int = 14, initial_state: bool = False) -> Any:
    """An ONNX model with a node for each layer; `Layer.to_onnx` has the rest."""
    need("onnx", "onnx")
    import onnx
    from onnx import helper, numpy_helper

    _onnx_gru.check_opset(opset)
    if not _description.is_built(layer):
        raise ValueError(f"the layer {layer.name} must be built to be exported: it has no weights yet")
    members = _description.layers(layer)
    dtypes = {part.dtype for part in layer.parts}
    if len(members) > 1 and len(dtypes) > 1:
        raise ValueError(f"an exported Stack must have one dtype for all layers, got {sorted(dtypes)}")
    states = [part.default_state for part in layer.parts]
    batch = max((len(state) for state in states if state is not None), default=None)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(layer.parts[0].dtype))
    shapes: dict[str, tuple[Any, ...]] = {}  # of inputs and outputs
    tensors: dict[str, Array] = {}
    nodes: list[Any] = []
    inputs, outputs = ["X"], []
    x = "X"
    for name, member in _named(members):
        prefix = f"{name}/" if isinstance(layer, Stack) else ""
        is_last = member is members[-1]
        direction, parts = _directions(member)
        arrays = _tensors(parts, batch or 1)
        state = len(parts), batch or "batch", parts[0].units
        if x == "X":
            shapes["X"] = "timesteps", batch or "batch", arrays["W"].shape[2]
        given = {key: prefix + key for key in arrays} | {"X": x}
        tensors |= {given[key]: array for key, array in arrays.items()}
        if initial_state:
            given["initial_h"] = prefix + "initial_h"
            inputs.append(given["initial_h"])
            shapes[given["initial_h"]] = state
        returned = _returned(layer, member, is_last)
        named = {"Y": "Y" if is_last else f"{prefix}Y", "Y_h": f"{prefix}Y_h"}
        nodes.append(
            helper.make_node(
                "GRU",
                [given.get(key, "") for key in _onnx_gru.INPUTS],
                [named[key] if key in returned else "" for key in ("Y", "Y_h")],
                name,
                **_attributes(parts, direction),
            )
        )
        shapes |= {named["Y"]: ("timesteps", *state), named["Y_h"]: state}
        outputs += [named[key] for key in ("Y", "Y_h") if key in returned and (key == "Y_h" or is_last)]
        if not is_last:
            x = f"{prefix}outputs"
            made, constants = _joined(direction, named["Y"], x, prefix, opset)
            nodes += made
            tensors |= constants
    values = {name: helper.make_tensor_value_info(name, element, shape) for name, shape in shapes.items()}
    graph = helper.make_graph(
        nodes,
        layer.name or "gru",
        [values[name] for name in inputs],
        [values[name] for name in sorted(outputs, key=lambda name: name != "Y")],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in tensors.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    ir_version = max(4, helper.find_min_ir_version_for(opsets))  # 4: weights are no inputs
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, producer_name="fastgru")
    onnx.checker.check_model(model)
    return model


def _named(members: Sequence[GRU | Bidirectional]) -> Iterator[tuple[str, GRU | Bidirectional]]:
    """The layers of a Stack with a name each that no other has."""
    taken: set[str] = set()
    for i, member in enumerate(members):
        name = member.name
        while len(members) > 1 and (name in taken or not name):
            name = f"{name or 'gru'}_{i}"
        taken.add(name)
        yield name, member


def _returned(layer: Layer, member: GRU | Bidirectional, is_last: bool) -> set[str]:
    """Which of Y and Y_h the node of a layer has."""
    returned = {"Y"} if not is_last or member.return_sequences else {"Y_h"}
    return returned | ({"Y_h"} if layer.return_state else set())


def _attributes(parts: Sequence[GRU], direction: str) -> dict[str, Any]:
    """The attributes of the node for one direction of a layer, or for both."""
    functions = [
        _onnx_gru.written(each) for one in parts for each in (one.recurrent_activation, one.activation)
    ]
    attributes = {
        "hidden_size": parts[0].units,
        "linear_before_reset": int(parts[0].reset_after),
        "direction": direction,
        "activations": [name for name, _, _ in functions],
        "activation_alpha": [alpha for _, alphas, _ in functions for alpha in alphas],
        "activation_beta": [beta for _, _, betas in functions for beta in betas],
    }
    return {key: value for key, value in attributes.items() if value != []}


def _joined(direction: str, y: str, x: str, prefix: str, opset: int) -> tuple[list[Any], dict[str, Array]]:
    """Nodes from Y (timesteps, directions, batch, units) to what the next layer reads, and their constants.

    That is (timesteps, batch, directions * units), as Keras has it: of a single layer that goes backwards in
    the order of its run.
    """
    from onnx import helper

    if direction == "bidirectional":
        shape = {f"{prefix}shape": np.array([0, 0, -1])}
        turned = helper.make_node("Transpose", [y], [f"{prefix}rows"], perm=[0, 2, 1, 3])
        return [turned, helper.make_node("Reshape", [f"{prefix}rows", *shape], [x])], shape
    constants = {}
    rows = x if direction == "forward" else f"{prefix}rows"
    if opset < AXES_ARE_AN_INPUT:
        nodes = [helper.make_node("Squeeze", [y], [rows], axes=[1])]
    else:
        constants[f"{prefix}axes"] = np.array([1])
        nodes = [helper.make_node("Squeeze", [y, f"{prefix}axes"], [rows])]
    if direction == "reverse":
        if opset < STEPS:
            raise ValueError(
                f"opset must be at least {STEPS} for a layer that goes backwards below another, got {opset}"
            )
        ends = {"starts": -1, "ends": np.iinfo(np.int64).min, "axis": 0, "steps": -1}
        constants |= {f"{prefix}{key}": np.array([value]) for key, value in ends.items()}
        nodes.append(helper.make_node("Slice", [rows, *(f"{prefix}{key}" for key in ends)], [x]))
    return nodes, constants


def _directions(layer: GRU | Bidirectional) -> tuple[str, Sequence[GRU]]:
    """ONNX' name for the direction, and the layers of it."""
    if isinstance(layer, GRU):
        return "reverse" if layer.go_backwards else "forward", layer.parts
    if layer.merge_mode not in ("concat", None):
        raise ValueError(
            f"a GRU node of ONNX returns its directions side by side, got merge_mode={layer.merge_mode!r}: "
            "merge them after it"
        )
    if layer.forward.go_backwards:
        raise ValueError("a GRU node of ONNX goes forward first, got a forward_layer with go_backwards=True")
    for name in ("units", "reset_after", "dtype"):
        values = [getattr(one, name) for one in layer.parts]
        if values[0] != values[1]:
            raise ValueError(f"a GRU node of ONNX has one {name} for both directions, got {values}")
    return "bidirectional", layer.parts


def _tensors(layers: Sequence[GRU], batch: int) -> dict[str, Array]:
    """W, R, B and initial_h (directions, batch, units); the latter two where a direction has them."""
    dtype = np.dtype(layers[0].dtype)
    tensors = {
        "W": np.stack([one.weights[0].T for one in layers]),
        "R": np.stack([one.weights[1].T for one in layers]),
    }
    if any(one.use_bias for one in layers):  # the input's, then the recurrent one
        biases = np.zeros((len(layers), 2, 3 * layers[0].units), dtype)
        for bias, one in zip(biases, layers, strict=True):
            if one.use_bias:
                bias[: 1 + one.reset_after] = one.weights[2]
        tensors["B"] = biases.reshape(len(layers), -1)
    states = [one.default_state for one in layers]
    if any(state is not None for state in states):
        shape = batch, layers[0].units
        rows = [np.zeros(shape) if state is None else np.broadcast_to(state, shape) for state in states]
        tensors["initial_h"] = np.stack(rows).astype(dtype)
    return tensors
