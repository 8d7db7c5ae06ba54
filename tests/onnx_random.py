"""Random ONNX graphs of the operators that fastgru computes, from a seed."""

import numpy as np
import onnx_graphs
from onnx import TensorProto

SIMPLE = ("Relu", "Sigmoid", "Tanh", "Softplus", "Identity", "Neg", "Elu", "Selu", "LeakyRelu", "HardSigmoid")
MERGES = ("Add", "Sub", "Mul")
LIMIT = 60  # features at most


class Drawn:
    """A graph that is drawn: its values, with what their axes are.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.graph = onnx_graphs.Graph(self.rng, opset=int(self.rng.choice([11, 13, 17, 20])))
        self.is_open = bool(self.rng.integers(2))
        self.batch, self.steps = int(self.rng.integers(1, 4)), int(self.rng.integers(4, 12))
        self.arrays = []
        self.values = []  # (name, axes, features)

    def one(self, *choices):
        return choices[self.rng.integers(len(choices))]

    # ---- inputs ----------------------------------------------------------------------------

    def start(self):
        """An input, which may be indices of an embedding."""
        g, features = self.graph, int(self.rng.integers(1, 9))
        axes = self.one("btf", "tbf", "bft")
        sizes = {"b": self.batch, "t": self.steps, "f": features}
        declared = {"b": "batch", "t": "steps", "f": features} if self.is_open else sizes
        if self.rng.random() < 0.2:
            axes = self.one("bt", "tb")
            rows = int(self.rng.integers(2, 20))
            x = g.input("x", [declared[axis] for axis in axes], TensorProto.INT64)
            self.arrays.append(self.rng.integers(-rows, rows, [sizes[axis] for axis in axes]))
            x = g.add("Gather", g.constant((rows, features)), x)
            axes += "f"
        else:
            x = g.input("x", [declared[axis] for axis in axes])
            self.arrays.append(self.rng.standard_normal([sizes[axis] for axis in axes]).astype(np.float32))
        # whatever the axes, the first recurrent layer says what they are
        self.values.append(self.recurrent((x, axes, features)))

    # ---- operators -------------------------------------------------------------------------

    def to(self, value, axes):
        """A value with its axes in this order."""
        name, own, features = value
        if own == axes:
            return value
        perm = [own.index(axis) for axis in axes]
        return self.graph.add("Transpose", name, perm=perm), axes, features

    def simple(self, value):
        name, axes, features = value
        return self.graph.add(self.one(*SIMPLE), name), axes, features

    def clip(self, value):
        name, axes, features = value
        low, high = (self.graph.constant(np.float32(each)) for each in sorted(self.rng.standard_normal(2)))
        return self.graph.add("Clip", name, low, high), axes, features

    def prelu(self, value):
        name, axes, features = value
        shape = tuple(features if axis == "f" else 1 for axis in axes)
        return self.graph.add("PRelu", name, self.graph.constant(shape)), axes, features

    def scaled(self, value):
        name, axes, features = value
        kind = self.one("Add", "Sub", "Mul", "Div")
        shape = tuple(features if axis == "f" else 1 for axis in axes)
        constant = self.graph.constant(self.one(shape, (1,), ()) if shape else ())
        inputs = (name, constant) if kind == "Div" or self.rng.random() < 0.7 else (constant, name)
        if kind == "Div" and self.rng.random() < 0.7:
            constant = self.graph.constant(self.rng.uniform(0.5, 2, shape).astype(np.float32))
            inputs = name, constant
        elif kind == "Div":
            far = self.graph.add("Softplus", name)
            inputs = constant, self.graph.add("Add", far, self.graph.constant(np.float32(0.5)))
        return self.graph.add(kind, *inputs), axes, features

    def dense(self, value):
        name, axes, features = self.to(value, value[1].replace("f", "") + "f")
        units, g = int(self.rng.integers(1, 9)), self.graph
        if len(axes) == 2 and self.rng.random() < 0.5:
            turned = bool(self.rng.integers(2))
            kernel = g.constant((units, features) if turned else (features, units))
            return g.add("Gemm", name, kernel, g.constant((units,)), transB=int(turned)), axes, units
        y = g.add("MatMul", name, g.constant((features, units)))
        if self.rng.random() < 0.7:
            y = g.add("Add", *self.one((y, g.constant((units,))), (g.constant((units,)), y)))
        return y, axes, units

    def softmax(self, value):
        name, axes, features = self.to(value, value[1].replace("f", "") + "f")
        return self.graph.add(self.one("Softmax", "LogSoftmax"), name, axis=len(axes) - 1), axes, features

    def normalized(self, value):
        g = self.graph
        if g.opset >= 17 and self.rng.random() < 0.5:
            name, axes, features = self.to(value, value[1].replace("f", "") + "f")
            y = g.add("LayerNormalization", name, g.constant((features,)), g.constant((features,)), axis=-1)
            return y, axes, features
        name, axes, features = self.to(value, "bft" if "t" in value[1] else "bf")
        spread = g.constant(self.rng.uniform(0.5, 2, features).astype(np.float32))
        constants = [g.constant((features,)) for _ in range(3)]
        return g.add("BatchNormalization", name, *constants, spread), axes, features

    def convolution(self, value):
        name, axes, features = self.to(value, "bft")
        g, size = self.graph, int(self.rng.integers(1, 4))
        dilation = int(self.rng.integers(1, 3))
        reach = (size - 1) * dilation
        if self.rng.random() < 0.3:
            groups, multiplier = features, int(self.rng.integers(1, 3))
            filters, channels = features * multiplier, 1
        elif features % 2 == 0 and self.rng.random() < 0.4:
            groups, channels, filters = 2, features // 2, 2 * int(self.rng.integers(1, 4))
        else:
            groups, channels, filters = 1, features, int(self.rng.integers(1, 9))
        pads = self.one([reach // 2, reach - reach // 2], [reach, 0], [reach, 0])
        attributes = {"pads": pads, "dilations": [dilation], "group": groups}
        if self.rng.random() < 0.3 and pads[1] == 0 and g.opset >= 11:
            zeros = g.integers(0, 0, reach, 0, 0, 0)
            name = g.add("Pad", name, zeros)
            attributes["pads"] = [0, 0]
        bias = [g.constant((filters,))] if self.rng.random() < 0.5 else []
        y = g.add("Conv", name, g.constant((filters, channels, size)), *bias, **attributes)
        return y, axes, filters

    def moved(self, value):
        """Timesteps added at the ends, and as many left out."""
        name, axes, features = value
        g, place = self.graph, axes.index("t")
        before, after, first = (int(each) for each in self.rng.integers(0, 4, 3))
        pads = [0] * 6
        pads[place], pads[place + 3] = before, after
        fill = self.one([], [g.constant(np.float32(0.5))])
        padded = g.add("Pad", name, g.integers(*pads), *fill)
        first = min(first, before + after)
        last = -(before + after - first) or 2**63 - 1
        return g.add("Slice", padded, g.integers(first), g.integers(last), g.integers(place)), axes, features

    def recurrent(self, value):
        g, units, directions = self.graph, int(self.rng.integers(1, 7)), int(self.rng.integers(1, 3))
        name, _, features = self.to(value, "tbf")
        attributes = {"linear_before_reset": int(self.rng.integers(2))}
        if directions == 1 and self.rng.random() < 0.3:
            attributes["direction"] = "reverse"
        state = ""
        if self.rng.random() < 0.3:
            number = len(self.arrays)
            declared = [directions, "batch" if self.is_open else self.batch, units]
            state = g.input(f"h{number}", declared)
            shape = directions, self.batch, units
            self.arrays.append(self.rng.standard_normal(shape).astype(np.float32))
        y, y_h = g.gru(name, features, units, directions, state, **attributes)
        if self.rng.random() < 0.3:
            self.give(y_h, 3)
        elif self.rng.random() < 0.4:
            shape = g.integers(-1, units) if directions == 1 else None
            if shape:
                self.values.append((g.add("Reshape", y_h, shape), "bf", units))
            else:
                turned = g.add("Transpose", y_h, perm=[1, 0, 2])
                joined = g.add("Reshape", turned, g.integers(0, directions * units))
                self.values.append((joined, "bf", directions * units))
        if directions == 1:
            if g.opset >= 13:
                return g.add("Squeeze", y, g.integers(1)), "tbf", units
            return g.add("Squeeze", y, axes=[1]), "tbf", units
        turned = g.add("Transpose", y, perm=[0, 2, 1, 3])
        shape = self.one((0, 0, -1), (0, 0, 2 * units))
        return g.add("Reshape", turned, g.integers(*shape)), "tbf", 2 * units

    def last(self, value):
        name, axes, features = value
        place = axes.index("t")
        kept = axes.replace("t", "")
        if self.rng.random() < 0.5:
            return (
                self.graph.add("Gather", name, self.graph.constant(np.int64(-1)), axis=place),
                kept,
                features,
            )
        g = self.graph
        ends = g.integers(-1), g.integers(2**63 - 1), g.integers(place)
        cut = g.add("Slice", name, *ends)
        squeezed = (
            g.add("Squeeze", cut, g.integers(place)) if g.opset >= 13 else g.add("Squeeze", cut, axes=[place])
        )
        return squeezed, kept, features

    def pooled(self, value):
        g = self.graph
        if self.rng.random() < 0.5:
            name, _, features = self.to(value, "bft")
            y = g.add(self.one("GlobalAveragePool", "GlobalMaxPool"), name)
            return g.add("Flatten", y), "bf", features
        name, axes, features = value
        kind = self.one("ReduceMean", "ReduceMax")
        place = axes.index("t")
        if g.opset >= 18:
            y = g.add(kind, name, g.integers(place), keepdims=0)
        else:
            y = g.add(kind, name, axes=[place], keepdims=0)
        return y, axes.replace("t", ""), features

    def cut(self, value):
        name, axes, features = value
        g, place = self.graph, axes.index("f")
        if features < 2:
            return value
        at = int(self.rng.integers(1, features))
        if self.rng.random() < 0.5:
            if g.opset >= 13:
                parts = g.add("Split", name, g.integers(at, features - at), outputs=2, axis=place)
            else:
                parts = g.add("Split", name, outputs=2, axis=place, split=[at, features - at])
            kept = int(self.rng.integers(2))
            return parts[kept], axes, [at, features - at][kept]
        return g.add("Slice", name, g.integers(0), g.integers(at), g.integers(place)), axes, at

    def joined(self, value):
        others = [each for each in self.values if sorted(each[1]) == sorted(value[1])]
        other = self.to(others[self.rng.integers(len(others))] if others else value, value[1])
        g, axes = self.graph, value[1]
        if value[2] == other[2] and self.rng.random() < 0.6:
            kind = self.one(*MERGES, "Max", "Min", "Mean", "Div")
            if kind == "Div":  # far from 0
                far = g.add("Add", g.add("Softplus", other[0]), g.constant(np.float32(0.5)))
                return g.add(kind, value[0], far), axes, value[2]
            return g.add(kind, value[0], other[0]), axes, value[2]
        if value[2] + other[2] > LIMIT:
            return value
        return g.add("Concat", value[0], other[0], axis=axes.index("f")), axes, value[2] + other[2]

    def flat(self, value):
        """The batch and the timesteps in one axis, and back."""
        name, axes, features = self.to(value, value[1].replace("f", "") + "f")
        if len(axes) < 3:
            return value
        g = self.graph
        shape = g.add("Shape", name)
        y = g.add("Reshape", name, g.integers(-1, features))
        y = g.add("Tanh", g.add("MatMul", y, g.constant((features, features))))
        return g.add("Reshape", y, shape), axes, features

    # ---- the whole -------------------------------------------------------------------------

    def give(self, name, rank):
        """Return a value."""
        self.graph.output(name, rank)

    def made(self):
        """The model and its arrays."""
        self.start()
        any_axes = [self.simple, self.clip, self.prelu, self.scaled, self.dense, self.softmax, self.cut]
        any_axes += [self.normalized, self.joined]
        with_time = [self.convolution, self.recurrent, self.last, self.pooled, self.flat, self.recurrent]
        with_time += [self.moved]
        for _ in range(int(self.rng.integers(2, 9))):
            value = self.values[self.rng.integers(len(self.values))]
            rules = any_axes + (with_time if "t" in value[1] else [])
            self.values.append(rules[self.rng.integers(len(rules))](value))
        name, axes, _ = self.values[-1]
        if name not in [one.name for one in self.graph.outputs]:
            self.give(name, len(axes))
        self.graph.outputs = self.graph.outputs[-6:]
        return self.graph.model(), self.arrays
