"""GRUs that are loops in ONNX: those that tf2onnx writes, and such as it might write, against onnxruntime."""

import warnings

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastgru

TIMESTEPS, BATCH, FEATURES, UNITS = 7, 3, 4, 5
TOLERANCE = 3e-5
OPSETS = [10, 11, 12, 13, 15, 17, 18]  # 18 is the newest that tf2onnx writes
ACTIVATIONS = [
    *("tanh", "sigmoid", "relu", "elu", "selu", "softsign", "softplus", "linear"),
    *("swish", "hard_sigmoid", "exponential", "softmax", "relu6", "mish", "leaky_relu"),
]


def run(model, feed):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feed)


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * max(1, np.abs(theirs).max()))


# ---- what tf2onnx writes -----------------------------------------------------------------------


def converted(model, opset, *shapes):
    """What tf2onnx makes of a model of Keras."""
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tf2onnx

        inputs = [
            tf.TensorSpec(shape, tf.float32, name=name)
            for name, shape in zip(model.input_names, shapes, strict=True)
        ]
        signature = [inputs] if len(inputs) > 1 else inputs
        made, _ = tf2onnx.convert.from_keras(model, input_signature=signature, opset=opset)
    return made


def with_weights(model, rng):
    """The model, with random weights."""
    for weight in model.weights:
        weight.assign(rng.normal(scale=0.4, size=weight.shape))
    return model


def versions(keras):
    """The layers of Keras 1 and 2."""
    from tf_keras.src.layers.rnn.gru_v1 import GRU as FIRST

    return [FIRST, keras.layers.GRU]


def read(model):
    """The layers of a model by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fastgru.from_onnx(model)
    return found if isinstance(found, dict) else {found.name: found}


def assert_same(ours, theirs):
    """A layer that was read is that of Keras, bit for bit."""
    for our, their in zip(ours.weights, theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(our, their)
    config = theirs.get_config()
    for key in ("reset_after", "use_bias", "go_backwards", "units"):
        assert getattr(ours, key) == config[key], key
    for key in ("activation", "recurrent_activation"):
        assert fastgru.activations.serialize(getattr(ours, key)) == config[key]


def random_options(rng):
    """Arguments of a layer that is no GRU node."""
    options = {
        "activation": str(rng.choice(ACTIVATIONS[:9])),
        "recurrent_activation": str(rng.choice(["sigmoid", "hard_sigmoid", "softsign", "relu6"])),
        "reset_after": bool(rng.integers(2)),
        "use_bias": bool(rng.integers(4)),
        "go_backwards": bool(rng.integers(2)),
        "return_sequences": bool(rng.integers(4)),
        "return_state": bool(rng.integers(2)),
        "implementation": int(rng.integers(1, 3)),
    }
    if rng.integers(2):
        options["zero_output_for_mask"] = bool(rng.integers(2))
    return options


@pytest.mark.parametrize("seed", range(8))
def test_what_tf2onnx_writes_is_read(keras, seed):
    rng = np.random.default_rng(seed)
    options, is_masked, is_fixed = random_options(rng), rng.integers(2), not rng.integers(4)
    is_given = bool(rng.integers(2))
    opset = int(rng.choice(OPSETS[1:] if is_masked else OPSETS))  # 10 has no Equal of floats: masks differ
    made = versions(keras)[rng.integers(2)]
    print(f"seed {seed}: {made.__module__} {options}, opset {opset}, {is_masked=}, {is_fixed=}, {is_given=}")
    sizes = (BATCH, TIMESTEPS) if is_fixed else (None, None)
    keras.backend.clear_session()
    x, state = keras.Input((sizes[1], FEATURES), sizes[0]), keras.Input((UNITS,), sizes[0])
    layer = made(UNITS, **options)
    inputs = [x, state] if is_given else [x]
    outputs = layer(keras.layers.Masking()(x) if is_masked else x, initial_state=inputs[1:] or None)
    model = with_weights(keras.Model(inputs, outputs), rng)
    shapes = [(*sizes, FEATURES), (sizes[0], UNITS)][: len(inputs)]
    written = converted(model, opset, *shapes)
    kinds = {node.op_type for node in written.graph.node}

    values = [
        rng.normal(size=(BATCH, TIMESTEPS, FEATURES)).astype(np.float32),
        rng.normal(size=(BATCH, UNITS)).astype(np.float32),
    ][: len(inputs)]
    mask = rng.random((BATCH, TIMESTEPS)) < 0.6 if is_masked else np.ones((BATCH, TIMESTEPS), bool)
    values[0][~mask] = 0
    original = model(values if is_given else values[0])
    original = [np.array(one) for one in (original if isinstance(original, (list, tuple)) else [original])]
    feed = dict(zip((value.name for value in written.graph.input), values, strict=True))
    for theirs, mine in zip(run(written, feed), original, strict=True):
        assert_close(theirs, mine)

    ((name, read_layer),) = read(written).items()
    if "Loop" in kinds:
        assert_same(read_layer, layer)
        assert "while_loop" in name
    read_layer.return_sequences = read_layer.return_state = True
    given = {"mask": mask.T} if is_masked else {}
    y, last = read_layer(values[0].swapaxes(0, 1), *values[1:], **given)
    ours = [y.swapaxes(0, 1) if options["return_sequences"] else y[-1], last][: len(original)]
    for mine, theirs in zip(ours, original, strict=True):
        assert_close(mine, theirs)


def test_every_activation_is_recognised(keras):
    rng = np.random.default_rng(0)
    keras.backend.clear_session()
    x = keras.Input((None, FEATURES))
    first, second = versions(keras)
    layers = []
    for number in range(0, len(ACTIVATIONS), 2):
        name, recurrent = ACTIVATIONS[number], ACTIVATIONS[number - 1]
        made, reset_after = (first, second)[number // 2 % 2], bool(number // 4 % 2)
        layers.append(made(UNITS, activation=name, recurrent_activation=recurrent, reset_after=reset_after))
    model = with_weights(keras.Model(x, [layer(x) for layer in layers]), rng)
    found = read(converted(model, 15, (None, None, FEATURES)))
    assert len(found) == len(layers)
    by_name = {name.split("/")[1]: layer for name, layer in found.items()}
    values = rng.normal(size=(BATCH, 3, FEATURES)).astype(np.float32)
    for layer, exact in zip(layers, model(values), strict=True):
        assert_same(by_name[layer.name], layer)
        assert_close(by_name[layer.name](values.swapaxes(0, 1))[-1], np.array(exact))


def test_directions_of_a_bidirectional_are_two_layers(keras):
    rng = np.random.default_rng(1)
    keras.backend.clear_session()
    x = keras.Input((None, FEATURES))
    inner = versions(keras)[0](UNITS, return_sequences=True, go_backwards=False)
    layer = keras.layers.Bidirectional(inner, merge_mode=None)
    model = with_weights(keras.Model(x, layer(keras.layers.Masking()(x))), rng)
    forward, backward = read(converted(model, 13, (None, None, FEATURES))).values()
    assert_same(forward, layer.forward_layer)
    assert_same(backward, layer.backward_layer)
    values = rng.normal(size=(BATCH, TIMESTEPS, FEATURES)).astype(np.float32)
    mask = rng.random((BATCH, TIMESTEPS)) < 0.6
    values[~mask] = 0
    for ours, exact, step in zip((forward, backward), model(values), (1, -1), strict=True):
        assert_close(ours(values.swapaxes(0, 1), mask=mask.T)[::step].swapaxes(0, 1), np.array(exact))


def test_loops_and_gru_nodes_of_one_file_are_all_read(keras, tmp_path):
    rng = np.random.default_rng(2)
    keras.backend.clear_session()
    x = keras.Input((None, FEATURES))
    y = keras.layers.GRU(UNITS, return_sequences=True, name="node")(x)
    z = keras.layers.GRU(UNITS, recurrent_activation="hard_sigmoid", name="loop")(y)
    model = with_weights(keras.Model(x, z), rng)
    written = converted(model, 13, (None, None, FEATURES))
    (tmp_path / "model.onnx").write_bytes(written.SerializeToString())
    first, second = fastgru.load_all(tmp_path / "model.onnx").values()
    values = rng.normal(size=(BATCH, TIMESTEPS, FEATURES)).astype(np.float32)
    assert_close(second(first(values.swapaxes(0, 1)))[-1], np.array(model(values)))


# ---- what it might write -----------------------------------------------------------------------


class Built:
    """A loop that is put together, whose nodes can be replaced by name before it is written.

    Parameters
    ----------
    kind : str
        Loop or Scan.
    reset_after : bool
    mask : str or None
        "zeros" or "before", which is returned where it is not true.
    seed : int
        Of weights.

    Attributes
    ----------
    nodes : dict
        Operators, inputs and attributes of the body's nodes, by the name of the output.
    outside : dict
        Those of the graph's.
    tensors : dict
        Constants.
    """

    def __init__(self, kind="Loop", reset_after=False, mask=None, seed=0):
        rng = np.random.default_rng(seed)
        self.kind, self.mask, self.reset_after = kind, mask, reset_after
        self.attributes = {"num_scan_inputs": 2 if mask else 1} if kind == "Scan" else {}
        self.tensors = {"one": np.float32(1), "first": np.int64(0), "by": np.int64(1)}
        for gate in "zrc":
            self.tensors[f"W{gate}"] = rng.normal(scale=0.4, size=(FEATURES, UNITS)).astype(np.float32)
            self.tensors[f"U{gate}"] = rng.normal(scale=0.4, size=(UNITS, UNITS)).astype(np.float32)
            self.tensors[f"b{gate}"] = rng.normal(scale=0.4, size=UNITS).astype(np.float32)
            self.tensors[f"d{gate}"] = rng.normal(scale=0.4, size=UNITS).astype(np.float32)
        self.tensors["columns"] = np.array([UNITS])
        self.outside = {
            "shape": ("Shape", ["X"]),
            "steps": ("Gather", ["shape", "first"]),
            "batch": ("Slice", ["shape", "from 1", "to 2"]),
            "rows": ("Concat", ["batch", "columns"], {"axis": 0}),
            "H": ("ConstantOfShape", ["rows"]),
        }
        self.tensors |= {"from 1": np.array([1]), "to 2": np.array([2])}
        self.nodes = {"going": ("Identity", ["condition"])} if kind == "Loop" else {}
        if kind == "Loop":
            self.nodes["x"] = ("Gather", ["X", "i"])
        for gate in "zr":
            self.nodes |= {
                f"x{gate}": ("MatMul", ["x", f"W{gate}"]),
                f"xb{gate}": ("Add", [f"x{gate}", f"b{gate}"]),
                f"h{gate}": ("MatMul", ["h", f"U{gate}"]),
                f"hb{gate}": ("Add", [f"h{gate}", f"d{gate}"]),
                f"s{gate}": ("Add", [f"xb{gate}", f"hb{gate}" if reset_after else f"h{gate}"]),
                gate: ("Sigmoid", [f"s{gate}"]),
            }
        self.nodes |= {"xc": ("MatMul", ["x", "Wc"]), "xbc": ("Add", ["xc", "bc"])}
        if reset_after:
            self.nodes |= {
                "hc": ("MatMul", ["h", "Uc"]),
                "hbc": ("Add", ["hc", "dc"]),
                "rh": ("Mul", ["r", "hbc"]),
            }
        else:
            self.nodes |= {"let": ("Mul", ["r", "h"]), "rh": ("MatMul", ["let", "Uc"])}
        self.nodes |= {
            "sc": ("Add", ["xbc", "rh"]),
            "c": ("Tanh", ["sc"]),
            "rest": ("Sub", ["one", "z"]),
            "new": ("Mul", ["rest", "c"]),
            "kept": ("Mul", ["z", "h"]),
            "cell": ("Add", ["kept", "new"]),
        }
        self.carried = {"h": ("H", "next")}
        if mask:
            if kind == "Loop":
                self.nodes["m"] = ("Gather", ["M", "i"])
            self.nodes["next"] = ("Where", ["m", "cell", "h"])
            self.nodes["y"] = ("Where", ["m", "cell", "before" if mask == "before" else "H"])
            if mask == "before":
                self.carried["before"] = ("H", "y")
        else:
            self.nodes |= {"next": ("Identity", ["cell"]), "y": ("Identity", ["cell"])}
        self.trips, self.condition = "steps", ""
        self.returned = ["y"]
        self.inputs = {"X": [None, None, FEATURES]} | ({"M": [None, None, 1]} if mask else {})
        self.given = {}

    def model(self, opset=17):
        def made(nodes):
            return [
                helper.make_node(kind, inputs, [name], f"node {name}", **(more[0] if more else {}))
                for name, (kind, inputs, *more) in nodes.items()
            ]

        def value(name, kind=TensorProto.FLOAT, shape=None):
            return helper.make_tensor_value_info(name, kind, shape)

        types = [TensorProto.INT64 if name == "t" else TensorProto.FLOAT for name in self.carried]
        afters = [value(each[1], kind) for each, kind in zip(self.carried.values(), types, strict=True)]
        written = [value(f"{name} written") for name in self.returned]
        copies = [helper.make_node("Identity", [name], [f"{name} written"]) for name in self.returned]
        inside = [value(name, kind) for name, kind in zip(self.carried, types, strict=True)]
        first = [first for first, _ in self.carried.values()]
        if self.kind == "Loop":
            inside = [value("i", TensorProto.INT64, []), value("condition", TensorProto.BOOL, []), *inside]
            afters = [value("going", TensorProto.BOOL, []), *afters]
            inputs = [self.trips, self.condition, *first]
        else:
            inside += [value("x"), *([value("m", TensorProto.BOOL)] if self.mask else [])]
            inputs = [*first, "X", *(["M"] if self.mask else [])]
        body = helper.make_graph(made(self.nodes) + copies, "body", inside, afters + written)
        outputs = [f"{name} last" for name in self.carried] + [f"Y{i}" for i in range(len(self.returned))]
        loop = helper.make_node(self.kind, inputs, outputs, "loop", body=body, **self.attributes)
        kinds = {"M": TensorProto.BOOL}
        shown = [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)
            for name, shape in (self.inputs | self.given).items()
        ]
        graph = helper.make_graph(
            [*made(self.outside), loop],
            "graph",
            shown,
            [value("Y0"), value("h last")],
            [numpy_helper.from_array(np.asarray(array), name) for name, array in self.tensors.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def assert_read(built, **more):
    """The layer of a loop computes what onnxruntime does; the layer."""
    model = built.model(**more)
    (layer,) = read(model).values()
    rng = np.random.default_rng(5)
    x = rng.normal(size=(TIMESTEPS, BATCH, FEATURES)).astype(np.float32)
    mask = rng.random((TIMESTEPS, BATCH)) < 0.6
    mask[0, 0] = False
    feed = {"X": np.moveaxis(x, (0, 1), (0, 1) if layer.time_major else (1, 0))}
    given = {}
    if built.mask:
        feed["M"] = (mask if layer.time_major else mask.T)[..., None]
        given = {"mask": mask if layer.time_major else mask.T}
    assert (layer.name, layer.return_sequences, layer.return_state) == ("loop", True, True)
    theirs = run(model, feed)
    ours = layer(feed["X"], **given)
    for mine, exact in zip(ours, theirs, strict=True):
        assert_close(mine, exact)
    return layer


@pytest.mark.parametrize("kind", ["Loop", "Scan"])
@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("mask", [None, "zeros", "before"])
def test_a_loop_that_is_a_gru_is_read(kind, reset_after, mask):
    layer = assert_read(Built(kind, reset_after, mask))
    assert layer.reset_after is reset_after
    if mask:
        assert layer.zero_output_for_mask is (mask == "zeros")


def swapped(built):
    """With the operands of all sums and products in the other order."""
    built.nodes |= {
        name: (kind, inputs[::-1], *more)
        for name, (kind, inputs, *more) in built.nodes.items()
        if kind in ("Add", "Mul")
    }


def lines(operators):
    """With gates that are hard sigmoids, by these operators behind the line."""

    def change(built):
        built.tensors |= {"fifth": np.float32(0.2), "half": np.float32(0.5), "zero": np.float32(0)}
        bounds = {"Min": ["one"], "Max": ["zero"], "Clip": ["zero", "one"]}
        for gate in "zr":
            sums = f"s{gate}"
            built.nodes |= {f"m{gate}": ("Mul", [sums, "fifth"]), f"a{gate}": ("Add", [f"m{gate}", "half"])}
            names = [f"a{gate}", *(f"{operator}{gate}" for operator in operators[:-1]), gate]
            for operator, of, name in zip(operators, names[:-1], names[1:], strict=True):
                built.nodes.pop(name, None)
                built.nodes[name] = (operator, [of, *bounds[operator]])
        for name in ("hc", "hbc", "let", "rh", "sc", "c", "rest", "new", "kept", "cell", "next", "y"):
            if name in built.nodes:
                built.nodes[name] = built.nodes.pop(name)

    return change


def gemm(built):
    for gate in "zr":
        built.tensors[f"W{gate}"] = built.tensors[f"W{gate}"].T.copy()
        built.nodes[f"xb{gate}"] = ("Gemm", ["x", f"W{gate}", f"b{gate}"], {"transB": 1})
        del built.nodes[f"x{gate}"]


def masked_by_products(built):
    if not built.mask:
        return
    old = built.nodes["y"][1][2]
    built.nodes |= {
        "not m": ("Not", ["m"]),
        "there": ("Cast", ["m"], {"to": 1}),
        "gone": ("Cast", ["not m"], {"to": 1}),
        "there cell": ("Mul", ["there", "cell"]),
        "gone h": ("Mul", ["h", "gone"]),
        "gone y": ("Mul", [old, "gone"]),
    }
    del built.nodes["next"], built.nodes["y"]
    built.nodes["next"] = ("Add", ["there cell", "gone h"])
    built.nodes["y"] = ("Add", ["gone y", "there cell"])


def counting(built):
    """A loop with a counter and a condition of its own, as tf2onnx writes it."""
    if built.kind == "Scan":
        return
    built.trips, built.condition = "", "any"
    built.outside |= {"any": ("Less", ["first", "steps"])}
    built.carried = {"t": ("first", "t + 1")} | built.carried
    built.nodes = {"t + 1": ("Add", ["t", "by"])} | built.nodes
    built.nodes["going"] = ("Less", ["t + 1", "steps"])
    for name in ("x", "m"):
        if name in built.nodes:
            built.nodes[name] = ("Gather", [built.nodes[name][1][0], "t"])


VARIANTS = {
    "operands in the other order": swapped,
    "Min and Max": lines(["Min", "Max"]),
    "Max and Min": lines(["Max", "Min"]),
    "Clip": lines(["Clip"]),
    "Gemm": gemm,
    "a mask of products": masked_by_products,
    "a counter": counting,
}


@pytest.mark.parametrize("seed", range(10))
def test_variants_of_a_loop_are_read(seed):
    rng = np.random.default_rng(seed)
    names = [name for name in VARIANTS if rng.integers(2)]
    if "Min and Max" in names:
        names = [name for name in names if name not in ("Max and Min", "Clip")]
    if "Max and Min" in names:
        names = [name for name in names if name != "Clip"]
    kind, reset_after = str(rng.choice(["Loop", "Scan"])), bool(rng.integers(2))
    mask = [None, "zeros", "before"][rng.integers(3)]
    print(f"seed {seed}: {kind}, {reset_after=}, {mask=}, {names}")
    built = Built(kind, reset_after, mask, seed)
    for name in names:
        VARIANTS[name](built)
    assert_read(built)


def test_a_scan_may_be_batch_major_and_go_backward():
    built = Built("Scan")
    built.attributes |= {"scan_input_axes": [1], "scan_output_axes": [1], "scan_input_directions": [1]}
    built.outside["batch"] = ("Slice", ["shape", "to 0", "from 1"])
    built.tensors["to 0"] = np.array([0])
    layer = assert_read(built)
    assert (layer.time_major, layer.go_backwards) == (False, True)


@pytest.mark.parametrize("rows", [1, BATCH])
def test_a_first_state_that_is_a_constant_is_the_layer_s(rows):
    built = Built()
    del built.outside["H"]
    built.tensors["H"] = np.random.default_rng(3).normal(size=(rows, UNITS)).astype(np.float32)
    if rows == 1:
        built.outside["rows"] = ("Concat", ["batch", "columns"], {"axis": 0})
        built.tensors["row"] = built.tensors.pop("H")
        built.outside["H"] = ("Expand", ["row", "rows"])
    layer = assert_read(built)
    np.testing.assert_array_equal(layer.default_state, built.tensors["row" if rows == 1 else "H"])


def test_a_first_state_that_is_an_input_is_the_caller_s():
    built = Built()
    del built.outside["H"]
    built.given["H"] = [None, UNITS]
    (layer,) = read(built.model()).values()
    rng = np.random.default_rng(4)
    x, h = (
        rng.normal(size=shape).astype(np.float32) for shape in ((TIMESTEPS, BATCH, FEATURES), (BATCH, UNITS))
    )
    for ours, theirs in zip(layer(x, h), run(built.model(), {"X": x, "H": h}), strict=True):
        assert_close(ours, theirs)


def test_a_loop_in_a_function_is_read():
    built = Built(mask="before")
    model = built.model()
    names = [*built.tensors, *built.inputs]
    function = helper.make_function(
        "own", "layer", names, ["Y0", "h last"], [*model.graph.node], [helper.make_opsetid("", 17)]
    )
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("layer", names, ["Y0", "h last"], "called", domain="own"))
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    (name, layer), (_, plain) = *read(model).items(), *read(built.model()).items()
    assert name == "called/loop"
    x = np.random.default_rng(6).normal(size=(TIMESTEPS, BATCH, FEATURES)).astype(np.float32)
    for ours, theirs in zip(layer(x), plain(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("is_scan", [False, True])
def test_a_loop_that_returns_its_state_alone_is_a_layer_without_sequences(is_scan):
    built = Built("Scan" if is_scan else "Loop")
    built.returned = []
    model = built.model()
    del model.graph.output[0]
    (layer,) = read(model).values()
    assert (layer.return_sequences, layer.return_state) == (False, False)
    x = np.random.default_rng(7).normal(size=(TIMESTEPS, BATCH, FEATURES)).astype(np.float32)
    assert_close(layer(x), run(model, {"X": x})[0])


def test_beside_a_loop_that_is_read_another_one_is_a_warning():
    first, second = Built().model(), Built()
    second.nodes["c"] = ("Sin", ["sc"])
    node = second.model().graph.node[-1]
    node.name = "other"
    node.output[:] = ["other last", "other Y"]
    first.graph.node.append(node)
    with pytest.warns(UserWarning, match="other: a Loop that is not read as a GRU: the node 'node c'"):
        assert fastgru.from_onnx(first).name == "loop"


# ---- near misses -------------------------------------------------------------------------------


def by(**changes):
    """A change that replaces nodes of the body."""

    def change(built):
        built.nodes |= changes

    return change


def fixed_trips(built):
    built.tensors["steps"] = np.int64(TIMESTEPS)
    del built.outside["steps"]


def one_trip_less(built):
    built.outside["fewer"] = ("Sub", ["steps", "by"])
    built.trips = "fewer"


def trips_of_the_batch(built):
    built.outside["steps"] = ("Gather", ["shape", "by"])


def counter(**changes):
    """A change of a loop that counts on its own."""

    def change(built):
        counting(built)
        built.nodes |= changes

    return change


def counter_from_one(built):
    counting(built)
    built.carried["t"] = ("by", "t + 1")


def counter_by_two(built):
    counting(built)
    built.tensors["two"] = np.int64(2)
    built.nodes["t + 1"] = ("Add", ["t", "two"])


def counter_of_bytes(built):
    counting(built)
    built.nodes["byte"] = ("Cast", ["t + 1"], {"to": 3})
    built.nodes["going"] = ("Less", ["byte", "steps"])


def begun_by_a_condition(built):
    counting(built)
    built.outside["any"] = ("Less", ["by", "steps"])


def bias_of_the_call(built):
    built.given["bz"] = [UNITS]
    del built.tensors["bz"]


def matrix_of_the_call(built):
    built.given["Uz"] = [UNITS, UNITS]
    del built.tensors["Uz"]


def bias_of_each_row(built):
    built.tensors["bz"] = np.ones((BATCH, UNITS), np.float32)


def two_states(built):
    built.carried["g"] = ("H", "other")
    built.nodes["other"] = ("Identity", ["kept"])


def output_of_a_layer(built):
    built.nodes["y"] = ("MatMul", ["cell", "Uz"])


def turned_by_a_constant(built):
    built.tensors["lengths"] = np.array([TIMESTEPS] * BATCH)
    built.outside["turned"] = ("ReverseSequence", ["X", "lengths"])
    built.nodes["x"] = ("Gather", ["turned", "i"])


def mask_of_units(built):
    built.inputs["M"] = [None, None, UNITS]


def mask_turned_alone(built):
    built.tensors |= {"0": np.array([0]), "1": np.array([1])}
    built.outside |= {
        "of mask": ("Shape", ["M"]),
        "wide": ("Expand", ["all steps", "all rows"]),
        "turned": ("ReverseSequence", ["M", "wide"], {"time_axis": 0, "batch_axis": 1}),
    }
    for name, number in (("all steps", "0"), ("all rows", "1")):
        built.outside = {name: ("Gather", ["of mask", number]), **built.outside}
    built.outside = {"of mask": built.outside.pop("of mask"), **built.outside}
    built.nodes["m"] = ("Gather", ["turned", "i"])


def mask_begins_with(name):
    """A change of what is returned before the first true step."""

    def change(built):
        built.tensors["other"] = np.ones((BATCH, UNITS), np.float32)
        if name == "ones":
            built.carried["before"] = ("other", "y")

    return change


def scan(**attributes):
    """A change of a Scan."""

    def change(built):
        built.attributes |= attributes

    return change


MISSES = {
    "a sequence written along another axis": (
        {"kind": "Scan"},
        scan(scan_input_axes=[1], scan_output_axes=[0]),
        "one axis",
    ),
    "a mask that goes in the opposite direction": (
        {"kind": "Scan", "mask": "zeros"},
        scan(scan_input_directions=[0, 1]),
        "one direction",
    ),
    "a sequence written backward": (
        {"kind": "Scan"},
        scan(scan_output_directions=[1]),
        "returns sequences backward",
    ),
    "a counter of few bits": ({}, counter_of_bytes, "'node byte'"),
    "a constant number of trips": ({}, fixed_trips, "number of trips"),
    "one trip less": ({}, one_trip_less, "number of trips"),
    "as many trips as rows": ({}, trips_of_the_batch, "number of trips"),
    "a counter that ends later": ({}, counter(going=("Less", ["t", "steps"])), "condition"),
    "a counter that begins with 1": ({}, counter_from_one, "no|does nothing|must carry"),
    "a counter by two": ({}, counter_by_two, "does not count steps"),
    "a counter that stays": ({}, counter(**{"t + 1": ("Identity", ["t"])}), "does not count steps"),
    "no trip for a single step": ({}, begun_by_a_condition, "number of trips"),
    "a step of the other axis": ({}, by(x=("Gather", ["X", "i"], {"axis": 1})), "'node x'"),
    "the step after": ({}, counter(x=("Gather", ["X", "t + 1"])), "'node x'"),
    "a bias of the call": ({}, bias_of_the_call, "'node xbz'"),
    "a matrix of the call": ({}, matrix_of_the_call, "'node hz'"),
    "a bias of each row": ({}, bias_of_each_row, "'node xbz'"),
    "gates swapped": ({}, by(rest=("Sub", ["one", "r"])), "'node cell'"),
    "the candidate kept": (
        {},
        by(new=("Mul", ["z", "c"]), kept=("Mul", ["rest", "h"])),
        "'node new'|'node kept'",
    ),
    "1 + z": ({}, by(rest=("Add", ["one", "z"])), "'node rest'"),
    "2 - z": ({}, by(rest=("Sub", ["by two", "z"])), "'node rest'"),
    "gates of two activations": ({}, by(r=("Tanh", ["sr"])), "two activations"),
    "a reset gate without the state": ({}, by(sr=("Add", ["xbr", "xr"])), "reset gate"),
    "an update gate of the candidate's input": (
        {},
        by(sz=("Add", ["xbz", "rh"])),
        "not computed from its state",
    ),
    "no reset gate": ({}, by(rh=("MatMul", ["h", "Uc"])), "no reset gate"),
    "a reset gate of another state": (
        {},
        by(let=("Mul", ["r", "c"])),
        "a value depends on itself|'node let'",
    ),
    "a state that is not the next": ({}, by(next=("Identity", ["kept"])), "one state"),
    "a state that stays": ({}, by(next=("Identity", ["h"])), "one state"),
    "another output": ({}, by(y=("Identity", ["c"])), "not the sequence"),
    "the state before": ({}, by(y=("Identity", ["h"])), "not the sequence"),
    "a Dense in the loop": ({}, output_of_a_layer, "'node y'"),
    "two values": ({}, two_states, "besides the state"),
    "a sequence turned in part": ({}, turned_by_a_constant, "reverse all of the steps"),
    "an activation that is none": ({}, by(c=("Sin", ["sc"])), "'node c'"),
    "a mask of units": ({"mask": "zeros"}, mask_of_units, "mask"),
    "a mask turned alone": ({"mask": "zeros"}, mask_turned_alone, "opposite directions"),
    "a mask of the state alone": ({"mask": "zeros"}, by(y=("Identity", ["cell"])), "not the sequence"),
    "a mask of the output alone": ({"mask": "zeros"}, by(next=("Identity", ["cell"])), "not the sequence"),
    "a mask the wrong way round": ({"mask": "zeros"}, by(next=("Where", ["m", "h", "cell"])), "one state"),
    "ones before": ({"mask": "before"}, mask_begins_with("ones"), "besides the state"),
    "the state as the output": ({"mask": "zeros"}, by(y=("Where", ["m", "cell", "h"])), "not the sequence"),
}


@pytest.mark.parametrize("name", MISSES)
def test_what_is_no_gru_is_refused(name):
    options, change, said = MISSES[name]
    built = Built(**options)
    built.tensors["by two"] = np.float32(2)
    change(built)
    model = built.model()
    with pytest.raises(fastgru.FormatError, match=said) as raised:
        fastgru.from_onnx(model)
    assert f"a {built.kind}, 'loop', as tf2onnx writes" in str(raised.value)
    assert "load the .keras or .h5 file" in str(raised.value)
