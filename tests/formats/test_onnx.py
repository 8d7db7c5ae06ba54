"""GRU nodes of ONNX against onnxruntime, PyTorch's exporter and the equations in float64, in and out."""

import contextlib
import importlib.util
import io
import os
import warnings
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
import pytest
import reference
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import fastgru

TIMESTEPS, BATCH, FEATURES, UNITS = 7, 3, 4, 5
BACKWARDS = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
NEWEST = onnx.defs.onnx_opset_version()
VERSIONS = [7, 13, 14, 21, 22]  # of the opset, around those that changed the operator
FORMULAS = {  # of x, alpha, beta
    "Relu": lambda x: np.maximum(x, 0),
    "Tanh": np.tanh,
    "Sigmoid": reference.ACTIVATIONS["sigmoid"],
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Softplus": reference.ACTIVATIONS["softplus"],
    "LeakyRelu": lambda x, a: np.where(x >= 0, x, a * x),
    "ThresholdedRelu": lambda x, a: np.where(x > a, x, 0),
    "Elu": lambda x, a: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))),
    "HardSigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "Affine": lambda x, a, b: a * x + b,
    "ScaledTanh": lambda x, a, b: a * np.tanh(b * x),
}
GIVEN = {  # parameters unlike any default
    "LeakyRelu": (0.25,),
    "ThresholdedRelu": (0.125,),
    "Elu": (0.75,),
    "HardSigmoid": (0.3, 0.4),
    "Affine": (0.4, 0.05),
    "ScaledTanh": (0.8, 0.7),
}
DEFAULT = [("Sigmoid",), ("Tanh",)]


@dataclass
class Gru:
    """A GRU node with random weights, alone in a model, and the equations that it stands for.

    Attributes
    ----------
    functions : list of tuple
        Name, alpha and beta of each activation, two per direction, as the equations have them.
    attributes : dict
        Of the node, besides those that follow from the rest.
    initial_h : None, "input" or ndarray
    lengths : None, "input" or ndarray
    """

    direction: str = "forward"
    reset_after: bool = False
    bias: bool = True
    functions: list = field(default_factory=list)
    attributes: dict = field(default_factory=dict)
    initial_h: object = None
    lengths: object = None
    layout: int = 0
    outputs: tuple = ("Y", "Y_h")
    opset: int = 14
    dtype: object = np.float32
    scale: float = 0.5
    seed: int = 0

    def __post_init__(self):
        print(f"seed {self.seed}")
        self.random = np.random.default_rng(self.seed)
        self.backwards = BACKWARDS[self.direction]
        count = len(self.backwards)
        shapes = {"W": (count, 3 * UNITS, FEATURES), "R": (count, 3 * UNITS, UNITS), "B": (count, 6 * UNITS)}
        self.weights = {
            name: self.random.normal(scale=self.scale, size=shape).astype(self.dtype)
            for name, shape in shapes.items()
            if name != "B" or self.bias
        }
        self.x = self.random.normal(size=(TIMESTEPS, BATCH, FEATURES)).astype(self.dtype)
        self.h = self.random.normal(size=(count, BATCH, UNITS)).astype(self.dtype)

    def node(self, name="the_gru"):
        there = {"X", *self.weights}
        there |= {"initial_h"} if self.initial_h is not None else set()
        there |= {"sequence_lens"} if self.lengths is not None else set()
        names = ["X", "W", "R", "B", "sequence_lens", "initial_h"]
        attributes = dict(self.attributes)
        if self.direction != "forward":
            attributes["direction"] = self.direction
        if self.reset_after:
            attributes["linear_before_reset"] = 1
        if self.layout:
            attributes["layout"] = 1
        inputs = [name if name in there else "" for name in names]
        return helper.make_node("GRU", inputs, self.outputs, name, hidden_size=UNITS, **attributes)

    def constants(self):
        constants = dict(self.weights)
        if isinstance(self.initial_h, np.ndarray):
            constants["initial_h"] = self.initial_h
        if isinstance(self.lengths, np.ndarray):
            constants["sequence_lens"] = self.lengths
        return constants

    def model(self, nodes=None, initializers=None, outputs=None, **more):
        """The model; `nodes` stand in for the one, `initializers` for the constants."""
        element = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        inputs = [helper.make_tensor_value_info("X", element, None)]
        if isinstance(self.initial_h, str):
            inputs.append(helper.make_tensor_value_info("initial_h", element, None))
        if isinstance(self.lengths, str):
            inputs.append(helper.make_tensor_value_info("sequence_lens", TensorProto.INT32, None))
        if initializers is None:
            initializers = [numpy_helper.from_array(a, name) for name, a in self.constants().items()]
        names = [name for name in self.outputs if name] if outputs is None else outputs
        values = [helper.make_tensor_value_info(name, element, None) for name in names]
        graph = helper.make_graph(
            [self.node()] if nodes is None else nodes, "g", inputs, values, initializers
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)

    def equations(self, lengths=None):
        """Y (timesteps, directions, batch, units) and Y_h (directions, batch, units)."""
        state = self.initial_h if isinstance(self.initial_h, np.ndarray) else self.h
        state = state if self.initial_h is not None else 0 * state
        mask = None if lengths is None else np.arange(TIMESTEPS) < lengths[:, np.newaxis]
        ys, states = [], []
        for d, backwards in enumerate(self.backwards):
            W, R = (self.weights[name][d].T for name in "WR")
            bias = None
            if self.bias:
                rows = self.weights["B"][d].astype(np.float64).reshape(2, -1)
                bias = rows if self.reset_after else rows.sum(0)
            f, g = (formula(*each) for each in (self.functions or DEFAULT * 2)[2 * d : 2 * d + 2])
            options = {"initial_state": state[d], "reset_after": self.reset_after, "go_backwards": backwards}
            options |= {"mask": mask, "zero_output_for_mask": True}
            x = self.x.swapaxes(0, 1)
            y, h = reference.gru(x, W, R, bias, activation=g, recurrent_activation=f, **options)
            ys.append((y[:, ::-1] if backwards else y).swapaxes(0, 1))
            states.append(h)
        return np.stack(ys, 1), np.stack(states)


def formula(name, *parameters):
    rounded = [float(np.float32(parameter)) for parameter in parameters]
    return lambda x: FORMULAS[name](x, *rounded)


def onnx_results(layer, x, mask=None, states=None):
    """What a layer that returns sequences and states computes, in the shapes of ONNX."""
    assert layer.return_sequences
    assert layer.return_state
    both = isinstance(layer, fastgru.Bidirectional)
    if states is not None:
        states = list(states) if both else states[0]
    y, *last = layer(x if layer.time_major else x.swapaxes(0, 1), mask=mask, initial_state=states)
    y = y if layer.time_major else y.swapaxes(0, 1)
    y = y[::-1] if not both and layer.go_backwards else y
    return y.reshape(*y.shape[:2], len(last), -1).swapaxes(1, 2), np.stack(last)


def session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def assert_as_exact(ours, theirs, exact):
    """Errors are at most twice theirs, but for four units in the last place of the largest value."""
    for our, their, wanted in zip(ours, theirs, exact, strict=True):
        assert our.shape == their.shape == wanted.shape
        largest = np.abs(wanted).max()
        assert largest > 0
        slack = 4 * float(np.spacing(our.dtype.type(largest)))
        assert np.abs(our - wanted).max() <= 2 * np.abs(their - wanted).max() + slack


def assert_agrees(gru, *states):
    """The layer read from the node's model, as exact as onnxruntime is; the layer."""
    model = gru.model()
    layer = fastgru.from_onnx(model)
    feed = {"X": gru.x} | dict(zip(["initial_h"], states, strict=False))
    theirs = session(model).run(None, feed)
    assert_as_exact(onnx_results(layer, gru.x, None, *states), theirs, gru.equations())
    return layer


# ---- the operator ----------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("direction", BACKWARDS)
@pytest.mark.parametrize("opset", VERSIONS)
def test_a_node_of_any_version_agrees_with_onnxruntime(opset, direction, reset_after, bias):
    layer = assert_agrees(Gru(direction, reset_after, bias, opset=opset))
    one = layer.forward_layer if direction == "bidirectional" else layer
    assert (one.reset_after, one.use_bias, one.time_major) == (reset_after, bias, True)
    assert (one.go_backwards, layer.name) == (direction == "reverse", "the_gru")


@pytest.mark.parametrize("opset", range(23, NEWEST + 1))
def test_a_newer_opset_with_the_same_operator_is_read_as_that_of_22(opset):
    assert onnx.defs.get_schema("GRU", opset).since_version == 22
    gru = Gru("bidirectional", opset=22)
    wanted = onnx_results(fastgru.from_onnx(gru.model()), gru.x)
    gru.opset = opset
    for ours, same in zip(onnx_results(fastgru.from_onnx(gru.model()), gru.x), wanted, strict=True):
        assert np.array_equal(ours, same)


def test_an_opset_with_another_operator_is_refused(monkeypatch):
    monkeypatch.setattr("fastgru._writers._onnx_gru.VERSIONS", (7, 14))
    with pytest.raises(ValueError, match=r"GRU of one of the opsets \(7, 14\), got 22 with that of 22"):
        fastgru.from_onnx(Gru(opset=22).model())
    assert fastgru.from_onnx(Gru(opset=21).model())


@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("name", FORMULAS)
def test_an_activation_agrees_with_onnxruntime(name, place, reset_after):
    functions = list(DEFAULT)
    functions[place] = (name, *GIVEN.get(name, ()))
    attributes = written(functions)
    # gates that stay below 1, or the state grows without bound, and errors with it
    assert_agrees(Gru(reset_after=reset_after, functions=functions, attributes=attributes, scale=0.15))


def written(functions, spelled=str):
    """The attributes that stand for the activations."""
    parameters = [parameters for _, *parameters in functions]
    attributes = {
        "activations": [spelled(name) for name, *_ in functions],
        "activation_alpha": [float(p[0]) for p in parameters if p],
        "activation_beta": [float(p[1]) for p in parameters if p[1:]],
    }
    return {name: values for name, values in attributes.items() if values}


@pytest.mark.parametrize("spelled", [str.lower, str.upper, str.swapcase])
@pytest.mark.parametrize("direction", BACKWARDS)
def test_activations_differ_by_direction_and_are_spelled_in_any_case(direction, spelled):
    functions = [("HardSigmoid", 0.3, 0.4), ("LeakyRelu", 0.25), ("Affine", 0.4, 0.3), ("Elu", 0.75)]
    functions = functions[: 2 * len(BACKWARDS[direction])]
    assert_agrees(Gru(direction, functions=functions, attributes=written(functions, spelled)))


@pytest.mark.parametrize(
    ("attributes", "functions"),
    [
        ({"activations": ["HardSigmoid", "Elu"]}, [("HardSigmoid", 0.2, 0.5), ("Elu", 1)]),
        ({"activations": ["Sigmoid", "LeakyRelu"]}, [("Sigmoid",), ("LeakyRelu", 0.01)]),
        (
            {"activations": ["HardSigmoid", "LeakyRelu"], "activation_alpha": [0.3]},
            [("HardSigmoid", 0.3, 0.5), ("LeakyRelu", 0.01)],
        ),
        (
            {"activations": ["HardSigmoid", "Elu"], "activation_beta": [0.4, 9.0], "activation_alpha": []},
            [("HardSigmoid", 0.2, 0.4), ("Elu", 1)],
        ),
        (
            {"activations": ["Sigmoid", "LeakyRelu"], "activation_alpha": [0.3, 0.6]},
            [("Sigmoid",), ("LeakyRelu", 0.3)],
        ),
        ({"activation_alpha": [0.3], "activation_beta": [0.1]}, DEFAULT),
        ({"activations": []}, DEFAULT),
    ],
    ids=["defaults", "default-after-none", "short-alphas", "long-betas", "long-alphas", "no-names", "empty"],
)
def test_alphas_and_betas_are_handed_out_as_onnxruntime_does(attributes, functions):
    gru = Gru(functions=functions)
    model = gru.model()
    for name, values in attributes.items():
        kind = onnx.AttributeProto.STRINGS if name == "activations" else onnx.AttributeProto.FLOATS
        model.graph.node[0].attribute.append(helper.make_attribute(name, values, attr_type=kind))
    ours = onnx_results(fastgru.from_onnx(model), gru.x)
    assert_as_exact(ours, session(model).run(None, {"X": gru.x}), gru.equations())


@pytest.mark.parametrize("name", ["Affine", "ScaledTanh", "ThresholdedRelu"])
def test_parameters_without_an_agreed_default_must_be_there(name):
    # onnxruntime takes 0, where the specification of ThresholdedRelu has 1 and the others have none
    with pytest.raises(ValueError, match=f"the activation {name} must have its parameters"):
        fastgru.from_onnx(Gru(attributes={"activations": ["Sigmoid", name]}).model())


def test_both_hard_sigmoids_of_keras_are_known():
    for alpha, name in ((0.2, "hard_sigmoid"), (1 / 6, "keras3_hard_sigmoid")):
        functions = [("HardSigmoid", alpha, 0.5), ("Tanh",)]
        layer = assert_agrees(Gru(functions=functions, attributes=written(functions)))
        assert layer.recurrent_activation is getattr(fastgru.activations, name)


@pytest.mark.parametrize("seed", range(60))
def test_any_node_agrees_with_onnxruntime(seed):
    random = np.random.default_rng(seed)
    direction = random.choice(list(BACKWARDS))
    functions = []
    for _ in BACKWARDS[direction]:
        for names in (["Sigmoid", "HardSigmoid"], [*FORMULAS]):
            name = str(random.choice(names))
            functions.append((name, *(p * random.uniform(0.5, 1) for p in GIVEN.get(name, ()))))
    initial_h = [None, "input", random.normal(size=(len(BACKWARDS[direction]), BATCH, UNITS)).astype("f")]
    gru = Gru(
        str(direction),
        bool(random.integers(2)),
        bool(random.integers(2)),
        functions,
        written(functions, [str, str.lower, str.upper][random.integers(3)]),
        initial_h[random.integers(3)],
        opset=int(random.choice(VERSIONS)),
        seed=seed,
    )
    assert_agrees(gru, *([gru.h] if isinstance(gru.initial_h, str) else []))


# ---- states, lengths, layouts, outputs -------------------------------------------------------


@pytest.mark.parametrize("direction", BACKWARDS)
def test_an_initial_state_that_is_an_input_is_a_call_s(direction):
    gru = Gru(direction, initial_h="input")
    layer = assert_agrees(gru, gru.h)
    one = layer.forward_layer if direction == "bidirectional" else layer
    assert one.default_state is None


@pytest.mark.parametrize("direction", BACKWARDS)
def test_a_constant_initial_state_is_the_layer_s_default(direction):
    state = np.random.default_rng(3).normal(size=(len(BACKWARDS[direction]), BATCH, UNITS)).astype("f")
    layer = assert_agrees(Gru(direction, initial_h=state))
    layers = [layer.forward_layer, layer.backward_layer] if direction == "bidirectional" else [layer]
    for one, rows in zip(layers, state, strict=True):
        assert np.array_equal(one.default_state, rows)
    zeros = assert_agrees(Gru(direction, initial_h=0 * state))
    assert (zeros.forward_layer if direction == "bidirectional" else zeros).default_state is None


def test_one_direction_alone_may_have_a_constant_initial_state():
    state = np.random.default_rng(3).normal(size=(2, BATCH, UNITS)).astype("f")
    state[0] = 0
    layer = assert_agrees(Gru("bidirectional", initial_h=state))
    assert layer.forward_layer.default_state is None
    assert np.array_equal(layer.backward_layer.default_state, state[1])


@pytest.mark.parametrize("shape", [(1, 1, UNITS), (2, 1, UNITS), (1, UNITS), (UNITS,), (2, BATCH, UNITS)])
def test_an_initial_state_that_is_expanded_to_the_batch_is_a_constant(shape):
    gru = Gru("bidirectional", initial_h="input")
    state = gru.h.ravel()[: np.prod(shape)].reshape(shape)
    expand = helper.make_node("Expand", ["state", "shape"], ["initial_h"])
    tensors = {**gru.weights, "state": state, "shape": np.array([2, BATCH, UNITS])}
    model = gru.model([expand, gru.node()], [numpy_helper.from_array(a, name) for name, a in tensors.items()])
    del model.graph.input[1]
    gru.initial_h = np.broadcast_to(state, gru.h.shape)
    ours = onnx_results(fastgru.from_onnx(model), gru.x)
    assert_as_exact(ours, session(model).run(None, {"X": gru.x}), gru.equations())


@pytest.mark.parametrize("direction", BACKWARDS)
def test_lengths_are_a_mask(direction):
    gru = Gru(direction, lengths="input", initial_h="input")
    lengths = np.array([TIMESTEPS, 1, 4], np.int32)
    model = gru.model()
    theirs = session(model).run(None, {"X": gru.x, "sequence_lens": lengths, "initial_h": gru.h})
    mask = np.arange(TIMESTEPS)[:, np.newaxis] < lengths
    layer = fastgru.from_onnx(model)
    assert_as_exact(onnx_results(layer, gru.x, mask, gru.h), theirs, gru.equations(lengths))


def test_constant_lengths_are_warned_of():
    gru = Gru(lengths=np.array([7, 1, 4], np.int32))
    with pytest.warns(UserWarning, match="the_gru: sequence_lens is a constant of the file"):
        layer = fastgru.from_onnx(gru.model())
    mask = np.arange(TIMESTEPS)[:, np.newaxis] < gru.lengths
    theirs = session(gru.model()).run(None, {"X": gru.x})
    assert_as_exact(onnx_results(layer, gru.x, mask), theirs, gru.equations(gru.lengths))


def turned(array):
    """Layout 0 as layout 1: the batch comes first."""
    return np.moveaxis(array, -2, 0)


@pytest.mark.parametrize("initial_h", [None, "input", "constant"])
@pytest.mark.parametrize("direction", BACKWARDS)
def test_layout_1_is_batch_major(direction, initial_h):
    gru = Gru(direction, initial_h=initial_h)
    if initial_h == "constant":
        gru.initial_h = gru.h
    states = [gru.h] if initial_h == "input" else []
    theirs = session(gru.model()).run(None, {"X": gru.x} | dict(zip(["initial_h"], states, strict=False)))
    exact = gru.equations()
    gru.layout, gru.initial_h = 1, turned(gru.h) if initial_h == "constant" else initial_h
    layer = fastgru.from_onnx(gru.model())
    assert not layer.time_major
    assert_as_exact(onnx_results(layer, gru.x, None, *states), theirs, exact)


def test_layout_1_agrees_with_the_reference_of_onnx():
    gru = Gru(layout=1, reset_after=True)
    theirs = ReferenceEvaluator(gru.model()).run(None, {"X": turned(gru.x)})
    y, y_h = onnx_results(fastgru.from_onnx(gru.model()), gru.x)
    np.testing.assert_allclose(turned(y), theirs[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(turned(y_h), theirs[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("direction", BACKWARDS)
@pytest.mark.parametrize(
    ("named", "read", "sequences", "state"),
    [
        (("Y", "Y_h"), ["Y", "Y_h"], True, True),
        (("Y", "Y_h"), ["Y"], True, False),
        (("Y", "Y_h"), ["Y_h"], False, False),
        (("Y",), ["Y"], True, False),
        (("", "Y_h"), ["Y_h"], False, False),
    ],
)
@pytest.mark.parametrize("through", [False, True])
def test_the_layer_returns_what_the_network_uses(direction, named, read, sequences, state, through):
    gru = Gru(direction, outputs=named)
    nodes = [gru.node()]
    outputs = read
    if through:  # another node reads them, not the caller
        nodes += [helper.make_node("Neg", [name], [f"minus_{name}"]) for name in read]
        outputs = [f"minus_{name}" for name in read]
    model = gru.model(nodes, outputs=outputs)
    layer = fastgru.from_onnx(model)
    assert (layer.return_sequences, layer.return_state) == (sequences, state)
    theirs = dict(zip(read, session(model).run(None, {"X": gru.x}), strict=True))
    ours = layer(gru.x)
    count = len(gru.backwards)
    if not sequences:
        y_h = np.stack(np.split(ours, count, axis=-1))
        assert_as_exact([y_h], [-theirs["Y_h"] if through else theirs["Y_h"]], gru.equations()[1:])
    else:
        y = (ours[0] if state else ours)[:: -1 if direction == "reverse" else 1]
        y = y.reshape(TIMESTEPS, BATCH, count, UNITS).swapaxes(1, 2)
        assert_as_exact([y], [-theirs["Y"] if through else theirs["Y"]], gru.equations()[:1])


def test_of_a_node_that_nothing_reads_the_layer_returns_what_it_has():
    gru = Gru()
    x = helper.make_node("Identity", ["X"], ["out"])
    layer = fastgru.from_onnx(gru.model([gru.node(), x], outputs=["out"]))
    assert layer.return_sequences
    assert layer.return_state


def test_arguments_of_the_caller_come_first(tmp_path):
    path = tmp_path / "model.onnx"
    gru = Gru("bidirectional")
    path.write_bytes(gru.model().SerializeToString())
    layer = fastgru.load(path, name="mine", merge_mode=None, return_sequences=False, time_major=False)
    assert (layer.name, layer.merge_mode, layer.time_major) == ("mine", None, False)
    # the last output of a masked row is its last state, not the zero that Y would have
    mask = np.arange(TIMESTEPS) < np.array([TIMESTEPS, 1, 4])[:, np.newaxis]
    forward, backward, *states = layer(gru.x.swapaxes(0, 1), mask=mask)
    assert np.array_equal(forward, states[0])
    assert np.array_equal(backward, states[1])


# ---- where weights are -----------------------------------------------------------------------


def typed(name, array, data_type, field):
    """A tensor whose values are in a field of its type instead of raw bytes."""
    tensor = TensorProto(name=name, data_type=data_type, dims=array.shape)
    if data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        array = array.view(np.uint16)
    getattr(tensor, field).extend(array.ravel().tolist())
    return tensor


def constant_node(name, array):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))


def test_weights_may_be_constants_and_identities():
    gru = Gru(opset=13)
    wanted = onnx_results(fastgru.from_onnx(gru.model()), gru.x)
    nodes = [constant_node(name, array) for name, array in gru.weights.items()]
    identities = [helper.make_node("Identity", [f"{name}_1"], [name]) for name in gru.weights]
    identities[:0] = [helper.make_node("Identity", [f"{name}_0"], [f"{name}_1"]) for name in gru.weights]
    tensors = [numpy_helper.from_array(array, f"{name}_0") for name, array in gru.weights.items()]
    floats = [typed(name, array, TensorProto.FLOAT, "float_data") for name, array in gru.weights.items()]
    models = [
        gru.model([*nodes, gru.node()], []),
        gru.model([*identities, gru.node()], tensors),
        gru.model(None, floats),
    ]
    for model in models:
        session(model)
        for ours, same in zip(onnx_results(fastgru.from_onnx(model), gru.x), wanted, strict=True):
            assert np.array_equal(ours, same)


def test_a_constant_list_of_floats_has_one_axis_and_is_no_weight():
    gru = Gru(opset=13)
    nodes = [helper.make_node("Constant", [], ["B"], value_floats=[0.0] * 6 * UNITS), gru.node()]
    tensors = [numpy_helper.from_array(gru.weights[name], name) for name in "WR"]
    with pytest.raises(fastgru.FormatError, match=r"B \(directions, 6 \* units\) do not fit"):
        fastgru.from_onnx(gru.model(nodes, tensors))


def test_a_constant_list_of_floats_may_be_an_initial_state():
    gru = Gru(opset=13, initial_h="input")
    nodes = [
        helper.make_node("Constant", [], ["state"], value_floats=gru.h[0, 0].tolist()),
        helper.make_node("Constant", [], ["shape"], value=numpy_helper.from_array(np.array(gru.h.shape))),
        helper.make_node("Expand", ["state", "shape"], ["initial_h"]),
        gru.node(),
    ]
    model = gru.model(nodes, [numpy_helper.from_array(a, name) for name, a in gru.weights.items()])
    del model.graph.input[1]
    gru.initial_h = np.broadcast_to(gru.h[0, 0], gru.h.shape)
    ours = onnx_results(fastgru.from_onnx(model), gru.x)
    assert_as_exact(ours, session(model).run(None, {"X": gru.x}), gru.equations())


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("direction", BACKWARDS)
def test_float16_is_kept(direction, raw):
    gru = Gru(direction, dtype=np.float16)
    floats = [typed(name, a, TensorProto.FLOAT16, "int32_data") for name, a in gru.weights.items()]
    model = gru.model(None, None if raw else floats)
    layer = fastgru.from_onnx(model)
    assert layer.dtype == "float16"
    assert_as_exact(onnx_results(layer, gru.x), session(model).run(None, {"X": gru.x}), gru.equations())


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("reset_after", [False, True])
def test_float64_agrees_with_the_reference_of_onnx(reset_after, raw):
    gru = Gru(reset_after=reset_after, dtype=np.float64)
    floats = [typed(name, a, TensorProto.DOUBLE, "double_data") for name, a in gru.weights.items()]
    model = gru.model(None, None if raw else floats)
    layer = fastgru.from_onnx(model)
    assert layer.dtype == "float64"
    theirs = ReferenceEvaluator(model).run(None, {"X": gru.x})
    assert_as_exact(onnx_results(layer, gru.x), theirs, gru.equations())


@pytest.mark.parametrize("raw", [True, False])
def test_bfloat16_becomes_float32(raw):
    gru = Gru(opset=22)
    halves = {name: (a.view(np.uint32) >> 16).astype(np.uint16) for name, a in gru.weights.items()}
    tensors = [typed(name, a, TensorProto.BFLOAT16, "int32_data") for name, a in halves.items()]
    if raw:
        for tensor, array in zip(tensors, halves.values(), strict=True):
            tensor.ClearField("int32_data")
            tensor.raw_data = array.tobytes()
    for tensor, name in zip(tensors, halves, strict=True):  # as onnx itself reads them
        gru.weights[name] = numpy_helper.to_array(tensor).astype(np.float32)
    wanted = onnx_results(fastgru.from_onnx(gru.model()), gru.x)
    layer = fastgru.from_onnx(gru.model(None, tensors))
    assert layer.dtype == "float32"
    for ours, same in zip(onnx_results(layer, gru.x), wanted, strict=True):
        assert np.array_equal(ours, same)


def test_a_gru_in_a_branch_sees_the_weights_around_it():
    one, other = Gru(seed=1), Gru(seed=2, reset_after=True)
    value = helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)
    branches = []
    for gru, name in ((one, "then"), (other, "else")):  # R is outside, W and B are the branch's own
        tensors = [numpy_helper.from_array(gru.weights[key], key) for key in "WB"]
        node = gru.node("")
        node.input[2] = f"R_{name}"
        node.output[:] = ["Y"]
        branches.append(helper.make_graph([node], name, [], [value], tensors))
    choice = helper.make_node("If", ["which"], ["out"], then_branch=branches[0], else_branch=branches[1])
    around = [numpy_helper.from_array(one.weights["R"], "R_then")]
    around += [numpy_helper.from_array(other.weights["R"], "R_else")]
    around += [numpy_helper.from_array(np.zeros(1, "f"), "W")]  # which the branches don't see
    model = one.model([choice], around, ["out"])
    model.graph.input.append(helper.make_tensor_value_info("which", TensorProto.BOOL, []))
    layers = fastgru.from_onnx(model)
    assert list(layers) == ["if_0/else_branch/gru_0", "if_0/then_branch/gru_0"]
    run = session(model).run
    for gru, layer, which in zip((other, one), layers.values(), (False, True), strict=True):
        theirs = run(None, {"X": one.x, "which": np.array(which)})
        layer.return_state = True
        gru.x = one.x
        ours, _ = onnx_results(layer, one.x)
        assert_as_exact([ours], theirs, gru.equations()[:1])


def test_a_gru_in_a_loop_carries_its_state():
    gru = Gru(initial_h="input", outputs=("", "Y_h"))
    node = gru.node("inside")
    node.input[0], node.input[5] = "X", "h_in"
    body = helper.make_graph(
        [node, helper.make_node("Identity", ["going"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h_in", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("Y_h", TensorProto.FLOAT, None),
        ],
    )
    loop = helper.make_node("Loop", ["count", "", "initial_h"], ["last"], "again", body=body)
    tensors = [numpy_helper.from_array(array, name) for name, array in gru.weights.items()]
    tensors.append(numpy_helper.from_array(np.array(3), "count"))
    model = gru.model([loop], tensors, ["last"])
    layer = fastgru.from_onnx(model)
    assert (layer.name, layer.return_sequences, layer.return_state) == ("again/body/inside", False, False)
    exact = ours = gru.h[0]
    for _ in range(3):
        ours = layer(gru.x, ours)
        gru.h = exact[np.newaxis]
        exact = gru.equations()[1][0]
    (theirs,) = session(model).run(None, {"X": gru.x, "initial_h": Gru().h})
    assert_as_exact([ours], theirs, [exact])


def test_several_nodes_come_in_their_order_by_name_or_number(tmp_path):
    gru = Gru()
    nodes = []
    for i, name in enumerate(["", "second", ""]):
        node = gru.node(name)
        node.output[:] = [f"Y{i}"]
        nodes.append(node)
    model = gru.model(nodes, outputs=["Y0", "Y1", "Y2"])
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert list(fastgru.from_onnx(model)) == ["gru_0", "second", "gru_2"]
    layers = fastgru.load_all(path)
    assert [layer.name for layer in layers.values()] == list(layers) == ["gru_0", "second", "gru_2"]
    assert fastgru.load(path, "second").name == "second"
    with pytest.raises(ValueError, match="layer must be one of 'gru_0', 'second', 'gru_2'"):
        fastgru.load(path)


def test_a_node_goes_with_the_graph_of_its_weights():
    gru = Gru(outputs=("", "Y_h"))
    model = gru.model()
    layer = fastgru.from_onnx((model.graph.node[0], model.graph))
    assert (layer.name, layer.return_sequences) == ("the_gru", False)
    with pytest.raises(ValueError, match="node must be a GRU, got Neg"):
        fastgru.from_onnx((helper.make_node("Neg", ["X"], ["Y"]), model.graph))


def test_only_models_and_nodes_with_graphs_are_taken():
    model = Gru().model()
    for other in (model.graph, model.graph.node[0], (model.graph, model.graph), "model.onnx", None, [], ()):
        with pytest.raises(TypeError, match=r"model must be an onnx\.ModelProto or a pair"):
            fastgru.from_onnx(other)
    with pytest.raises(ValueError, match="the model has no GRU node"):
        fastgru.from_onnx(Gru().model([helper.make_node("Neg", ["X"], ["Y"])], [], ["Y"]))


# ---- what is refused, and what is warned of --------------------------------------------------


def refused(path, model, match, write=True):
    """A file of this model is refused for this reason, with its name, and so is the model in memory."""
    if write:
        path.write_bytes(model.SerializeToString())
    with pytest.raises(fastgru.FormatError, match=match) as caught:
        fastgru.load_all(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match=match):
        fastgru.from_onnx(model)


def attribute(model, name, value, kind=None):
    """Put an attribute in place of one of that name."""
    node = model.graph.node[0]
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value, attr_type=kind)])


def tensor(model, name, array):
    """Put a tensor in place of one of that name."""
    (found,) = [each for each in model.graph.initializer if each.name == name]
    found.CopyFrom(numpy_helper.from_array(np.asarray(array), name))


W = (1, 3 * UNITS, FEATURES)
REFUSED = {
    "clip": (lambda m: attribute(m, "clip", 0.5), "clip=0.5: Keras' GRU has no bound"),
    "clip-nan": (lambda m: attribute(m, "clip", np.nan), "clip=nan"),
    "direction": (lambda m: attribute(m, "direction", "sideways"), "direction must be one of forward, rev"),
    "direction-bytes": (lambda m: attribute(m, "direction", b"\xff\xfe"), "can't decode"),
    "direction-type": (lambda m: attribute(m, "direction", 1), "'direction' twice or of a wrong type"),
    "directions": (lambda m: attribute(m, "direction", "bidirectional"), "fit each other or directions=2"),
    "reset-type": (lambda m: attribute(m, "linear_before_reset", 1.0), "'linear_before_reset' twice or of a"),
    "alpha-type": (lambda m: attribute(m, "activation_alpha", 0.5), "'activation_alpha' twice or of a"),
    "unknown-attribute": (lambda m: attribute(m, "peephole", 1), "'peephole' twice or of a wrong type"),
    "activation": (lambda m: attribute(m, "activations", ["Sigmoid", "Gelu"]), "'Gelu' is none of Relu"),
    "activations": (lambda m: attribute(m, "activations", ["Tanh"] * 3), "activations must be 2 names"),
    "alpha-nan": (lambda m: attribute(m, "activation_alpha", [np.nan]), "activation_beta must be finite"),
    "threshold": (
        lambda m: (
            attribute(m, "activations", ["Sigmoid", "ThresholdedRelu"]),
            attribute(m, "activation_alpha", [-1.0]),
        ),
        "theta must be at least 0.0, got -1.0",
    ),
    "attribute-twice": (
        lambda m: m.graph.node[0].attribute.append(m.graph.node[0].attribute[0]),
        "'hidden_size' twice",
    ),
    "hidden_size": (lambda m: attribute(m, "hidden_size", UNITS + 1), "fit each other or .* hidden_size=6"),
    "hidden_size-0": (lambda m: attribute(m, "hidden_size", 0), "fit each other or .* hidden_size=0"),
    "W-shape": (lambda m: tensor(m, "W", np.zeros((1, 3, 4), "f")), r"got {'W': \(1, 3, 4\)"),
    "W-axes": (lambda m: tensor(m, "W", np.zeros(12, "f")), "do not fit each other"),
    "R-shape": (lambda m: tensor(m, "R", np.zeros((1, 15, 4), "f")), "do not fit each other"),
    "R-scalar": (lambda m: tensor(m, "R", np.zeros((), "f")), "do not fit each other"),
    "R-empty": (
        lambda m: [
            tensor(m, "W", np.zeros((1, 0, 4), "f")),
            tensor(m, "R", np.zeros((1, 0, 0), "f")),
            tensor(m, "B", np.zeros((1, 0), "f")),
            attribute(m, "hidden_size", 0),
        ],
        "units|invalid value",
    ),
    "B-shape": (lambda m: tensor(m, "B", np.zeros((1, 15), "f")), "do not fit each other"),
    "W-type": (lambda m: tensor(m, "W", np.zeros(W, np.int32)), r"W \('W'\) must be of floats, got"),
    "types": (lambda m: tensor(m, "W", np.zeros(W)), "W, R and B must be of one type"),
    "W-nan": (lambda m: tensor(m, "W", np.full(W, np.nan, "f")), "W .* must be finite"),
    "W-computed": (lambda m: m.graph.initializer[0].__setattr__("name", "V"), r"W \('W'\) must be a con"),
    "W-missing": (lambda m: m.graph.node[0].input.__setitem__(1, ""), r"W \(''\) must be a constant"),
    "no-inputs": (lambda m: m.graph.node[0].ClearField("input"), "must be a constant of the file"),
    "R-short": (
        lambda m: m.graph.initializer[1].__setattr__("raw_data", b"123"),
        r"R \('R'\) of shape \(1, 15, 5\) needs 300 bytes, has 3",
    ),
    "R-negative": (lambda m: m.graph.initializer[1].dims.__setitem__(0, -1), "has the shape"),
    "R-huge": (lambda m: m.graph.initializer[1].dims.__setitem__(0, 2**62), "which the file cannot hold"),
    "R-large": (lambda m: m.graph.initializer[1].dims.__setitem__(0, 2**40), r"needs \d+ bytes, has 300"),
    "tensor-twice": (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "two values have the"),
    "tensor-computed": (
        lambda m: m.graph.node.append(helper.make_node("Neg", ["X"], ["W"])),
        "two values have the name 'W'",
    ),
    "node-twice": (
        lambda m: m.graph.node.append(helper.make_node("GRU", ["X", "W", "R"], ["Z"], "the_gru")),
        "two nodes have the name 'the_gru'",
    ),
    "opset-6": (lambda m: m.opset_import[0].__setattr__("version", 6), f"must be from 7 to {NEWEST}, got 6"),
    "opset-new": (
        lambda m: m.opset_import[0].__setattr__("version", NEWEST + 1),
        f"must be from 7 to {NEWEST}, got {NEWEST + 1}",
    ),
    "opset--1": (
        lambda m: m.opset_import[0].__setattr__("version", -1),
        f"must be from 7 to {NEWEST}, got -1",
    ),
    "opset-twice": (lambda m: m.opset_import.append(m.opset_import[0]), "must have the version of one opset"),
    "opset-missing": (lambda m: m.ClearField("opset_import"), "must have the version of one opset"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_is_refused_for_its(case, tmp_path):
    action, match = REFUSED[case]
    model = Gru().model()
    fastgru.from_onnx(model)
    action(model)
    refused(tmp_path / "model.onnx", model, match)


@pytest.mark.parametrize("shape", [(2, BATCH, UNITS), (1, BATCH, UNITS + 1), (BATCH, UNITS), (1, 0, UNITS)])
def test_a_constant_initial_state_of_another_shape_is_refused(shape):
    gru = Gru(initial_h=np.ones(shape, np.float32))
    if 0 in shape:  # nothing to start from, as in no batch
        assert fastgru.from_onnx(gru.model()).default_state is None
        return
    with pytest.raises(ValueError, match=r"initial_h must have the shape \(1, batch, 5\), got"):
        fastgru.from_onnx(gru.model())


def test_a_number_may_be_expanded_to_a_row():
    gru = Gru(initial_h="input")
    state = gru.h[0, :, :1]
    expand = helper.make_node("Expand", ["state", "shape"], ["initial_h"])
    tensors = {**gru.weights, "state": state, "shape": np.array([1, BATCH, UNITS])}
    model = gru.model([expand, gru.node()], [numpy_helper.from_array(a, name) for name, a in tensors.items()])
    del model.graph.input[1]
    gru.initial_h = np.broadcast_to(state, gru.h.shape)
    ours = onnx_results(fastgru.from_onnx(model), gru.x)
    assert_as_exact(ours, session(model).run(None, {"X": gru.x}), gru.equations())


def test_graphs_nested_without_end_are_refused():
    model = Gru().model()
    graph = model.graph
    for _ in range(40):
        branch = graph.node.add(op_type="If").attribute.add(
            name="then_branch", type=onnx.AttributeProto.GRAPH
        )
        graph = branch.g
        graph.name = "inner"
    with pytest.raises(ValueError, match="graphs are nested deeper than 32"):
        fastgru.from_onnx(model)


def test_weights_that_many_nodes_share_are_not_copied_beyond_measure(tmp_path):
    gru = Gru()
    tensors = [numpy_helper.from_array(a, name) for name, a in gru.weights.items()]
    tensors[0] = numpy_helper.from_array(np.zeros((1, 3 * UNITS, 10_000), "f"), "W")  # 600 kB
    path = tmp_path / "model.onnx"
    for count, sound in ((3, True), (40, False)):  # each is packed with room for 16 units, not 5
        nodes = [helper.make_node("GRU", ["X", "W", "R"], [f"Y{i}"], hidden_size=UNITS) for i in range(count)]
        model = gru.model(nodes, tensors, ["Y0"])
        path.write_bytes(model.SerializeToString())
        if sound:
            assert len(fastgru.load_all(path)) == count
        else:
            with pytest.raises(fastgru.FormatError, match="many GRU nodes share tensors"):
                fastgru.load_all(path)
            assert fastgru.load(path, "gru_39").units == UNITS


@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("producer", ["pytorch", "pytorch-lightning", "tf2onnx", ""])
def test_pytorch_files_without_linear_before_reset_are_warned_of(producer, reset_after):
    model = Gru(reset_after=reset_after).model(producer_name=producer, producer_version="2.9")
    warns = producer.startswith("pytorch") and not reset_after
    with (
        pytest.warns(UserWarning, match="linear_before_reset=0 and was written by pyt") if warns else quiet()
    ):
        assert fastgru.from_onnx(model).reset_after == reset_after


@contextlib.contextmanager
def quiet():
    """No warning at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_files_need_onnx_and_say_so(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(Gru().model().SerializeToString())
    layer = fastgru.load(path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name))
    with pytest.raises(ImportError, match=r"fastgru\[onnx\]"):
        fastgru.load(path)
    with pytest.raises(ImportError, match=r"fastgru\[onnx\]"):
        layer.to_onnx()


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_refused_or_read(seed, tmp_path):
    random = np.random.default_rng(seed)
    state = np.ones((1, 1, UNITS), "f")
    functions = [("HardSigmoid", 0.2, 0.4), ("Tanh",)]
    sound = Gru("reverse", initial_h=state, attributes=written(functions)).model().SerializeToString()
    path = tmp_path / "model.onnx"
    refusals = []
    for _ in range(150):
        data = bytearray(sound)
        for _ in range(random.integers(1, 4)):
            data[random.integers(len(data))] ^= 1 << random.integers(8)
        if random.integers(4) == 0:
            del data[random.integers(len(data)) :]
        path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fastgru.load_all(path)
        except fastgru.FormatError as error:
            refusals.append(str(error))
    assert refusals
    assert all(str(path) in reason for reason in refusals)


# ---- data beside the model -------------------------------------------------------------------


@pytest.fixture
def beside(tmp_path):
    """A model in a folder of its own whose weights are in files beside it: the node, the model, the path."""
    gru = Gru()
    model = gru.model()
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return gru, onnx.load(path, load_external_data=False), path


def locate(model, **entries):
    """Say where W is."""
    tensor = model.graph.initializer[0]
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


@pytest.mark.parametrize("relative", [False, True])
def test_weights_beside_the_model_are_found(beside, relative, monkeypatch):
    gru, _, path = beside
    if relative:
        monkeypatch.chdir(path.parent)
        path = path.name
    wanted = onnx_results(fastgru.from_onnx(gru.model()), gru.x)
    for ours, same in zip(onnx_results(fastgru.load(path), gru.x), wanted, strict=True):
        assert np.array_equal(ours, same)


def test_weights_may_be_in_a_folder_below_and_in_files_of_their_own(tmp_path):
    gru = Gru(opset=21)
    (tmp_path / "below").mkdir()
    model = gru.model()
    for tensor, array in zip(model.graph.initializer, gru.weights.values(), strict=True):
        (tmp_path / "below" / tensor.name).write_bytes(b"12" + array.tobytes() + b"3")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"below/{tensor.name}")
        tensor.external_data.add(key="offset", value="2")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    wanted = onnx_results(fastgru.from_onnx(gru.model()), gru.x)
    for ours, same in zip(onnx_results(fastgru.load(path), gru.x), wanted, strict=True):
        assert np.array_equal(ours, same)


def test_weights_beside_a_model_in_memory_are_out_of_reach(beside):
    _, model, _ = beside
    with pytest.raises(ValueError, match=r"lies in another file, 'weights\.bin': load the model by its path"):
        fastgru.from_onnx(model)


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({}, "which is no plain file beside the model"),
        ({"location": ""}, "which is no plain file beside the model"),
        ({"location": "."}, "which is no plain file beside the model"),
        ({"location": ".."}, "which is no plain file beside the model"),
        ({"location": "../outside.bin"}, "which is no plain file beside the model"),
        ({"location": "../model/weights.bin"}, "which is no plain file beside the model"),
        ({"location": "{outside}"}, "which is no plain file beside the model"),
        ({"location": "link.bin"}, "which is no plain file beside the model"),
        ({"location": "folder/outside.bin"}, "which is no plain file beside the model"),
        ({"location": "loop/loop"}, "model.onnx: "),
        ({"location": "pipe"}, "which is no plain file beside the model"),
        ({"location": "/dev/zero"}, "which is no plain file beside the model"),
        ({"location": "/proc/self/environ"}, "which is no plain file beside the model"),
        ({"location": "missing.bin"}, "which is no plain file beside the model"),
        ({"location": "weights.bin\0"}, "which is no plain file beside the model"),
        ({"location": "x" * 100_000}, "model.onnx: "),
        ({"location": "weights.bin", "offset": "100000"}, "needs 240 bytes, has 240 from 100000 on"),
        ({"location": "weights.bin", "offset": "-1"}, "has the offset or length '-1'"),
        ({"location": "weights.bin", "offset": "9" * 30}, "has the offset or length '9999"),
        ({"location": "weights.bin", "offset": "9" * 18}, "needs 240 bytes"),
        ({"location": "weights.bin", "offset": "1e3"}, "has the offset or length '1e3'"),
        ({"location": "weights.bin", "offset": "٣"}, "has the offset or length '٣'"),
        ({"location": "weights.bin", "length": "239"}, "needs 240 bytes, has 239 from 0"),
        ({"location": "weights.bin", "length": "9" * 18}, "needs 240 bytes, has 9999"),
        ({"location": "weights.bin", "length": ""}, "has the offset or length ''"),
    ],
)
def test_data_elsewhere_is_refused(beside, entries, match, monkeypatch):
    _, model, path = beside
    outside = path.parent.parent / "outside.bin"
    outside.write_bytes(bytes(10_000))
    (path.parent / "link.bin").symlink_to(outside)
    (path.parent / "folder").symlink_to(outside.parent)
    (path.parent / "loop").symlink_to("loop")
    os.mkfifo(path.parent / "pipe")  # who opens it waits for ever
    locate(model, **{key: value.format(outside=outside) for key, value in entries.items()})
    path.write_bytes(model.SerializeToString())
    opened = []
    original = type(path).open
    monkeypatch.setattr(
        type(path), "open", lambda self, *a, **k: opened.append(self.name) or original(self, *a, **k)
    )
    with pytest.raises(fastgru.FormatError, match=match):
        fastgru.load(path)
    assert set(opened) <= {"model.onnx", "weights.bin"}


def test_data_that_says_something_twice_is_refused(beside):
    _, model, path = beside
    model.graph.initializer[0].external_data.append(model.graph.initializer[0].external_data[0])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(
        fastgru.FormatError, match="must have each key of its external data once, got one twice"
    ):
        fastgru.load(path)


def test_data_that_claims_terabytes_is_refused(beside):
    _, model, path = beside
    model.graph.initializer[0].dims[2] = 2**40
    locate(model, location="weights.bin")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(fastgru.FormatError, match=r"needs 65970697666560 bytes"):
        fastgru.load(path)


# ---- PyTorch's exporter ----------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"bidirectional": True}, {"num_layers": 2}, {"bias": False}, {"batch_first": True}],
    ids=str,
)
def test_files_of_pytorch_s_exporter_agree_with_pytorch(options, dynamic):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.GRU(FEATURES, UNITS, **options).eval()
    model = exported(module, torch.randn(TIMESTEPS, BATCH, FEATURES), dynamic)
    layers = fastgru.from_onnx(model)
    layers = list(layers.values()) if isinstance(layers, dict) else [layers]
    assert len(layers) == module.num_layers
    assert all(layer.time_major for layer in layers)
    with torch.no_grad():
        x = torch.randn(TIMESTEPS, BATCH, FEATURES)
        theirs = [a.numpy() for a in module(x)]
    outputs, states = x.numpy(), []
    if module.batch_first:
        outputs = outputs.swapaxes(0, 1)
    for layer in layers:
        outputs, *last = layer(outputs) if layer.return_state else [layer(outputs)]
        states += last
    if module.batch_first:
        outputs = outputs.swapaxes(0, 1)
    np.testing.assert_allclose(outputs, theirs[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.stack(states), theirs[1], rtol=0, atol=1e-6)


def exported(module, x, dynamic):
    """The model that the older of PyTorch's exporters, which needs nothing else, writes."""
    import torch

    file = io.BytesIO()
    axes = {"x": {0: "t", 1: "b"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), file, dynamo=False, input_names=["x"], dynamic_axes=axes)
    return onnx.ModelProto.FromString(file.getvalue())


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_trained_initial_state_of_pytorch_comes_along(dynamic):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Started(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = torch.nn.GRU(FEATURES, UNITS)
            self.state = torch.nn.Parameter(torch.randn(1, 1, UNITS))

        def forward(self, x):
            return self.gru(x, self.state.expand(-1, x.shape[1], -1).contiguous())

    module = Started().eval()
    x = torch.randn(TIMESTEPS, BATCH, FEATURES)
    layer = fastgru.from_onnx(exported(module, x, dynamic))
    assert np.array_equal(layer.default_state, module.state.detach()[0])
    with torch.no_grad():
        theirs = module(x)
    np.testing.assert_allclose(layer(x.numpy())[0], theirs[0], rtol=0, atol=1e-6)


# ---- out -------------------------------------------------------------------------------------


def built(units=UNITS, bidirectional=None, backward=None, scale=0.5, **arguments):
    """A layer with random weights that returns sequences and states."""
    common = {"return_sequences": True, "return_state": True, "time_major": True, "name": "a_layer"}
    layer = fastgru.GRU(units, **common | arguments)
    if bidirectional is not None:
        other = None
        if backward is not None:
            other = fastgru.GRU(**{"units": units, "go_backwards": True} | common | arguments | backward)
        layer = fastgru.Bidirectional(layer, backward_layer=other, **bidirectional)
    layer.build((None, None, FEATURES))
    random = np.random.default_rng(0)
    layer.set_weights([random.normal(scale=scale, size=array.shape) for array in layer.weights])
    return layer


def assert_exported(layer, opset=14, states=None, batch=BATCH):
    """The model is sound, onnxruntime computes the layer with it, and it comes back with the same bits."""
    model = layer.to_onnx(opset, initial_state=states is not None)
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.node) == 1
    assert model.opset_import[0].version == opset
    again = fastgru.from_onnx(model)
    assert all(np.array_equal(a, b) for a, b in zip(again.weights, layer.weights, strict=True))
    x = np.random.default_rng(1).normal(size=(TIMESTEPS, batch, FEATURES)).astype(layer.dtype)
    feed = {"X": x} if states is None else {"X": x, "initial_h": np.stack(states)}
    ours, same = (onnx_results(each, x, None, states) for each in (layer, again))
    for our, equal in zip(ours, same, strict=True):
        assert np.array_equal(our, equal)
    if layer.dtype == "float32":
        for our, their in zip(ours, session(model).run(["Y", "Y_h"], feed), strict=True):
            np.testing.assert_allclose(our, their, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("direction", BACKWARDS)
@pytest.mark.parametrize("opset", [7, 14, 22])
def test_exports_run_in_onnxruntime(opset, direction, reset_after, use_bias):
    arguments = {"reset_after": reset_after, "use_bias": use_bias, "go_backwards": direction == "reverse"}
    assert_exported(built(bidirectional={} if direction == "bidirectional" else None, **arguments), opset)


EXPRESSIBLE = [
    *["tanh", "sigmoid", "relu", "softsign", "softplus", "linear", "hard_sigmoid", "keras3_hard_sigmoid"],
    *[
        "elu",
        "leaky_relu",
        "ReLU",
        "LeakyReLU",
        "ELU",
        "ThresholdedReLU",
        "HardSigmoid",
        "Affine",
        "ScaledTanh",
    ],
    {"class_name": "ReLU", "config": {"negative_slope": 0.125}},
    {"class_name": "LeakyReLU", "config": {"alpha": 0.05}},
    {"class_name": "ELU", "config": {"alpha": 0.7}},
    {"class_name": "ThresholdedReLU", "config": {"theta": 0.25}},
    {"class_name": "HardSigmoid", "config": {"alpha": 0.3, "beta": 0.4}},
    {"class_name": "HardSigmoid", "config": {"alpha": 0.3}},
    {"class_name": "Affine", "config": {"alpha": 0.3, "beta": 0.4}},
    {"class_name": "ScaledTanh", "config": {"alpha": 0.3, "beta": 0.4}},
]


@pytest.mark.parametrize("activation", EXPRESSIBLE, ids=str)
def test_activations_are_exported(choice, activation):
    assert_exported(built(activation=activation, reset_after=True))
    assert_exported(built(recurrent_activation=activation, activation="LeakyReLU", scale=0.15))


@pytest.mark.parametrize("activation", ["gelu", "softmax", "selu", "relu6", "swish", "exponential", "PReLU"])
def test_activations_that_onnx_has_not_are_refused(activation):
    for layer in (built(activation=activation), built(recurrent_activation=activation)):
        with pytest.raises(ValueError, match=r"ONNX' GRU has no activation .*: one of Relu, Tanh"):
            layer.to_onnx()


@pytest.mark.parametrize(
    "activation", [np.tanh, lambda x: x, {"class_name": "ReLU", "config": {"max_value": 1.0}}]
)
def test_functions_and_bounds_are_refused(activation):
    with pytest.raises(ValueError, match="ONNX' GRU has no activation"):
        built(activation=activation).to_onnx()


def test_directions_may_differ_in_what_the_node_has_twice():
    backward = {"activation": "LeakyReLU", "recurrent_activation": "sigmoid", "use_bias": False}
    layer = built(bidirectional={}, backward=backward, recurrent_activation="hard_sigmoid")
    model = layer.to_onnx()
    x = np.random.default_rng(1).normal(size=(TIMESTEPS, BATCH, FEATURES)).astype(np.float32)
    ours = onnx_results(layer, x)
    for our, their in zip(ours, session(model).run(None, {"X": x}), strict=True):
        np.testing.assert_allclose(our, their, rtol=2e-6, atol=2e-6)
    for our, equal in zip(ours, onnx_results(fastgru.from_onnx(model), x), strict=True):
        assert np.array_equal(our, equal)


def test_unmerged_directions_are_side_by_side_in_onnx():
    layer = built(bidirectional={"merge_mode": None})
    x = np.random.default_rng(1).normal(size=(TIMESTEPS, BATCH, FEATURES)).astype(np.float32)
    forward, backward, *_ = layer(x)
    theirs, _ = session(layer.to_onnx()).run(None, {"X": x})
    np.testing.assert_allclose(np.stack([forward, backward], 1), theirs, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("bidirectional", [None, {}])
def test_the_initial_state_is_an_input_on_request(bidirectional):
    layer = built(bidirectional=bidirectional)
    states = np.random.default_rng(2).normal(size=(1 if bidirectional is None else 2, BATCH, UNITS))
    assert_exported(layer, states=list(states.astype(np.float32)))
    assert [each.name for each in layer.to_onnx().graph.input] == ["X"]


@pytest.mark.parametrize("bidirectional", [None, {}])
@pytest.mark.parametrize("batch", [1, BATCH])
def test_a_default_state_is_a_constant_for_its_batch(batch, bidirectional):
    state = np.random.default_rng(2).normal(size=(batch, UNITS))
    layer = built(bidirectional=bidirectional, default_state=state)
    assert_exported(layer, batch=batch)
    states = [state.astype(np.float32) / 2] * (1 if bidirectional is None else 2)
    assert_exported(layer, states=states, batch=batch)  # a call's own comes before it


def test_one_direction_may_have_a_default_state():
    state = np.random.default_rng(2).normal(size=(BATCH, UNITS))
    assert_exported(built(bidirectional={}, backward={"default_state": state}))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("direction", BACKWARDS)
def test_other_types_are_exported(direction, dtype):
    arguments = {"go_backwards": direction == "reverse", "dtype": dtype}
    assert_exported(built(bidirectional={} if direction == "bidirectional" else None, **arguments))


@pytest.mark.parametrize(
    ("flags", "outputs"),
    [
        ({"return_sequences": True, "return_state": False}, ["Y"]),
        ({"return_sequences": False, "return_state": True}, ["Y_h"]),
        ({"return_sequences": False, "return_state": False}, ["Y_h"]),
    ],
)
def test_the_model_returns_what_the_layer_does(flags, outputs):
    layer = built(**flags)
    model = layer.to_onnx()
    assert [value.name for value in model.graph.output] == outputs
    x = np.random.default_rng(1).normal(size=(TIMESTEPS, BATCH, FEATURES)).astype(np.float32)
    (theirs,) = session(model).run(None, {"X": x})
    ours = layer(x)
    ours = ours[0] if isinstance(ours, list) else ours
    theirs = theirs[:, 0] if flags["return_sequences"] else theirs[0]
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6)


def test_a_layer_without_a_name_is_exported():
    layer = built(name="")
    assert fastgru.from_onnx(layer.to_onnx()).name == "gru_0"


@pytest.mark.parametrize("mode", ["sum", "mul", "ave"])
def test_merged_directions_are_refused(mode):
    with pytest.raises(ValueError, match=f"merge_mode='{mode}': merge them after it"):
        built(bidirectional={"merge_mode": mode}).to_onnx()


@pytest.mark.parametrize(
    ("backward", "match"),
    [
        ({"units": 2}, r"has one units for both directions, got \[5, 2\]"),
        ({"reset_after": True}, r"has one reset_after for both directions, got \[False, True\]"),
        ({"dtype": "float64"}, r"has one dtype for both directions, got \['float32', 'float64'\]"),
    ],
)
def test_directions_of_different_kind_are_refused(backward, match):
    with pytest.raises(ValueError, match=match):
        built(bidirectional={"merge_mode": None}, backward=backward).to_onnx()


def test_directions_the_other_way_round_are_refused():
    with pytest.raises(ValueError, match="goes forward first"):
        built(bidirectional={}, go_backwards=True).to_onnx()


@pytest.mark.parametrize("opset", [6, NEWEST + 1, -1, "14"])
def test_opsets_out_of_range_are_refused(opset):
    with pytest.raises(ValueError, match=f"opset must be from 7 to {NEWEST}, got"):
        built().to_onnx(opset)


@pytest.mark.parametrize("layer", [fastgru.GRU(2), fastgru.Bidirectional(fastgru.GRU(2))])
def test_layers_without_weights_are_refused(layer):
    with pytest.raises(ValueError, match="must be built to be exported: it has no weights yet"):
        layer.to_onnx()


def stacked(*layers, return_state=True):
    """A Stack with random weights, and what it reads, (timesteps, batch, features)."""
    stack = fastgru.Stack(layers, return_state, name="stack")
    stack.build((None, None, FEATURES))
    random = np.random.default_rng(0)
    stack.set_weights([random.normal(scale=0.5, size=array.shape) for array in stack.weights])
    return stack, random.normal(size=(TIMESTEPS, BATCH, FEATURES)).astype(np.float32)


def part(units, both=False, **arguments):
    layer = fastgru.GRU(units, **{"return_sequences": True, "time_major": True} | arguments)
    return fastgru.Bidirectional(layer) if both else layer


def run_as_stack(model, x, states=None):
    """Y as the Stack returns it, (timesteps, batch, units), and the last states one by one."""
    feed = {"X": x}
    if states is not None:
        for name, count in (
            (each.name, each.type.tensor_type.shape.dim[0].dim_value) for each in model.graph.input
        ):
            if name != "X":
                feed[name], states = np.stack(states[:count]), states[count:]
    y, *last = session(model).run(None, feed)
    return y.swapaxes(1, 2).reshape(*y.shape[:1], y.shape[2], -1), [row for array in last for row in array]


STACKS = {
    "two": lambda: [part(5), part(3)],
    "three of different kinds": lambda: [
        part(5, reset_after=True),
        part(4, both=True),
        part(2, activation="relu"),
    ],
    "both ways": lambda: [part(3, both=True), part(4, both=True)],
    "backwards below": lambda: [part(3, go_backwards=True), part(4)],
    "backwards in the middle": lambda: [part(3), part(4, go_backwards=True), part(2, both=True)],
    "names that are the same": lambda: [part(3, name="gru"), part(4, name="gru"), part(2, name="gru_1")],
    "states to start from": lambda: [
        part(3, default_state=np.ones((BATCH, 3))),
        part(4, default_state=[1, 2, 3, 4]),
    ],
}


@pytest.mark.parametrize("opset", [7, 9, 10, 13, 17, NEWEST])
@pytest.mark.parametrize("kind", STACKS)
def test_a_stack_is_exported_and_comes_back(tmp_path, kind, opset):
    stack, x = stacked(*STACKS[kind]())
    if opset < 10 and "backwards" in kind:
        with pytest.raises(
            ValueError, match="opset must be at least 10 for a layer that goes backwards below"
        ):
            stack.to_onnx(opset)
        return
    model = stack.to_onnx(opset)
    onnx.checker.check_model(model, full_check=True)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    again = fastgru.load(path)
    assert isinstance(again, fastgru.Stack)
    assert (again.name, again.return_state) == ("stack", True)
    y, *last = stack(x)
    for ours, same in zip([y, *last], again(x), strict=True):
        assert np.array_equal(ours, same)
    names = [layer.name for layer in fastgru.load_all(path).values()]
    assert names == list(fastgru.from_onnx(model)) == [layer.name for layer in again.layers]
    assert len(set(names)) == len(stack.layers)
    if opset <= 22:  # what this onnxruntime knows
        theirs, ends = run_as_stack(model, x)
        for ours, their in zip([y, *last], [theirs, *ends], strict=True):
            np.testing.assert_allclose(ours, their, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("kind", ["two", "three of different kinds", "states to start from"])
def test_states_of_a_stack_are_inputs_on_request(kind):
    stack, x = stacked(*STACKS[kind]())
    random = np.random.default_rng(2)
    states = [random.normal(size=(BATCH, one.units)).astype(np.float32) for one in stack._parts]
    model = stack.to_onnx(initial_state=True)
    names = [layer.name for layer in stack.layers]
    assert [each.name for each in model.graph.input] == ["X", *(f"{name}/initial_h" for name in names)]
    assert [each.name for each in model.graph.output] == ["Y", *(f"{name}/Y_h" for name in names)]
    y, *last = stack(x, states)
    theirs, ends = run_as_stack(model, x, states)
    for ours, their in zip([y, *last], [theirs, *ends], strict=True):
        np.testing.assert_allclose(ours, their, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("return_state", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_a_stack_comes_back_with_what_it_returns(tmp_path, return_sequences, return_state):
    last = part(3, return_sequences=return_sequences)
    stack, _ = stacked(part(5), last, return_state=return_state)
    path = tmp_path / "model.onnx"
    onnx.save(stack.to_onnx(), path)
    again = fastgru.load(path)
    if return_sequences or return_state:
        assert again.return_state == return_state
    assert again.layers[-1].return_sequences == return_sequences


def test_a_stack_of_different_types_is_refused():
    stack, _ = stacked(part(5), part(3, dtype="float64"))
    with pytest.raises(ValueError, match=r"one dtype for all layers, got \['float32', 'float64'\]"):
        stack.to_onnx()
    stack, _ = stacked(fastgru.Bidirectional(part(5), merge_mode="sum"), part(3))
    with pytest.raises(ValueError, match="merge_mode='sum': merge them after it"):
        stack.to_onnx()


@pytest.mark.parametrize("change", ["read twice", "returned", "between", "another axis"])
def test_layers_with_something_between_them_are_no_stack(tmp_path, change):
    stack, _ = stacked(part(5), part(3))
    model, path = stack.to_onnx(), tmp_path / "model.onnx"
    graph = model.graph
    name = stack.layers[0].name
    if change == "read twice":
        graph.node.append(helper.make_node("Neg", [f"{name}/Y"], ["minus"]))
    elif change == "returned":
        graph.output.append(helper.make_tensor_value_info(f"{name}/Y", TensorProto.FLOAT, None))
    elif change == "between":
        graph.node.insert(2, helper.make_node("Neg", [f"{name}/outputs"], ["minus"]))
        graph.node[3].input[0] = "minus"
    else:
        graph.node.insert(2, helper.make_node("Transpose", [f"{name}/outputs"], ["turned"], perm=[1, 0, 2]))
        graph.node[3].input[0] = "turned"
    onnx.save(model, path)
    with pytest.raises(ValueError, match="layer must be one of"):
        fastgru.load(path)
    assert len(fastgru.load_all(path)) == 2


def test_exports_of_any_layer_come_back_with_the_same_bits(tmp_path, choice):
    path = tmp_path / "model.onnx"
    x = np.random.default_rng(1).normal(size=(TIMESTEPS, BATCH, FEATURES)).astype(np.float32)
    layers = [built(), built(go_backwards=True, reset_after=True), built(bidirectional={}, use_bias=False)]
    for layer in layers:
        onnx.save(layer.to_onnx(), path)
        for ours, same in zip(layer(x), fastgru.load(path)(x), strict=True):
            assert np.array_equal(ours, same)
