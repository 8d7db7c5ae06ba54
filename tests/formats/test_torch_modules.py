"""Modules and state dicts of PyTorch as people bring them: nothing of a module is left out."""

import random
import warnings

import numpy as np
import pytest

import fastgru

torch = pytest.importorskip("torch")
prune = pytest.importorskip("torch.nn.utils.prune")
rnn = torch.nn.utils.rnn
parametrizations = torch.nn.utils.parametrizations

pytestmark = pytest.mark.filterwarnings(  # PyTorch's own
    "ignore:.*is deprecated:FutureWarning",
    "ignore:.*deprecated:DeprecationWarning",
    "ignore:.*deprecated:UserWarning",
)

# ---- what stands for a weight ----------------------------------------------------------------


class WeightDrop(torch.nn.Module):
    """A GRU whose recurrent weights are dropped from in training, as language models have it.

    beside: the weights that are dropped from are this module's, as in fastai; else they are the GRU's.
    """

    def __init__(self, module, names, beside):
        super().__init__()
        self.module, self.names, self.beside = module, names, beside
        for name in names:
            raw = getattr(module, name)
            if beside:
                self.register_parameter(f"{name}_raw", torch.nn.Parameter(raw.data))
                getattr(module, name).data = torch.zeros_like(raw)  # what the last step of training has used
            else:
                del module._parameters[name]
                module.register_parameter(f"{name}_raw", torch.nn.Parameter(raw.data))

    def forward(self, x):
        for name in self.names:
            raw = getattr(self if self.beside else self.module, f"{name}_raw")
            if self.beside:
                getattr(self.module, name).data = raw.data
            else:
                setattr(self.module, name, raw)
        self.module._flat_weights = [getattr(self.module, name) for name in self.module._flat_weights_names]
        return self.module(x)


def old_weight_norm(module, name, dim=0):
    torch.nn.utils.weight_norm(module, name, dim)
    getattr(module, f"{name}_g").data *= 1.5  # as if it had been trained


def new_weight_norm(module, name, dim=0):
    parametrizations.weight_norm(module, name, dim)
    getattr(module.parametrizations, name).original0.data *= 1.5


def pruned(module, name):
    prune.l1_unstructured(module, name, 0.4)


CHANGES = {
    "weight_norm": old_weight_norm,
    "weight_norm-1": lambda module, name: old_weight_norm(module, name, 1),
    "weight_norm-whole": lambda module, name: old_weight_norm(module, name, None),
    "parametrized-weight_norm": new_weight_norm,
    "parametrized-weight_norm-1": lambda module, name: new_weight_norm(module, name, 1),
    "parametrized-weight_norm-whole": lambda module, name: new_weight_norm(module, name, None),
    "spectral_norm": torch.nn.utils.spectral_norm,
    "parametrized-spectral_norm": parametrizations.spectral_norm,
    "prune": pruned,
}


def outputs(found, x):
    """What a layer with PyTorch's arguments returns for inputs that are time-major."""
    y, *_ = found(x.numpy() if found.time_major else x.numpy().swapaxes(0, 1))
    return y if found.time_major else y.swapaxes(0, 1)


def assert_as(module, *kept):
    """The layers of a module, its state dict or a file compute what the module computes in evaluation."""
    module.eval()
    x = torch.randn(6, 2, 3)
    with torch.no_grad():
        expected = module(x)[0].numpy()
    for one in kept:
        np.testing.assert_allclose(outputs(one, x), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_what_stands_for_a_weight_is_the_weight(change, bidirectional, num_layers, tmp_path):
    torch.manual_seed(0)
    module = torch.nn.GRU(3, 4, num_layers, bidirectional=bidirectional)
    names = [name for name, _ in module.named_parameters() if name.startswith("weight")]
    for name in names[1:]:
        CHANGES[change](module, name)
    module.train()(torch.randn(6, 2, 3))  # which is when spectral_norm looks for its vectors
    module.eval()
    torch.save(module.state_dict(), tmp_path / "model.pt")
    found = [
        fastgru.from_torch(module.state_dict()),
        fastgru.load(tmp_path / "model.pt"),
        fastgru.from_torch(module),
    ]
    assert_as(module, *found)


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_weights_that_are_dropped_from_in_training_are_whole(num_layers, beside):
    torch.manual_seed(0)
    names = [f"weight_hh_l{level}" for level in range(num_layers)]
    module = WeightDrop(torch.nn.GRU(3, 4, num_layers), names, beside)
    state = module.state_dict()
    assert [key for key in state if key.endswith("_raw")]
    assert_as(module, fastgru.from_torch(state), fastgru.from_torch(module))


def test_a_parametrization_that_only_the_module_computes():
    torch.manual_seed(0)
    module = torch.nn.GRU(3, 4)
    parametrizations.orthogonal(module, "weight_hh_l0")
    assert_as(module, fastgru.from_torch(module))
    with pytest.raises(ValueError, match=r"'gru' has a weight .* parametrizations\.weight_hh_l0\.original"):
        fastgru.from_torch(module.state_dict())


@pytest.mark.parametrize(
    ("drop", "match"),
    [
        ("_l1", None),
        ("_l0", r"must have the levels 0, 1, \.\.\., got \[1\]"),
        ("_l1_reverse", r"same directions at each level, got \[\['_reverse', 'forward'\], \['forward'\]\]"),
        ("_l0_reverse", r"same directions at each level, got \[\['forward'\], \['_reverse', 'forward'\]\]"),
        ("bias_hh_l1_reverse", "a GRU has weight_ih"),
        ("weight_hh_l1_reverse", "a GRU has weight_ih"),
    ],
)
def test_a_level_or_direction_that_is_missing_is_said(drop, match):
    state = torch.nn.GRU(3, 4, 2, bidirectional=True).state_dict()
    state = {key: value for key, value in state.items() if drop not in key}
    if match is None:
        assert isinstance(fastgru.from_torch(state), fastgru.Bidirectional)
        return
    with pytest.raises(ValueError, match=match):
        fastgru.from_torch(state)


def test_what_is_wrong_with_one_gru_leaves_the_others(tmp_path):
    net = torch.nn.ModuleDict({"good": torch.nn.GRU(3, 4), "odd": torch.nn.GRU(3, 4)})
    parametrizations.orthogonal(net["odd"], "weight_hh_l0")
    torch.save(net.state_dict(), tmp_path / "model.pt")
    assert fastgru.load(tmp_path / "model.pt", "good").units == 4
    for load in (fastgru.load, fastgru.load_all):
        with pytest.raises(ValueError, match=r"odd\.parametrizations|layer must be one of 'good', 'odd'"):
            load(tmp_path / "model.pt")
    with pytest.raises(fastgru.FormatError, match=r"odd\.parametrizations"):
        fastgru.load(tmp_path / "model.pt", "odd")


def test_an_lstm_that_is_changed_is_no_gru():
    net = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(3, 4), "gru": torch.nn.GRU(3, 4)})
    new_weight_norm(net["lstm"], "weight_hh_l0")
    parametrizations.orthogonal(net["lstm"], "weight_ih_l0")
    assert fastgru.from_torch(net.state_dict()).name == "gru"
    assert fastgru.from_torch(net).name == "gru"


def test_random_modules_are_whole():
    for seed in range(60):
        print(f"seed {seed}")
        rng = random.Random(seed)
        torch.manual_seed(seed)
        options = {
            "num_layers": rng.randrange(1, 4),
            "bidirectional": rng.random() < 0.5,
            "bias": rng.random() < 0.7,
            "batch_first": rng.random() < 0.5,
        }
        module = torch.nn.GRU(3, 4, **options)
        for name in [name for name, _ in module.named_parameters() if name.startswith("weight")]:
            if rng.random() < 0.5:
                CHANGES[rng.choice(list(CHANGES))](module, name)
        state = module.eval().state_dict()
        items = list(state.items())
        rng.shuffle(items)
        x = torch.randn(2, 6, 3)
        with torch.no_grad():
            expected = module(x)[0].numpy()
        for found in (
            fastgru.from_torch(module),
            fastgru.from_torch(dict(items), time_major=not module.batch_first),
        ):
            assert found.time_major == (not module.batch_first)
            np.testing.assert_allclose(found(x.numpy())[0], expected, rtol=0, atol=2e-6)


# ---- what from_torch takes -------------------------------------------------------------------


def test_arguments_are_those_of_load(tmp_path):
    net = torch.nn.ModuleDict({"a": torch.nn.GRU(3, 4), "b": torch.nn.GRU(3, 5, 2)})
    assert fastgru.from_torch(net, "b", weights_dtype="float16").layers[1].weights_dtype == "float16"
    found = fastgru.from_torch(net["a"], name="mine", stateful=True, batch_size=2, return_state=False)
    assert (found.name, found.stateful, found.return_state) == ("mine", True, False)
    assert fastgru.from_torch(net["a"].state_dict(), time_major=True).time_major
    with pytest.raises(ValueError, match="layer must be one of 'a', 'b', got 'c'"):
        fastgru.from_torch(net, "c")
    with pytest.raises(TypeError, match="weights are what the file is for"):
        fastgru.from_torch(net, weights=[])
    with pytest.raises(TypeError, match="lstm"):
        fastgru.from_torch(net, lstm=True)


def test_dicts_of_lists_and_of_dicts_are_read():
    module = torch.nn.GRU(3, 4)
    wanted = fastgru.from_torch(module)
    lists = {key: value.tolist() for key, value in module.state_dict().items()}
    found = fastgru.from_torch(lists)
    assert found.dtype == "float32"
    for array, other in zip(found.get_weights(), wanted.get_weights(), strict=True):
        np.testing.assert_array_equal(array, other)
    assert fastgru.from_torch(lists | {"bias_ih_l0": [0.1] * 12}).dtype == "float32"
    nested = {"epoch": 3, "model": {"en": module.state_dict(), "de": lists}, "list": [1, "x"], "net": module}
    assert list(fastgru.from_torch(nested)) == ["model.en", "model.de", "net"]
    nested["self"] = nested
    assert len(fastgru.from_torch(nested)) == 3
    for key, value in (("weight_hh_l0", [[1.0], [1.0, 2.0]]), ("weight_hh_l0", [["x"] * 4] * 12)):
        with pytest.raises(
            ValueError, match=r"'weight_hh_l0' must be lists of numbers|must have a GRU in it"
        ):
            fastgru.from_torch(lists | {key: value})


def test_what_there_is_instead_of_a_gru_is_said():
    for module, match in (
        (torch.nn.Sequential(torch.nn.Linear(2, 2)), "got modules Sequential, Linear"),
        ({"a": torch.zeros(3), "b": 1}, "got the keys a, b"),
        ({f"k{i}": i for i in range(20)}, "got the keys k0, k1, k2, k3, k4, k5, k6, k7 and 12 more"),
        ({}, "got an empty one"),
    ):
        with pytest.raises(ValueError, match=f"module must have a GRU in it, {match}"):
            fastgru.from_torch(module)


def test_torchscript_in_memory_is_read():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.GRU(3, 4))
    script = torch.jit.script(net)
    found = fastgru.from_torch(script)
    assert (found.name, found.time_major) == ("0", True)
    assert_as(script, found)
    assert not fastgru.from_torch(torch.jit.script(torch.nn.GRU(3, 4, batch_first=True))).time_major


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
def test_dynamically_quantized_modules_are_their_weights(dtype):
    torch.manual_seed(0)
    net = torch.nn.ModuleDict(
        {
            "rnn": torch.nn.GRU(3, 4, 2, bidirectional=True),
            "cell": torch.nn.GRUCell(3, 4),
            "lstm": torch.nn.LSTM(3, 4),
        }
    )
    kinds = {torch.nn.GRU, torch.nn.LSTM} | ({torch.nn.GRUCell} if dtype == torch.qint8 else set())
    quantized = torch.ao.quantization.quantize_dynamic(net, kinds, dtype=dtype)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fastgru.from_torch(quantized)
    assert list(found) == ["rnn", "cell"]
    said = {
        str(one.message).partition(":")[0]
        for one in caught
        if "quantized weights are read" in str(one.message)
    }
    assert said == ({"rnn", "cell"} if dtype == torch.qint8 else set())
    for name, layer in fastgru.from_torch(net).items():
        for array, other in zip(found[name].get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_allclose(array, other, rtol=0, atol=0.01 if dtype == torch.qint8 else 1e-3)
    if dtype == torch.qint8:
        kernel = quantized["rnn"].get_weight()["weight_ih_l0"].dequantize().numpy()
        r, z, n = np.split(kernel.T, 3, axis=1)
        np.testing.assert_array_equal(found["rnn"].layers[0].get_weights()[0], np.hstack([z, r, n]))


def test_half_precision_and_parallel_modules_are_read():
    net = torch.nn.DataParallel(torch.nn.Sequential(torch.nn.GRU(3, 4))).half()
    found = fastgru.from_torch(net.state_dict())
    assert (found.name, found.dtype) == ("module.0", "float16")
    assert fastgru.from_torch(net).name == "module.0"


# ---- lengths ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}]
)
@pytest.mark.parametrize("way", ["module", "state", "file"])
def test_the_padding_is_pytorchs(way, options, tmp_path):
    torch.manual_seed(0)
    module = torch.nn.GRU(3, 4, batch_first=True, **options)
    x, lengths = torch.randn(3, 6, 3), [6, 2, 4]
    packed, states = module(
        rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    )
    expected = rnn.pad_packed_sequence(packed, batch_first=True)[0].detach().numpy()
    torch.save(module.state_dict(), tmp_path / "model.pt")
    found = {
        "module": lambda: fastgru.from_torch(module),
        "state": lambda: fastgru.from_torch(module.state_dict()),
        "file": lambda: fastgru.load(tmp_path / "model.pt"),
    }[way]()
    y, *last = found(x.numpy(), lengths=lengths)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)
    assert np.array_equal(y == 0, expected == 0)
    np.testing.assert_allclose(np.stack(last), states.detach().numpy(), rtol=0, atol=1e-6)
    repeated = fastgru.from_torch(module, zero_output_for_mask=False)(x.numpy(), lengths=lengths)[0]
    if not options.get("bidirectional"):
        np.testing.assert_array_equal(repeated[1, 5], repeated[1, 1])
