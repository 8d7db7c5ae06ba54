"""Models of ONNX, written in protobuf's wire format by hand, so that they may be what no library writes.

What is sound, and must load where nothing hostile is beside it: GRU nodes of opsets 7 to 22, forward, reverse
and bidirectional, with all activations, biases, initial states and layouts; weights as initializers, as
constants, behind Identity and Expand, computed from constants, in raw bytes or lists of numbers (packed or
not), of every float type, in files beside the model; nodes in the graphs of If, Loop and Scan, which see the
values of the graphs around them, and in functions; unknown fields, fields in any order, messages in pieces.

The hostile productions are in PRODUCTIONS.
"""

import struct

import numpy as np
from formats.hostile.generators.drawing import NAMES, Draw, edge, scrambled, weights, with_strange_number

PRODUCTIONS = (
    # the wire
    *("group", "other wire type", "varint is long", "length lies", "tag is strange", "cut off", "scrambled"),
    *("text is no UTF-8", "messages nested deeply", "many empty messages", "long packed list", "many fields"),
    # tensors
    *("dims lie", "many dims", "type is another", "raw and list", "list is short", "numbers are strange"),
    *("tensor is shared often", "segment", "sparse initializer", "tensor is something else"),
    # external data
    *("location is outside", "offset lies", "length of data lies", "entry twice", "file is missing"),
    *("number is none", "data is shorter", "location without data"),
    # nodes
    *("attribute twice", "attribute of other type", "attribute is unknown", "activation is strange"),
    *("parameters are strange", "direction is strange", "hidden size lies", "clip", "inputs are strange"),
    *("outputs are strange", "shapes do not fit", "domain is another", "many inputs", "many outputs"),
    # graphs
    *("graphs nested deeply", "long names", "long name around many nodes", "value twice", "node twice"),
    *("identities in a cycle", "weight is computed", "many empty nodes", "many graphs", "functions"),
    "many inputs in nested graphs",
    # what nodes make of constants
    *("huge result", "doubled often", "long chain", "computed from itself", "large product"),
    *("strange operator", "functions in functions", "function is strange", "function in itself"),
    # models
    *("opset is strange", "opset twice", "no opset", "no graph", "two graphs"),
)

# ---- the wire --------------------------------------------------------------------------------


def varint(number):
    """An integer; a negative one as 64 bits of two's complement."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def tag(field, wire):
    return varint(field << 3 | wire)


def integer(field, number):
    return tag(field, 0) + varint(number)


def real(field, number):
    return tag(field, 5) + struct.pack("<f", number)


def piece(field, data):
    """A text, some bytes or a message."""
    data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return tag(field, 2) + varint(len(data)) + data


def nested(fields, depth, inner=b""):
    """A message in a message in a message, by the fields that they are in, from the inside."""
    for _ in range(depth):
        for field in fields:
            inner = piece(field, inner)
    return inner


# ---- messages --------------------------------------------------------------------------------

TYPES = {"f4": (1, 4), "f8": (11, 10), "f2": (10, 5), "bf16": (16, 5)}  # data type, field of the list


class Wire:
    """Messages of one model.

    Parameters
    ----------
    draw : Draw

    Attributes
    ----------
    beside : dict of str to bytes
        Files of data.
    """

    def __init__(self, draw):
        self.draw, self.rng = draw, draw.rng
        self.beside = {}
        self._number = 0

    def fresh(self, what):
        self._number += 1
        return f"{what}{self._number}"

    def message(self, *fields):
        """The fields of a message, in any order, and some that nobody knows."""
        draw, rng = self.draw, self.rng
        fields = list(fields)
        if draw.chance(0.05):
            fields.append(rng.choice([integer(999, 5), piece(1000, b"x" * 9), real(1001, 1.0)]))
        if draw.hostile("group", 0.2):
            fields.insert(rng.randrange(len(fields) + 1), rng.choice(GROUPS))
        if draw.hostile("tag is strange", 0.2):
            strange = [
                b"\0\0",
                tag(0, 2) + b"\0",
                tag(1, 6),
                tag(3, 7),
                tag((1 << 29) - 1, 0) + b"\1",
                b"\xff" * 11,
            ]
            fields.append(rng.choice(strange))
        if draw.hostile("varint is long", 0.2):
            fields.append(tag(999, 0) + b"\x80" * rng.choice([5, 9, 10, 1000]) + b"\1")
        if draw.hostile("length lies", 0.2):
            length = rng.choice([1, 1000, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 64) - 1])
            fields.append(
                tag(rng.choice([1, 5, 7, 999]), 2) + varint(length) + b"x" * rng.choice([0, 1, 100])
            )
        if draw.hostile("other wire type", 0.2) and fields:
            at = rng.randrange(len(fields))
            fields[at] = (
                bytes([fields[at][0] & 0xF8 | rng.choice([0, 1, 2, 5])] if fields[at] else b"")
                + fields[at][1:]
            )
        return b"".join(fields)

    def list_of(self, field, numbers, pack, wire):
        """Numbers of a list, packed or one by one."""
        if self.draw.chance(0.2):
            return b"".join(tag(field, wire) + pack(number) for number in numbers)
        return piece(field, b"".join(map(pack, numbers)))

    # ---- tensors

    def tensor(self, name, array, kind="f4"):
        """A TensorProto."""
        draw, rng = self.draw, self.rng
        code, field = TYPES[kind]
        dims = list(array.shape)
        flat = array.ravel()
        raw = (
            (flat.astype("<f4").view("<u4") >> 16).astype("<u2")
            if kind == "bf16"
            else flat.astype(f"<{kind}")
        )
        raw = raw.tobytes()
        if draw.hostile("dims lie", 0.5) and dims:
            dims[rng.randrange(len(dims))] = edge(rng)
        if draw.hostile("many dims", 0.5):
            dims += [rng.choice([0, 1])] * rng.choice([1, 30, 33, 70, 10_000])
        if draw.hostile("type is another", 0.5):
            code = rng.choice([0, 2, 3, 6, 7, 8, 9, 14, 17, 23, 99, -1])
        if draw.hostile("numbers are strange", 0.5):
            raw = with_strange_number(raw, rng)
        fields = [self.list_of(1, dims, varint, 0), integer(2, code), piece(8, name)]
        if draw.hostile("segment"):
            fields.append(piece(3, integer(1, 0) + integer(2, edge(rng))))
        form = rng.choice(["raw"] * 4 + ["list", "external", "external"])
        if any(draw.hostile(production) for production in EXTERNAL):
            form = "external"
        match form:
            case "raw":
                fields.append(piece(9, raw))
            case "list":
                fields.append(self.numbers(field, raw, kind))
            case _:
                fields += self.external(raw)
        if draw.hostile("raw and list"):
            fields += [piece(9, raw), self.numbers(field, raw, kind)]
        if draw.hostile_once("long packed list", 0.3):
            field, count = rng.choice([1, 5, 7, 4, 10]), rng.choice([1000, 300_000])
            fields.append(piece(field, b"\0" * count))
        rng.shuffle(fields)
        return self.message(*fields)

    def numbers(self, field, raw, kind):
        """The elements of a tensor in the list of their type."""
        if self.draw.hostile("list is short", 0.7):
            raw = raw[:-8]
        if kind in ("f4", "f8"):
            width = {"f4": 4, "f8": 8}[kind]
            values = [raw[i : i + width] for i in range(0, len(raw), width)]
            return self.list_of(field, values, bytes, {"f4": 5, "f8": 1}[kind])
        return self.list_of(field, np.frombuffer(raw, "<u2").tolist(), varint, 0)

    def external(self, raw):
        """Fields of a tensor whose bytes are in a file beside the model, alone or behind others."""
        draw, rng = self.draw, self.rng
        name = rng.choice(["data", "weights.bin", "data"])
        before = self.beside.get(name, b"")
        if draw.chance(0.5):
            before += bytes(-len(before) % 16)
        self.beside[name] = before + raw
        entries = {"location": name, "offset": str(len(before)), "length": str(len(raw)), "checksum": "x"}
        if len(before) == 0 and draw.chance(0.3):
            del entries["offset"]
        if draw.chance(0.2):
            del entries["length"]
        if draw.hostile("location is outside", 0.5):
            locations = [
                "../data",
                "/etc/passwd",
                "/dev/zero",
                ".",
                "",
                "..",
                "data/../data",
                "./data",
                "data/",
                "\0",
            ]
            locations += [
                "a/b/c",
                "//etc/passwd",
                "~/x",
                "file:///etc/passwd",
                "data\0",
                "model.onnx",
                "x" * 5000,
            ]
            entries["location"] = rng.choice(locations)
        if draw.hostile("file is missing", 0.5):
            entries["location"] = "missing"
        if draw.hostile("offset lies", 0.5):
            entries["offset"] = str(rng.choice([1, len(self.beside[name]), edge(rng)]))
        if draw.hostile("length of data lies", 0.5):
            entries["length"] = str(rng.choice([0, 1, len(raw) + 1, edge(rng)]))
        if draw.hostile("number is none", 0.5):
            texts = ["", " 1", "1.0", "0x10", "-0", "\u0661", "9" * 5000, "1e3", "+1", "1_0", "NaN"]
            entries[rng.choice(["offset", "length"])] = rng.choice(texts)
        if draw.hostile("data is shorter", 0.5):
            self.beside[name] = self.beside[name][:-1]
        pairs = list(entries.items())
        if draw.hostile("entry twice", 0.5):
            pairs.append((rng.choice(pairs)[0], rng.choice(["0", "../data", "data"])))
        if draw.hostile("location without data", 0.5):
            pairs = pairs[1:]
        return [*(piece(13, piece(1, key) + piece(2, value)) for key, value in pairs), integer(14, 1)]

    def plain(self, name, array, kind):
        """A TensorProto of raw bytes, without anything hostile in it."""
        code = {"f4": 1, "f8": 11, "i8": 7, "i4": 6}[kind]
        dims = b"".join(integer(1, length) for length in array.shape)
        return dims + integer(2, code) + piece(8, name) + piece(9, array.astype(f"<{kind}").tobytes())

    # ---- nodes

    def integers(self, name, numbers):
        """An attribute that is a list of integers."""
        return self.attribute(name, 7, self.list_of(8, numbers, varint, 0))

    def attribute(self, name, code, *fields):
        """An AttributeProto."""
        draw, rng = self.draw, self.rng
        if draw.hostile("attribute of other type", 0.2):
            code = rng.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 99])
        if draw.hostile("attribute is unknown", 0.1):
            name = rng.choice([*NAMES, "value", "body", "hidden_siz"])
        made = piece(5, self.message(piece(1, name), *fields, integer(20, code)))
        if draw.hostile("attribute twice", 0.2):
            made += made
        return made

    def node(self, kind, inputs, outputs, *attributes, name="", domain=""):
        """A NodeProto."""
        draw, rng = self.draw, self.rng
        if draw.hostile_once("many inputs", 0.2):
            inputs = [*inputs, *rng.choice([[""], ["X"], ["w"]]) * rng.choice([7, 1000, 100_000])]
        if draw.hostile_once("many outputs", 0.2):
            outputs = [*outputs, *([""] * 1000 if draw.chance(0.5) else map(str, range(10_000)))]
        fields = [piece(1, value) for value in inputs] + [piece(2, value) for value in outputs]
        fields += [piece(4, kind), *attributes]
        if name:
            fields.append(piece(3, name))
        if domain:
            fields.append(piece(7, domain))
        return self.message(*fields)


GROUPS = [
    tag(1000, 3) + tag(1000, 4),
    tag(1, 3) + piece(1, b"") + tag(1, 4),
    tag(1000, 3) + piece(1, b"x") * 100 + tag(1000, 4),
    tag(1000, 3) * 200 + tag(1000, 4) * 200,
    tag(1000, 3),
    tag(7, 4),
]
EXTERNAL = (
    *("location is outside", "offset lies", "length of data lies", "entry twice", "file is missing"),
    *("number is none", "data is shorter", "location without data"),
)
PLAIN = "Relu", "Tanh", "Sigmoid", "Softsign", "Softplus"
PARAMETRIC = {"LeakyRelu": 1, "Elu": 1, "ThresholdedRelu": 1, "HardSigmoid": 2, "Affine": 2, "ScaledTanh": 2}


class Graph:
    """A GraphProto that is put together.

    Parameters
    ----------
    wire : Wire
    depth : int
        How many graphs it is in.
    """

    def __init__(self, wire, depth):
        self.wire, self.draw, self.rng = wire, wire.draw, wire.rng
        self.depth = depth
        self.nodes, self.initializers, self.outputs, self.others = [], [], [], []

    def constant(self, name, array, kind, place=None):
        """A value that is known: an initializer, a Constant or what lets one through; return its name."""
        draw, rng, wire = self.draw, self.rng, self.wire
        place = place or self
        own = wire.fresh(name)
        value = wire.tensor(own, array, kind)
        if draw.hostile("tensor is something else", 0.3):
            value = rng.choice([b"", b"\xff", piece(8, own), integer(2, 1)])
        if draw.chance(0.2):
            node = wire.node("Constant", [], [own], wire.attribute("value", 4, piece(5, value)))
            place.nodes.insert(0, node)
        else:
            place.initializers.append(value)
        if draw.hostile("value twice", 0.3):
            place.initializers.append(value)
        if draw.hostile("sparse initializer", 0.3):
            place.others.append(piece(15, piece(1, value) + piece(2, value) + integer(3, edge(rng))))
        if draw.chance(0.15):
            through = wire.fresh(name)
            self.nodes.append(wire.node("Identity", [own], [through]))
            own = through
        if draw.hostile("identities in a cycle", 0.3):
            self.nodes.append(wire.node("Identity", [own], [own]))
            self.nodes.append(wire.node(rng.choice(["Identity", "Expand"]), ["b", own], ["a"]))
        if draw.hostile("weight is computed", 0.3):
            through = wire.fresh(name)
            self.nodes.append(wire.node("Add", [own, own], [through]))
            own = through
        return own

    def computed(self, name, array, place):
        """A value that a node makes of constants; return its name."""
        wire, result = self.wire, self.wire.fresh(name)

        def given(of, kind="f4"):
            own = wire.fresh("constant")
            place.initializers.append(wire.plain(own, of, kind))
            return own

        match self.rng.randrange(5):
            case 0:
                axes = wire.integers("perm", list(range(array.ndim))[::-1])
                node = wire.node("Transpose", [given(array.T)], [result], axes)
            case 1:
                halves = np.split(array, [array.shape[-1] // 2], axis=-1)
                axis = wire.attribute("axis", 2, integer(3, array.ndim - 1))
                node = wire.node("Concat", [given(half) for half in halves], [result], axis)
            case 2:
                shape = given(np.array(array.shape), "i8")
                node = wire.node("Reshape", [given(array.ravel()), shape], [result])
            case 3:
                node = wire.node(
                    "Cast", [given(array, "f8")], [result], wire.attribute("to", 2, integer(3, 1))
                )
            case _:
                node = wire.node("Add", [given(array), given(np.zeros(1, np.float32))], [result])
        place.nodes.append(node)
        return result

    def gru(self, outer):
        """Add a GRU node whose weights are in this graph or in one around it."""
        draw, rng, wire = self.draw, self.rng, self.wire
        units, features = rng.choice([1, 2, 3]), rng.choice([1, 2])
        direction = rng.choice(["forward", "forward", "reverse", "bidirectional"])
        count = 2 if direction == "bidirectional" else 1
        kind = rng.choice(["f4"] * 5 + ["f8", "f2", "bf16"])
        shapes = [(count, 3 * units, features), (count, 3 * units, units), (count, 6 * units)]
        if draw.hostile("shapes do not fit", 0.5):
            at = rng.randrange(3)
            shapes[at] = rng.choice(
                [shapes[at][::-1], shapes[at][1:], (3, *shapes[at]), (0,), (1, 3, 0), (1,)]
            )
        place = rng.choice([self, *outer])
        names = []
        for name, shape in zip("WRB", shapes, strict=True):
            array = weights(rng, *shape)
            plain = kind != "f4" or draw.chance(0.7)
            made = self.constant(name, array, kind, place) if plain else self.computed(name, array, place)
            names.append(made)
        bias = rng.choice([names[2:], names[2:], [""], []])
        inputs = ["X", *names[:2], *bias]
        attributes = []
        if draw.chance(0.3) and bias:
            shape = (rng.choice([1, 2]), count, units) if (layout := draw.chance(0.3)) else (count, 1, units)
            state = self.constant("h", weights(rng, *shape), "f4", place)
            if draw.chance(0.2):
                expanded = wire.fresh("h")
                self.nodes.append(wire.node("Expand", [state, "shape"], [expanded]))
                state = expanded
            inputs += ["", state]
            if layout:
                attributes.append(wire.attribute("layout", 2, integer(3, 1)))
        attributes += self.attributes_of(units, direction, count)
        outputs = rng.choice([["Y"], ["Y", "H"], ["", "H"], ["Y", ""]])
        outputs = [output and wire.fresh(output) for output in outputs]
        if draw.hostile("inputs are strange", 0.5):
            names = ["X", "missing", names[0], "", outputs[0], *NAMES[:9]]
            inputs = [rng.choice(names) if draw.chance(0.3) else name for name in inputs][
                : rng.choice([9, 9, 2])
            ]
        if draw.hostile("outputs are strange", 0.5):
            outputs = rng.choice([[], [""], ["X"], names[:1], ["Y", "Y"], [""] * 9, ["Y1", "Y2", "Y3"]])
        name = wire.fresh("gru") if draw.chance(0.8) else ""
        if draw.hostile("long names", 0.3):
            name = rng.choice(NAMES)
        domain = "" if draw.chance(0.9) else "ai.onnx"
        if draw.hostile("domain is another", 0.5):
            domain = rng.choice(["com.microsoft", "ai.onnx.ml", "\0"])
        node = wire.node("GRU", inputs, outputs, *attributes, name=name, domain=domain)
        self.nodes += [node] * (2 if draw.hostile("node twice", 0.5) else 1)
        if draw.hostile_once("tensor is shared often", 0.5):
            for _ in range(rng.choice([5, 100, 1000])):
                self.nodes.append(wire.node("GRU", inputs[:3], [wire.fresh("Y")], *attributes))
        self.outputs += [output for output in outputs if output and draw.chance(0.7)]

    def attributes_of(self, units, direction, count):
        """Attributes of a GRU node."""
        draw, rng, wire = self.draw, self.rng, self.wire
        made = []
        if direction != "forward" or draw.chance(0.3):
            word = direction
            if draw.hostile("direction is strange", 0.5):
                word = rng.choice(["Forward", "", "backward", "\0", "x" * 5000, "\ud800"])
            made.append(wire.attribute("direction", 3, piece(4, word)))
        if draw.chance(0.6):
            size = (
                rng.choice([0, -1, units + 1, edge(rng)]) if draw.hostile("hidden size lies", 0.5) else units
            )
            made.append(wire.attribute("hidden_size", 2, integer(3, size)))
        if draw.chance(0.5):
            made.append(wire.attribute("linear_before_reset", 2, integer(3, rng.choice([0, 1]))))
        if draw.hostile("clip", 0.5):
            made.append(
                wire.attribute("clip", 1, real(2, rng.choice([0.0, 3.0, float("nan"), float("inf")])))
            )
        if draw.chance(0.4):
            names = [rng.choice([*PLAIN, *PARAMETRIC]) for _ in range(2 * count)]
            alphas = [rng.uniform(0.1, 1) for name in names if name in PARAMETRIC]
            betas = [rng.uniform(0.1, 1) for name in names if PARAMETRIC.get(name) == 2]
            if draw.chance(0.2):
                names = [rng.choice([str.lower, str.upper])(name) for name in names]
            if draw.hostile("activation is strange", 0.5):
                strange = [*NAMES[:16], "Softmax", "\ud800", "relu\0"]
                names = [rng.choice(strange) if draw.chance(0.5) else name for name in names][
                    : rng.choice([1, 9, 9])
                ]
            if draw.hostile("parameters are strange", 0.5):
                numbers = [float("nan"), float("inf"), -1.0, 3e38, 1e-45, 0.0]
                alphas, betas = (
                    [rng.choice(numbers) for _ in range(rng.choice([0, 1, 5]))] for _ in range(2)
                )
            made.append(wire.attribute("activations", 8, *(piece(9, name) for name in names)))
            for name, values in (("activation_alpha", alphas), ("activation_beta", betas)):
                if values:
                    pack = struct.Struct("<f").pack
                    made.append(wire.attribute(name, 6, wire.list_of(7, values, pack, 5)))
        rng.shuffle(made)
        return made

    def inner(self, outer):
        """Add a node that has graphs in it."""
        draw, rng, wire = self.draw, self.rng, self.wire
        kind, names = rng.choice(
            [("If", ["then_branch", "else_branch"]), ("Loop", ["body"]), ("Scan", ["body"])]
        )
        attributes = []
        for name in names:
            graph = Graph(wire, self.depth + 1)
            graph.fill([self, *outer])
            attributes.append(wire.attribute(name, 5, piece(6, graph.written())))
        node = wire.fresh(kind.lower())
        if draw.hostile("long names", 0.3):
            node = rng.choice(NAMES)
        self.nodes.append(wire.node(kind, ["condition"], [wire.fresh("Y")], *attributes, name=node))

    def fill(self, outer):
        """Add nodes."""
        for _ in range(self.rng.choice([1, 1, 2]) if self.depth < 3 else 1):
            if self.depth < 3 and self.draw.chance(0.25):
                self.inner(outer)
            else:
                self.gru(outer)
        if self.draw.chance(0.3):
            self.nodes.append(self.wire.node("Transpose", ["X"], [self.wire.fresh("T")]))
        self.spoil()

    def spoil(self):
        """Add hostile nodes and graphs."""
        draw, rng, wire = self.draw, self.rng, self.wire
        empty = piece(1, b"")
        if draw.hostile_once("many empty nodes", 0.5):
            self.others.append(empty * rng.choice([1000, 10_000, 100_000]))
        if draw.hostile_once("many empty messages", 0.5):
            self.others.append(piece(rng.choice([5, 11, 13, 14, 15]), b"") * rng.choice([1000, 100_000]))
        if draw.hostile_once("many graphs", 0.5):
            graphs = piece(5, piece(6, b"")) * rng.choice([100, 3_000])
            self.others.append(piece(1, graphs))
        if draw.hostile_once("many fields", 0.5):
            self.others.append(
                rng.choice([integer(2, 1), piece(2, b"x"), real(999, 1.0), piece(10, b"")]) * 10_000
            )
        if draw.hostile_once("graphs nested deeply", 0.5):
            depth = rng.choice([10, 33, 50, 3_000])
            self.others.append(nested((6, 5, 1), depth, empty))
        if draw.hostile_once("messages nested deeply", 0.5):
            depth = rng.choice([20, 49, 51, 3_000])
            sequence = nested((4, 1), depth, b"")  # a type that is a sequence of a sequence
            self.others.append(rng.choice([piece(11, piece(2, sequence)), nested((5, 6, 1), depth)]))
        if draw.hostile_once("long name around many nodes", 0.5):
            count, length = rng.choice([(10, 4_000), (300, 4_000), (3_000, 3_000), (10, 1 << 20)])
            node = wire.node("GRU", ["X", "W", "R"], ["Y"])
            graph = piece(1, node) * count
            self.nodes.append(
                wire.node("If", [], [], wire.attribute("b", 5, piece(6, graph)), name="A" * length)
            )
        if draw.hostile_once("many inputs in nested graphs", 0.5):
            core = piece(1, piece(4, "X") + piece(1, b"%06x" % 3) * rng.choice([100, 20_000]))
            for _ in range(rng.choice([3, 25])):
                core = piece(
                    1,
                    wire.node(
                        "If", ["c"], [], piece(5, piece(1, "b") + piece(6, core)), name=wire.fresh("n")
                    ),
                )
            self.others.append(core)

        self.compute()

    def compute(self):
        """Add hostile nodes whose inputs are constants, and which a GRU reads."""
        draw, rng, wire = self.draw, self.rng, self.wire
        inputs = []

        def given(array, kind="f4"):
            own = wire.fresh("constant")
            self.initializers.append(wire.plain(own, array, kind))
            return own

        def made(kind, of, *attributes):
            own = wire.fresh("computed")
            self.nodes.append(wire.node(kind, of, [own], *attributes))
            return own

        one = np.ones((1, 3, 1), np.float32)
        if draw.hostile_once("huge result", 0.5):
            size = rng.choice([1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, -1, 0])
            shape = given(np.array([size, *rng.choice([[], [1 << 20], [0]])]), "i8")
            kind = rng.choice(["Expand", "Tile", "Reshape", "Pad", "Gather", "ConstantOfShape", "Range"])
            of = {
                "ConstantOfShape": [shape],
                "Range": [given(np.array(0), "i8"), given(np.array(size), "i8")],
            }
            of["Range"].append(given(np.array(1), "i8"))
            inputs.append(made(kind, of.get(kind, [given(np.ones(1)), shape])))
        if draw.hostile_once("doubled often", 0.5):
            value = given(one)
            for _ in range(rng.choice([5, 20, 60])):
                value = made("Concat", [value, value], wire.attribute("axis", 2, integer(3, 2)))
            inputs.append(value)
        if draw.hostile_once("long chain", 0.5):
            value = given(one)
            for _ in range(rng.choice([100, 2000])):
                value = made(rng.choice(["Add", "Mul", "Sub"]), [value, value])
            inputs.append(value)
        if draw.hostile_once("computed from itself", 0.5):
            self.nodes.append(wire.node("Add", ["second", given(one)], ["first"]))
            self.nodes.append(wire.node("Mul", ["first", "first"], ["second"]))
            inputs.append("second")
        if draw.hostile_once("large product", 0.5):
            size = rng.choice([30, 300, 3000])
            ones = given(np.ones(2 * size, np.float32))
            column, row = (given(np.array(shape), "i8") for shape in ([-1, 2], [2, -1]))
            value = made("MatMul", [made("Reshape", [ones, column]), made("Reshape", [ones, row])])
            for _ in range(rng.choice([1, 10])):
                value = made("MatMul", [value, value])
            inputs.append(value)
        if draw.hostile_once("strange operator", 0.5):
            kinds = [
                "Slice",
                "Split",
                "Squeeze",
                "Gather",
                "Pad",
                "Trilu",
                "CumSum",
                "ReduceSum",
                "Where",
                "Loop",
            ]
            kinds += [
                "QuantizeLinear",
                "DequantizeLinear",
                "ScatterND",
                "Pow",
                "Div",
                "Cast",
                "NonZero",
                "RandomNormal",
            ]
            of = [given(np.array(edge(rng) % (1 << 63)), "i8") for _ in range(rng.choice([0, 1, 2, 5]))]
            names = ["axis", "axes", "to", "perm", "exclusive", "mode", "value", "keepdims", "body"]
            attributes = [wire.integers(rng.choice(names), [edge(rng)]) for _ in range(rng.choice([0, 1, 2]))]
            inputs.append(made(rng.choice(kinds), [given(one), *of], *attributes))
        for value in inputs:
            weight = [value, value] if draw.chance(0.5) else ["W", value]
            self.nodes.append(wire.node("GRU", ["X", *weight], [wire.fresh("Y")], name=wire.fresh("gru")))

    def written(self):
        """Its bytes."""
        outputs = [piece(12, piece(1, name)) for name in self.outputs]
        inputs = ["X", "condition", "shape"] if self.depth == 0 else []
        fields = [piece(2, "graph"), *outputs]
        fields += [piece(11, piece(1, name)) for name in inputs]
        fields += [piece(1, node) for node in self.nodes]
        fields += [piece(5, initializer) for initializer in self.initializers]
        return self.wire.message(*fields, *self.others)


def model(rng):
    """A model, and the files of data beside it."""
    draw = Draw(rng, PRODUCTIONS)
    wire = Wire(draw)
    graph = Graph(wire, 0)
    graph.fill([])
    opset = rng.choice([7, 11, 14, 17, 22])
    if draw.hostile("opset is strange"):
        opset = rng.choice([0, 6, 23, -1, 1 << 31, 1 << 62])
    opsets = [wire.message(*([piece(1, "")] if draw.chance(0.5) else []), integer(2, opset))]
    if draw.chance(0.2):
        opsets.append(piece(1, "com.microsoft") + integer(2, 1))
    if draw.hostile("opset twice"):
        opsets.append(rng.choice([b"", integer(2, 11), piece(1, "ai.onnx") + integer(2, 14)]))
    if draw.hostile("no opset"):
        opsets = []
    functions = functions_of(draw, wire, graph)
    written = graph.written()
    graphs = [piece(7, written)]
    if draw.chance(0.1):  # in two pieces, which are put together
        more = Graph(wire, 3)
        more.fill([])
        graphs.append(piece(7, more.written()))
    if draw.hostile("two graphs"):
        graphs *= 2
    if draw.hostile("no graph"):
        graphs = []
    fields = [integer(1, 8), *graphs, *(piece(8, one) for one in opsets), *functions]
    if draw.chance(0.3):
        fields.append(piece(2, rng.choice(["pytorch", "tf2onnx", "x" * 5000])) + piece(3, "2.9"))
    if draw.hostile("functions"):
        fields.append(piece(25, piece(1, "f") + piece(7, b"") * 100) + piece(20, piece(1, written)))
    if draw.hostile("text is no UTF-8"):
        fields.append(piece(rng.choice([2, 3, 4, 6]), b"\xff\xfe"))
    first, *rest = fields  # by which the format is told
    rng.shuffle(rest)
    data = first + wire.message(*rest)
    if draw.hostile("cut off"):
        data = data[: rng.randrange(len(data) + 1)]
    if draw.hostile("scrambled"):
        data = scrambled(data, rng)
    beside = wire.beside
    if beside and draw.hostile("numbers are strange"):
        name = rng.choice(list(beside))
        beside[name] = with_strange_number(beside[name], rng)
    return draw.file("model.onnx", data, beside)


DOMAIN = "own"


def functions_of(draw, wire, graph):
    """Functions of a model, of which nodes of its graph are calls."""
    rng = draw.rng

    def function(name, *nodes, inputs=("x",), outputs=("y",)):
        fields = [piece(1, name), piece(10, DOMAIN), piece(9, integer(2, 17))]
        fields += [piece(4, value) for value in inputs] + [piece(5, value) for value in outputs]
        return piece(25, b"".join(fields + [piece(7, node) for node in nodes]))

    def call(name, inputs, outputs):
        return wire.node(name, inputs, outputs, name=wire.fresh("call"), domain=DOMAIN)

    made = []
    if draw.chance(0.2):  # a GRU in a function, whose weights are its inputs
        place = Graph(wire, 3)
        shapes = (1, 3, 1), (1, 3, 1)
        inputs = [
            place.constant(name, weights(rng, *shape), "f4", graph)
            for name, shape in zip("WR", shapes, strict=True)
        ]
        graph.nodes += place.nodes
        inside = wire.node("GRU", ["x", "w", "r"], ["y"], name=wire.fresh("gru"))
        made.append(function("layer", inside, inputs=("x", "w", "r")))
        graph.nodes.append(call("layer", ["X", *inputs], [wire.fresh("Y")]))
    if draw.hostile("functions in functions"):
        levels, calls = rng.choice([(3, 2), (20, 2), (31, 2), (60, 2), (5, 30)])
        made.append(
            function("f0", wire.node("GRU", ["x", "w", "r"], ["y"], name="gru"), inputs=("x", "w", "r"))
        )
        for level in range(1, levels):
            inside = [call(f"f{level - 1}", ["x", "w", "r"], [f"y{i}"]) for i in range(calls)]
            made.append(function(f"f{level}", *inside, inputs=("x", "w", "r"), outputs=("y0",)))
        graph.nodes.append(call(f"f{levels - 1}", ["X", "W", "R"], [wire.fresh("Y")]))
    if draw.hostile("function in itself"):
        names = rng.choice([["loop"], ["loop", "loop2"]])
        for name, other in zip(names, [*names[1:], names[0]], strict=True):
            made.append(function(name, call(other, ["x"], ["y"]), call(other, ["y"], ["z"])))
        graph.nodes.append(call("loop", ["X"], [wire.fresh("Y")]))
    if draw.hostile("function is strange"):
        strange = [b"", piece(1, "strange"), piece(7, b"") * 300, piece(4, "x") * 1000 + piece(1, "strange")]
        made += [piece(25, piece(10, DOMAIN) + rng.choice(strange))] * rng.choice([1, 2])
        graph.nodes.append(call("strange", ["X"] * rng.choice([0, 1, 1000]), [wire.fresh("Y")]))
    return made
