"""GRUs of PyTorch against PyTorch itself and the equations in float64, in and out."""

import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import reference

import fastgru

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
safetensors_numpy = pytest.importorskip("safetensors.numpy")

TIMESTEPS, BATCH, FEATURES, UNITS = 6, 3, 4, 5


def module(seed=0, kind=torch.nn.GRU, features=FEATURES, units=UNITS, **options):
    """A module with random weights."""
    print(f"seed {seed}")
    torch.manual_seed(seed)
    return kind(features, units, **options).eval()


def exact(gru, x, h=None):
    """Outputs and states of a torch.nn.GRU in float64, by the equations; x is batch-major."""
    weights = {name: array.detach().double().numpy() for name, array in gru.state_dict().items()}
    y, states = x, []
    for level in range(gru.num_layers):
        ways = []
        for suffix in ["", "_reverse"][: 1 + gru.bidirectional]:
            arrays = [weights[f"{kind}_l{level}{suffix}"] for kind in ("weight_ih", "weight_hh")]
            bias = None
            if gru.bias:
                rows = [weights[f"{kind}_l{level}{suffix}"] for kind in ("bias_ih", "bias_hh")]
                bias = np.stack([to_keras(row) for row in rows])
            start = None if h is None else h[len(states)]
            options = {"reset_after": True, "recurrent_activation": "sigmoid", "go_backwards": bool(suffix)}
            outputs, state = reference.gru(
                y, *(to_keras(array).T for array in arrays), bias, initial_state=start, **options
            )
            ways.append(outputs[:, ::-1] if suffix else outputs)
            states.append(state)
        y = np.concatenate(ways, -1)
    return y, np.stack(states)


def to_keras(array):
    """Blocks r | z | n as z | r | n."""
    r, z, n = np.split(array, 3)
    return np.concatenate([z, r, n])


def run(layers, x, h=None):
    """Outputs of the last layer and the states of all, as torch.nn.GRU returns them; x is batch-major."""
    states = []
    for layer in layers:
        start = None
        if h is not None:
            start = list(h[len(states) : len(states) + len(layer._parts)])
        x, *last = layer(x.swapaxes(0, 1) if layer.time_major else x, initial_state=start)
        x = x.swapaxes(0, 1) if layer.time_major else x
        states += last
    return x, np.stack(states)


def levels(found):
    """The layers of all modules and levels in a list."""
    if isinstance(found, dict):
        return [level for layer in found.values() for level in levels(layer)]
    return list(found.layers) if isinstance(found, fastgru.Stack) else [found]


def assert_as_exact(gru, layers, with_state=False):
    """Errors are at most twice PyTorch's, but for four units in the last place of the largest value."""
    dtype = next(gru.parameters()).dtype
    x = torch.randn((BATCH, TIMESTEPS, gru.input_size), dtype=torch.float64).to(dtype)
    h = torch.randn((gru.num_layers * (1 + gru.bidirectional), BATCH, gru.hidden_size), dtype=torch.float64)
    h = h.to(dtype) if with_state else None
    with torch.no_grad():
        y, last = gru(x if gru.batch_first else x.transpose(0, 1), h)
    theirs = [a.double().numpy() for a in (y if gru.batch_first else y.transpose(0, 1), last)]
    compute = torch.float32 if dtype == torch.bfloat16 else dtype
    x, h = (None if a is None else a.to(compute).numpy() for a in (x, h))
    for our, their, wanted in zip(run(layers, x, h), theirs, exact(gru, x, h), strict=True):
        assert our.shape == their.shape == wanted.shape
        slack = 4 * float(np.spacing(our.dtype.type(np.abs(wanted).max())))
        assert np.abs(our - wanted).max() <= 2 * np.abs(their - wanted).max() + slack


def same_weights(one, other):
    """Do layers, or dicts of them, have the same names and bits?"""
    assert list(one) == list(other) if isinstance(one, dict) else one.name == other.name
    for a, b in zip(levels(one), levels(other), strict=True):
        assert type(a) is type(b)
        for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
            assert x.dtype == y.dtype
            assert np.array_equal(x, y)
    return True


# ---- objects ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_a_gru_agrees_with_pytorch(num_layers, bidirectional, bias, dtype):
    options = {"num_layers": num_layers, "bidirectional": bidirectional, "bias": bias}
    gru = module(**options, dropout=0.5 if num_layers > 1 else 0).to(dtype)
    found = fastgru.from_torch(gru)
    assert_as_exact(gru, [found])
    assert_as_exact(gru, [found], with_state=True)
    if num_layers > 1:
        assert (type(found), found.name) == (fastgru.Stack, "gru")
        assert [layer.name for layer in found.layers] == [f"gru.l{level}" for level in range(num_layers)]
        assert found.time_major == (not gru.batch_first)
    for layer in [found, *levels(found)]:
        assert layer.dtype == {torch.bfloat16: "float32"}.get(dtype, str(dtype).removeprefix("torch."))
        assert layer.return_sequences
        assert layer.return_state


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_batch_first_becomes_time_major(batch_first, bidirectional):
    gru = module(batch_first=batch_first, bidirectional=bidirectional)
    layer = fastgru.from_torch(gru)
    assert layer.time_major == (not batch_first)
    assert_as_exact(gru, [layer])
    assert not fastgru.from_torch(gru.state_dict()).time_major  # which does not say


@pytest.mark.parametrize("bias", [True, False])
def test_a_cell_agrees_with_pytorch(bias):
    cell = module(kind=torch.nn.GRUCell, bias=bias)
    x, h = torch.randn(TIMESTEPS, BATCH, FEATURES), torch.randn(BATCH, UNITS)
    state, theirs = h, []
    with torch.no_grad():
        for row in x:
            state = cell(row, state)
            theirs.append(state.numpy())
    for layer in (fastgru.from_torch(cell), fastgru.from_torch(cell.state_dict())):
        outputs, last = layer(x.numpy().swapaxes(0, 1), h.numpy())
        np.testing.assert_allclose(outputs.swapaxes(0, 1), theirs, rtol=0, atol=5e-7)
        np.testing.assert_allclose(last, state, rtol=0, atol=5e-7)


class Net(torch.nn.Module):
    """GRUs among modules whose tensors have names like theirs."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.GRU(4, 5, batch_first=True))
        self.lstm = torch.nn.LSTM(4, 5, 2, proj_size=3)
        self.rnn = torch.nn.RNN(4, 5)
        self.lstm_cell, self.rnn_cell = torch.nn.LSTMCell(4, 5), torch.nn.RNNCell(4, 5)
        self.deep = torch.nn.ModuleDict({"a": torch.nn.GRU(4, 3, 2, bidirectional=True)})
        self.cell = torch.nn.GRUCell(4, 5)
        self.norm = torch.nn.BatchNorm1d(4)
        self.last = torch.nn.GRU(4, 5, bias=False)


NAMES = ["inner.1", "deep.a", "cell", "last"]


def test_grus_are_found_in_modules_by_their_names():
    net = Net()
    layers = fastgru.from_torch(net)
    assert list(layers) == NAMES
    assert [layer.name for layer in layers.values()] == NAMES
    assert [layer.time_major for layer in layers.values()] == [False, True, False, True]
    assert_as_exact(net.inner[1], [layers["inner.1"]])
    assert_as_exact(net.deep["a"], [layers["deep.a"]])
    assert same_weights(fastgru.from_torch(net.state_dict()), layers)
    arrays = {key: value.numpy() for key, value in net.state_dict().items()}
    assert same_weights(fastgru.from_torch(arrays), layers)


def test_more_than_ten_levels_come_in_their_order():
    gru = module(num_layers=12)
    state = dict(sorted(gru.state_dict().items()))  # l0, l1, l10, l11, l2, ...
    found = fastgru.from_torch(state)
    assert [layer.name for layer in found.layers] == [f"gru.l{level}" for level in range(12)]
    assert_as_exact(gru, [found])


def test_levels_that_are_no_stack_are_refused():
    state = {key: value.numpy() for key, value in module(num_layers=3).state_dict().items()}
    for level, match in ((1, r"'gru' must have the levels 0, 1, \.\.\., got \[0, 2\]"), (0, r"got \[1, 2\]")):
        with pytest.raises(ValueError, match=match):
            fastgru.from_torch({key: value for key, value in state.items() if f"_l{level}" not in key})
    with pytest.raises(ValueError, match=r"layers must fit each other, but 'gru.l0' returns 5 units"):
        fastgru.from_torch(state | {"weight_ih_l1": np.zeros((15, 4), "f4")})
    with pytest.raises(ValueError, match="a GRU has weight_ih"):
        fastgru.from_torch(state | {"weight_hh_l1": np.zeros((20, 5), "f4")})


def test_a_subclass_and_a_parametrized_gru_are_grus():
    class Mine(torch.nn.GRU):
        pass

    assert same_weights(fastgru.from_torch(module(kind=Mine)), fastgru.from_torch(module()))
    gru = module()
    torch.nn.utils.parametrizations.weight_norm(gru, "weight_hh_l0")  # the state dict has its parts
    weight = gru.weight_hh_l0.detach().numpy()
    assert np.array_equal(fastgru.from_torch(gru).weights[1], to_keras(weight).T)


def test_what_is_no_module_and_no_mapping_is_refused():
    for other in (None, 3, [], "model.pt", torch.zeros(3), module().parameters(), torch.nn.GRU):
        with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module or a state dict, got"):
            fastgru.from_torch(other)
    for other in ({}, torch.nn.LSTM(4, 5), torch.nn.LSTM(4, 5).state_dict(), {3: 4}, {"weight_hh_l0": "x"}):
        with pytest.raises(ValueError, match="module must have a GRU in it"):
            fastgru.from_torch(other)


def test_a_state_dict_of_arrays_needs_no_torch(monkeypatch):
    layer = fastgru.from_torch(module())
    arrays = {key: value.numpy() for key, value in module().state_dict().items()}
    monkeypatch.delitem(sys.modules, "torch")
    assert same_weights(fastgru.from_torch(arrays), layer)
    assert "torch" not in sys.modules


# ---- files -----------------------------------------------------------------------------------


def arrays_of(net):
    return {key: value.numpy() for key, value in net.state_dict().items()}


def arrays_to(path, save, arrays):
    with path.open("wb") as file:
        save(file, **arrays)


def optimizer(net):
    """The state dict of torch.optim.Adam after a step."""
    moments = {
        i: {"step": torch.tensor(1.0), "exp_avg": torch.zeros_like(parameter)}
        for i, parameter in enumerate(net.parameters())
    }
    return {"state": moments, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": list(moments)}]}


def legacy(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


WRITERS = {
    "safetensors": lambda net, path: safetensors_torch.save_file(net.state_dict(), path),
    "safetensors-numpy": lambda net, path: safetensors_numpy.save_file(arrays_of(net), path),
    "safetensors-model": lambda net, path: safetensors_torch.save_model(net, str(path)),
    "npz": lambda net, path: arrays_to(path, np.savez, arrays_of(net)),
    "npz-compressed": lambda net, path: arrays_to(path, np.savez_compressed, arrays_of(net)),
    "pt": lambda net, path: torch.save(net.state_dict(), path),
    "pt-legacy": lambda net, path: legacy(net.state_dict(), path),
    "pt-parameters": lambda net, path: torch.save(dict(net.named_parameters()), path),
    "checkpoint": lambda net, path: torch.save({"epoch": 3, "state_dict": net.state_dict()}, path),
    "checkpoint-legacy": lambda net, path: legacy({"model_state_dict": net.state_dict()}, path),
    "checkpoint-optimizer": lambda net, path: torch.save(
        {"model": net.state_dict(), "optimizer": optimizer(net), "epoch": 3}, path
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_files_hold_what_the_module_has(writer, tmp_path):
    torch.manual_seed(0)
    net = Net()
    path = tmp_path / "model"  # no extension says what it is
    WRITERS[writer](net, path)
    layers = fastgru.load_all(path)
    if "safetensors" in writer:  # which puts its tensors in an order of its own
        assert sorted(layers) == sorted(NAMES)
        layers = {name: layers[name] for name in NAMES}
    assert same_weights(layers, fastgru.from_torch(net))
    assert not any(layer.time_major for layer in layers.values())
    assert fastgru.load(path, "inner.1", time_major=True).time_major
    deep = fastgru.load(path, "deep.a", time_major=True, merge_mode="sum")
    assert deep.time_major
    assert [layer.merge_mode for layer in deep.layers] == ["concat", "sum"]
    with pytest.raises(ValueError, match="layer must be one of"):
        fastgru.load(path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("save", [safetensors_torch.save_file, torch.save, legacy])
def test_types_come_out_of_files(save, dtype, tmp_path):
    gru = module(bidirectional=True).to(dtype)
    save(gru.state_dict(), tmp_path / "model")
    layer = fastgru.load(tmp_path / "model", time_major=True)
    assert same_weights(layer, fastgru.from_torch(gru))
    assert_as_exact(gru, [layer])


def test_arguments_of_the_caller_come_first(tmp_path):
    torch.save(module().state_dict(), tmp_path / "model.pt")
    arguments = {"name": "mine", "return_state": False, "stateful": True, "dtype": "float64"}
    layer = fastgru.load(tmp_path / "model.pt", **arguments)
    assert {key: getattr(layer, key) for key in arguments} == arguments


class Trick:
    """What makes a folder when it is read from a pickle."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("keys", [[], ["weight_hh_l0"], ["state_dict", "weight_hh_l0"]], ids=str)
@pytest.mark.parametrize("writer", ["zip", "legacy", "pickle"])
def test_code_in_a_pickle_is_refused_and_does_not_run(writer, keys, tmp_path):
    value, path, folder = Trick(tmp_path / "made"), tmp_path / "model.pt", tmp_path / "made"
    for key in reversed(keys):
        value = {key: value}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=writer == "zip")
    refusal = (
        "that torch.save has not written: .* torch.save" if writer == "pickle" else r"objects of posix\.mkdir"
    )
    with pytest.raises(fastgru.FormatError, match=refusal):
        fastgru.load(path)
    assert not folder.exists()
    if writer != "pickle":
        torch.load(path, weights_only=False)
        assert folder.exists()  # it would have


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (torch.zeros(3), "0 tensors"),
        ([1, torch.zeros(3)], "1 tensors"),
        (3, "0 tensors"),
        ({"state_dict": 3}, "0 tensors; the keys state_dict"),
        ({}, "0 tensors"),
        (torch.nn.LSTM(3, 4), r"4 tensors; objects of torch\.nn\.modules\.rnn\.LSTM"),
        (
            {f"key{i}": {"x": torch.zeros(i)} for i in range(12)},
            "12 tensors; the keys key0, key1, key2, key3, key4, key5, key6, key7 and 4 more",
        ),
    ],
)
def test_what_a_pickle_without_a_gru_has_is_said(value, found, tmp_path):
    torch.save(value, tmp_path / "model.pt")
    with pytest.raises(fastgru.FormatError, match=rf"the file holds no GRU, but {found}$"):
        fastgru.load(tmp_path / "model.pt")


def test_no_other_library_is_needed(tmp_path):
    torch.save(module().state_dict(), tmp_path / "model.pt")
    torch.save(module(), tmp_path / "module.pt")
    legacy(module().state_dict(), tmp_path / "legacy.pt")
    safetensors_torch.save_file(module().state_dict(), tmp_path / "model.safetensors")
    np.savez(tmp_path / "model.npz", **arrays_of(module()))
    code = """
import sys
sys.modules |= dict.fromkeys(["torch", "safetensors", "onnx", "h5py"])  # none of them can be imported
import fastgru
for path in sys.argv[1:]:
    print(fastgru.load(path).units)
"""
    paths = sorted(map(str, tmp_path.iterdir()))
    run = [sys.executable, "-c", code, *paths]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(UNITS)] * 5, done.stderr


# ---- what is refused -------------------------------------------------------------------------


def state(**changes):
    """A state dict of arrays, with some in place of others; None: without it."""
    made = arrays_of(module()) | changes
    return {key: value for key, value in made.items() if value is not None}


REFUSED = {
    "input": ({"weight_ih_l0": np.zeros((15, 4, 1), "f")}, r"a GRU has weight_ih \(3 \* units, features\)"),
    "input-rows": ({"weight_ih_l0": np.zeros((14, 4), "f")}, "a GRU has weight_ih"),
    "input-scalar": ({"weight_ih_l0": np.zeros((), "f")}, "a GRU has weight_ih"),
    "input-missing": ({"weight_ih_l0": None}, "a GRU has weight_ih"),
    "bias": ({"bias_hh_l0": np.zeros(14, "f")}, "a GRU has weight_ih"),
    "bias-missing": ({"bias_hh_l0": None}, "a GRU has weight_ih"),
    "reverse-alone": (
        {f"{kind}_l0": None for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        | {f"{key}_reverse": value for key, value in arrays_of(module()).items()},
        r"'gru' must have the same directions at each level, got \[\['_reverse'\]\]",
    ),
    "reverse-incomplete": ({"weight_hh_l0_reverse": np.zeros((15, 5), "f")}, "got {'weight_hh': "),
    "reverse-units": (
        {f"{kind}_l0_reverse": np.zeros(shape, "f") for kind, shape in
         {"weight_ih": (6, 3), "weight_hh": (6, 2), "bias_ih": 6, "bias_hh": 6}.items()},
        "same features",
    ),
    "integers": ({"weight_hh_l0": np.zeros((15, 5), int)}, "weight_hh_l0 must be of float16, float32 or"),
    "nan": ({"bias_ih_l0": np.full(15, np.nan, "f")}, "bias_ih_l0 must be finite"),
    "cell-and-layer": ({"weight_hh": np.zeros((15, 5), "f")}, "are for the same weight"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_state_dict_is_refused_for_its(case, tmp_path):
    changes, match = REFUSED[case]
    arrays = state(**changes)
    with pytest.raises(ValueError, match=match):
        fastgru.from_torch(arrays)
    tensors = {key: torch.from_numpy(value.copy()) for key, value in arrays.items()}
    with pytest.raises(ValueError, match=match):
        fastgru.from_torch(tensors)
    np.savez(tmp_path / "model.npz", **arrays)
    torch.save(tensors, tmp_path / "model.pt")
    safetensors_numpy.save_file(arrays, tmp_path / "model.safetensors")
    for path in tmp_path.iterdir():
        match = "must be of " if case == "integers" else match
        with pytest.raises(fastgru.FormatError, match=match) as caught:
            fastgru.load(path)
        assert str(path) in str(caught.value)


def test_a_damaged_gru_leaves_the_others(tmp_path):
    arrays = {f"good.{key}": value for key, value in state().items()}
    arrays |= {f"bad.{key}": value for key, value in state(bias_ih_l0=None).items()}
    np.savez(tmp_path / "model.npz", **arrays)
    assert fastgru.load(tmp_path / "model.npz", "good").units == UNITS
    with pytest.raises(
        fastgru.FormatError, match=r"in bad\.weight_ih_l0, bad\.weight_hh_l0, bad\.bias_hh_l0"
    ):
        fastgru.load_all(tmp_path / "model.npz")


def test_two_grus_of_one_name_are_refused():
    arrays = state() | {f"gru.{key}": value for key, value in state().items()}
    with pytest.raises(ValueError, match="two GRUs come to the name 'gru'"):
        fastgru.from_torch(arrays)


@pytest.mark.parametrize(
    "key",
    ["weight_hh_l00", "weight_hh_l\N{FULLWIDTH DIGIT ZERO}", "weight_hh_l9999999", "weight_hh_l0_Reverse"],
)
def test_keys_that_only_look_alike_are_named(key):
    with pytest.raises(
        ValueError, match=f"'gru' has a weight that is kept in a way that is not read, in .*{key}"
    ):
        fastgru.from_torch(state(**{key: np.zeros((15, 5), "f")}))


@pytest.mark.parametrize(
    "kind",
    [
        lambda: torch.zeros(15, 5, device="meta"),
        lambda: torch.zeros(15, 5).to_sparse(),
        lambda: torch.zeros(15, 5).to(torch.float8_e4m3fn),
        lambda: torch.zeros(15, 5, dtype=torch.complex64),
        lambda: torch.zeros(15, 5, dtype=torch.bool),
    ],
    ids=["meta", "sparse", "float8", "complex", "bool"],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # of PyTorch's own
def test_tensors_of_other_kinds_are_refused(kind, tmp_path):
    tensors = dict(module().state_dict()) | {"weight_hh_l0": kind()}
    with pytest.raises(
        ValueError, match=r"'weight_hh_l0' is no plain tensor|weight_hh_l0 must be of float16"
    ):
        fastgru.from_torch(tensors)
    torch.save(tensors, tmp_path / "model.pt")
    with pytest.raises(fastgru.FormatError, match=r"weight_hh_l0"):
        fastgru.load(tmp_path / "model.pt")


def test_tensors_that_repeat_a_small_storage_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    units = 2**20
    tensors = {
        "weight_ih_l0": torch.zeros(1).expand(3 * units, 1),
        "weight_hh_l0": torch.zeros(1).expand(3 * units, units),  # 13 terabytes
    }
    for save in (torch.save, legacy):
        save(tensors, path)
        assert path.stat().st_size < 10_000
        with pytest.raises(fastgru.FormatError, match="its tensors have 13194152116224 bytes"):
            fastgru.load(path)


def test_a_header_that_claims_terabytes_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    entry = '"%s":{"dtype":"F32","shape":[%s],"data_offsets":[%d,%d]}'
    header = "{" + entry % ("weight_hh_l0", "3298534883328,1099511627776", 0, 8) + "}"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(8))
    with pytest.raises(fastgru.FormatError, match=r"model\.safetensors: "):
        fastgru.load(path)


def test_names_that_come_twice_in_a_header_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    entry = '"weight_hh_l0":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = "{" + f"{entry},{entry}" + "}"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(4))
    with pytest.raises(fastgru.FormatError, match="the header has the same name twice"):
        fastgru.load(path)


def test_a_bomb_in_a_pickle_s_archive_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(module().state_dict(), path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data/99", bytes(50_000_000))
    with pytest.raises(fastgru.FormatError, match="unpacks to 5"):
        fastgru.load(path)


def tuples(depth, of=b"0h\x01h\x01\x86"):
    """A pickle of a dict whose key is a tuple in tuples, each of which has the one before it twice."""
    return b"\x80\x02})" + b"q\x01" + (of + b"q\x01") * depth + b"K\x01s."


HOSTILE = {
    "bytes": (
        b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        "objects of __builtin__.bytearray",
    ),
    "more-bytes": (b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "objects of builtins.bytearray"),
    "twice-twice": (tuples(100), "holds no GRU, but 0 tensors"),  # which is nowhere hashed
    "deep": (tuples(100_000, b"\x85"), "makes more objects than a file of its size may hold"),
    "wide": (b"\x80\x02}(" + b"K\x01" * 2000 + b"tK\x01s.", "holds no GRU, but 0 tensors"),
    "nothing": (b"\x80\x02.", "takes what is not there"),
    "no-mark": (b"\x80\x02}t.", "a mark is missing"),
    "no-memo": (b"\x80\x02h\x01.", "takes the value 1 before there is one"),
    "no-end": (b"\x80\x02}", "ends too early"),
    "opcode": (b"\x80\x02ibuiltins\nbytearray\n.", "has the opcode b'i', which no state dict needs"),
    "protocol": (b"\x80\x06}.", "of a protocol later than 5"),
    "memo": (b"\x80\x02}r\xff\xff\xff\x7f.", "makes more objects than a file of its size may hold"),
}


@pytest.mark.parametrize("archived", [True, False])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_pickle_that_asks_for_too_much_is_refused(case, archived, tmp_path):
    data, match = HOSTILE[case]
    path = tmp_path / "model.pt"
    if archived:
        torch.save(module().state_dict(), tmp_path / "sound.pt")
        with zipfile.ZipFile(tmp_path / "sound.pt") as sound, zipfile.ZipFile(path, "w") as changed:
            for name in sound.namelist():
                changed.writestr(name, data if name.endswith("data.pkl") else sound.read(name))
    else:  # in the place of the state dict
        magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
        path.write_bytes(magic + data + pickle.dumps([], 2) * (case != "no-end"))
    with pytest.raises(fastgru.FormatError, match=match):
        fastgru.load(path)


@pytest.mark.parametrize("writer", ["safetensors", "npz-compressed", "pt", "pt-legacy"])
def test_damaged_files_are_refused_or_read(writer, tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "model"
    WRITERS[writer](module(), path)
    sound = path.read_bytes()
    refusals = []
    for _ in range(100):
        data = bytearray(sound)
        for _ in range(random.integers(1, 4)):
            data[random.integers(len(data))] ^= 1 << random.integers(8)
        if random.integers(4) == 0:
            del data[random.integers(len(data)) :]
        path.write_bytes(data)
        try:
            fastgru.load_all(path)
        except fastgru.FormatError as error:
            refusals.append(str(error))
    assert refusals
    assert all(str(path) in reason for reason in refusals)


# ---- out -------------------------------------------------------------------------------------


def built(bidirectional=None, backward=None, **arguments):
    """A layer with random weights that PyTorch can compute, if no argument says otherwise."""
    common = {"recurrent_activation": "sigmoid", "reset_after": True, "time_major": True, "name": "gru"}
    common |= {"return_sequences": True, "return_state": True}
    layer = fastgru.GRU(UNITS, **common | arguments)
    if bidirectional is not None:
        other = None
        if backward is not None:
            other = fastgru.GRU(**{"units": UNITS, "go_backwards": True} | common | arguments | backward)
        layer = fastgru.Bidirectional(layer, backward_layer=other, **bidirectional)
    layer.build((None, None, FEATURES))
    random = np.random.default_rng(0)
    layer.set_weights([random.normal(scale=0.5, size=array.shape) for array in layer.weights])
    return layer


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("bidirectional", [None, {"name": "gru"}])
def test_exports_load_into_pytorch(bidirectional, use_bias, dtype, tmp_path):
    layer = built(bidirectional, use_bias=use_bias, dtype=dtype)
    arrays = layer.to_torch_state_dict()
    assert all(array.flags.c_contiguous and array.dtype == dtype for array in arrays.values())
    gru = module(1, bias=use_bias, bidirectional=bidirectional is not None).to(getattr(torch, dtype))
    gru.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()}, strict=True)
    assert list(arrays) == list(gru.state_dict())
    assert_as_exact(gru, [layer])
    assert_as_exact(gru, [layer], with_state=True)
    assert same_weights(fastgru.from_torch(arrays), layer)
    assert same_weights(fastgru.from_torch(gru), layer)
    safetensors_numpy.save_file(arrays, tmp_path / "model.safetensors")
    assert same_weights(fastgru.load(tmp_path / "model.safetensors", name="gru"), layer)


def test_a_direction_without_a_bias_gets_zeros_beside_one_that_has():
    layer = built({}, {"use_bias": False})
    gru = module(1, bidirectional=True)
    arrays = layer.to_torch_state_dict()
    gru.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()}, strict=True)
    assert_as_exact(gru, [layer])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_stacks_go_to_pytorch_and_back(bidirectional, tmp_path):
    gru = module(num_layers=3, bidirectional=bidirectional)
    found = fastgru.from_torch(gru)
    arrays = found.to_torch_state_dict()
    assert list(arrays) == list(gru.state_dict())
    assert all(np.array_equal(arrays[key], value) for key, value in gru.state_dict().items())
    safetensors_numpy.save_file(arrays, tmp_path / "model.safetensors")
    given = {"name": "mine", "return_state": False, "stateful": True, "return_sequences": False}
    loaded = fastgru.load(tmp_path / "model.safetensors", **given)
    assert {key: getattr(loaded, key) for key in given} == given
    assert [layer.return_sequences for layer in loaded.layers] == [True, True, False]
    assert all(layer.stateful for layer in loaded.layers)
    x = np.random.default_rng(0).normal(size=(BATCH, TIMESTEPS, FEATURES)).astype("f4")
    whole = found(x.swapaxes(0, 1) if found.time_major else x)[0]
    assert np.array_equal(
        loaded(x)[:, :UNITS], (whole if found.time_major else whole.swapaxes(0, 1))[-1][:, :UNITS]
    )


def test_stacks_that_pytorch_has_not_are_refused():
    own = {"reset_after": True, "recurrent_activation": "sigmoid", "return_sequences": True}
    layer = fastgru.GRU(5, **own)
    for other, match in (
        (
            fastgru.Bidirectional(fastgru.GRU(5, **own)),
            r"one number of directions for all layers, got \[1, 2\]",
        ),
        (fastgru.GRU(4, **own), r"one hidden_size for all layers, got \[5, 4\]"),
        (fastgru.GRU(5, **own, dtype="float64"), "one dtype for all layers"),
        (fastgru.GRU(5, return_sequences=True), "got reset_after=False"),
    ):
        stack = fastgru.Stack([layer, other])
        stack.build((None, None, 5))
        with pytest.raises(ValueError, match=match):
            stack.to_torch_state_dict()


def test_exports_are_copies():
    layer = built()
    before = layer.get_weights()
    for array in layer.to_torch_state_dict().values():
        array[...] = 0
    assert all(np.array_equal(a, b) for a, b in zip(layer.weights, before, strict=True))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"reset_after": False}, "after the recurrent product, got reset_after=False, which is another"),
        ({"activation": "relu"}, "has the activation tanh and the recurrent activation sigmoid"),
        ({"recurrent_activation": "hard_sigmoid"}, "has the activation tanh and the recurrent activation"),
        ({"activation": np.tanh}, "has the activation tanh and the recurrent activation sigmoid"),
        ({"go_backwards": True}, "goes forward, or in both directions, got go_backwards=True"),
        ({"bidirectional": {}, "go_backwards": True}, "goes forward, or in both directions"),
        (
            {"bidirectional": {}, "backward": {"units": 2}},
            r"one hidden_size for both directions, got \[5, 2\]",
        ),
        ({"bidirectional": {}, "backward": {"reset_after": False}}, "got reset_after=False"),
        ({"bidirectional": {"merge_mode": "sum"}}, "concatenates its directions, got merge_mode='sum'"),
        ({"bidirectional": {"merge_mode": "mul"}}, "concatenates its directions, got merge_mode='mul'"),
        ({"bidirectional": {"merge_mode": "ave"}}, "concatenates its directions, got merge_mode='ave'"),
        ({"bidirectional": {"merge_mode": None}}, "concatenates its directions, got merge_mode=None"),
        ({"default_state": [1.0] * UNITS}, "starts from zeros, got a default_state: give it as h_0"),
    ],
)
def test_layers_that_pytorch_has_not_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        built(**arguments).to_torch_state_dict()


@pytest.mark.parametrize("layer", [fastgru.GRU(2), fastgru.Bidirectional(fastgru.GRU(2))])
def test_layers_without_weights_are_refused(layer):
    with pytest.raises(ValueError, match="must be built to be exported: it has no weights yet"):
        layer.to_torch_state_dict()
