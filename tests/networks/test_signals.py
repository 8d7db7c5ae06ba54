"""What a signal's handler raises comes out as it is, wherever it comes, and so do errors of memory."""

import io
import signal
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

import fastgru

X = np.zeros((2, 3, 4), np.float32)


class Refusing:
    """Raises one exception, whatever is asked of it."""

    ndim = 3

    def __init__(self, error):
        self._error = error

    def _refuse(self, *_, **__):
        raise self._error

    __array__ = __bool__ = __iter__ = _refuse


def built(**arguments):
    layer = fastgru.GRU(5, batch_input_shape=(2, None, 4), **arguments)
    layer.build()
    return layer


def conversions():
    """All that converts an argument, by name: a function of what is to be converted."""
    layer, stateful = built(), built(stateful=True)
    both = fastgru.Bidirectional(fastgru.GRU(5, return_sequences=True), input_shape=(None, 4))
    both.build()
    stack = fastgru.Stack([built(return_sequences=True), fastgru.GRU(3)])
    stack.build((None, None, 4))
    stream, pool = layer.stream(2), fastgru.StreamPool(layer, 4)
    slots = [pool.open(), pool.open()]

    def set_state(value):
        stream.state = value

    found = {
        "stateful reset_states": stateful.reset_states,
        "stateful initial_state": lambda value: stateful(X, initial_state=value),
        "get_initial_state": layer.get_initial_state,
        "a weight": lambda value: layer.set_weights([value] * 3),
        "a weight in a list": lambda value: layer.set_weights([[value]] * 3),
        "weights": layer.set_weights,
        "weights of the constructor": lambda value: fastgru.GRU(5, weights=value),
        "default_state": lambda value: fastgru.GRU(5, default_state=value),
        "default_state in a list": lambda value: fastgru.GRU(5, default_state=[value]),
        "a flag": lambda value: fastgru.GRU(5, return_sequences=value),
        "input_shape": lambda value: fastgru.GRU(5, input_shape=value),
        "build": fastgru.GRU(5).build,
        "compute_output_shape": layer.compute_output_shape,
        "stream x": stream,
        "stream state": set_state,
        "stream reset": stream.reset,
        "pool slots": lambda value: pool.step(value, X[:, 0]),
        "pool slots in a list": lambda value: pool.step([value, slots[1]], X[:, 0]),
        "pool x": lambda value: pool.step(slots, value),
        "pool reset": pool.reset,
        "pool open": pool.open,
    }
    for name, called in {"GRU": layer, "Bidirectional": both, "Stack": stack}.items():
        found |= {
            f"{name} inputs": called,
            f"{name} mask": lambda value, called=called: called(X, mask=value),
            f"{name} mask in a list": lambda value, called=called: called(X, mask=[value]),
            f"{name} lengths": lambda value, called=called: called(X, lengths=value),
            f"{name} lengths in a list": lambda value, called=called: called(X, lengths=[value, 1]),
        }
    for name, called, states in (("GRU", layer, 1), ("Bidirectional", both, 2), ("Stack", stack, 2)):
        found[f"{name} initial_state"] = lambda value, called=called, states=states: called(
            X, [value] * states
        )
    return found


CONVERSIONS = conversions()


class TimeLimitError(Exception):
    """As libraries of tasks raise it: a direct child of Exception."""


PASSING = [TimeoutError, TimeLimitError, MemoryError, OSError, RecursionError, KeyboardInterrupt, SystemExit]


@pytest.mark.parametrize("name", CONVERSIONS)
def test_an_error_that_is_not_about_the_value_passes(name):
    for kind in PASSING:
        error = kind("time is over")
        with pytest.raises(kind) as raised:
            CONVERSIONS[name](Refusing(error))
        assert raised.value is error


@pytest.mark.parametrize("name", CONVERSIONS)
def test_an_error_that_says_a_value_cannot_be_converted_is_translated(name):
    for kind in (TypeError, ValueError, RuntimeError, BufferError, OverflowError):
        error = kind("not mine")
        with pytest.raises((TypeError, ValueError), match=r" must .*not mine") as raised:
            CONVERSIONS[name](Refusing(error))
        assert raised.value.__cause__ is error


def test_what_pytorch_says_of_its_tensors_is_translated():
    torch = pytest.importorskip("torch")
    layer = built()
    tensor = torch.zeros(2, 3, 4, requires_grad=True)
    with pytest.raises(TypeError, match=r"inputs must be an array, got Tensor: .*requires grad"):
        layer(tensor)
    with pytest.raises(ValueError, match=r"mask must have shape \(2, 3\), got Tensor: .*requires grad"):
        layer(X, mask=tensor)
    with pytest.raises(TypeError, match=r"inputs must be an array, got Tensor: .*BFloat16"):
        layer(torch.zeros(2, 3, 4, dtype=torch.bfloat16))


def test_memory_that_a_conversion_lacks_is_a_memory_error():
    # views: as copies they are more than a process can address
    x, numbers = np.broadcast_to(np.float64(0), (2, 2**56, 4)), np.broadcast_to(np.int32(1), 2**57)
    layer, pool = built(return_sequences=True), fastgru.StreamPool(built(), 4)
    for convert in (
        lambda: layer(x),
        lambda: layer.stream(2)(x),
        lambda: pool.reset(numbers),
        lambda: pool.step(numbers, X[:, 0]),
    ):
        with pytest.raises(MemoryError):
            convert()
    with pytest.raises(ValueError, match=r"lengths must have shape \(2,\)"):
        layer(X, lengths=numbers)


# ---- a handler at any moment -----------------------------------------------------------------------

STORM = """
import signal, sys, time
import numpy as np
import fastgru

class Alarm(TimeoutError):
    pass

def alarm(*_):
    global armed
    armed = False
    raise Alarm("time is over")

armed = False
signal.signal(signal.SIGALRM, alarm)

def interrupt(way, delays):
    # Repeat `way` until the alarm interrupts it, once for each delay in seconds.
    global armed
    for delay in delays:
        try:
            while True:
                if not armed:  # or what the handler raised has been lost, as in a destructor
                    armed = True
                    signal.setitimer(signal.ITIMER_REAL, delay)
                way()
        except Alarm as error:
            assert str(error) == "time is over", error
    way()  # all is as usable as before

"""

ARGUMENTS = """
n = 20_000
layer = fastgru.GRU(2, input_shape=(None, 1), dtype="float64")
layer.build()
both = fastgru.Bidirectional(fastgru.GRU(2), input_shape=(None, 1))
both.build()
stack = fastgru.Stack([fastgru.GRU(2, return_sequences=True), fastgru.GRU(2)])
stack.build((None, None, 1))
stateful = fastgru.GRU(2, stateful=True, batch_input_shape=(n, None, 1))
stateful.build()
pool = fastgru.StreamPool(layer, n)
slots = [pool.open() for _ in range(n)]
stream = layer.stream(n)
x = np.zeros((n, 1, 1), np.float32)
WAYS = [
    lambda: layer(x, mask=[[True]] * n),
    lambda: layer(x, lengths=[1] * n),
    lambda: both(x, lengths=[1] * n),
    lambda: stack(x, lengths=[1] * n),
    lambda: layer(x, np.zeros((n, 2), np.float32)),
    lambda: layer.set_weights([[[0.5] * 6], np.zeros((2, 6)), np.zeros(6)]),
    lambda: stateful.reset_states([[[0.5] * 2] * n]),
    lambda: fastgru.GRU(n, default_state=[0.5] * n),
    lambda: pool.step(slots, x[:, 0]),
    lambda: pool.reset(slots),
    lambda: stream.reset(list(range(n))),
    lambda: stream(x),
]
for way in WAYS:
    interrupt(way, np.linspace(2e-5, 4e-3, 25))
print("done")
"""


@pytest.mark.outside
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer that interrupts")
def test_a_handler_that_raises_at_any_moment_is_heard():
    command = [sys.executable, "-c", STORM + ARGUMENTS]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.stdout == "done\n", run.stderr


# ---- files -----------------------------------------------------------------------------------------


class File(io.BytesIO):
    """An open file whose reading is interrupted."""

    def read(self, *_):
        raise TimeoutError("time is over")


def test_a_handler_that_raises_while_a_file_is_read_is_heard():
    with pytest.raises(TimeoutError, match=r"^time is over$"):
        fastgru.load(File())


FILES = """
for path in sys.argv[1:]:
    arguments = {"reset_after": True, "recurrent_activation": "sigmoid"} if path.endswith("h5") else {}
    way = lambda: fastgru.load(path, **arguments)
    way()  # imports what it needs
    start = time.perf_counter()
    way()
    interrupt(way, np.linspace(0.01, 0.95, 15) * (time.perf_counter() - start))
print("done")
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of all formats that can be written without another framework."""
    folder = tmp_path_factory.mktemp("files")
    layer = fastgru.GRU(4, reset_after=True, recurrent_activation="sigmoid")
    layer.build((None, None, 3))
    layer.save(folder / "own.npz")
    np.savez(folder / "torch.npz", **layer.to_torch_state_dict())
    pytest.importorskip("onnx").save(layer.to_onnx(), folder / "layer.onnx")
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "layer.h5", "w") as file:
        group = file.create_group("gru")
        file.attrs["layer_names"] = [b"gru"]
        names = ["gru/kernel:0", "gru/recurrent_kernel:0", "gru/bias:0"]
        group.attrs["weight_names"] = [name.encode() for name in names]
        for name, array in zip(names, layer.get_weights(), strict=True):
            group[name] = array
    return sorted(folder.iterdir())


@pytest.mark.outside
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer that interrupts")
def test_a_handler_that_raises_while_a_file_is_loaded_is_heard(files):
    command = [sys.executable, "-c", STORM + FILES, *map(str, files)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.stdout == "done\n", run.stderr


@pytest.mark.parametrize("error", [TimeoutError("time is over"), MemoryError("none left")])
def test_an_error_of_the_system_within_an_operator_of_onnx_passes(error):
    pytest.importorskip("onnx")
    from onnx import helper, numpy_helper
    from onnx.reference.ops.op_neg import Neg

    arrays = {"w": np.zeros((1, 6, 3), np.float32), "r": np.zeros((1, 6, 2), np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("Neg", ["w"], ["W"]),
            helper.make_node("GRU", ["X", "W", "r"], ["Y"], "gru", hidden_size=2),
        ],
        "graph",
        [helper.make_tensor_value_info("X", 1, ["time", "batch", 3])],
        [helper.make_tensor_value_info("Y", 1, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert fastgru.load(model.SerializeToString()).units == 2
    with (
        mock.patch.object(Neg, "_run", side_effect=error),
        pytest.raises(type(error)) as raised,
    ):
        fastgru.load(model.SerializeToString())
    assert raised.value is error
