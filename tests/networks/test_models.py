"""Whole models: every kind of node against its formula in float64 NumPy, and the same bits in any company."""

import asyncio
import copy
import io
import itertools
import pickle
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import reference

import fastgru
from fastgru import _compile, _kernels, activations
from fastgru._nodes import (
    Activation,
    Clip,
    Concatenate,
    Convolution,
    Dense,
    Depthwise,
    Embedding,
    Identity,
    Inverse,
    Last,
    LayerNormalization,
    Masking,
    Merge,
    Pad,
    Pool,
    PReLU,
    Recurrent,
    Repeat,
    Reshape,
    Scale,
    Slice,
    Transpose,
    UnitNormalization,
    WindowPool,
)
from fastgru.model import Input, Model, Output

NEAR = {"float32": 3e-5, "float64": 1e-10}
DTYPES = list(NEAR)

# ---- the formulas ----------------------------------------------------------------------------------
# Of (value, mask) pairs: values (batch, timesteps, width) or (batch, width), masks (batch, timesteps) or
# None.


def formula_of(node, *inputs):
    """What a node writes, as a list of (value, mask)."""
    return FORMULAS[type(node)](node, *inputs)


def activated(node, y):
    function = node.activation
    if function is None:
        return y
    name = function if isinstance(function, str) else function.__name__
    return reference.ACTIVATIONS[name](y)


def dense(node, x):
    y = x[0] @ node.kernel.astype("f8") + (0 if node.bias is None else node.bias.astype("f8"))
    return [(activated(node, y), x[1])]


def padded(node, x, size, fill=0.0):
    """x with the steps that Keras adds."""
    reach = (size - 1) * node.dilation + 1
    before = after = 0
    if node.padding == "causal":
        before = reach - 1
    elif node.padding == "same":
        steps = -(-x.shape[1] // node.strides)
        missing = max(0, (steps - 1) * node.strides + reach - x.shape[1])
        before, after = missing // 2, missing - missing // 2
    return np.pad(x, [(0, 0), (before, after), (0, 0)], constant_values=fill)


def windows_of(node, x, size, fill=0.0):
    """(batch, steps, size, width)"""
    x = padded(node, x, size, fill)
    reach = (size - 1) * node.dilation + 1
    starts = range(0, x.shape[1] - reach + 1, node.strides)
    return np.stack([x[:, start : start + reach : node.dilation] for start in starts], 1)


def kept_mask(node, x, y):
    """The mask of windows: that of the input if there are as many as timesteps."""
    return x[1] if node.strides == 1 and (node.padding != "valid" or x[0].shape[1] == y.shape[1]) else None


def convolution(node, x):
    windows = windows_of(node, x[0], len(node.kernel))
    y = np.einsum("btsw,swf->btf", windows, node.kernel.astype("f8"))
    y = activated(node, y + (0 if node.bias is None else node.bias))
    return [(y, kept_mask(node, x, y))]


def depthwise(node, x):
    windows = windows_of(node, x[0], len(node.kernel))
    y = np.einsum("btsw,swm->btwm", windows, node.kernel.astype("f8"))
    y = y.reshape(*y.shape[:2], -1) + (0 if node.bias is None else node.bias)
    y = activated(node, y)
    return [(y, kept_mask(node, x, y))]


def window_pool(node, x):
    windows = windows_of(node, x[0], node.size, np.nan)
    y = (np.nanmax if node.largest else np.nanmean)(windows, 2)
    return [(y, kept_mask(node, x, y))]


def embedding(node, x):
    indices, mask = x
    y = node.table.astype("f8")[indices]
    if node.mask_zero:
        mask = (indices != 0) if mask is None else mask & (indices != 0)
    return [(y, mask)]


def layer_normalization(node, x):
    mean = x[0].mean(-1, keepdims=True) if node.centered else 0
    variance = ((x[0] - mean) ** 2).mean(-1, keepdims=True)
    return [((x[0] - mean) / np.sqrt(variance + node.epsilon) * node.gamma + node.beta, x[1])]


def unit_normalization(node, x):
    squares = np.maximum((x[0] ** 2).sum(-1, keepdims=True), node.least)
    return [(x[0] / np.sqrt(squares), x[1])]


def merged(node, *inputs):
    shape = np.broadcast_shapes(*(wide(value).shape for value, _ in inputs))
    values = [np.broadcast_to(wide(value), shape) for value, _ in inputs]
    y = values[0]
    for value in values[1:]:
        y = {
            "sum": np.add, "ave": np.add, "mul": np.multiply, "sub": np.subtract, "div": np.divide,
            "max": np.maximum, "min": np.minimum,
        }[node.mode](y, value)  # fmt: skip
    y = y / len(values) if node.mode == "ave" else y
    y = y if any(value.ndim == 3 for value, _ in inputs) else y[:, 0]
    return [(y, both_masks(inputs))]


def wide(value):
    return value if value.ndim == 3 else value[:, np.newaxis]


def both_masks(inputs):
    masks = [mask for _, mask in inputs if mask is not None]
    return np.logical_and.reduce(masks) if masks else None


def masking(node, x):
    mask = (x[0] != node.value).any(-1)
    return [(x[0] * mask[:, :, np.newaxis], mask)]


def pool(node, x):
    value, mask = x
    if node.largest:
        y = value.max(1)
    elif mask is None:
        y = value.mean(1)
    else:
        y = (value * mask[:, :, np.newaxis]).sum(1) / mask.sum(1, keepdims=True)
    return [(y[:, np.newaxis] if node.keepdims else y, None)]


def pad(node, x):
    ends = max(0, node.before), max(0, node.after)
    y = np.pad(x[0], [(0, 0), ends, (0, 0)], constant_values=node.fill)
    return [(y[:, max(0, -node.before) : y.shape[1] - max(0, -node.after)], None)]


def reshape(node, x):
    return [(x[0].reshape(len(x[0]), *node.shape), None if x[0].shape[1:] != node.shape else x[1])]


def recurrent(node, x, *initial):
    layer = node.layer
    ways = [layer] if isinstance(layer, fastgru.GRU) else [layer.forward_layer, layer.backward_layer]
    starts = [value for value, _ in initial] or [None] * len(ways)
    outputs, states = [], []
    for way, start in zip(ways, starts, strict=True):
        y, last = reference.gru(
            x[0],
            *way.get_weights(),
            activation=activations.serialize(way.activation),
            recurrent_activation=activations.serialize(way.recurrent_activation),
            reset_after=way.reset_after,
            initial_state=start,
            mask=x[1],
            go_backwards=way.go_backwards,
            zero_output_for_mask=way.zero_output_for_mask,
        )
        outputs.append(y if layer.return_sequences else y[:, -1])
        states.append((last, None))
    if len(ways) == 2:
        if layer.return_sequences:
            outputs[1] = outputs[1][:, ::-1]
        outputs = [np.concatenate(outputs, -1)] if layer.merge_mode == "concat" else outputs
        outputs = [outputs[0] + outputs[1]] if layer.merge_mode == "sum" else outputs
    mask = x[1] if layer.return_sequences else None
    return [(y, mask) for y in outputs] + (states if layer.return_state else [])


FORMULAS = {
    Activation: lambda node, x: [(activated(node, x[0]), x[1])],
    Clip: lambda node, x: [(np.clip(x[0], node.least, node.most), x[1])],
    Concatenate: lambda node, *inputs: [
        (np.concatenate([value for value, _ in inputs], -1), both_masks(inputs))
    ],
    Convolution: convolution,
    Dense: dense,
    Depthwise: depthwise,
    Embedding: embedding,
    Identity: lambda node, x: [x],
    Inverse: lambda node, x: [(node.numerator / x[0], x[1])],
    Last: lambda node, x: [(x[0][:, -1], None)],
    LayerNormalization: layer_normalization,
    Masking: masking,
    Merge: merged,
    Pad: pad,
    Pool: pool,
    PReLU: lambda node, x: [(np.where(x[0] >= 0, x[0], x[0] * node.alpha), x[1])],
    Recurrent: recurrent,
    Repeat: lambda node, x: [(np.repeat(x[0][:, np.newaxis], node.times, 1), None)],
    Reshape: reshape,
    Scale: lambda node, x: [(x[0] * node.factor + node.shift, x[1])],
    Slice: lambda node, x: [(x[0][..., node.start : node.stop], x[1])],
    Transpose: lambda node, x: [(x[0].swapaxes(1, 2), None)],
    UnitNormalization: unit_normalization,
    WindowPool: window_pool,
}


def formula(model, *inputs, mask=None):
    """What a model should return: by the formulas, node after node."""
    values = {}
    for number, (one, array) in enumerate(zip(model.inputs, inputs, strict=True)):
        values[one.name] = (array if one.indices else array.astype("f8"), None if number else mask)
    with np.errstate(all="ignore"):
        for node in model.nodes:
            found = formula_of(node, *(values[name] for name in node.inputs))
            if not node.passes_mask:
                found = [(value, None) for value, _ in found]
            values |= dict(zip(node.outputs, found, strict=True))
    results = [values[one.name][0] for one in model.output_values]
    return results[0] if len(results) == 1 else results


# ---- models of some nodes --------------------------------------------------------------------------


class Maker:
    """Numbers of a seed, and nodes made of them that follow each other."""

    def __init__(self, seed, dtype="float32"):
        self.rng, self.dtype, self.nodes = np.random.default_rng(seed), dtype, []
        self.last = "x"

    def array(self, *shape):
        return self.rng.normal(size=shape).astype(self.dtype)

    def kernel(self, *shape):
        return (self.rng.normal(size=shape) / max(1, int(np.prod(shape[:-1]))) ** 0.5).astype(self.dtype)

    def add(self, kind, *inputs, outputs=None, **fields):
        """A node that reads these, or what the last one has written; the name of what it writes."""
        name = f"{kind.__name__.lower()}_{len(self.nodes)}"
        written = tuple(outputs or (name,))
        self.nodes.append(kind(name=name, inputs=inputs or (self.last,), outputs=written, **fields))
        self.last = written[0]
        return self.last

    def gru(self, features, units, bidirectional=None, **flags):
        """A built layer of known weights."""
        flags = {"return_sequences": True, "reset_after": bool(self.rng.integers(2))} | flags
        layer = fastgru.GRU(units, dtype=self.dtype, **flags)
        if bidirectional is not None:
            layer = fastgru.Bidirectional(layer, bidirectional)
        layer.build((None, None, features))
        layer.set_weights([self.kernel(*w.shape) for w in layer.get_weights()])
        return layer

    def model(self, *inputs, outputs=None, **options):
        names = outputs or [self.last]
        return Model(inputs, self.nodes, [Output(name) for name in names], dtype=self.dtype, **options)


def windowed(make, kind, width, **fields):
    rng = make.rng
    padding = rng.choice(["valid", "same", "causal"][: 2 if kind is WindowPool else 3])
    strides, dilation = (1, int(rng.integers(1, 4))) if rng.integers(2) else (int(rng.integers(1, 4)), 1)
    make.add(kind, padding=str(padding), strides=strides, dilation=dilation, **fields)


def one_node(make, kind, width):
    """Add a node of this kind that reads x of this width."""
    rng, units = make.rng, int(make.rng.choice([1, 2, 7, 16, 33, 100]))
    bias = bool(rng.integers(2))
    function = str(rng.choice(["linear", "relu", "tanh", "sigmoid", "softplus", "softmax", "log_softmax"]))
    size = int(rng.integers(1, 6))
    if kind is Dense:
        make.add(Dense, kernel=make.kernel(width, units), bias=make.array(units) if bias else None,
                 activation=function)  # fmt: skip
    elif kind is Convolution:
        windowed(make, Convolution, width, kernel=make.kernel(size, width, units),
                 bias=make.array(units) if bias else None, activation=function)  # fmt: skip
    elif kind is Depthwise:
        times = int(rng.integers(1, 4))
        windowed(make, Depthwise, width, kernel=make.kernel(size, width, times),
                 bias=make.array(width * times) if bias else None, activation=function)  # fmt: skip
    elif kind is WindowPool:
        windowed(make, WindowPool, width, size=size, largest=bias)
    elif kind is Activation:
        make.add(Activation, activation=function)
    elif kind is Clip:
        make.add(Clip, least=-0.5, most=float(rng.choice([0.25, np.inf])))
    elif kind is PReLU:
        make.add(PReLU, alpha=make.array(width))
    elif kind is Scale:
        make.add(Scale, factor=make.array(width), shift=make.array(width))
    elif kind is LayerNormalization:
        make.add(LayerNormalization, gamma=make.array(width), beta=make.array(width), epsilon=1e-3,
                 centered=bias)  # fmt: skip
    elif kind is UnitNormalization:
        make.add(UnitNormalization, least=float(rng.choice([1e-12, 2.0, width])))
    elif kind is Merge:
        other = make.add(Scale, "x", factor=make.array(width), shift=make.array(width))
        third = make.add(Activation, "x", activation="tanh")
        far = make.add(Activation, "x", activation="exponential")  # from 0, by which nothing can be divided
        names = ["x", other, third][: int(rng.integers(2, 4))]
        mode = str(rng.choice(["sum", "mul", "sub", "div", "ave", "max", "min"]))
        make.add(Merge, *names, mode=mode) if mode != "div" else make.add(Merge, "x", far, far, mode=mode)
    elif kind is Inverse:
        far = make.add(Activation, "x", activation="exponential")
        make.add(Inverse, far, numerator=make.array(width))
    elif kind is Pad:
        make.add(Pad, before=int(rng.integers(-4, 5)), after=int(rng.integers(-4, 5)),
                 fill=float(rng.choice([0, -1.5])))  # fmt: skip
    elif kind is Concatenate:
        other = make.add(Activation, "x", activation="tanh")
        make.add(Concatenate, "x", other, "x")
    elif kind is Slice:
        start = int(rng.integers(0, width))
        make.add(Slice, start=start, stop=int(rng.integers(start + 1, width + 1)))
    elif kind is Recurrent:
        make.add(Recurrent, layer=make.gru(width, units, return_sequences=bias))
    elif kind is Pool:
        make.add(Pool, largest=bias, keepdims=bool(rng.integers(2)))
    elif kind is Last:
        make.add(Last)
    elif kind is Identity:
        make.add(Identity)
    elif kind is Masking:
        make.add(Masking, value=0.0)
        make.add(Recurrent, layer=make.gru(width, units))
    else:
        raise AssertionError(kind)


KINDS = [
    *(Activation, Clip, Concatenate, Convolution, Dense, Depthwise, Identity, Inverse, Last),
    *(LayerNormalization, Masking, Merge, Pad, Pool, PReLU, Recurrent, Scale, Slice, UnitNormalization),
    WindowPool,
]


def sequence(rng, batch, timesteps, width, dtype="float32", gaps=False):
    """An input, with steps of zeros where there are gaps."""
    x = rng.normal(size=(batch, timesteps, width)).astype(dtype)
    if gaps:
        x[rng.random((batch, timesteps)) < 0.4] = 0
    return x


def mask_of(rng, batch, timesteps):
    mask = rng.random((batch, timesteps)) < 0.6
    mask[:, 0] = True  # a mean needs a step
    return mask


@pytest.fixture(params=range(3))
def seed(request):
    return request.param


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_node_computes_its_formula(kind, dtype, seed, choice):
    make = Maker(seed, dtype)
    rng, width = make.rng, int(make.rng.choice([1, 3, 16, 40]))
    one_node(make, kind, width)
    model = make.model(Input("x", (None, width)))
    for batch, timesteps in [(1, 20), (3, 18), (130, 16)]:
        x = sequence(rng, batch, timesteps, width, dtype, kind is Masking)
        for mask in (None, mask_of(rng, batch, timesteps)):
            if mask is not None and kind is Masking:
                continue
            found, wanted = model(x, mask=mask), formula(model, x, mask=mask)
            assert found.dtype == dtype
            np.testing.assert_allclose(found, wanted, rtol=0, atol=NEAR[dtype] * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nodes_of_vectors_compute_their_formulas(dtype, seed, choice):
    make = Maker(seed, dtype)
    width = int(make.rng.choice([1, 5, 33]))
    hidden = make.add(Dense, "x", kernel=make.kernel(width, 7), bias=make.array(7), activation="tanh")
    scaled = make.add(Scale, factor=make.array(7), shift=make.array(7))
    make.add(Merge, hidden, scaled, mode="ave")
    make.add(LayerNormalization, gamma=make.array(7), beta=make.array(7), epsilon=1e-5)
    make.add(Repeat, times=4)
    make.add(Recurrent, layer=make.gru(7, 5))
    make.add(Reshape, shape=(20,))
    model = make.model(Input("x", (width,)))
    for batch in (1, 4, 131):
        x = make.array(batch, width)
        np.testing.assert_allclose(model(x), formula(model, x), rtol=0, atol=NEAR[dtype])


# ---- company: batches, cuts, streams, instruction sets, threads --------------------------------------


def chain(make, width, count, streams=False):
    """Add nodes that follow each other and keep the timesteps, with ways around some of them."""
    rng = make.rng
    for _ in range(count):
        before = make.last
        kind = rng.choice(
            ["dense", "convolution", "depthwise", "norm", "gru", "gru", "scale", "pool", "inverse"]
        )
        units = int(rng.choice([1, 5, 16, 24, 50]))
        padding = "causal" if streams else str(rng.choice(["same", "causal"]))
        function = str(rng.choice(["linear", "relu", "tanh", "sigmoid", "softmax"]))
        if kind == "dense":
            make.add(Dense, kernel=make.kernel(width, units), bias=make.array(units), activation=function)
        elif kind == "convolution":
            size, dilation = int(rng.integers(1, 5)), int(rng.integers(1, 3))
            make.add(Convolution, kernel=make.kernel(size, width, units), bias=make.array(units),
                     padding=padding, dilation=dilation, activation=function)  # fmt: skip
        elif kind == "depthwise":
            size, units = int(rng.integers(1, 5)), width
            make.add(Depthwise, kernel=make.kernel(size, width, 1), bias=make.array(units), padding=padding,
                     activation=function)  # fmt: skip
        elif kind == "norm":
            units = width
            make.add(LayerNormalization, gamma=make.array(units), beta=make.array(units), epsilon=1e-3)
        elif kind == "gru":
            both = "sum" if not streams and rng.integers(3) == 0 else None
            make.add(Recurrent, layer=make.gru(width, units, both))
        elif kind == "scale":
            units = width
            make.add(Scale, factor=make.array(units), shift=make.array(units))
        elif kind == "inverse":
            units = width
            make.add(Activation, activation="exponential")
            make.add(Inverse, numerator=make.array(units))
            make.add(Activation, activation="tanh")
        elif streams:
            units = width
            make.add(Activation, activation="softsign")
        elif rng.integers(2):  # moved in time
            units = width
            more = int(rng.integers(1, 4))
            make.add(Pad, before=more, after=2, fill=0.5)
            make.add(Pad, before=-1, after=-1 - more)
        else:
            units = width
            make.add(WindowPool, size=3, largest=bool(rng.integers(2)), padding="same")
        if units == width and rng.integers(2):
            mode = str(rng.choice(["sum", "mul", "max", "div"]))
            if mode == "div":
                last = make.last
                make.add(Activation, before, activation="softplus")
                before = make.add(Clip, least=0.1, most=np.inf)
                make.last = last
            make.add(Merge, make.last, before, mode=mode)
        elif units < 60 and rng.integers(3) == 0:
            make.add(Concatenate, before, make.last)
            units += width
        width = units
    return width


def cut(monkeypatch, steps):
    """Chunks of this many steps."""
    monkeypatch.setattr(_compile, "CHUNK_BYTES", 1)
    monkeypatch.setattr(_compile, "CHUNK_STEPS", steps)


@pytest.fixture(params=range(12))
def many(request):
    return request.param


WEIGHTS = [None, "int8"] + ["float16"] * bool(_kernels.float16_isas())


@pytest.mark.parametrize("ends", ["sequence", "last", "mean"])
def test_a_row_has_the_same_bits_alone_in_a_batch_and_cut(many, ends, monkeypatch):
    dtype = DTYPES[many % 4 == 3]
    make = Maker(many, dtype)
    rng = make.rng
    width = chain(make, 6, 4)
    if ends != "sequence":
        make.add(*((Pool,) if ends == "mean" else (Last,)), **({"largest": False} if ends == "mean" else {}))
        make.add(Dense, kernel=make.kernel(width, 9), bias=make.array(9), activation="softmax")
    packed_as = None if dtype == "float64" else WEIGHTS[many % len(WEIGHTS)]
    x = sequence(rng, 137, 40, 6, dtype)
    mask = rng.random((137, 40)) < 0.7
    model = make.model(Input("x", (None, 6)), weights_dtype=packed_as)
    wanted, masked = model(x), model(x, mask=mask)
    assert np.isfinite(wanted).all()
    for rows in (slice(3, 4), slice(0, 2), slice(100, 137), slice(0, 130)):
        assert np.array_equal(model(x[rows]), wanted[rows])
        assert np.array_equal(model(x[rows], mask=mask[rows]), masked[rows], equal_nan=True)
    for steps in (1, 3, 7):
        cut(monkeypatch, steps)
        again = make.model(Input("x", (None, 6)), weights_dtype=packed_as)
        for rows in (slice(5, 6), slice(0, 30)):
            assert np.array_equal(again(x[rows]), wanted[rows])
            assert np.array_equal(again(x[rows], mask=mask[rows]), masked[rows], equal_nan=True)


def test_lengths_are_the_mask_that_they_stand_for(many, monkeypatch):
    make = Maker(many)
    chain(make, 6, 3)
    if many % 2:
        make.add(Recurrent, layer=make.gru(make.model(Input("x", (None, 6))).outputs[make.last][-1], 5,
                                           return_sequences=False), passes_mask=many % 3 != 0)  # fmt: skip
    for chunk in (None, 2):
        if chunk:
            cut(monkeypatch, chunk)
        model = make.model(Input("x", (None, 6)))
        x = sequence(make.rng, 7, 15, 6)
        lengths = make.rng.integers(0, 12, 7)
        mask = np.arange(15) < lengths[:, np.newaxis]
        found, wanted = model(x, lengths=lengths), model(x, mask=mask)
        assert np.array_equal(found, wanted, equal_nan=True)


def test_instruction_sets_agree(many):
    bits = {}
    for isa in _kernels.packed_isas():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fastgru._config, "CHOICE", fastgru._config.Choice("packed", isa))
            make = Maker(many)
            chain(make, 6, 5)
            model = make.model(Input("x", (None, 6)), weights_dtype=[None, "int8"][many % 2])
            bits[isa] = model(sequence(make.rng, 9, 21, 6)).tobytes()
    assert len(set(bits.values())) == 1, bits.keys()


def test_a_stream_has_the_bits_of_the_whole_sequence(many, monkeypatch):
    dtype = DTYPES[many % 4 == 3]
    make = Maker(many, dtype)
    chain(make, 6, 5, streams=True)
    packed_as = None if dtype == "float64" else WEIGHTS[many % len(WEIGHTS)]
    model = make.model(Input("x", (None, 6)), weights_dtype=packed_as)
    x = sequence(make.rng, 5, 30, 6, dtype)
    wanted = model(x)
    single = model.stream(5)
    assert np.array_equal(np.stack([single(x[:, t]).copy() for t in range(30)], 1), wanted)
    alone = model.stream()
    assert np.array_equal(np.stack([alone(x[2:3, t]).copy() for t in range(30)], 1), wanted[2:3])
    for chunk in (None, 2):
        if chunk:
            cut(monkeypatch, chunk)
        pieces = model.stream(5)
        cuts = [0, 1, 4, 5, 17, 30]
        found = [pieces(x[:, a:b]) for a, b in itertools.pairwise(cuts)]
        assert np.array_equal(np.concatenate(found, 1), wanted)
    pool = fastgru.StreamPool(model, 8)
    slots = [pool.open() for _ in range(5)]
    for t in range(30):
        order = make.rng.permutation(5)
        found = pool.step([slots[i] for i in order], x[order, t])
        assert np.array_equal(found, wanted[order, t])


def test_threads_share_a_model():
    make = Maker(0)
    chain(make, 6, 6)
    model = make.model(Input("x", (None, 6)))
    inputs = [sequence(make.rng, 1 + i % 5, 10 + i, 6) for i in range(24)]
    wanted = [model(x) for x in inputs]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(5):
            for found, one in zip(threads.map(model, inputs), wanted, strict=True):
                assert np.array_equal(found, one)


# ---- inputs and outputs ------------------------------------------------------------------------------


def test_inputs_may_lie_anywhere_and_be_of_any_float_type(seed):
    make = Maker(seed)
    chain(make, 6, 4)
    model = make.model(Input("x", (None, 6)))
    x = sequence(make.rng, 4, 20, 6).astype("f2").astype("f4")
    wanted = model(x)
    apart = np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3]
    steps_first = np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)
    features_apart = np.repeat(x, 2, -1)[..., ::2]
    backwards = x[:, ::-1].copy()[:, ::-1]
    unaligned = np.frombuffer(b"." + x.tobytes(), np.uint8)[1:].view("f4").reshape(x.shape)
    others = [x.astype("f2"), x.astype("f8"), x.astype(">f4")]
    for one in (apart, steps_first, features_apart, backwards, unaligned, *others):
        assert np.array_equal(model(one), wanted)


def test_out_is_written_and_returned(seed):
    make = Maker(seed)
    width = chain(make, 6, 4)
    last = make.last
    make.add(Recurrent, layer=make.gru(width, 3, return_sequences=False))
    model = make.model(Input("x", (None, 6)), outputs=[last, make.last])
    x = sequence(make.rng, 4, 20, 6)
    wanted = model(x)
    out = [np.full((4, 40, width), 7, "f4")[:, ::2], np.full((4, 3), 7, "f4")]
    found = model(x, out=out)
    assert all(a is b for a, b in zip(found, out, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(out, wanted, strict=True))


def test_no_rows_give_no_rows():
    make = Maker(0)
    width = chain(make, 6, 3)
    last = make.last
    make.add(Pool, largest=True)
    model = make.model(Input("x", (None, 6)), outputs=[last, make.last])
    assert [y.shape for y in model(np.zeros((0, 5, 6), "f4"))] == [(0, 5, width), (0, width)]


def test_an_input_or_one_value_twice_may_be_an_output():
    make = Maker(0)
    name = make.add(Dense, kernel=make.kernel(6, 2), activation="relu")
    same = make.add(Identity)
    model = make.model(Input("x", (None, 6)), outputs=["x", name, same, "x"])
    x = sequence(make.rng, 3, 5, 6)
    found = model(x)
    assert np.array_equal(found[0], x)
    assert np.array_equal(found[3], x)
    assert np.array_equal(found[1], found[2])
    np.testing.assert_allclose(found[1], formula(model, x)[1], atol=3e-5)


def test_several_inputs_with_timesteps_of_their_own(seed, choice, monkeypatch):
    cut(monkeypatch, 3)
    make = Maker(seed)
    left = make.add(Recurrent, "x", layer=make.gru(6, 5, return_sequences=False))
    right = make.add(Recurrent, "y", layer=make.gru(4, 5))
    third = make.add(Dense, "z", kernel=make.kernel(3, 5))
    make.add(Merge, right, left, third, mode="sum")
    make.add(Recurrent, layer=make.gru(5, 2))
    model = make.model(Input("x", (None, 6)), Input("y", (None, 4)), Input("z", (3,)))
    arrays = [make.array(3, 11, 6), make.array(3, 17, 4), make.array(3, 3)]
    wanted = formula(model, *arrays)
    np.testing.assert_allclose(model(arrays), wanted, atol=3e-5)
    named = dict(zip("zxy", [arrays[2], arrays[0], arrays[1]], strict=True))
    np.testing.assert_allclose(model(named), wanted, atol=3e-5)


def test_usual_calls_of_several_inputs_are_compiled_throughout(seed, choice, monkeypatch):
    make = Maker(seed)
    third = make.add(Dense, "z", kernel=make.kernel(3, 4))
    both = make.add(Merge, make.add(Convolution, "y", kernel=make.kernel(3, 6, 4), padding="causal"), third,
                    mode="mul")  # fmt: skip
    make.add(Concatenate, "x", both)
    make.add(Recurrent, layer=make.gru(10, 2))
    make.add(Recurrent, make.last, layer=make.gru(2, 3, return_sequences=False))
    inputs = Input("x", (None, 6)), Input("y", (None, 6)), Input("z", (3,))
    model = make.model(*inputs, outputs=["recurrent_4", both, make.last])
    single = make.model(*inputs)
    arrays = [make.array(4, 9, 6), make.array(4, 9, 6), make.array(4, 3)]
    mask = make.rng.random((4, 9)) < 0.5
    states, out = [None, make.array(4, 2), None], make.array(4, 3)
    cases = [{}, {"mask": mask}, {"lengths": [1, 2, 9, 0]}, {"initial_state": states}]
    wanted = [model(dict(zip("xyz", arrays, strict=True)), **case) for case in cases]
    np.testing.assert_allclose(wanted[0][0], formula(model, *arrays)[0], atol=3e-5)
    long = Model._long_call
    monkeypatch.setattr(Model, "_long_call", None)
    for case, want in zip(cases, wanted, strict=True):
        for given in (arrays, tuple(arrays), [np.repeat(one, 2, axis=0)[::2] for one in arrays]):
            found = model(given, **case)
            assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found, want, strict=True))
    assert single(arrays, out=out) is out
    assert np.array_equal(out, wanted[0][-1])
    monkeypatch.setattr(Model, "_long_call", long)
    refused = {
        "inputs must be 3 arrays, got 2": arrays[:2],
        "input 'y' must have the axes": [arrays[0], arrays[2], arrays[2]],
        "inputs must have the same batch": [arrays[0], arrays[1][:1], arrays[2]],
        "inputs must have the same number of timesteps, because": [arrays[0][:, :5], arrays[1], arrays[2]],
    }
    for message, given in refused.items():
        with pytest.raises(ValueError, match=message):
            model(given)
    shared = np.zeros((4, 3), "f4")
    with pytest.raises(ValueError, match="out must not overlap the inputs"):
        single([*arrays[:2], shared], out=shared)
    others = [arrays[0].astype("f8"), np.asfortranarray(arrays[1]), arrays[2].astype(">f4")]
    assert all(np.array_equal(a, b) for a, b in zip(model(others), wanted[0], strict=True))


@pytest.mark.parametrize("fixed", [False, True])
def test_each_input_has_as_many_timesteps_as_its_windows_read(fixed):
    make = Maker(0)
    make.add(Recurrent, "x", layer=make.gru(6, 2))
    first = make.last
    make.add(Convolution, "y", kernel=make.kernel(5, 6, 4))
    model = make.model(
        Input("x", (None, 6)), Input("y", (7 if fixed else None, 6)), outputs=[first, make.last]
    )
    message = (
        r"must have the shape \(batch, 7, 6\)" if fixed else "input 'y' must have 5 timesteps or more, got 4"
    )
    with pytest.raises(ValueError, match=message):
        model([make.array(2, 4, 6), make.array(2, 4, 6)])
    assert [one.shape for one in model([make.array(2, 7, 6), make.array(2, 7, 6)])] == [(2, 7, 2), (2, 3, 4)]
    assert [one.shape for one in model([make.array(2, 3, 6), make.array(2, 7, 6)])] == [(2, 3, 2), (2, 3, 4)]


def test_a_list_is_of_inputs_and_not_of_states():
    make = Maker(0)
    make.add(Recurrent, layer=make.gru(6, 5))
    model = make.model(Input("x", (None, 6)))
    x = make.array(2, 3, 6)
    assert np.array_equal(model([x]), model(x))
    assert np.array_equal(model((x,)), model(x))
    with pytest.raises(ValueError, match="inputs must be 1 arrays, got 2"):
        model([x, make.array(2, 5)])


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("both", [None, "concat"])
def test_a_decoder_starts_from_the_last_state_of_the_encoder(both, chunk, seed, choice, monkeypatch):
    # of the same input, too: the encoder has to have read all of it
    cut(monkeypatch, chunk)
    make = Maker(seed)
    count = 1 if both is None else 2
    states = [f"h{i}" for i in range(count)]
    first = make.gru(6, 5, both, return_state=True)
    make.add(Recurrent, "x", outputs=["encoded", *states], layer=first)
    second = make.gru(6, 5, both, return_state=True)
    make.add(Recurrent, "x", *states, outputs=["decoded", *(f"g{i}" for i in range(count))], layer=second)
    make.add(Merge, "encoded", "decoded", mode="sum")
    model = make.model(Input("x", (None, 6)), outputs=[make.last, "g0", "h0"])
    x = make.array(4, 13, 6)
    mask = mask_of(make.rng, 4, 13)
    for given in (None, mask):
        for found, wanted in zip(model(x, mask=given), formula(model, x, mask=given), strict=True):
            np.testing.assert_allclose(found, wanted, atol=3e-5)
    one = make.array(4, 1, 6)
    for found, wanted in zip(model(one), formula(model, one), strict=True):
        np.testing.assert_allclose(found, wanted, atol=3e-5)


def test_one_gru_that_starts_from_an_input_alone():
    make = Maker(0)
    make.add(Recurrent, "x", "h", outputs=["y", "last"], layer=make.gru(6, 5, return_state=True))
    model = make.model(Input("x", (None, 6)), Input("h", (5,)), outputs=["y", "last"])
    for timesteps in (1, 9):
        x, h = make.array(3, timesteps, 6), make.array(3, 5)
        for found, wanted in zip(model([x, h]), formula(model, x, h), strict=True):
            np.testing.assert_allclose(found, wanted, atol=3e-5)


def test_layers_of_another_type_are_cast():
    make = Maker(0)
    layer = Maker(1, "float64").gru(6, 5, return_state=True)
    make.add(Recurrent, "x", "h", outputs=["y", "last"], layer=layer)
    model = make.model(Input("x", (None, 6)), Input("h", (5,)), outputs=["y", "last"])
    x, h = make.array(3, 9, 6), make.array(3, 5)
    for found, wanted in zip(model([x, h]), formula(model, x, h), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=3e-6)


def test_shapes_that_end_time_and_start_it(seed, choice):
    make = Maker(seed)
    make.add(Dense, kernel=make.kernel(6, 4), activation="tanh")
    make.add(Transpose)
    make.add(Recurrent, layer=make.gru(10, 3))
    make.add(Reshape, shape=(12,))
    make.add(Dense, kernel=make.kernel(12, 8), activation="relu")
    make.add(Reshape, shape=(2, 4))
    make.add(Recurrent, layer=make.gru(4, 3, return_sequences=False))
    make.add(Repeat, times=3)
    make.add(Recurrent, layer=make.gru(3, 3))
    model = make.model(Input("x", (10, 6)))
    for batch in (1, 3, 140):
        x = make.array(batch, 10, 6)
        np.testing.assert_allclose(model(x), formula(model, x), atol=3e-5)


@pytest.mark.parametrize(("before", "after"), [(2, 0), (0, 2), (3, 3), (-2, -1), (-2, 5), (4, -3), (1, -1)])
def test_padded_and_cropped_sequences_meet_others_of_as_many_timesteps(before, after, seed, choice):
    make = Maker(seed)
    size = before + after + 1
    padded = make.add(Pad, before=before, after=after, fill=float(seed))
    if size > 0:  # windows that take away what has been added
        back = make.add(Convolution, padded, kernel=make.kernel(size, 6, 6), activation="tanh")
    else:
        back = make.add(Pad, padded, before=-after, after=-before)
    make.add(Merge, back, "x", mode="sum")
    make.add(Recurrent, layer=make.gru(6, 5))
    model = make.model(Input("x", (None, 6)), outputs=[make.last, padded, back])
    least = max(1, 1 - before - after)
    for batch, timesteps in [(1, least), (3, 17), (130, 9)]:
        x = sequence(make.rng, batch, timesteps, 6)
        for found, wanted in zip(model(x), formula(model, x), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-5)
    fixed = make.model(Input("x", (9, 6)), outputs=[padded])
    assert fixed.shape_of(padded) == (9 + before + after, 6)
    if least > 1:
        with pytest.raises(
            ValueError, match=f"input 'x' must have {least} timesteps or more, got {least - 1}"
        ):
            model(sequence(make.rng, 1, least - 1, 6))
        with pytest.raises(ValueError, match=f"must read {least} timesteps or more, got {least - 1}"):
            make.model(Input("x", (least - 1, 6)))
    with pytest.raises(ValueError, match="layer 'pad_0' adds timesteps or leaves some out"):
        make.model(Input("x", (None, 6)), outputs=[make.last]).stream()


def test_windows_of_windows_need_as_many_timesteps_as_each_of_them(seed):
    make = Maker(seed)
    make.add(Convolution, kernel=make.kernel(4, 6, 3), strides=2)
    make.add(Pad, before=7, after=0)
    make.add(WindowPool, size=3, largest=True, strides=2)
    model = make.model(Input("x", (None, 6)))
    for timesteps in (4, 5, 6, 7, 30):
        x = sequence(make.rng, 2, timesteps, 6)
        found, wanted = model(x), formula(model, x)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-5)
    with pytest.raises(ValueError, match="input 'x' must have 4 timesteps or more, got 3"):
        model(x[:, :3])


def test_numbers_without_a_length_stay_so():
    make = Maker(0)
    make.add(UnitNormalization, least=1e-12)
    model = make.model(Input("x", (None, 2)))
    x = np.array([[[0, 0], [3e-7, 4e-7], [3, 4], [np.nan, 1]]], np.float32)
    wanted = [[0, 0], [0.3, 0.4], [0.6, 0.8], [np.nan, np.nan]]
    np.testing.assert_allclose(model(x)[0], wanted, rtol=1e-6)


def test_what_is_divided_by_zero_is_infinite_or_no_number(choice):
    make = Maker(0)
    one = make.add(Clip, least=0.0, most=np.inf)
    quotient = make.add(Merge, "x", one, mode="div")
    inverse = make.add(Inverse, one, numerator=np.array([1, -1], np.float32))
    model = make.model(Input("x", (None, 2)), outputs=[quotient, inverse])
    x = np.array([[[2, 0], [-3, -4]]], np.float32)
    found = model(x)
    assert np.array_equal(found[0], [[[1, np.nan], [-np.inf, -np.inf]]], equal_nan=True)
    assert np.array_equal(found[1], [[[0.5, -np.inf], [np.inf, -np.inf]]])


# ---- indices and masks -------------------------------------------------------------------------------


def tagger(make, rows=50, mask_zero=True, from_end=False, **options):
    make.add(Embedding, table=make.array(rows, 8), mask_zero=mask_zero, from_end=from_end)
    make.add(Recurrent, layer=make.gru(8, 6))
    make.add(Dense, kernel=make.kernel(6, 5), bias=make.array(5), activation="softmax")
    return make.model(Input("x", (None,), indices=True), **options)


@pytest.mark.parametrize("kind", ["i4", "i8", "u1", "u8", "f4", "i2"])
def test_an_embedding_masks_zeros(kind, seed, choice):
    make = Maker(seed)
    model = tagger(make)
    x = make.rng.integers(0, 50, (4, 12)) * (make.rng.random((4, 12)) < 0.7)
    mask = mask_of(make.rng, 4, 12)
    for given in (None, mask):
        found, wanted = model(x.astype(kind), mask=given), formula(model, x, mask=given)
        np.testing.assert_allclose(found, wanted, atol=3e-5)
    lengths = make.rng.integers(0, 13, 4)
    wanted = formula(model, x, mask=np.arange(12) < lengths[:, np.newaxis])
    np.testing.assert_allclose(model(x.astype(kind), lengths=lengths), wanted, atol=3e-5)


def test_a_merge_masks_what_one_of_its_values_masks(seed, choice):
    make = Maker(seed)
    one = make.add(Embedding, "x", table=make.array(9, 4), mask_zero=True)
    two = make.add(Masking, "y", value=0.0)
    three = make.add(Scale, "y", factor=make.array(4), shift=make.array(4))
    make.add(Merge, one, two, three, mode="sum")
    make.add(Recurrent, layer=make.gru(4, 6))
    x, y = make.rng.integers(0, 3, (5, 12)), sequence(make.rng, 5, 12, 4, gaps=True)
    mask = mask_of(make.rng, 5, 12)
    for steps in (12, None):
        model = make.model(Input("x", (steps,), indices=True), Input("y", (steps, 4)))
        for given in (None, mask):
            wanted = formula(model, x, y, mask=given)
            np.testing.assert_allclose(model([x, y], mask=given), wanted, atol=3e-5)
    with pytest.raises(
        ValueError, match="the same number of timesteps, because 'merge_3' puts them together"
    ):
        model([x, y[:, :11]])
    with pytest.raises(
        ValueError, match=r"must read values with the same timesteps, got \(12, 4\), \(11, 4\)"
    ):
        make.model(Input("x", (12,), indices=True), Input("y", (11, 4)))


def test_a_vector_repeated_beside_a_sequence_must_be_as_long():
    make = Maker(0)
    make.add(Pool, largest=False)
    many_times = make.add(Repeat, times=5)
    make.add(Concatenate, "x", many_times)
    model = make.model(Input("x", (None, 3)))
    x = make.array(2, 5, 3)
    np.testing.assert_allclose(model(x), formula(model, x), atol=3e-5)
    for steps in (1, 4):
        with pytest.raises(ValueError, match=f"'concatenate_2' puts them together, got {steps} and 5"):
            model(x[:, :steps])


def test_a_stream_of_indices(seed):
    make = Maker(seed)
    model = tagger(make, mask_zero=False)
    x = make.rng.integers(0, 50, (3, 20))
    wanted = model(x)
    for kind in ("i4", "i8", "u2"):
        one, two, three, pool = (
            model.stream(3),
            model.stream(3),
            model.stream(3),
            fastgru.StreamPool(model, 3),
        )
        slots = [pool.open() for _ in range(3)]
        assert pool.takes_indices
        for t in range(20):
            step = x[:, t].astype(kind)
            assert np.array_equal(one(step), wanted[:, t])
            assert np.array_equal(two(step[:, np.newaxis]), wanted[:, t])
            assert np.array_equal(pool.step(slots, step[:, np.newaxis]), wanted[:, t])
        assert np.array_equal(three(x[:, :13].astype(kind)), wanted[:, :13])
        assert np.array_equal(three(x[:, 13:, np.newaxis].astype(kind)), wanted[:, 13:])
    stream, bad = model.stream(3), np.array([[1], [50], [2]], np.int32)
    for value in (bad, bad[:, 0], bad.astype("i8")):
        with pytest.raises(ValueError, match="x must have indices from 0 to 49, got 50 at"):
            stream(value)
        with pytest.raises(ValueError, match="x must have indices from 0 to 49, got 50 at"):
            pool.step(slots, value)
    with pytest.raises(TypeError, match="x must be an array of integers"):
        stream(np.full(3, 0.5, "f4"))
    with pytest.raises(ValueError, match=r"x must have shape \(3,\) or \(3, timesteps\), got \(4,\)"):
        stream(np.zeros(4, int))
    assert np.array_equal(stream(x), wanted)


def test_a_batcher_of_indices():
    model = tagger(Maker(0), mask_zero=False)
    x = np.arange(12).reshape(4, 3)
    pool = fastgru.StreamPool(model, 4)
    slots = [pool.open() for _ in range(4)]

    async def run():
        async with fastgru.MicroBatcher(pool) as batcher:
            found = []
            for t in range(3):
                steps = [batcher.step(slot, one) for slot, one in zip(slots, x[:, t], strict=True)]
                found.append(await asyncio.gather(*steps))
            await batcher.step(slots[0], 7)
            with pytest.raises(ValueError, match="x must have indices from 0 to 49, got 50"):
                await batcher.step(slots[0], 50)
            with pytest.raises(TypeError, match="x must be an integer"):
                await batcher.step(slots[0], 0.5)
            return np.stack([np.stack(one) for one in found], 1)

    assert np.array_equal(asyncio.run(run()), model(x))


@pytest.mark.parametrize(("from_end", "wrong"), [(False, [-1, 50, 2**40]), (True, [-51, 50])])
def test_an_index_that_is_in_no_table_is_refused(from_end, wrong):
    model = tagger(Maker(0), from_end=from_end)
    x = np.zeros((2, 3), np.int64)
    low = -50 if from_end else 0
    for value in wrong:
        x[1, 2] = value
        said = rf"input 'x' must have indices from {low} to 49, got {value} at \(1, 2\)"
        with pytest.raises(ValueError, match=said):
            model(x)
    with pytest.raises(ValueError, match="got 18446744073709551615 at"):
        model(np.full((1, 1), 2**64 - 1, np.uint64))
    with pytest.raises(TypeError, match="input 'x' must be an array of integers, got float64"):
        model(np.full((1, 1), 0.5))
    with pytest.raises(TypeError, match="input 'x' must be an array of integers"):
        model(np.full((1, 1), np.nan))


@pytest.mark.parametrize("from_end", [False, True])
def test_indices_of_every_type_and_layout_give_the_same_bits(seed, from_end):
    model = tagger(Maker(0), from_end=from_end)
    x = np.random.default_rng(seed).integers(-50 if from_end else 0, 50, (3, 7))
    wanted = model(x)
    wide = np.repeat(x, 2, axis=1)[:, ::2]
    read_only = x.astype(np.int32)
    read_only.flags.writeable = False
    for same in (
        x.astype(np.int32),
        x.astype(np.int16),
        x.astype(float),
        np.asfortranarray(x),
        wide,
        read_only,
    ):
        assert np.array_equal(model(same), wanted)
    assert np.array_equal(model([x]), wanted)
    assert np.array_equal(model({"x": x}), wanted)
    assert model(x[:0]).shape == (0, 7, *wanted.shape[2:])


def test_an_array_that_another_thread_changes_is_never_read_beyond_the_table():
    model = tagger(Maker(0), rows=4)
    x, stop = np.zeros((8, 50), np.int32), threading.Event()

    def spoil():
        while not stop.is_set():
            x.fill(2**30)  # calls, at which threads take turns
            x.fill(1)

    thread = threading.Thread(target=spoil)
    seen = {True: 0, False: 0}
    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        while min(seen.values()) < 20:
            try:
                fine = bool(np.isfinite(model(x)).all())
                assert fine
            except ValueError as error:
                fine = "must have indices from 0 to 3" not in str(error)
            seen[fine] += 1
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(often)


def test_negative_indices_count_from_the_end_where_onnx_has_them():
    model = tagger(Maker(0), mask_zero=False, from_end=True)
    assert np.array_equal(model(np.array([[-1, -50]])), model(np.array([[49, 0]])))


# ---- messages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: m(x[..., :5]), r"must have the shape \(batch, timesteps, 6\), got \(2, 9, 5\)"),
        (lambda m, x: m(x[0]), r"input 'x' must have the axes \(batch, timesteps, 6\), got \(9, 6\)"),
        (lambda m, x: m(x[:, :0]), "input 'x' must have 3 timesteps or more, got 0"),
        (lambda m, x: m(x[:, :2]), "input 'x' must have 3 timesteps or more, got 2"),
        (lambda m, x: m([x, x]), "inputs must be 1 arrays, got 2"),
        (lambda m, x: m({"y": x}), "inputs must be arrays for 'x', got 'y'"),
        (lambda m, x: m(x, mask=np.ones((2, 8), bool)), r"mask must have shape \(2, 9\), got \(2, 8\)"),
        (lambda m, x: m(x, lengths=[1, 10]), "lengths must lie between 0 and the 9 timesteps, got 1 to 10"),
        (lambda m, x: m(x, mask=np.ones((2, 9), bool), lengths=[1, 2]), "without a mask, got both"),
        (lambda m, x: m(x, initial_state=[]), "initial_state must be a list of 1 arrays, of 'g', got 0"),
        (lambda m, x: m(x, out=np.zeros((2, 7, 4), "f8")), "out must have dtype float32, got float64"),
        (lambda m, x: m(x, out=np.zeros((2, 9, 4), "f4")), r"out must have shape \(2, 7, 4\), got"),
        (lambda m, x: m(x, out=x[:, :7, :4]), "out must not overlap the inputs"),
        (lambda m, x: m.stream(), "'g_conv' reads timesteps after the one that it writes"),
        (lambda m, x: m.predict(x, batch_size=0), "batch_size must be a positive integer, got 0"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, message):
    make = Maker(0)
    layer = fastgru.GRU(4, name="g", return_sequences=True)
    layer.build((None, None, 5))
    make.nodes.append(Convolution(name="g_conv", inputs=("x",), outputs=("c",), kernel=make.kernel(3, 6, 5)))
    make.nodes.append(Recurrent(name="g", inputs=("c",), outputs=("y",), layer=layer))
    make.last = "y"
    model = make.model(Input("x", (None, 6)))
    x = make.array(2, 9, 6)
    with pytest.raises(ValueError, match=message):
        call(model, x)
    with pytest.raises(TypeError, match="input 'x' must be an array of float32, got int64"):
        model(np.zeros((2, 9, 6), np.int64))


def test_nodes_that_do_not_fit_are_named():
    make = Maker(0)
    cases = {
        "Dense 'd' must have a kernel (7, 2), got (6, 2)": lambda: Dense(
            name="d", inputs=("x",), outputs=("y",), kernel=make.kernel(6, 2)
        ),
        "Dense 'd' reads 'z', which no node before it writes": lambda: Dense(
            name="d", inputs=("z",), outputs=("y",), kernel=make.kernel(7, 2)
        ),
        "Identity 'i' must write a value of a new name, got 'x', which is written already": lambda: Identity(
            name="i", inputs=("x",), outputs=("x",)
        ),
        "Slice 's' must take some of 7 features, got 2 to 9": lambda: Slice(
            name="s", inputs=("x",), outputs=("y",), start=2, stop=9
        ),
        "Reshape 'r' must read a known number of timesteps, got (None, 7)": lambda: Reshape(
            name="r", inputs=("x",), outputs=("y",), shape=(-1,)
        ),
        "Convolution 'c' must have strides of 1 or more, got 0": lambda: Convolution(
            name="c", inputs=("x",), outputs=("y",), kernel=make.kernel(3, 7, 2), strides=0
        ),
        "Embedding 'e' must read an input of integers": lambda: Embedding(
            name="e", inputs=("x",), outputs=("y",), table=make.array(3, 2)
        ),
    }
    for message, node in cases.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            Model([Input("x", (None, 7))], [node()], [Output("y")])


def test_a_stream_of_what_repeats_its_last_output_is_refused_for_that():
    make = Maker(0)
    make.add(Recurrent, layer=make.gru(3, 4, return_sequences=False))
    make.add(Repeat, times=5)
    make.add(Recurrent, layer=make.gru(4, 2))
    model = make.model(Input("x", (None, 3)))
    assert model(make.array(2, 7, 3)).shape == (2, 5, 2)
    with pytest.raises(
        ValueError, match="cannot run step by step: layer 'repeat_1' makes timesteps of its own"
    ):
        model.stream()


# ---- copies ------------------------------------------------------------------------------------------


def test_a_model_comes_back_from_a_file_and_a_pickle(many):
    make = Maker(many, DTYPES[many % 2])
    width = chain(make, 6, 5)
    make.add(Recurrent, layer=make.gru(width, 3, "concat"))
    model = make.model(Input("x", (None, 6)), weights_dtype="int8" if many % 4 == 0 else None, name="whole")
    file = io.BytesIO()
    model.save(file)
    x = sequence(make.rng, 3, 9, 6, make.dtype)
    for other in (fastgru.load_model(file.getvalue()), pickle.loads(pickle.dumps(model)), copy.copy(model)):
        assert (other.name, other.dtype, other.weights_dtype) == ("whole", model.dtype, model.weights_dtype)
        assert np.array_equal(other(x), model(x))


def test_predictions_are_those_of_calls():
    make = Maker(0)
    chain(make, 6, 3)
    model = make.model(Input("x", (None, 6)))
    x = sequence(make.rng, 25, 9, 6)
    done = []
    assert np.array_equal(model.predict(x, batch_size=4, progress=done.append), model(x))
    assert done == [4, 8, 12, 16, 20, 24, 25]
    assert np.array_equal(model.predict(iter([x[:3], x[3:25]])), model(x))


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("batch_size", "progress", "bar"), [(2, None, True), (9, None, False), (2, False, False)]
)
def test_predict_shows_a_bar_for_several_batches_on_a_terminal(batch_size, progress, bar, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setattr(sys, "stderr", Terminal())
    node = Dense(name="d", inputs=("x",), outputs=("y",), kernel=np.ones((3, 2), np.float32))
    model = Model([Input("x", (None, 3))], [node], [Output("y")])
    model.predict(np.ones((5, 4, 3), np.float32), batch_size, progress)
    assert ("predicting" in sys.stderr.getvalue()) == bar
