"""The work of reading grows with the file and not faster, for every shape of file that might multiply it.

Of each shape there are files of so many things, of twice and of four times as many, by which the lines of
fastgru that run are counted, and a larger one, by which memory is. No test looks at a clock.
"""

import contextlib
import io
import itertools
import json
import struct
from collections.abc import Callable
from typing import NamedTuple

import h5py
import numpy as np
import pytest
from formats.hostile import judging
from formats.hostile.generators import archives, keras, onnx
from formats.hostile.measuring import Measurer

import fastgru

LINES = 2.2  # the most that twice the file may multiply what runs
FIRST = 100  # the smallest number of things in a file
SHAPES = {}


class Shape(NamedTuple):
    """A shape of files.

    Attributes
    ----------
    make : callable
        The bytes of a file of so many things.
    name : str
        Of the file.
    large : int
        How many there are in the file by which memory is counted.
    arguments : dict
        Of `fastgru.load_all`.
    """

    make: Callable[[int], bytes]
    name: str
    large: int
    arguments: dict


def shape(ending, large, **arguments):
    """Note a function that makes files of a shape."""

    def note(make):
        SHAPES[make.__name__] = Shape(make, f"model{ending}", large, arguments)
        return make

    return note


@pytest.fixture(scope="module")
def measurer():
    with contextlib.closing(Measurer()) as started:
        yield started


# ---- ONNX ------------------------------------------------------------------------------------

KERNEL = struct.pack("<3f", 0.1, 0.2, 0.3)


def tensor(name, count=1):
    """A weight of one unit and some features."""
    dims = onnx.integer(1, 1) + onnx.integer(1, 3) + onnx.integer(1, count)
    return dims + onnx.integer(2, 1) + onnx.piece(8, name) + onnx.piece(9, KERNEL * count)


def node(kind, inputs=(), outputs=(), name="", attributes=()):
    fields = [onnx.piece(1, one) for one in inputs] + [onnx.piece(2, one) for one in outputs]
    return (
        b"".join(fields)
        + onnx.piece(3, name)
        + onnx.piece(4, kind)
        + b"".join(onnx.piece(5, a) for a in attributes)
    )


def inner(graph, name="b"):
    """An attribute that is a graph."""
    return onnx.piece(1, name) + onnx.piece(6, graph) + onnx.integer(20, 5)


def model(*fields, gru=True):
    """A model whose graph has a GRU and these fields."""
    graph = b"".join(onnx.piece(5, tensor(name)) for name in "WR")
    if gru:
        graph += onnx.piece(1, node("GRU", ["X", "W", "R"], ["Y"], "gru"))
    graph += b"".join(fields)
    return onnx.integer(1, 8) + onnx.piece(7, graph) + onnx.piece(8, onnx.integer(2, 14))


def nodes(*made):
    return b"".join(onnx.piece(1, one) for one in made)


@shape(".onnx", 3_000)
def onnx_long_name_of_many_nodes(n):
    grus = nodes(*(node("GRU", ["X", "W", "R"], [f"Y{i}"], str(i)) for i in range(n)))
    return model(nodes(node("If", ["c"], ["o"], "A" * 4000, [inner(grus)])))


@shape(".onnx", 5_000)
def onnx_long_name_of_many_graphs(n):
    empty = [inner(b"", str(i)) for i in range(n)]
    return model(nodes(node("If", ["c"], ["o"], "A" * 4000, empty)))


@shape(".onnx", 50_000)
def onnx_inputs_in_nested_graphs(n):
    graph = nodes(node("X", [f"{i:05}" for i in range(n)]))
    for depth in range(25):
        graph = nodes(node("If", ["c"], [], str(depth), [inner(graph)]))
    return model(graph)


@shape(".onnx", 50_000)
def onnx_outputs_in_nested_graphs(n):
    graph = nodes(node("X", [], [f"{i:05}" for i in range(n)]), node("GRU", ["X", "W", "R"], ["Y"]))
    for depth in range(25):
        graph = nodes(node("If", ["c"], [], str(depth), [inner(graph)]))
    return model(graph)


@shape(".onnx", 20_000)
def onnx_identities_in_nested_graphs(n):
    graph = nodes(*(node("Identity", ["W"], [str(i)]) for i in range(n)))
    for depth in range(25):
        graph = nodes(node("If", ["c"], [], str(depth), [inner(graph)]))
    return model(graph)


@shape(".onnx", 200_000)
def onnx_group_before_messages(n):
    return model(onnx.GROUPS[0], onnx.piece(1, b"") * n)


@shape(".onnx", 400_000)
def onnx_packed_numbers(n):
    return model(onnx.piece(5, onnx.piece(7, b"\1" * n) + onnx.piece(8, "numbers")))


@shape(".onnx", 400_000)
def onnx_dims(n):
    return model(onnx.piece(5, onnx.piece(1, b"\1" * n) + onnx.piece(8, "dims")))


@shape(".onnx", 200_000)
def onnx_numbers_one_by_one(n):
    return model(onnx.piece(5, onnx.integer(7, 1) * n + onnx.piece(8, "numbers")))


@shape(".onnx", 100_000)
def onnx_empty_nodes(n):
    return model(onnx.piece(1, b"") * n)


@shape(".onnx", 30_000)
def onnx_empty_graphs(n):
    return model(nodes(onnx.piece(5, onnx.piece(6, b"")) * n))


@shape(".onnx", 30_000)
def onnx_graphs_in_graphs(n):
    return model(nodes(node("If", ["c"], ["o"], "", [inner(nodes(onnx.piece(5, onnx.piece(6, b""))) * n)])))


@shape(".onnx", 200_000)
def onnx_empty_messages(n):
    return model(onnx.piece(13, b"") * n)


@shape(".onnx", 50_000)
def onnx_initializers(n):
    return model(*(onnx.piece(5, onnx.piece(8, str(i))) for i in range(n)))


@shape(".onnx", 40_000)
def onnx_constants(n):
    return model(nodes(*(node("Constant", [], [str(i)], "", [b""]) for i in range(n))))


@shape(".onnx", 20_000)
def onnx_chain_of_identities(n):
    return model(nodes(*(node("Identity", [str(i - 1)], [str(i)]) for i in range(n))))


@shape(".onnx", 60_000)
def onnx_nodes_that_share_a_tensor(n):
    grus = (node("GRU", ["X", "wide", "R"], [f"Z{i}"], str(i)) for i in range(n // 8))
    return model(onnx.piece(5, tensor("wide", n)), nodes(*grus))


@shape(".onnx", 25_000)
def onnx_readers_of_an_output(n):
    return model(nodes(*(node("Add", ["Y", "Y"], [str(i)]) for i in range(n))))


@shape(".onnx", 50_000)
def onnx_attributes(n):
    return model(nodes(node("X", [], [], "", [onnx.piece(1, "a") + onnx.integer(3, 1)] * n)))


@shape(".onnx", 50_000)
def onnx_opsets(n):
    return model() + onnx.piece(8, onnx.piece(1, "x") + onnx.integer(2, 1)) * n


@shape(".onnx", 3_000)
def onnx_grus(n):
    return model(nodes(*(node("GRU", ["X", "W", "R"], [f"Z{i}"]) for i in range(n))))


ONE = struct.pack("<f", 1.0)
CELL = [
    *(node("MatMul", ["x", "K"], [f"x{gate}"]) for gate in "zrc"),
    *(node("MatMul", ["h", "K"], [f"h{gate}"]) for gate in "zr"),
    *(node("Add", [f"x{gate}", f"h{gate}"], [f"s{gate}"]) for gate in "zr"),
    *(node("Sigmoid", [f"s{gate}"], [gate]) for gate in "zr"),
    node("Mul", ["r", "h"], ["let"]),
    node("MatMul", ["let", "K"], ["hc"]),
    node("Add", ["xc", "hc"], ["sc"]),
    node("Tanh", ["sc"], ["c"]),
    node("Sub", ["one", "z"], ["rest"]),
    node("Mul", ["rest", "c"], ["new"]),
    node("Mul", ["z", "h"], ["kept"]),
    node("Add", ["kept", "new"], ["next"]),
    node("Identity", ["next"], ["y"]),
    node("Identity", ["going"], ["on"]),
]


def numbers(name, data, *sizes, kind=1):
    """A tensor of these bytes."""
    dims = b"".join(onnx.integer(1, size) for size in sizes)
    return onnx.piece(5, dims + onnx.integer(2, kind) + onnx.piece(8, name) + onnx.piece(9, data))


def looping(name, *more, steps="steps", state="H", sequence="X", carried=()):
    """A Loop that is a GRU, with these nodes before its own, which carries these values besides its state."""
    body = nodes(*more, node("Gather", [sequence, "i"], ["x"]), *CELL)
    body += b"".join(onnx.piece(11, onnx.piece(1, one)) for one in ("i", "going", "h", *carried))
    body += b"".join(onnx.piece(12, onnx.piece(1, one)) for one in ("on", "next", *carried, "y"))
    outputs = [f"{name}{i}" for i in range(2 + len(carried))]
    return node("Loop", [steps, "", state, *["one"] * len(carried)], outputs, name, [inner(body, "body")])


def model_of_loops(*loops, before=(), tensors=()):
    """A model with these loops, and nodes before them."""
    sizes = b"".join(
        onnx.piece(1, size) for size in (onnx.piece(2, "t"), onnx.piece(2, "b"), onnx.integer(1, 1))
    )
    shown = onnx.piece(1, "X") + onnx.piece(2, onnx.piece(1, onnx.integer(1, 1) + onnx.piece(2, sizes)))
    given = [numbers("K", ONE, 1, 1), numbers("one", ONE), numbers("H", bytes(4), 1, 1)]
    given.append(numbers("first", bytes(8), kind=7))
    steps = [node("Shape", ["X"], ["shape"]), node("Gather", ["shape", "first"], ["steps"])]
    returned = onnx.piece(12, onnx.piece(1, "0 1"))
    return model(onnx.piece(11, shown), *given, *tensors, nodes(*steps, *before, *loops), returned, gru=False)


def test_the_loop_of_these_shapes_is_read(tmp_path):
    (tmp_path / "model.onnx").write_bytes(model_of_loops(looping("0 ")))
    assert fastgru.load(tmp_path / "model.onnx").recurrent_activation is fastgru.activations.sigmoid


@shape(".onnx", 1_000)
def onnx_loops(n):
    return model_of_loops(*(looping(f"{i} ") for i in range(n)))


@shape(".onnx", 20_000)
def onnx_chain_in_a_loop(n):
    chain = [node("Identity", ["X"], ["0"]), *(node("Identity", [f"{i}"], [f"{i + 1}"]) for i in range(n))]
    return model_of_loops(looping("0 ", *chain, sequence=f"{n}"))


@shape(".onnx", 20_000)
def onnx_carried_values(n):
    return model_of_loops(looping("0 ", carried=[f"{i:05}" for i in range(n)]))


@shape(".onnx", 2_000)
def onnx_loops_that_share_a_state(n):
    loops = (looping(f"{i} ", state="wide") for i in range(n // 8))
    return model_of_loops(*loops, tensors=[numbers("wide", bytes(400 * n), 100 * n, 1)])


@shape(".onnx", 2_000)
def onnx_loops_behind_a_chain(n):
    chain = [
        node("Identity", ["steps"], ["0"]),
        *(node("Identity", [f"{i}"], [f"{i + 1}"]) for i in range(n)),
    ]
    return model_of_loops(*(looping(f"{i} ", steps=f"{n}") for i in range(n // 8)), before=chain)


@shape(".onnx", 20_000)
def onnx_split_in_a_loop(n):
    wide = node("Split", ["one"], [f"{i}" for i in range(n)])
    return model_of_loops(looping("0 ", wide, node("Add", ["0", "1"], ["2 x"]), sequence="2 x"))


@shape(".onnx", 20_000)
def onnx_bodies_in_bodies(n):
    made = b""
    for depth in range(25):
        made = looping(f"{depth} ", *([made] if made else [node("X", [f"{i:05}" for i in range(n)])]))
    return model_of_loops(made)


# ---- Keras -----------------------------------------------------------------------------------

METADATA = "metadata.json", b'{"keras_version": "3.0.0"}'


def keras_archive(config):
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    return archives.sound([METADATA, ("config.json", text), ("model.weights.h5", keras.weights_of(0))])


def gru(name):
    return {"class_name": "GRU", "config": {"name": name, "units": 2}}


def of_layers(layers, name="model", kind="Functional"):
    return {"class_name": kind, "config": {"name": name, "layers": layers}}


@shape(".keras", 1_000)
def keras_long_name_of_many_layers(n):
    return keras_archive(of_layers([of_layers([gru(str(i)) for i in range(n)], "m" * 4000)]))


@shape(".keras", 1_000)
def keras_long_name_in_many_models(n):
    made = of_layers([gru(str(i)) for i in range(n)], "m" * 100)
    for number in range(25):
        made = of_layers([made], f"{number}" * 50)
    return keras_archive(of_layers([made]))


@shape(".keras", 1_000)
def keras_layers(n):
    return keras_archive(of_layers([gru(f"g{i}") for i in range(n)], kind="Sequential"))


@shape(".keras", 1_000)
def keras_models_of_no_layers(n):
    return keras_archive(of_layers([of_layers([], str(i)) for i in range(n)]))


@shape(".keras", 1_000)
def keras_wrappers(n):
    wrapped = {"class_name": "TimeDistributed", "config": {"layer": gru("x")}}
    return keras_archive(of_layers([wrapped | {"name": str(i)} for i in range(n)]))


@shape(".keras", 200_000)
def keras_class_name(n):
    return keras_archive(of_layers([{"class_name": "aB" * n, "config": {}}]))


# ---- archives and arrays ---------------------------------------------------------------------


def named(n, form, data=b""):
    return archives.sound([(form % i, data) for i in range(n)])


ROW = archives.npy(np.full((3, 1), 0.1, np.float32))


@shape(".npz", 5_000)
def npz_members(n):
    return named(n, "%d")


@shape(".npz", 500)
def npz_members_of_long_names(n):
    return named(n, "x" * 1000 + "%d")


@shape(".npz", 1_600)
def npz_arrays(n):
    return named(n, "%d.npy", ROW)


@shape(".npz", 1_600)
def npz_modules(n):
    return named(n, "m%d.weight_hh_l0.npy", ROW)


@shape(".npz", 1_600)
def npz_whole_modules(n):
    names = itertools.product(range(n), ("ih", "hh"))
    return archives.sound([(f"m{i}.weight_{kind}_l0.npy", ROW) for i, kind in names])


@shape(".npz", 1_000)
def npz_levels(n):
    names = itertools.product(range(n), ("ih", "hh"))
    return archives.sound([(f"weight_{kind}_l{i}.npy", ROW) for i, kind in names])


def npz_packed(n, units):
    """So many bytes that are no weight, and more that are packed."""
    members = [archives.Member(b"padding", bytes(n))]
    for kind, columns in (("ih", n // (3 * units)), ("hh", units)):
        array = archives.npy(np.zeros((3 * units, columns), np.float32))
        members.append(archives.Member(f"weight_{kind}_l0.npy".encode(), array, archives.DEFLATED))
    return archives.written(members)


@shape(".npz", 200_000)
def npz_packed_zeros(n):
    return npz_packed(n, units=1)


@shape(".npz", 500_000)
def npz_packed_features(n):
    return npz_packed(n, units=64)


@shape(".npz", 3_000)
def npz_zip64_members(n):
    return archives.written([archives.Member(b"%d" % i, b"", wide=True) for i in range(n)])


# ---- fastgru's own ---------------------------------------------------------------------------

SMALL = {"units": 1, "use_bias": False}


def native(header, arrays):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    members = [("fastgru.npy", archives.npy(np.frombuffer(text, np.uint8)))]
    return archives.sound([*members, *((f"{name}.npy", ROW) for name in arrays)])


@shape(".npz", 800)
def native_layers(n):
    layers = [{"class_name": "GRU", "config": SMALL | {"return_sequences": True}}] * n
    header = {"format": 1, "class_name": "Stack", "config": {"layers": layers}}
    return native(header, [f"{i}.{j}" for i in range(n) for j in range(2)])


NATIVE = b'{"format": 1, "class_name": "GRU", "config": {"units": 1}, "x": '


@shape(".npz", 5_000)
def json_objects(n):
    return native(NATIVE + b"[" + b"{}," * n + b"{}]}", [])


@shape(".npz", 10_000)
def json_lists(n):
    return native(NATIVE + b"[" + b"[]," * n + b"[]]}", [])


@shape(".npz", 10_000)
def json_texts(n):
    return native(NATIVE + b"[" + b",".join(b'"%05d"' % i for i in range(n)) + b"]}", [])


@shape(".npz", 10_000)
def json_keys(n):
    return native(NATIVE + b"{" + b",".join(b'"%05d":0' % i for i in range(n)) + b"}}", [])


@shape(".npz", 50_000)
def json_numbers(n):
    return native(NATIVE + b"[" + b"1.5," * n + b"1]}", [])


@shape(".npz", 400_000)
def json_wide_text(n):
    return native(NATIVE + b'"\xf0\x9f\x92\xa9' + b"x" * n + b'"}', [])


@shape(".npz", 400_000)
def json_packed_wide_text(n):
    """So many bytes that are none of it, and more that are packed in it, with a wide character."""
    header = np.frombuffer(NATIVE + b'"\xf0\x9f\x92\xa9' + b"x" * (6 * n) + b'"}', np.uint8)
    packed = archives.Member(b"fastgru.npy", archives.npy(header), archives.DEFLATED)
    return archives.written([archives.Member(b"padding", bytes(n)), packed])


@shape(".npz", 1_600)
def native_arrays(n):
    return native({"format": 1, "class_name": "GRU", "config": SMALL}, map(str, range(n)))


@shape(".npz", 10_000)
def native_states(n):
    header = {"format": 1, "class_name": "GRU", "config": SMALL | {"default_state": [[0.5]] * n}}
    return native(header, ["0", "1"])


# ---- safetensors -----------------------------------------------------------------------------


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def rows(names):
    """Tensors of these names, of one number each gate."""
    header, place = {}, 0
    for name in names:
        header[name] = {"dtype": "F32", "shape": [3, 1], "data_offsets": [place, place + 12]}
        place += 12
    return safetensors(header, KERNEL * (place // 12))


@shape(".safetensors", 1_000)
def safetensors_tensors(n):
    return rows(map(str, range(n)))


@shape(".safetensors", 1_000)
def safetensors_empty_tensors(n):
    entry = b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    return safetensors(b"{" + b",".join(entry % i for i in range(n)) + b"}")


@shape(".safetensors", 800)
def safetensors_modules(n):
    return rows(f"m{i}.weight_{kind}_l0" for i in range(n) for kind in ("ih", "hh"))


@shape(".safetensors", 800)
def safetensors_levels(n):
    return rows(f"weight_{kind}_l{i}" for i in range(n) for kind in ("ih", "hh"))


@shape(".safetensors", 10_000)
def safetensors_axes(n):
    return safetensors({"x": {"dtype": "U8", "shape": [1] * n, "data_offsets": [0, 1]}}, b"x")


@shape(".safetensors", 10_000)
def safetensors_metadata(n):
    return safetensors(b'{"__metadata__":{' + b",".join(b'"%05d":""' % i for i in range(n)) + b"}}")


# ---- pickles ---------------------------------------------------------------------------------


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\3tQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
TENSOR = REBUILD + b"(" + STORAGE + b"K\0K\3K\1\x86K\1K\1\x86\x89}tR"
STATE = text("weight_ih_l0") + TENSOR + text("weight_hh_l0") + TENSOR


def pickled(code, more=()):
    """An archive with a state dict that has these pairs of keys and values besides."""
    data = b"\x80\2}(" + STATE + code + b"u."
    return archives.sound([("a/data.pkl", data), ("a/data/0", KERNEL), *more])


def put(number):
    return b"r" + struct.pack("<I", number)


def get(number):
    return b"j" + struct.pack("<I", number)


@shape(".pt", 400_000)
def pickle_list(n):
    return pickled(text("x") + b"](" + b"N" * n + b"e")


@shape(".pt", 100_000)
def pickle_numbers(n):
    return pickled(text("x") + b"](" + b"K\1" * n + b"e")


@shape(".pt", 50_000)
def pickle_floats(n):
    return pickled(text("x") + b"(" + (b"G" + bytes(8)) * n + b"t")


@shape(".pt", 10_000)
def pickle_lists(n):
    return pickled(text("x") + b"](" + b"]" * n + b"e")


@shape(".pt", 10_000)
def pickle_dicts(n):
    return pickled(text("x") + b"](" + b"}" * n + b"e")


@shape(".pt", 10_000)
def pickle_keys(n):
    return pickled(text("x") + b"}(" + b"".join(text(f"{i:05}") + b"N" for i in range(n)) + b"u")


@shape(".pt", 10_000)
def pickle_integer_keys(n):
    return pickled(text("x") + b"}(" + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(n)) + b"u")


@shape(".pt", 30_000)
def pickle_colliding_keys(n):
    numbers = (i * ((1 << 61) - 1) for i in range(1, n))
    keys = b"".join(b"\x8a\x0a" + number.to_bytes(10, "little") + b"N" for number in numbers)
    return pickled(text("x") + b"}(" + keys + b"u")


@shape(".pt", 10_000)
def pickle_texts(n):
    return pickled(text("x") + b"](" + b"".join(b"\x8c\5%05d" % i for i in range(n)) + b"e")


@shape(".pt", 50_000)
def pickle_empty_texts(n):
    return pickled(text("x") + b"](" + b"\x8c\0" * n + b"e")


@shape(".pt", 50_000)
def pickle_tuples(n):
    return pickled(text("x") + b"(" + b"N\x85" * n + b"t")


@shape(".pt", 10_000)
def pickle_marks(n):
    return pickled(text("x") + b"N" + b"(" * n + b"1" * n)


@shape(".pt", 100_000)
def pickle_memo(n):
    return pickled(text("x") + b"N" + b"\x94" * n)


@shape(".pt", 100_000)
def pickle_memo_from_its_end(n):
    return pickled(text("x") + b"N" + b"".join(put(i) for i in range(n, 1, -1)))


@shape(".pt", 200_000)
def pickle_gets(n):
    return pickled(text("x") + b"]" + put(0) + b"(" + b"h\0" * n + b"e")


@shape(".pt", 5_000)
def pickle_objects(n):
    return pickled(text("x") + b"](" + b"ca\nB\n)R" * n + b"e")


@shape(".pt", 5_000)
def pickle_sets(n):
    return pickled(text("x") + b"](" + b"\x8f" * n + b"e")


@shape(".pt", 50_000)
def pickle_states(n):
    return pickled(text("x") + b"ca\nB\n)R" + b"}b" * n)


@shape(".pt", 10_000)
def pickle_globals(n):
    return pickled(text("x") + b"](" + b"".join(b"ca\n%05d\n" % i for i in range(n)) + b"e")


@shape(".pt", 20_000)
def pickle_globals_of_long_names(n):
    name = text("m" * 4000)
    return pickled(text("x") + name + put(0) + b"0](" + b"h\0h\0\x93" * n + b"e")


@shape(".pt", 10_000)
def pickle_chain_of_pairs(n):
    """Each is in the next one twice: two to the power of n in all."""
    return pickled(text("x") + b"]" + b"".join(put(i) + get(i) + b"\x86" for i in range(n)))


@shape(".pt", 10_000)
def pickle_lists_of_lists(n):
    """Sixty-four that share one list, of many lists."""
    code = b"](" + b"]" * n + b"e" + put(0) + b"0"
    return pickled(text("x") + code + b"](" + b"h\0" * 64 + b"e")


@shape(".pt", 20_000)
def pickle_graph(n):
    """Lists in four layers, each with all of the next layer in it."""
    width = n // 4
    code = b"](" + b"]" * width + b"e" + put(0) + b"0"
    for layer in range(1, 4):
        code += b"](" + get(layer - 1) * width + b"e" + put(layer) + b"0"
    return pickled(text("x") + code + get(3))


@shape(".pt", 1_000)
def pickle_tensors(n):
    return pickled(b"".join(text(f"m{i}.x") + TENSOR for i in range(n)))


@shape(".pt", 1_000)
def pickle_shared_tensors(n):
    code = b"".join(text(f"m{i}.weight_{kind}_l0") + get(0) for i in range(n) for kind in ("ih", "hh"))
    return pickled(text("x") + TENSOR + put(0) + code)


@shape(".pt", 1_000)
def pickle_levels(n):
    code = b"".join(text(f"m.weight_{kind}_l{i}") + get(0) for i in range(n) for kind in ("ih", "hh"))
    return pickled(text("x") + TENSOR + put(0) + code)


@shape(".pt", 5_000)
def pickle_tensors_of_stride_zero(n):
    """As many elements as there are tensors, all of them one in the file."""
    view = b"K\0J" + struct.pack("<i", 3 * n) + b"K\1\x86K\0K\0\x86"
    wide = REBUILD + b"(" + STORAGE + view + b"\x89}tR"
    return pickled(
        text("x") + wide + put(0) + b"".join(text(f"m{i}.weight_ih_l0") + get(0) for i in range(n))
    )


@shape(".pt", 1_500)
def pickle_copies_of_a_dict(n):
    """Half of it a dict, half of it calls that copy it."""
    code = b"}(" + b"".join(text(f"{i:05}") + b"N" for i in range(n)) + b"u" + put(0)
    copies = (b"ccollections\nOrderedDict\n" + get(0) + b"\x85R") * (n // 4)
    return pickled(text("x") + code + text("y") + b"](" + copies + b"e")


@shape(".pt", 1_500)
def pickle_copies_of_a_list(n):
    """Half of it a list of pairs, half of it calls that make a dict of it."""
    code = b"](" + b"".join(text(f"{i:05}") + b"N\x86" for i in range(n)) + b"e" + put(0)
    copies = (b"ccollections\nOrderedDict\n" + get(0) + b"\x85R") * (n // 4)
    return pickled(text("x") + code + text("y") + b"](" + copies + b"e")


@shape(".pt", 5_000)
def pickle_long_key_of_many_tensors(n):
    inside = b"".join(text(f"{i}.weight_ih_l0") + get(0) for i in range(n))
    return pickled(text("x") + TENSOR + put(0) + text("k" * 4000) + b"}(" + inside + b"u")


@shape(".pt", 1_000)
def pickle_state_dicts(n):
    """Each in a list of its own, at the end of a path."""
    code = text("x") + b"}(" + STATE + b"u" + put(0) + text("y") + b"](" + get(0) * n + b"e"
    return pickled(code)


@shape(".pt", 1_000)
def pickle_state_dicts_below_a_path(n):
    code = text("x") + b"}(" + STATE + b"u" + put(0)
    code += text("y") + b"](" + get(0) * n + b"e" + b"\x85" * 90
    return pickled(code)


@shape(".pt", 100_000)
def pickle_paths_to_an_object(n):
    """One object in one list, which is in another one often."""
    code = b"]ca\nB\n)Ra" + put(0)
    return pickled(text("x") + code + text("y") + b"](" + b"h\0" * n + b"e")


MODULE = b"ctorch.nn\nModule\n)\x81}("


def module(members):
    """A module whose modules are in a dict that such code makes."""
    parts = text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + members
    return MODULE + parts + b"ub"


@shape(".pt", 10_000)
def pickle_modules(n):
    code = module(b"}") + put(0)
    children = b"".join(text(f"{i}") + get(0) for i in range(n))
    return pickled(text("x") + code + text("y") + module(b"}(" + children + b"u"))


@shape(".pt", 10_000)
def pickle_modules_below_a_long_name(n):
    code = module(b"}") + put(0)
    children = b"".join(text(f"{i}") + get(0) for i in range(n))
    return pickled(
        text("x")
        + code
        + text("y")
        + module(b"}" + text("m" * 4000) + module(b"}(" + children + b"u") + b"s")
    )


@shape(".pt", 3_000)
def pickle_storages(n):
    one = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + put(0)
    ids = b"".join(
        b"(" + text("storage") + get(0) + b"\x8c\5%05d" % i + text("cpu") + b"K\0tQ" for i in range(n)
    )
    members = [(f"a/data/{i:05}", b"") for i in range(n)]
    first = one + text("0") + text("cpu") + b"K\3tQ"
    return pickled(text("x") + first + text("y") + b"](" + ids + b"e", members)


@shape(".pt", 5_000)
def pickle_one_storage_often(n):
    return pickled(text("x") + b"](" + STORAGE * n + b"e")


@shape(".pt", 5_000)
def legacy_storages(n):
    magic = b"\x80\2\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
    cls = b"ctorch\nFloatStorage\n"
    ids = b"".join(
        b"(" + text("storage") + cls + b"\x8c\5%05d" % i + text("cpu") + b"K\0Nt" + b"Q" for i in range(n)
    )
    main = b"\x80\2}(" + STATE + text("x") + b"](" + ids + b"eu."
    keys = b"\x80\2](" + text("0") + b"".join(b"\x8c\5%05d" % i for i in range(n)) + b"e."
    data = struct.pack("<Q", 3) + KERNEL + bytes(8) * n
    return magic + b"\x80\2M\xe9\3." + b"\x80\2}." + main + keys + data


@shape(".pt", 10_000)
def script_modules(n):
    one = b"c__torch__\nModel\n)\x81"
    children = b"".join(text(f"{i}") + get(0) for i in range(n))
    data = b"\x80\2" + one + b"}(" + text("x") + one + b"}b" + put(0) + STATE + children + b"ub."
    return archives.sound([("a/data.pkl", data), ("a/data/0", KERNEL), ("a/constants.pkl", b"\x80\2).")])


# ---- HDF5 ------------------------------------------------------------------------------------


def h5(fill):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="latest") as file:
        fill(file)
    return buffer.getvalue()


@shape(".h5", 20_000, units=2)
def h5_long_name_of_many_weights(n):
    def fill(file):
        group = file.create_group("G" * 4000)
        file.attrs["layer_names"] = np.array([b"G" * 4000])
        group.attrs["weight_names"] = np.array([b"%05d" % i for i in range(n)])

    return h5(fill)


@shape(".h5", 1_000, units=2)
def h5_layers(n):
    def fill(file):
        names = [b"%05d" % i for i in range(n)]
        file.attrs["layer_names"] = np.array(names)
        for name in names:
            file.create_group(name).attrs["weight_names"] = np.array([b"x"])

    return h5(fill)


@shape(".h5", 1_000)
def h5_layers_of_a_model(n):
    def fill(file):
        file.attrs["keras_version"] = "2.15.0"
        file.attrs["model_config"] = json.dumps(of_layers([gru(f"{i:05}") for i in range(n)]))
        file.create_group("model_weights").attrs["layer_names"] = np.array([b"x"])

    return h5(fill)


# ---- tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_what_runs_grows_no_faster_than_the_file(name, measurer, tmp_path):
    shape = SHAPES[name]
    path = tmp_path / shape.name
    counts = []
    for number in (FIRST, 2 * FIRST, 4 * FIRST):
        path.write_bytes(shape.make(number))
        counts.append(measurer.measure("lines", path, shape.arguments))
    (small, _), (middle, _), (large, _) = counts
    assert small > 0
    assert middle <= LINES * small, counts
    assert large <= LINES * middle, counts


@pytest.mark.parametrize("name", SHAPES)
def test_memory_is_in_proportion_to_the_file(name, measurer, tmp_path):
    shape = SHAPES[name]
    path = tmp_path / shape.name
    path.write_bytes(shape.make(shape.large))
    memory, outcome = measurer.measure("memory", path, shape.arguments)
    size = path.stat().st_size
    allowed = judging.TIMES * size + judging.BESIDES.get(path.suffix, judging.BESIDES[""])
    assert memory <= allowed, f"{memory} bytes for a file of {size}: {outcome}"
