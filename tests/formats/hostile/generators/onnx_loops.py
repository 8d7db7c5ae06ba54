"""Models of ONNX whose GRU is a Loop or a Scan, in protobuf's wire format.

What is sound, and must load where nothing hostile is beside it: cells with the reset before or after the
product, with and without biases and a mask, in a Loop with the iteration's number or a counter, or in a Scan;
their constants in the body or outside of it.

The hostile productions are in PRODUCTIONS.
"""

import numpy as np
from formats.hostile.generators.drawing import NAMES, Draw, edge, scrambled, weights
from formats.hostile.generators.onnx import Wire, integer, piece, real

PRODUCTIONS = (
    # the body
    *("node is another", "node is missing", "operands are others", "value is computed from itself"),
    *("attribute is strange", "strange nodes", "long chain", "wide split", "huge shape", "graph in a node"),
    *("function is called", "outputs are strange", "result is twice"),
    # the loop
    *("carries much", "carries something else", "returns much", "carried is strange", "body is strange"),
    *(
        "two bodies",
        "axes are strange",
        "inputs are strange",
        "many loops",
        "loops in loops",
        "trips are strange",
    ),
    # its constants
    *("shapes do not fit", "numbers are strange", "type is another", "no constant"),
    # the file
    *("opset is strange", "cut off", "scrambled"),
    # what every message of ONNX may have
    *("group", "other wire type", "varint is long", "length lies", "tag is strange", "attribute twice"),
    *("attribute of other type", "attribute is unknown", "many inputs", "many outputs"),
)
OPERATORS = (
    *("Add", "And", "Cast", "Clip", "Concat", "ConstantOfShape", "Elu", "Exp", "Gather", "Gemm", "Greater"),
    *(
        "HardSigmoid",
        "Identity",
        "If",
        "LeakyRelu",
        "Less",
        "MatMul",
        "Max",
        "Min",
        "Mish",
        "Mul",
        "Not",
        "Relu",
    ),
    *("Reshape", "Selu", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Sub", "Tanh", "ThresholdedRelu"),
    *("Where", "RandomNormal", "GRU", "Nothing", ""),
)


class Loop:
    """A loop that is put together.

    Parameters
    ----------
    wire : Wire
    name : str
        What all of its names begin with.
    """

    def __init__(self, wire, name):
        self.wire, self.draw, self.rng, self.name = wire, wire.draw, wire.rng, name
        rng = self.rng
        self.units, self.features = rng.choice([1, 2, 3]), rng.choice([1, 2])
        self.is_scan = rng.random() < 0.3
        self.is_counting = not self.is_scan and rng.random() < 0.5
        self.mask = rng.choice([None, None, "zeros", "before"])
        self.reset_after, self.has_bias = rng.random() < 0.5, rng.random() < 0.7
        self.tensors, self.nodes = [], []
        self.body_tensors = []
        self.constants()
        self.cell()
        self.spoil_nodes()

    def given(self, name, array, kind="f4"):
        """A constant, in the body or outside of it."""
        draw, rng, wire = self.draw, self.rng, self.wire
        if draw.hostile("shapes do not fit", 0.3):
            array = rng.choice([array[None], array.ravel()[:1], np.zeros((0,)), np.zeros((7, 5, 3)), array.T])
        if draw.hostile("numbers are strange", 0.3) and array.size:
            array = np.where(
                np.arange(array.size).reshape(array.shape) == 0, rng.choice([np.nan, np.inf, 3e38]), array
            )
        if draw.hostile("type is another", 0.3):
            kind = rng.choice(["f8", "i8", "i4"])
            array = np.nan_to_num(array, posinf=1, neginf=1) % 1000
        tensor = wire.plain(name, array, kind)
        if draw.hostile("no constant", 0.3):
            return
        (self.body_tensors if rng.random() < 0.3 else self.tensors).append(tensor)

    def constants(self):
        rng, units, features = self.rng, self.units, self.features
        for gate in "zrc":
            self.given(f"W{gate}", weights(rng, features, units))
            self.given(f"U{gate}", weights(rng, units, units))
            if self.has_bias:
                self.given(f"b{gate}", weights(rng, units))
                self.given(f"d{gate}", weights(rng, units))
        self.given("one", np.ones(()))
        for name in ("half", "fifth", "nought"):
            self.given(name, np.array({"half": 0.5, "fifth": 0.2, "nought": 0.0}[name]))
        outside = {"columns": [units], "from1": [1], "to2": [2], "first": 0, "by": 1, "zero": [0]}
        for name, value in outside.items():
            self.tensors.append(self.wire.plain(name, np.array(value), "i8"))

    def node(self, name, kind, *inputs, **numbers):
        """A node of the body."""
        self.nodes.append([name, kind, list(inputs), numbers])

    def cell(self):
        rng = self.rng
        if not self.is_scan:
            self.node("x", "Gather", "X", "t" if self.is_counting else "i")
            if self.mask:
                self.node("m", "Gather", "M", "t" if self.is_counting else "i")
        if self.is_counting:
            self.node("t1", "Add", "t", "by")
            self.node("going", "Less", "t1", "steps")
        elif not self.is_scan:
            self.node("going", "Identity", "condition")
        for gate in "zr":
            self.node(f"x{gate}", "MatMul", "x", f"W{gate}")
            self.node(f"h{gate}", "MatMul", "h", f"U{gate}")
            self.node(f"s{gate}", "Add", *rng.sample([f"x{gate}", f"h{gate}"], 2))
            self.node(
                f"v{gate}", "Add" if self.has_bias else "Identity", f"s{gate}", *[f"b{gate}"][: self.has_bias]
            )
        if hard := rng.random() < 0.5:
            for gate in "zr":
                self.node(f"l{gate}", "Mul", f"v{gate}", "fifth")
                self.node(f"a{gate}", "Add", f"l{gate}", "half")
                self.node(f"n{gate}", "Min", f"a{gate}", "one")
        for gate in "zr":
            self.node(gate, "Max" if hard else "Sigmoid", *([f"n{gate}", "nought"] if hard else [f"v{gate}"]))
        self.node("xc", "MatMul", "x", "Wc")
        self.node("vc", "Add" if self.has_bias else "Identity", "xc", *["bc"][: self.has_bias])
        if self.reset_after:
            self.node("hc", "MatMul", "h", "Uc")
            self.node("hb", "Add" if self.has_bias else "Identity", "hc", *["dc"][: self.has_bias])
            self.node("rh", "Mul", "r", "hb")
        else:
            self.node("let", "Mul", "r", "h")
            self.node("rh", "MatMul", "let", "Uc")
        self.node("sc", "Add", "vc", "rh")
        self.node("c", rng.choice(["Tanh", "Relu", "Softsign"]), "sc")
        self.node("rest", "Sub", "one", "z")
        self.node("new", "Mul", "rest", "c")
        self.node("kept", "Mul", "z", "h")
        self.node("cell", "Add", "kept", "new")
        if self.mask:
            self.node("next", "Where", "m", "cell", "h")
            self.node("y", "Where", "m", "cell", "before" if self.mask == "before" else "H")
        else:
            self.node("next", "Identity", "cell")
            self.node("y", "Identity", "cell")

    def spoil_nodes(self):
        """Make the nodes of the body hostile."""
        draw, rng = self.draw, self.rng
        names = [*(node[0] for node in self.nodes), "X", "M", "h", "H", "Wz", "one", "i", "missing", ""]
        for node in [*self.nodes]:
            if draw.hostile("node is another", 0.1):
                node[1] = rng.choice(OPERATORS)
            if draw.hostile("operands are others", 0.1):
                node[2] = [rng.choice(names) for _ in range(rng.choice([0, 1, 2, 2, 3, 9]))]
            if draw.hostile("attribute is strange", 0.1):
                name = rng.choice(
                    ["axis", "to", "alpha", "beta", "transB", "min", "max", "split", "value", "keepdims"]
                )
                node[3] = {name: rng.choice([edge(rng) % (1 << 63), -1, 0.5, float("nan"), float("inf")])}
            if draw.hostile("node is missing", 0.05):
                self.nodes.remove(node)
        if draw.hostile("value is computed from itself"):
            node = rng.choice(self.nodes)
            node[2] = [node[0], rng.choice(names)]
        if draw.hostile("result is twice"):
            self.nodes.append(list(rng.choice(self.nodes)))
        if draw.hostile("strange nodes"):
            for number in range(rng.choice([1, 100, 3000])):
                self.node(f"strange{number}", rng.choice(OPERATORS), rng.choice(names), rng.choice(names))
        if draw.hostile_once("long chain"):
            last, kind = "vc", rng.choice(["Add", "Identity", "Mul", "Tanh", "Min"])
            for number in range(rng.choice([10, 300, 3000])):
                self.node(f"chain{number}", kind, last, *["vc"][: kind in ("Add", "Mul", "Min")])
                last = f"chain{number}"
            self.nodes = [
                [*node[:2], [last if n == "vc" and node[0] == "sc" else n for n in node[2]], node[3]]
                for node in self.nodes
            ]
        if draw.hostile_once("wide split"):
            self.nodes.append(
                [[f"part{i}" for i in range(rng.choice([4, 1000, 30_000]))], "Split", ["sz"], {"axis": 1}]
            )
        if draw.hostile_once("huge shape"):
            self.tensors.append(
                self.wire.plain("huge", np.array([rng.choice([1 << 31, 1 << 40, -1, 0])] * 2), "i8")
            )
            self.nodes += [["H0", "ConstantOfShape", ["huge"], {}], ["h0", "Mul", ["h", "H0"], {}]]
            self.nodes = [
                [*node[:2], ["h0" if n == "h" and node[0] == "kept" else n for n in node[2]], node[3]]
                for node in self.nodes
            ]

    def written(self):
        """The nodes and constants of the graph, and the names of its outputs."""
        draw, rng, wire = self.draw, self.rng, self.wire
        nodes = []
        for name, kind, inputs, numbers in self.nodes:
            attributes = [
                wire.attribute(key, 2, integer(3, value))
                if isinstance(value, int)
                else wire.attribute(key, 1, real(2, value))
                for key, value in numbers.items()
            ]
            if draw.hostile("graph in a node", 0.05):
                attributes.append(wire.attribute("then_branch", 5, piece(6, piece(1, b""))))
            domain = "own" if draw.hostile("function is called", 0.05) else ""
            outputs = name if isinstance(name, list) else [name]
            if draw.hostile("outputs are strange", 0.05):
                outputs = rng.choice([[], [""], [*outputs, "more"], ["h"], ["X"]])
            nodes.append(piece(1, wire.node(kind, inputs, outputs, *attributes, domain=domain)))
        carried = {"h": ("H", "next")}
        if self.mask == "before":
            carried["before"] = ("H", "y")
        if self.is_counting:
            carried = {"t": ("first", "t1"), **carried}
        if rng.random() < 0.3:
            carried["fixed"] = ("steps", "fixed")
        if draw.hostile_once("carries much"):
            carried |= {f"much{i}": ("H", f"much{i}") for i in range(rng.choice([10, 1000, 20_000]))}
        if draw.hostile("carries something else"):
            carried["other"] = (
                rng.choice(["H", "first", "one", "X"]),
                rng.choice(["other", "c", "z", "h", "t1", "X"]),
            )
        if draw.hostile("carried is strange"):
            carried[rng.choice(["", "h", *NAMES[:4]])] = rng.choice(
                [("", ""), ("missing", "nowhere"), ("loop", "h")]
            )
        inside, after = list(carried), [last for _, last in carried.values()]
        returned = ["y"] * (rng.choice([5, 1000, 20_000]) if draw.hostile_once("returns much") else 1)
        given = [first for first, _ in carried.values()]
        sequences = (["X", "M"] if self.mask else ["X"]) if self.is_scan else []
        inside += ["x", "m"][: len(sequences)]
        inputs = [*given, *sequences]
        if not self.is_scan:
            trips = ["", "any"] if self.is_counting else ["steps", ""]
            if draw.hostile("trips are strange"):
                trips = [rng.choice(["", "missing", "first", "H", "X", "by"]) for _ in range(2)]
            inside, after = ["i", "condition", *inside], ["going", *after]
            inputs = [*trips, *inputs]
        if draw.hostile("inputs are strange"):
            inputs = rng.choice([inputs[:1], inputs[::-1], [], inputs * 3, [*inputs, *[""] * 1000]])
        body = [piece(2, "body"), *nodes, *(piece(5, tensor) for tensor in self.body_tensors)]
        body += [piece(11, piece(1, name)) for name in inside]
        body += [piece(12, piece(1, name)) for name in [*after, *returned]]
        if draw.hostile("body is strange"):
            body = rng.choice([[], body[:3], body + body[-2:], [piece(12, piece(1, "h"))]])
        attributes = [wire.attribute("body", 5, piece(6, b"".join(body)))]
        if draw.hostile("two bodies"):
            attributes *= 2
        if self.is_scan:
            attributes.append(wire.attribute("num_scan_inputs", 2, integer(3, len(sequences))))
        if draw.hostile("axes are strange"):
            for name in ("scan_input_axes", "scan_output_directions", "num_scan_inputs"):
                attributes.append(wire.integers(name, [edge(rng) % (1 << 63)] * rng.choice([0, 1, 2, 1000])))
        outputs = [f"{self.name}last{i}" for i in range(len(carried))] + [
            f"{self.name}Y{i}" for i in range(len(returned))
        ]
        count = 1
        if draw.hostile_once("many loops"):
            count = min(rng.choice([10, 100, 1000]), (1 << 19) // sum(map(len, [*attributes, *inputs])))
        kind = "Scan" if self.is_scan else "Loop"
        loop = b"".join(
            piece(
                1,
                wire.node(
                    kind, inputs, [f"{name}{i}" for name in outputs], *attributes, name=f"{self.name}{i}"
                ),
            )
            for i in range(count)
        )
        if draw.hostile_once("loops in loops"):
            for depth in range(rng.choice([1, 5, 40])):
                loop = piece(
                    1,
                    wire.node(
                        "Loop",
                        ["", ""],
                        [],
                        piece(5, piece(1, "body") + piece(6, loop) + integer(20, 5)),
                        name=f"in{depth}",
                    ),
                )
        outside = [("shape", "Shape", ["X"]), ("steps", "Gather", ["shape", "first"])]
        outside += [("batch", "Slice", ["shape", "from1", "to2"]), ("rows", "Concat", ["batch", "columns"])]
        outside += [("H", "ConstantOfShape", ["rows"]), ("any", "Less", ["first", "steps"])]
        made = [
            piece(
                1,
                wire.node(
                    kind,
                    of,
                    [name],
                    *([wire.attribute("axis", 2, integer(3, 0))] if kind == "Concat" else []),
                ),
            )
            for name, kind, of in outside
        ]
        returned = [outputs[len(carried)], outputs[list(carried).index("h")]]
        return b"".join(made) + loop, [piece(5, tensor) for tensor in self.tensors], returned


def shown(name, kind, sizes):
    """An input of the graph, of a type and a shape."""
    shape = piece(
        2,
        b"".join(
            piece(1, integer(1, size) if size else piece(2, f"{name}{i}")) for i, size in enumerate(sizes)
        ),
    )
    return piece(11, piece(1, name) + piece(2, piece(1, integer(1, kind) + shape)))


def model(rng):
    """A model, whose layer is a loop."""
    draw = Draw(rng, PRODUCTIONS)
    wire = Wire(draw)
    loop = Loop(wire, "loop")
    nodes, tensors, outputs = loop.written()
    graph = [
        nodes,
        *tensors,
        piece(2, "graph"),
        shown("X", 1, [0, 0, loop.features]),
        shown("M", 9, [0, 0, 1]),
    ]
    graph += [piece(12, piece(1, f"{name}0")) for name in outputs]
    opset = rng.choice([13, 15, 17, 21])
    if draw.hostile("opset is strange"):
        opset = rng.choice([0, 7, 8, 9, 11, 99])
    data = integer(1, 8) + piece(7, b"".join(graph)) + piece(8, integer(2, opset))
    if draw.hostile("cut off"):
        data = data[: rng.randrange(len(data) + 1)]
    if draw.hostile("scrambled"):
        data = scrambled(data, rng)
    return draw.file("model.onnx", data)
