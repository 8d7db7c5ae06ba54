"""Every public operation while one allocation after the other fails: MemoryError, and nothing has changed.

As a program it is the process in which allocations fail:

    python tests/networks/test_no_memory.py WAY GROUP

runs each operation of a group in a child of its own, and prints a line of JSON for it: its name, and what is
wrong, or null.
"""

import copy
import ctypes
import functools
import gc
import itertools
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy as np
import pytest

import fastgru
from fastgru import _config, _nodes
from fastgru.model import Input, Model, Output

pytestmark = pytest.mark.outside

# Bytes of a variable that a function shares with those in it. Where there is no memory for one, Python 3.11
# leaks all variables of the function.
CELL = 40
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120  # after which an operation is taken for hung
PASSES = 4  # over all allocations of an operation, to see leaks
AFTER = 10  # so many successes in a row are the end, where nobody says whether an allocation has failed

# ---- operations ------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 5, 3)).astype(np.float32)
STEP = X[:, 0].copy()
STATE = RNG.normal(size=(2, 4)).astype(np.float32)
MASK = np.array([[True, False, True, True, False], [True, True, True, False, False]])
LENGTHS = np.array([2, 5])
TOKENS = np.array([[4], [2]], np.int32)
ARGUMENTS = [X, STEP, STATE, MASK, LENGTHS, TOKENS]

OPERATIONS = {}  # by group and name: a function that returns (act, state)


def operation(group, name, **more):
    """Add an operation: a function that makes what is acted on, anew for every trial.

    It returns `act`, which does what is tested and returns the result, and `state`, which returns all that
    must be as it was before if `act` fails.
    """

    def add(make):
        OPERATIONS.setdefault(group, {})[name] = functools.partial(make, **more)
        return make

    return add


def gru(units=4, features=3, **arguments):
    """A built layer of known weights."""
    layer = fastgru.GRU(units, batch_input_shape=(2, None, features), **arguments)
    layer.build((2, None, features))
    return known(layer)


def known(layer):
    """The layer with known weights, and if it is stateful with a state that is not zero."""
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    if layer.stateful:
        layer.reset_states([None if s is None else rng.normal(size=s.shape) for s in layer.states])
    return layer


def bidirectional(**arguments):
    wrapper = {name: arguments.pop(name) for name in ("merge_mode",) if name in arguments}
    layer = fastgru.Bidirectional(fastgru.GRU(4, **arguments), **wrapper)
    layer.build((2, None, 3))
    return known(layer)


def stack(return_state=False, stateful=False, **arguments):
    layers = [
        fastgru.GRU(4, return_sequences=True, stateful=stateful),
        fastgru.GRU(4, stateful=stateful, **arguments),
    ]
    layer = fastgru.Stack(layers, return_state=return_state)
    layer.build((2, None, 3))
    return known(layer)


def mixed(upper=None):
    """A Stack that does not run as one: of a Bidirectional and layers of several types."""
    layers = [
        fastgru.Bidirectional(fastgru.GRU(3, return_sequences=True)),
        fastgru.GRU(4, return_sequences=True, dtype="float64", stateful=True),
        upper or fastgru.GRU(4, activation=np.tanh, stateful=True),
    ]
    layer = fastgru.Stack(layers, return_state=True)
    layer.build((2, None, 3))
    return known(layer)


def state_of(layer):
    """All that a layer keeps."""
    return lambda: [layer.built, layer.weights, layer.states]


SEQUENCES = {"return_sequences": True}
ALL = SEQUENCES | {"return_state": True}
STATEFUL = ALL | {"stateful": True}
CALLS = {
    "a call": ({}, {}),
    "a call that returns sequences and the state": (ALL, {}),
    "a call with a mask": (ALL, {"mask": MASK}),
    "a call with a mask in lists": (ALL, {"mask": MASK.tolist()}),
    "a call with lengths": (ALL, {"lengths": LENGTHS}),
    "a call with lengths in a list": (ALL, {"lengths": LENGTHS.tolist()}),
    "a call of another float type": (ALL, {"inputs": X.astype(np.float64)}),
    "a call of a transposed array": (ALL, {"inputs": X.transpose(0, 2, 1).copy().transpose(0, 2, 1)}),
    "a call in float64": (ALL | {"dtype": "float64"}, {"inputs": X.astype(np.float64)}),
    "a call in float16": (ALL | {"dtype": "float16"}, {"inputs": X.astype(np.float16)}),
    "a call with training=False": (ALL, {"training": False}),
    "a call that drops out": (
        ALL | {"dropout": 1e-300},
        {"inputs": X[:, :1], "training": True},
    ),  # all but certainly nothing
    "a call with a Python activation": (ALL | {"activation": np.tanh}, {"inputs": X[:, :1]}),
    "a call with a default_state": (ALL | {"default_state": [0.5] * 4}, {}),
    "a stateful call": ({"stateful": True}, {}),
    "a stateful call that returns sequences and the state": (STATEFUL, {}),
    "a stateful call with a mask": (STATEFUL, {"mask": MASK}),
    "a stateful call with lengths": (STATEFUL, {"lengths": LENGTHS}),
    "a stateful call in float16": (STATEFUL | {"dtype": "float16"}, {"inputs": X.astype(np.float16)}),
    "a stateful call with a Python activation": (STATEFUL | {"activation": np.tanh}, {"inputs": X[:, :1]}),
    "a stateful call with an activity_regularizer": (STATEFUL | {"activity_regularizer": "l2"}, {}),
}


def warm(layer):
    """Have a layer's next call take the short way."""
    layer(X)
    if layer.stateful:
        layer.reset_states()


def add_call(group, name, made, arguments, given):
    """Add a call of a layer; every trial has a copy of it, which is quicker to make than another layer."""
    first, given = functools.cache(lambda: made(**arguments)), {"inputs": X} | given

    @operation(group, name)
    def call():
        layer = copy.copy(first())
        if name in SHORT.get(group, ()):
            warm(layer)
        return lambda: layer(**given), state_of(layer)


for name, (arguments, given) in CALLS.items():
    add_call("GRU", name, gru, arguments, given)
    add_call("Bidirectional", name, bidirectional, arguments, given)
    if "dtype" not in arguments:  # of one layer: the other would be of another
        add_call("Stack", name, stack, arguments, given)
add_call("GRU", "a call with a state", gru, ALL, {"initial_state": STATE})
add_call("GRU", "a call with a state in a list", gru, ALL, {"initial_state": [STATE]})
add_call("GRU", "a call of a list", gru, ALL, {"inputs": [X, STATE]})
for group, made in (("Bidirectional", bidirectional), ("Stack", stack)):
    add_call(group, "a call with states", made, ALL, {"initial_state": [STATE, STATE]})
    add_call(group, "a call of a list", made, ALL, {"inputs": [X, STATE, STATE]})
for mode in ("sum", None):
    add_call(
        "Bidirectional",
        f"a stateful call, merge_mode={mode}",
        bidirectional,
        STATEFUL | {"merge_mode": mode},
        {},
    )
add_call(
    "Stack", "a stateful call of layers of all kinds", mixed, {}, {"inputs": X[:, :2], "mask": MASK[:, :2]}
)


@operation("GRU", "a call with out", made=gru)
@operation("Stack", "a call with out", made=stack)
@operation("GRU", "a stateful call with out", made=gru, stateful=True)
@operation("Stack", "a stateful call with out", made=stack, stateful=True)
def call_into(made, stateful=False):
    layer, out = made(return_sequences=True, stateful=stateful), np.empty((2, 5, 4), np.float32)
    warm(layer)
    return lambda: layer(X, out=out), state_of(layer)


MAKERS = {
    "GRU": lambda **more: fastgru.GRU(4, kernel_constraint="unit_norm", **CONSTANT, **more),
    "Bidirectional": lambda **more: fastgru.Bidirectional(
        fastgru.GRU(4, kernel_constraint="unit_norm", **CONSTANT, **more)
    ),
    "Stack": lambda **more: fastgru.Stack(
        [
            fastgru.GRU(4, return_sequences=True, **CONSTANT, **more),
            fastgru.GRU(2, kernel_constraint="unit_norm", **CONSTANT, **more),
        ]
    ),
}
CONSTANT = {
    name: fastgru.initializers.Constant(0.25)
    for name in ("kernel_initializer", "recurrent_initializer", "bias_initializer")
}


def add_to_all(name):
    """Add an operation on each kind of layer, of which it is given the maker."""

    def add(make):
        for group, maker in MAKERS.items():
            operation(group, name, maker=maker)(make)
        return make

    return add


def built(maker, **more):
    layer = maker(**more)
    layer.build((2, None, 3))
    return layer


@add_to_all("the constructor")
def construct(maker):
    return lambda: maker().get_config() | {"name": None}, lambda: None


@add_to_all("build")
def build(maker):
    layer = maker(stateful=True)

    return lambda: layer.build((2, None, 3)), state_of(layer)


@add_to_all("a first call")
def first_call(maker):
    layer = maker(stateful=True)  # which may be built though the call fails
    return lambda: layer(X), lambda: [0.0 if state is None else abs(state).sum() for state in layer.states]


@add_to_all("set_weights")
def set_weights(maker):
    layer = built(maker)
    weights = [w.copy() for w in known(built(maker)).weights]

    return lambda: layer.set_weights(weights), lambda: [*state_of(layer)(), layer(X)]


@add_to_all("apply_constraints")
def apply_constraints(maker):
    layer = known(built(maker))

    return layer.apply_constraints, lambda: [*state_of(layer)(), layer(X)]


@add_to_all("reset_states")
def reset_states(maker):
    layer = known(built(maker, stateful=True))
    return layer.reset_states, state_of(layer)


@add_to_all("reset_states to given ones")
def reset_states_to(maker):
    layer = known(built(maker, stateful=True))
    states = [state + 1 for state in layer.states]
    return lambda: layer.reset_states(states), state_of(layer)


@add_to_all("get_weights, states and losses")
def read(maker):
    layer = known(built(maker, stateful=True))
    return lambda: [layer.get_weights(), [*layer.states], layer.losses, layer.count_params()], state_of(layer)


for twin in ("copy", "deepcopy", "pickle"):

    @add_to_all(twin)
    def twin_of(maker, twin=twin):
        layer = known(built(maker, stateful=True))
        made = getattr(copy, twin, lambda layer: pickle.loads(pickle.dumps(layer)))
        return lambda: state_of(made(layer))(), state_of(layer)


def model(indices=False, pooled=False):
    """A model with a node of each way in which memory is used."""
    rng = np.random.default_rng(1)

    def numbers(*shape):
        return rng.normal(size=shape).astype(np.float32)

    kernel = numbers(2, 3, 3)
    nodes = [
        _nodes.Convolution(name="c", inputs=("e",), outputs=("c",), kernel=kernel, padding="causal"),
        _nodes.Recurrent(name="g", inputs=("c",), outputs=("g",), layer=gru(return_sequences=True)),
        _nodes.Dense(name="d", inputs=("g",), outputs=("y",), kernel=numbers(4, 2), activation="softmax"),
    ]
    table = _nodes.Embedding(name="e", inputs=("x",), outputs=("e",), table=numbers(9, 3), mask_zero=True)
    last = _nodes.Pool(name="p", inputs=("y",), outputs=("p",), largest=False)
    shape = Input("x", (None,), True) if indices else Input("e", (None, 3))
    inside = [*([table] if indices else []), *nodes, *([last] if pooled else [])]
    return Model([shape], inside, [Output(inside[-1].outputs[0])])


INDICES = RNG.integers(0, 9, (2, 5))
MODEL_CALLS = {
    "a call": ({}, lambda made: made(X)),
    "a call with a mask": ({"pooled": True}, lambda made: made(X, mask=MASK)),
    "a call with lengths": ({"pooled": True}, lambda made: made(X, lengths=LENGTHS)),
    "a call of another float type": ({}, lambda made: made(X.astype(np.float64))),
    "a call with out": ({}, lambda made: made(X, out=np.empty((2, 5, 2), np.float32))),
    "a call of indices": ({"indices": True}, lambda made: made(INDICES)),
    "predict": ({}, lambda made: made.predict(X, batch_size=1)),
    "pickle": ({}, lambda made: pickle.loads(pickle.dumps(made))(X)),
    "a stream": ({}, lambda made: made.stream(2)(X)),
    "a stream of indices": ({"indices": True}, lambda made: made.stream(2)(INDICES)),
}
for name, (arguments, act) in MODEL_CALLS.items():

    @operation("Model", name, arguments=arguments, act=act)
    def of_model(arguments, act):
        made = model(**arguments)
        given = INDICES if arguments.get("indices") else X
        return lambda: act(made), lambda: [made(given), made.get_weights()]


@operation("Model", "the constructor")
def construct_model():
    return lambda: model()(X), lambda: None


LAYERS = {"a GRU": gru, "a Stack": stack, "a Stack of two types": lambda: known(built(two_types))}


def two_types(**more):
    return fastgru.Stack([fastgru.GRU(4, return_sequences=True), fastgru.GRU(4, dtype="float64")], **more)


def streamed(layer):
    stream = layer().stream(2)
    stream(STEP)
    return stream


ACTS_ON_STREAMS = {
    "a step": lambda stream, out: stream(STEP),
    "a step with out": lambda stream, out: stream(STEP, out=out),
    "a step of another float type": lambda stream, out: stream(STEP.astype(np.float64)),
    "a chunk": lambda stream, out: stream(X),
    "state": lambda stream, out: stream.state,
    "setting state": lambda stream, out: setattr(
        stream, "state", OTHERS if isinstance(stream.state, list) else STATE
    ),
    "reset": lambda stream, out: stream.reset(),
    "reset of a row": lambda stream, out: stream.reset([1]),
    "copy": lambda stream, out: stream.copy().state,
}
OTHERS = [STATE, STATE]


def on_stream(layer, act):
    stream = streamed(layer)
    out = np.empty((2, 4), stream(STEP).dtype)
    return lambda: act(stream, out), lambda: stream.state


def make_stream(layer):
    layer = layer()
    return lambda: layer.stream(2).state, state_of(layer)


def pooled(layer):
    """A pool of three places with two open slots that have been stepped."""
    pool = fastgru.StreamPool(layer(), 3)
    slots = np.array([pool.open(), pool.open()], np.int64)
    pool.step(slots, STEP)
    return pool, slots


ACTS_ON_POOLS = {
    "open": lambda pool, slots, out, kept: pool.open(),
    "open with a state": lambda pool, slots, out, kept: pool.open(kept),
    "close": lambda pool, slots, out, kept: pool.close(1),
    "a step": lambda pool, slots, out, kept: pool.step(slots, STEP),
    "a step with out": lambda pool, slots, out, kept: pool.step(slots, STEP, out=out),
    "a step of a list": lambda pool, slots, out, kept: pool.step([1, 0], STEP),
    "a step of another float type": lambda pool, slots, out, kept: pool.step(slots, STEP.astype(np.float64)),
    "a step of no slots": lambda pool, slots, out, kept: pool.step([], STEP[:0]),
    "state": lambda pool, slots, out, kept: pool.state(1),
    "reset": lambda pool, slots, out, kept: pool.reset(),
    "reset of a slot": lambda pool, slots, out, kept: pool.reset(1),
}


def on_pool(layer, act):
    pool, slots = pooled(layer)
    out = np.empty((2, 4), pool.dtype)
    kept = pool.state(0)
    return lambda: act(pool, slots, out, kept), lambda: [
        len(pool),
        *(state_or_none(pool, slot) for slot in range(4)),
    ]


def state_or_none(pool, slot):
    try:
        return pool.state(slot)
    except ValueError:  # it is not open
        return None


def make_pool(layer):
    layer = layer()
    return lambda: len(fastgru.StreamPool(layer, 3)), state_of(layer)


for of, layer in LAYERS.items():
    operation("Stream", f"the constructor of {of}", layer=layer)(make_stream)
    for name, act in ACTS_ON_STREAMS.items():
        operation("Stream", f"{name} of {of}", layer=layer, act=act)(on_stream)
    operation("StreamPool", f"the constructor of {of}", layer=layer)(make_pool)
    for name, act in ACTS_ON_POOLS.items():
        operation("StreamPool", f"{name} of {of}", layer=layer, act=act)(on_pool)


@functools.cache
def several():
    """A model of a sequence, indices and a vector, that returns a sequence and an input."""
    rng = np.random.default_rng(1)
    table, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((9, 3), (4, 3)))
    nodes = [
        _nodes.Embedding(name="e", inputs=("t",), outputs=("e",), table=table),
        _nodes.Dense(name="d", inputs=("v",), outputs=("d",), kernel=kernel),
        _nodes.Merge(name="m", inputs=("x", "e", "d"), outputs=("m",), mode="sum"),
        _nodes.Recurrent(name="g", inputs=("m",), outputs=("g",), layer=gru(return_sequences=True)),
    ]
    inputs = [Input("x", (None, 3)), Input("t", (None,), True), Input("v", (4,))]
    return Model(inputs, nodes, [Output("g"), Output("x")])


PARTS = [STEP, TOKENS, STATE]
ACTS_ON_SEVERAL = {
    "a step": lambda act, out: act(PARTS),
    "a step with out": lambda act, out: act(PARTS, out),
    "a step of a dict": lambda act, out: act(dict(zip("xtv", PARTS, strict=True))),
    "a step into what it reads": lambda act, out: act([out[1], TOKENS, STATE], out),
    "a step of another float type": lambda act, out: act([STEP.astype(np.float64), *PARTS[1:]]),
}


def outputs_of_several():
    return [np.zeros((2, 4), np.float32), np.zeros((2, 3), np.float32)]


def on_stream_of_several(act):
    stream, out = several().stream(2), outputs_of_several()
    stream(PARTS)
    return lambda: act(stream, out), lambda: stream.state


def on_chunk_of_several():
    stream = several().stream(2)
    return lambda: stream([X, INDICES, STATE]), lambda: stream.state


def on_pool_of_several(act):
    pool, out = fastgru.StreamPool(several(), 3), outputs_of_several()
    slots = np.array([pool.open(), pool.open()])
    return (
        lambda: act(lambda *given: pool.step(slots, *given), out),
        lambda: [pool.state(slot) for slot in slots],
    )


operation("Stream", "a chunk of a Model of several")(on_chunk_of_several)
for name, act in ACTS_ON_SEVERAL.items():
    operation("Stream", f"{name} of a Model of several", act=act)(on_stream_of_several)
    operation("StreamPool", f"{name} of a Model of several", act=act)(on_pool_of_several)


# Operations that are one call of the compiled module. In others, leaks cannot be told from those of Python
# 3.11, which leaks the elements of a list that there is no memory for.
CALLS_IN_PLACE = (
    "",
    " that returns sequences and the state",
    " with a mask",
    " with lengths",
    " with a state",
    " with out",
)
SHORT = {
    "Model": {"a call", "a call with a mask", "a call with lengths"},
    "GRU": {f"a call{what}" for what in CALLS_IN_PLACE} | {"a stateful call", "a stateful call with out"},
    "Bidirectional": set(),
    "Stack": set(),
    "Stream": {
        f"a step{what} of a {layer}"
        for what in ("", " with out")
        for layer in ("GRU", "Stack", "Model of several")
    },
    "StreamPool": {f"{what} of a GRU" for what in ("open", "close")},
}

# ---- the process in which allocations fail ---------------------------------------------------------


class Malloc:
    """Allocations of the C library: those of NumPy, and with PYTHONMALLOC=malloc those of Python."""

    def __init__(self):
        library = ctypes.CDLL(None)
        self._fail, self.failed, self.blocks = library.heap_fail, library.heap_failed, library.heap_blocks
        self._fail.argtypes, self._fail.restype = [ctypes.c_long, ctypes.c_long], None
        self.failed.restype = self.blocks.restype = ctypes.c_long

    def fail(self, n):
        self._fail(n, CELL)

    def stop(self):
        self._fail(0, 0)


class Python:
    """Allocations of Python."""

    failed = None  # it does not say

    def __init__(self):
        import _testcapi

        self.fail = lambda n: _testcapi.set_nomemory(n, n + 1)
        self.stop = _testcapi.remove_mem_hooks
        self.blocks = None  # nor does it see those of NumPy


WAYS = {"malloc": Malloc, "python": Python}
ENVIRONMENTS = {  # freed memory is overwritten, so that whoever reads it crashes
    "malloc": {"PYTHONMALLOC": "malloc", "MALLOC_PERTURB_": "165"},
    "python": {"PYTHONMALLOC": "debug"},
}


def plain(value):
    """What can be compared with ==."""
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, value.tobytes()
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if key != "name"}
    return value


class FaultError(Exception):
    """What an operation does wrong."""


def is_of_memory(error):
    """Whether an error says that memory is lacking; Python and NumPy have other words for that, too."""
    if isinstance(error, SystemError):  # they forget to raise, as the compiled module must not
        return re.search("NULL without setting|without exception set|with an exception set", str(error)) and (
            "cyfunction" not in str(error) and "fastgru" not in str(error)
        )
    return isinstance(error, (MemoryError, pickle.PicklingError)) or "can't allocate lock" in str(error)


def trial(way, make, expected, n):
    """Let the n-th allocation fail; False if the operation has made fewer."""
    act, state = make()
    before, result, error, reached = plain(state()), None, None, True
    try:
        way.fail(n)
        result = act()
    except BaseException as raised:
        error = raised
    try:
        way.stop()
    except Exception:  # the n-th allocation is made here
        way.stop()
        reached = False
    if way.failed is not None:
        reached = reached and bool(way.failed())
    if error is None:
        if [plain(result), plain(state())] != expected:
            raise FaultError(f"allocation {n} fails, and the result is wrong")
        return reached and way.failed is not None
    if not is_of_memory(error):
        raise FaultError(f"allocation {n} fails: {type(error).__name__}: {error}")
    error = None
    try:
        if plain(state()) != before:
            raise FaultError(f"allocation {n} fails, and the state is another")
        if [plain(act()), plain(state())] != expected:
            raise FaultError(f"allocation {n} fails, and the next result is wrong")
    except Exception as after:
        if isinstance(after, FaultError):
            raise
        raise FaultError(f"after allocation {n} has failed: {type(after).__name__}: {after}") from after
    return True


def each_allocation(way, make, expected):
    """A trial with every allocation of an operation."""
    missed = 0
    for n in itertools.count(1):
        missed = 0 if trial(way, make, expected, n) else missed + 1
        if n % 100 == 0:
            gc.collect()
        if missed >= (AFTER if way.failed is None else 1):
            return


def blocks_of(way):
    """How many blocks are allocated, without garbage and without what caches keep."""
    gc.collect()
    getattr(sys, "_clear_internal_caches", sys._clear_type_cache)()  # it keeps names of attributes
    return way.blocks()


def check(way, make, short):
    """Raise what is wrong with an operation."""
    act, state = make()
    expected = [plain(act()), plain(state())]
    del act, state
    each_allocation(way, make, expected)
    if way.blocks is None or not short:
        return
    each_allocation(way, make, expected)  # caches are full now
    references = [sys.getrefcount(array) for array in ARGUMENTS]
    blocks = blocks_of(way)
    for _ in range(PASSES):
        each_allocation(way, make, expected)
    more = blocks_of(way) - blocks
    if more >= PASSES:
        raise FaultError(f"{more} blocks leak in {PASSES} passes")
    if references != [sys.getrefcount(array) for array in ARGUMENTS]:
        raise FaultError("references to arguments leak, or too many are dropped")


def main(way, group):
    way = WAYS[way]()
    gc.disable()
    for name, make in OPERATIONS[group].items():
        read, write = os.pipe()
        child = os.fork()
        if not child:
            signal.alarm(SECONDS)
            try:
                check(way, make, name in SHORT.get(group, ()))
            except BaseException as error:
                os.write(write, (str(error) if isinstance(error, FaultError) else repr(error)).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            wrong = pipe.read().decode()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([name, wrong or (f"the process ends with {code}" if code else None)]), flush=True)


# After many failures of this operation in one process, a collection of garbage meets a dict in Python's list
# of free ones that has been freed; no single failure does that, and it has not been found which do.
LATER = "many failures in one process damage Python's list of free dicts"
UNSOUND = {("Bidirectional", "the constructor")}

# ---- the tests -------------------------------------------------------------------------------------


@functools.cache
def found(way, group):
    """What is wrong with each operation of a group, or None."""
    environment = os.environ | {"FASTGRU_ENGINE": _config.CHOICE.engine, "OPENBLAS_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment |= ENVIRONMENTS[way]
    with tempfile.TemporaryDirectory() as folder:
        if way == "malloc":
            library = Path(folder) / "heap_fails.so"
            source = Path(__file__).with_name("heap_fails.c")
            subprocess.run(["gcc", "-O1", "-shared", "-fPIC", source, "-o", library], check=True)
            environment["LD_PRELOAD"] = str(library)
        command = [sys.executable, __file__, way, group]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return dict(json.loads(line) for line in run.stdout.splitlines())


def cases():
    for way, (group, operations) in itertools.product(WAYS, OPERATIONS.items()):
        for name in operations:
            marks = [pytest.mark.xfail(strict=False, reason=LATER)] if (group, name) in UNSOUND else []
            yield pytest.param(way, group, name, marks=marks, id=f"{way}-{group}-{name}")


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="preloads an allocator and forks, as Linux does"
)
@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="this Python has its own allocator"
)
@pytest.mark.parametrize(("way", "group", "name"), [*cases()])
def test_an_operation_without_memory_changes_nothing_and_may_be_repeated(way, group, name):
    if way == "python":
        pytest.importorskip("_testcapi", reason="a Python without its own tests")
    assert found(way, group)[name] is None


def test_operations_that_are_one_compiled_call_are_tested():
    every = {(group, name) for group, operations in OPERATIONS.items() for name in operations}
    assert {(group, name) for group, names in SHORT.items() for name in names} <= every


if __name__ == "__main__":
    main(*sys.argv[1:])
