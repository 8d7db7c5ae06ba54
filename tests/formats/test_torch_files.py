"""Files of torch.save and torch.jit.save, read without PyTorch, against what PyTorch reads."""

import argparse
import collections
import datetime
import enum
import fractions
import io
import pathlib
import random
import struct
import tarfile
import types
import warnings
import zipfile

import numpy as np
import pytest

import fastgru
from fastgru.formats import _torch_file, _zip

torch = pytest.importorskip("torch")

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
OTHERS = (
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.uint16,
)
ZIP = {"_use_new_zipfile_serialization": True}
LEGACY = {"_use_new_zipfile_serialization": False}
WAYS = {
    f"{name}-{protocol}": way | {"pickle_protocol": protocol}
    for name, way in (("zip", ZIP), ("legacy", LEGACY))
    for protocol in (1, 2, 3, 4, 5)
}


def gru(**options):
    torch.manual_seed(0)
    return torch.nn.GRU(3, 4, **options)


def ours(path):
    """Every tensor of floats in a file, as an array, by its place; of others the type."""
    data = path.read_bytes()
    saved = _torch_file.zipped(_zip.Archive(data)) if data[:2] == b"PK" else _torch_file.legacy(data)
    found = {}
    for group in saved.groups:
        for key, tensor in group.tensors.items():
            read = tensor.scale is not None or tensor.storage.kind in ("f2", "f4", "f8", "bfloat16")
            found[*group.where, key] = saved.array(tensor) if read else tensor.shape
    return found


def theirs(loaded, where=()):
    """The same of what PyTorch has loaded."""
    found = {}
    for key, value in loaded.items() if isinstance(loaded, dict) else enumerate(loaded):
        place = (*where, str(key))
        if isinstance(value, torch.Tensor):
            if value.is_quantized:
                found[place] = value.dequantize().numpy()
            elif value.dtype in FLOATS:
                value = value.float() if value.dtype == torch.bfloat16 else value
                found[place] = value.detach().numpy()
            else:
                found[place] = tuple(value.shape)
        elif isinstance(value, dict | list | tuple):
            found |= theirs(value, place)
    return found


def assert_same(path, weights_only=True):
    """Compare all that is in a file."""
    found, wanted = ours(path), theirs(torch.load(path, weights_only=weights_only))
    assert set(found) == set(wanted)
    for place, array in wanted.items():
        if isinstance(array, np.ndarray):
            assert found[place].dtype == array.dtype, place
            np.testing.assert_array_equal(found[place], array)
        else:
            assert found[place] == array, place
    return found


def some_tensor(rng, storages, others):
    """A tensor of any kind, some of which share a storage, are views, or have no elements."""
    kind = rng.randrange(8)
    if kind == 0 and storages:
        return rng.choice(storages)
    dtype = rng.choice(FLOATS * 3 + others)
    shape = [rng.randrange(4) + (rng.random() < 0.9) for _ in range(rng.randrange(4))]
    tensor = (torch.randn(shape, dtype=torch.float64) * 100).to(dtype)
    if kind == 1 and len(shape) > 1:
        tensor = tensor.transpose(0, 1)
    elif kind == 2 and shape and shape[0] > 1:
        tensor = tensor[1:]
    elif kind == 3 and shape and dtype in FLOATS:
        tensor = tensor[..., ::2]
    elif kind == 4 and dtype in FLOATS:
        tensor = torch.nn.Parameter(tensor, requires_grad=rng.random() < 0.5)
    elif kind == 5:
        tensor = torch.ones((), dtype=dtype).expand(shape)
    elif kind == 6 and shape and dtype == torch.float32:
        tensor = torch.quantize_per_tensor(
            tensor, 0.5, 3, rng.choice([torch.qint8, torch.quint8, torch.qint32])
        )
    elif kind == 7 and len(shape) == 2 and min(shape) and dtype == torch.float32:
        scales, zeros = torch.rand(shape[1]) + 0.1, torch.randint(-5, 5, (shape[1],))
        tensor = torch.quantize_per_channel(tensor, scales, zeros, 1, torch.qint8)
    storages.append(tensor)
    return tensor


def some_value(rng, storages, others, depth=0):
    """A checkpoint, or a part of one."""

    def inner():
        return some_value(rng, storages, others, depth + 1)

    kind = rng.randrange(10)
    if depth == 0 or (kind < 2 and depth < 5):
        keys = [f"{rng.choice(['a', 'b.c', 'd.weight', 'é'])}{i}" for i in range(rng.randrange(1, 6))]
        return rng.choice([dict, collections.OrderedDict])((key, inner()) for key in keys)
    if kind == 2 and depth < 5:
        return rng.choice([list, tuple])(inner() for _ in range(rng.randrange(4)))
    if kind == 3:
        values = [None, True, 3, -(2**40), 2**70, 0.5, "text", "x" * 5000, torch.float32, torch.Size([2])]
        return rng.choice(values)
    return some_tensor(rng, storages, others)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # PyTorch's, of quantization
@pytest.mark.parametrize("way", WAYS)
def test_random_checkpoints_are_read_as_pytorch_reads_them(way, tmp_path):
    others = OTHERS[:-1] if way.startswith("legacy") else OTHERS  # where PyTorch cannot read its own uint16
    safe = WAYS[way]["pickle_protocol"] in (2, 3)  # all that it reads with weights_only=True
    found = 0
    for seed in range(40):
        print(f"seed {seed}")
        torch.manual_seed(seed)
        rng = random.Random(seed)
        torch.save(some_value(rng, [], others), tmp_path / "model.pt", **WAYS[way])
        found += len(assert_same(tmp_path / "model.pt", safe))
    assert found > 100


def test_archives_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(gru().state_dict(), tmp_path / "model.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(tmp_path / "model.pt")


def rewritten(path, changes):
    """Write an archive again, with other members; None: without one."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(members)).partition("/")[0]
    members |= {f"{root}/{name}": content for name, content in changes.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_byte_order_is_the_files(dtype, tmp_path):
    path = tmp_path / "model.pt"
    tensor = torch.arange(6).to(dtype).reshape(2, 3)
    torch.save({"x": tensor}, path)
    size = tensor.element_size()
    swapped = np.frombuffer(tensor.view(torch.uint8).numpy().tobytes(), f"u{size}").byteswap().tobytes()
    rewritten(path, {"data/0": swapped, "byteorder": b"big"})
    found = assert_same(path)
    assert found["x",].tolist() == [[0, 1, 2], [3, 4, 5]]
    rewritten(path, {"byteorder": b"middle"})
    with pytest.raises(fastgru.FormatError, match="the byte order must be little or big, got b'middle'"):
        fastgru.load(path)
    rewritten(path, {"byteorder": None, "data/0": tensor.view(torch.uint8).numpy().tobytes()})
    assert_same(path)  # before PyTorch 2.1


# ---- older files, by hand --------------------------------------------------------------------


def text(value, python=3):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data if python == 3 else b"U" + bytes([len(data)]) + data


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def tuple_of(*values):
    return b"(" + b"".join(values) + b"t"


def called(function, *arguments):
    return function + tuple_of(*arguments) + b"R"


def tensor(storage, shape=(2, 3), strides=(3, 1), offset=0, rebuild="_rebuild_tensor_v2"):
    sizes = (tuple_of(*map(number, values)) for values in (shape, strides))
    more = (b"\x89", called(name("collections", "OrderedDict"))) if rebuild == "_rebuild_tensor_v2" else ()
    return called(name("torch._utils", rebuild), storage, number(offset), *sizes, *more)


def storage(key="0", count=6, kind="FloatStorage", view=None, python=3):
    words = [text(word, python) for word in ("storage", key, "cpu")]
    end = () if view is None else (view,)
    return tuple_of(words[0], name("torch", kind), words[1], words[2], number(count), *end) + b"Q"


MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."
SIX = struct.pack("<6f", *range(6))


def dict_of(values, python=3):
    return b"\x80\x02}(" + b"".join(text(key, python) + value for key, value in values.items()) + b"u."


def legacy(values, keys=("0",), blobs=None, counts=(6,), python=3):
    """A legacy file of a dict of pickled tensors."""
    blobs = [SIX] * len(keys) if blobs is None else blobs
    listed = b"\x80\x02](" + b"".join(text(key, python) for key in keys) + b"e."
    stored = b"".join(struct.pack("<q", count) + blob for count, blob in zip(counts, blobs, strict=False))
    return MAGIC + dict_of(values, python) + listed + stored


def archive(pickle, members=None, root="archive"):
    members = {"data/0": SIX} if members is None else members
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for member, content in {"data.pkl": pickle, "version": b"3\n", **members}.items():
            made.writestr(f"{root}/{member}", content)
    return buffer.getvalue()


OLD = {
    "python-2": legacy({"x": tensor(storage(view=b"N", python=2))}, python=2),
    "the-first-rebuild": legacy({"x": tensor(storage(view=b"N"), rebuild="_rebuild_tensor")}),
    "a-view": legacy({"x": tensor(storage(view=tuple_of(text("1"), number(2), number(4))), (2, 2), (2, 1))}),
    "a-view-and-its-storage": legacy(
        {
            "x": tensor(storage(view=b"N")),
            "y": tensor(storage(view=tuple_of(text("1"), number(3), number(3))), (3,), (1,)),
        }
    ),
    "an-offset": legacy({"x": tensor(storage(view=b"N"), (2,), (2,), 3)}),
    "something-behind": legacy({"x": tensor(storage(view=b"N"))}) + b"more",
    "archive-1.6": archive(dict_of({"x": tensor(storage())})),
    "two-of-one-storage": archive(dict_of({"x": tensor(storage()), "y": tensor(storage(), (3, 2), (1, 3))})),
}


@pytest.mark.parametrize("case", OLD)
def test_files_of_older_versions_are_read(case, tmp_path):
    (tmp_path / "model.pt").write_bytes(OLD[case])
    assert assert_same(tmp_path / "model.pt")


def test_an_ordered_dict_of_python_2_is_read(tmp_path):
    pairs = b"](](" + text("x", 2) + tensor(storage(python=2)) + b"ee"
    pickle = b"\x80\x02" + called(name("collections", "OrderedDict"), pairs) + b"."
    (tmp_path / "model.pt").write_bytes(archive(pickle))
    assert ours(tmp_path / "model.pt")["x",].tolist() == [[0, 1, 2], [3, 4, 5]]


# ---- what else is in checkpoints -------------------------------------------------------------


class Color(enum.Enum):
    RED = 1


class Config(dict):
    """A dict of somebody's own, with attributes."""


class Plain:
    def __init__(self, **attributes):
        vars(self).update(attributes)


def config(**items):
    made = Config(items)
    made.path = pathlib.PurePosixPath("/x")
    return made


OBJECTS = {
    "namespace": argparse.Namespace(lr=0.1, layers=[1, 2]),
    "simple-namespace": types.SimpleNamespace(a=1),
    "numpy-scalar": np.float64(0.5),
    "numpy-array": np.arange(6.0).reshape(2, 3),
    "numpy-dtype": np.dtype("f4"),
    "path": pathlib.PurePosixPath("/data/x"),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "counter": collections.Counter("hello"),
    "deque": collections.deque([1, 2]),
    "set": {1, "a"},
    "frozenset": frozenset([1]),
    "bytes": b"\0\xff" * 200,
    "bytearray": bytearray(b"abc"),
    "complex": 1j,
    "fraction": fractions.Fraction(1, 3),
    "date": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "enum": Color.RED,
    "function": test_files_of_older_versions_are_read,
    "class": Plain,
    "object": Plain(a=1, b=Plain(c=[2])),
    "config": config(a=1),
    "device": torch.device("cpu"),
    "generator-state": random.Random(0).getstate(),
    "module": torch.nn.Linear(2, 2),
    "optimizer": torch.optim.Adam(torch.nn.Linear(2, 2).parameters()),
    "keys": {3: "a", None: "b", (1, 2): "c", 2.5: "d", True: "e", -(2**70): "f"},
    "long-text": "x" * 10**5,
    "meta": torch.zeros(3, device="meta"),
    "float8": torch.zeros(3).to(torch.float8_e4m3fn),
}


@pytest.mark.parametrize("way", ["zip-2", "legacy-2", "zip-4", "legacy-4", "zip-5"])
def test_other_objects_are_passed_over(way, tmp_path):
    state = gru(num_layers=2).state_dict()
    path = tmp_path / "model.pt"
    objects = OBJECTS
    if way.startswith("legacy"):  # in which a module comes with its source
        objects = {key: value for key, value in OBJECTS.items() if key != "module"}
    torch.save({**objects, "model": state, "again": list(objects.values())}, path, **WAYS[way])
    found = fastgru.load(path)
    for array, wanted in zip(found.get_weights(), fastgru.from_torch(state).get_weights(), strict=True):
        np.testing.assert_array_equal(array, wanted)


@pytest.mark.parametrize("key", OBJECTS)
def test_an_object_without_a_gru_is_said(key, tmp_path):
    torch.save({key: OBJECTS[key]}, tmp_path / "model.pt")
    with pytest.raises(fastgru.FormatError, match=rf"the file holds no GRU, but \d+ tensors; the keys {key}"):
        fastgru.load(tmp_path / "model.pt")


def test_names_say_where_the_state_dicts_lie(tmp_path):
    path = tmp_path / "model.pt"
    state = {f"gru.{key}": value for key, value in gru().state_dict().items()}
    bare = gru().state_dict()
    cases = [
        ({"state_dict": state, "epoch": 3}, ["gru"]),
        ({"model": {"generator": state}}, ["gru"]),
        ([1, [state]], ["gru"]),
        ({"en": state, "de": state}, ["en.gru", "de.gru"]),
        ({"all": {"en": bare, "de": bare, "n": 1}}, ["en", "de"]),
        ({"model": state, "ema": {"model": state}}, ["model.gru", "ema.model.gru"]),
        ({"folds": [state, state]}, ["0.gru", "1.gru"]),
        ({0: state, 1: state}, ["0.gru", "1.gru"]),
        ({"model": torch.nn.ModuleDict({"a": gru()}), "state": state}, ["model.a", "state.gru"]),
        (collections.defaultdict(dict, en=state), ["gru"]),
        (config(en=state, de=state), ["en.gru", "de.gru"]),
    ]
    for value, names in cases:
        torch.save(value, path)
        layers = fastgru.load_all(path)
        assert list(layers) == names
        assert [layer.name for layer in layers.values()] == names
    torch.save({"a.b": state, "a": {"b": state}}, path)
    with pytest.raises(fastgru.FormatError, match=r"two GRUs come to the name 'a\.b\.gru'"):
        fastgru.load_all(path)


def test_what_lies_in_itself_is_looked_at_once(tmp_path):
    loop = {"model": gru().state_dict(), "list": []}
    loop["self"] = loop
    loop["list"].append(loop["list"])
    torch.save(loop, tmp_path / "model.pt")
    assert list(fastgru.load_all(tmp_path / "model.pt")) == ["gru"]


# ---- modules ---------------------------------------------------------------------------------


class Net(torch.nn.Module):
    """GRUs in and beside other modules, one of them twice."""

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.GRU(3, 4, 2, batch_first=True))
        self.decoder = torch.nn.GRU(4, 3, bidirectional=True)
        self.cell = torch.nn.GRUCell(3, 3)
        self.norm = torch.nn.BatchNorm1d(3)
        self.again = self.decoder

    def forward(self, x):
        return self.decoder(self.encoder(x)[0])[0]


@pytest.mark.parametrize("way", ["zip-2", "legacy-2", "zip-5"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # that a legacy file may not find the source
def test_a_module_that_was_saved_whole_is_read(way, tmp_path):
    torch.manual_seed(0)
    net = Net()
    torch.save(net, tmp_path / "model.pt", **WAYS[way])
    found, wanted = fastgru.load_all(tmp_path / "model.pt"), fastgru.from_torch(net)
    assert list(found) == [*wanted, "again"]  # as in the state dict
    for module, layer in wanted.items():
        assert found[module].time_major == layer.time_major
        for array, other in zip(found[module].get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize("made", ["script", "trace"])
def test_torchscript_is_read_as_its_state_dict(made, tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(collections.OrderedDict(rnn=torch.nn.GRU(3, 4, 2, bidirectional=True)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated, and of tracing
        script = torch.jit.script(net) if made == "script" else torch.jit.trace(net, torch.zeros(2, 2, 3))
        torch.jit.save(script, tmp_path / "model.pt")
        wanted = torch.jit.load(tmp_path / "model.pt").state_dict()
    found = ours(tmp_path / "model.pt")
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key,], value.numpy())
    layers = fastgru.load_all(tmp_path / "model.pt")
    assert list(layers) == ["rnn"]
    x = torch.randn(5, 2, 3)
    y = net(x)[0].detach().numpy()
    outputs, *_ = layers["rnn"](x.numpy().swapaxes(0, 1))
    np.testing.assert_allclose(outputs.swapaxes(0, 1), y, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_frozen_module_has_constants_without_names(tmp_path):
    frozen = torch.jit.freeze(torch.jit.script(torch.nn.Sequential(gru()).eval()))
    torch.jit.save(frozen, tmp_path / "model.pt")
    with pytest.raises(
        fastgru.FormatError, match="no GRU, but 0 tensors; 4 constants without names, as of a fr"
    ):
        fastgru.load(tmp_path / "model.pt")


def test_no_setstate_of_torchscript_runs(tmp_path):
    """The code of an archive is no Python, and would not compile; nothing looks at it."""
    state = b"}(" + text("x") + tensor(storage()) + b"u"
    pickle = b"\x80\x02" + name("__torch__", "Evil") + b")\x81" + state + b"b."
    code = b"class Evil(Module):\n  def __setstate__(self, state):\n    syntax error"
    members = {"data/0": SIX, "constants.pkl": b"\x80\x02).", "code/__torch__.py": code}
    (tmp_path / "model.pt").write_bytes(archive(pickle, members))
    assert list(ours(tmp_path / "model.pt")) == [("x",)]


def test_torchscript_from_before_1_4_is_told(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("model/model.json", "{}")
        made.writestr("model/tensors/0", SIX)
    (tmp_path / "model.pt").write_bytes(buffer.getvalue())
    with pytest.raises(
        fastgru.FormatError, match=r"TorchScript of PyTorch before 1\.4: load it with PyTorch"
    ):
        fastgru.load(tmp_path / "model.pt")


def test_a_tar_archive_is_told_how_to_convert(tmp_path):
    with tarfile.open(tmp_path / "model.tar", "w") as made:
        made.add(__file__, "storages")
    with pytest.raises(fastgru.FormatError, match=r"a tar archive, .* torch\.save\(torch\.load"):
        fastgru.load(tmp_path / "model.tar")


def test_quantized_weights_are_read_as_their_numbers_with_a_warning(tmp_path):
    state = gru().state_dict()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state = {key: torch.quantize_per_tensor(value, 0.01, 0, torch.qint8) for key, value in state.items()}
        torch.save(state, tmp_path / "model.pt")
        caught.clear()
        found, wanted = fastgru.load(tmp_path / "model.pt"), fastgru.from_torch(state)
    said = [str(one.message) for one in caught if "quantized weights are read as" in str(one.message)]
    assert [message.partition(":")[0] for message in said] == ["gru"] * 2 * len(state)
    for array, other in zip(found.get_weights(), wanted.get_weights(), strict=True):
        np.testing.assert_array_equal(array, other)


# ---- lies ------------------------------------------------------------------------------------

LIES = {
    "a storage that is no member": (
        archive(dict_of({"x": tensor(storage())}), {}),
        "archive/data/0 is missing",
    ),
    "more numbers than the member": (
        archive(dict_of({"x": tensor(storage(count=7))})),
        "storage '0' of 7 numbers has 24 bytes",
    ),
    "fewer numbers than the member": (
        archive(dict_of({"x": tensor(storage(count=5), (5,), (1,))})),
        "storage '0' of 5 numbers has 24 bytes",
    ),
    "a storage of two types": (
        archive(dict_of({"x": tensor(storage()), "y": tensor(storage(kind="IntStorage"))})),
        "storage '0' is of two types or sizes",
    ),
    "a storage of two sizes": (
        archive(dict_of({"x": tensor(storage()), "y": tensor(storage(count=3), (3,), (1,))})),
        "storage '0' is of two types or sizes",
    ),
    "a tensor beyond its storage": (
        archive(dict_of({"x": tensor(storage(), (2, 3), (4, 1))})),
        r"of shape \(2, 3\) and strides \(4, 1\) from 0 on is not in its storage of 6",
    ),
    "an offset beyond its storage": (
        archive(dict_of({"x": tensor(storage(), (1,), (1,), 6)})),
        "from 6 on is not in its storage of 6",
    ),
    "a negative stride": (
        archive(dict_of({"x": tensor(storage(), (2, 3), (-3, 1), 3)})),
        "a tensor without shape and strides",
    ),
    "a negative offset": (
        archive(dict_of({"x": tensor(storage(), offset=-1)})),
        "a tensor without a storage",
    ),
    "more strides than axes": (
        archive(dict_of({"x": tensor(storage(), (2,), (1, 1))})),
        r"of shape \(2,\) and strides \(1, 1\)",
    ),
    "a storage of another class": (
        archive(dict_of({"x": tensor(storage(kind="load"))})),
        r"a storage of the class torch\.load",
    ),
    "something else that is persistent": (archive(b"\x80\x02" + text("x") + b"Q."), "is no storage"),
    "a module's class in an archive": (
        archive(b"\x80\x02" + tuple_of(text("module"), name("os", "system"), b"N", b"N") + b"Q."),
        "is no storage",
    ),
    "a key twice": (
        archive(b"\x80\x02}(" + (text("x") + tensor(storage())) * 2 + b"u."),
        "has the key 'x' twice in one dict",
    ),
    "members of two archives": (
        archive(dict_of({}), {"../other/data.pkl": b""}).replace(b"archive/../other", b"another/../other"),
        "has members of several archives",
    ),
    "a storage out of the list": (
        legacy({"x": tensor(storage(view=b"N")), "y": tensor(storage("1", view=b"N"))}),
        "the list of storages has not those that the tensors lie in",
    ),
    "a storage too many in the list": (
        legacy({"x": tensor(storage(view=b"N"))}, ("0", "1"), counts=(6, 6)),
        "the list of storages has not those",
    ),
    "a storage twice in the list": (
        legacy({"x": tensor(storage(view=b"N"))}, ("0", "0"), counts=(6, 6)),
        "the list of storages has not those",
    ),
    "another number in the file": (
        legacy({"x": tensor(storage(view=b"N"))}, counts=(5,)),
        "storage '0' must have 6 numbers, has 5",
    ),
    "a storage that is cut off": (
        legacy({"x": tensor(storage(view=b"N"))})[:-1],
        "must have 6 numbers, has 6",
    ),
    "a view beyond its storage": (
        legacy({"x": tensor(storage(view=tuple_of(text("1"), number(4), number(3))), (3,), (1,))}),
        "storage '0' is a view outside of another",
    ),
    "a list that is none": (MAGIC + dict_of({}) + b"\x80\x02}.", "must have a list of their keys"),
    "another pickle first": (b"\x80\x02}." * 4, "that torch.save has not written"),
    "another version": (
        MAGIC.replace(b"M\xe9\x03", b"M\xea\x03") + dict_of({}),
        "that torch.save has not written",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LIES)
def test_files_that_lie_are_refused(case, tmp_path):
    data, match = LIES[case]
    (tmp_path / "model.pt").write_bytes(data)
    with pytest.raises(fastgru.FormatError, match=match):
        fastgru.load(tmp_path / "model.pt")


def test_storages_are_read_once_each(tmp_path, monkeypatch):
    state = gru().state_dict()
    tied = {f"{name}.{key}": value for name in ("a", "b", "c") for key, value in state.items()}
    torch.save({"model": tied, "other": torch.zeros(1000)}, tmp_path / "model.pt")
    read = []
    monkeypatch.setattr(
        _zip.Archive,
        "read",
        lambda self, name, *rest, read_member=_zip.Archive.read, **options: (
            read.append(name.partition("/")[2]),
            read_member(self, name, *rest, **options),
        )[1],
    )
    assert list(fastgru.load_all(tmp_path / "model.pt")) == ["a", "b", "c"]
    assert sorted(read) == ["byteorder", "data.pkl", "data/0", "data/1", "data/2", "data/3"]
