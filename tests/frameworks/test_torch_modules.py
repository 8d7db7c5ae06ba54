"""What an optimized module is but for its forward: what it was."""

import copy
import gc
import inspect
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch_models import assert_same

import fastgru.torch


def last_reason(module):
    (entry,) = fastgru.torch.report(module)
    return entry.last


def on_fastgru(module, *arguments):
    """What a call returns that is fastgru's to compute, compared with PyTorch's own."""
    with torch.no_grad():
        before = last_reason(module)
        result = module(*arguments)
        assert last_reason(module) == before
        assert_same(result, type(module).forward(module, *arguments))
    return result


def make(kind=nn.GRU, **arguments):
    torch.manual_seed(3)
    return fastgru.torch.optimize(kind(3, 4, **arguments).eval())


X = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))


def test_the_signature_of_forward_is_the_one_that_is_stood_in_for():
    """If this fails, PyTorch has changed it: fastgru.torch has to follow."""
    for kind in (nn.GRU, nn.GRUCell):
        theirs = inspect.signature(kind.forward)
        ours = inspect.signature(fastgru.torch.optimize(kind(3, 4)).forward)
        assert list(ours.parameters) == [*theirs.parameters][1:] == ["input", "hx"]
        assert [each.default for each in ours.parameters.values()] == [inspect.Parameter.empty, None]
        assert [each.kind for each in ours.parameters.values()] == [
            each.kind for each in [*theirs.parameters.values()][1:]
        ]


def test_only_forward_is_another():
    model = nn.Sequential(nn.GRU(3, 4), nn.GRU(3, 4, 2, bidirectional=True))
    original = copy.deepcopy(model)
    assert fastgru.torch.optimize(model) is model
    assert [type(module) for module in model.modules()] == [type(module) for module in original.modules()]
    assert [name for name, _ in model.named_modules()] == [name for name, _ in original.named_modules()]
    assert repr(model) == repr(original)
    assert model.state_dict().keys() == original.state_dict().keys()
    assert [*dict(model.named_parameters())] == [*dict(original.named_parameters())]
    assert_same([*model.parameters()], [*original.parameters()], 0)
    fastgru.torch.restore(model)
    assert [vars(a).keys() for a in model.modules()] == [vars(b).keys() for b in original.modules()]


@pytest.mark.parametrize("kind", [nn.GRU, nn.GRUCell])
def test_pickles_have_the_bytes_of_an_ordinary_module(kind):
    module = kind(3, 4)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        ordinary = pickle.dumps(fastgru.torch.restore(module), protocol)
        fastgru.torch.optimize(module)
        with torch.no_grad():
            module(X[0])  # packed
        assert pickle.dumps(module, protocol) == ordinary


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy])
@pytest.mark.parametrize("kind", [nn.GRU, nn.GRUCell])
def test_copies_are_ordinary_modules(kind, copied):
    module = make(kind)
    other = copied(nn.ModuleList([module]))[0] if copied is copy.deepcopy else copied(module)
    assert not fastgru.torch.report(other)[0].changed
    assert vars(other).keys() == vars(kind(3, 4)).keys()
    with torch.no_grad():
        assert_same(module(X[0]), other(X[0]))


def test_a_forward_alone_is_pickled_as_pytorchs():
    module = make()
    forward = pickle.loads(pickle.dumps(module.forward))
    assert forward.__func__ is nn.GRU.forward
    assert type(forward.__self__) is nn.GRU


def test_an_optimized_module_is_freed_at_once():
    module = make()
    on_fastgru(module, X)
    gone = weakref.ref(module)
    forward = module.forward
    gc.disable()
    try:
        del module
        assert gone() is None
    finally:
        gc.enable()
    with pytest.raises(ReferenceError, match="keep the module"):
        forward(X)


def test_hooks_are_called():
    module, called = make(), []
    module.register_forward_pre_hook(lambda _, inputs: called.append("before"))
    module.register_forward_hook(lambda _, inputs, outputs: called.append("after"))
    on_fastgru(module, X)
    assert called == ["before", "after"]
    module.register_forward_hook(lambda _, inputs, outputs: (outputs[0] + 1, outputs[1]))
    with torch.no_grad():
        assert_same(module(X)[0], nn.GRU.forward(module, X)[0] + 1)


# ---- weights that change ---------------------------------------------------------------------


def in_place(module):
    with torch.no_grad():
        module.weight_hh_l0[2, 1] += 1


def by_copy(module):
    with torch.no_grad():
        module.bias_ih_l0.copy_(torch.randn(12))


def by_state_dict(module):
    module.load_state_dict(nn.GRU(3, 4).state_dict())


def by_assigned_state_dict(module):
    module.load_state_dict(nn.GRU(3, 4).state_dict(), assign=True)


def another_parameter(module):
    module.weight_ih_l0 = nn.Parameter(torch.randn(12, 3))


def other_data(module):
    module.weight_ih_l0.data = torch.randn(12, 3)


def moved_and_back(module):
    module.double()
    module.float()
    in_place(module)


def through_data(module):
    module.weight_hh_l0.data.mul_(1.5)


def through_numpy(module):
    array = module.weight_hh_l0.detach().numpy()
    array += np.float32(0.25)


def by_vector(module):
    count = sum(each.numel() for each in module.parameters())
    nn.utils.vector_to_parameters(torch.randn(count), module.parameters())


def by_initializer(module):
    nn.init.orthogonal_(module.weight_hh_l0)


def by_reset(module):
    module.reset_parameters()


def by_average(module):
    averaged = torch.optim.swa_utils.AveragedModel(module)
    averaged.update_parameters(module)
    for own, other in zip(module.parameters(), nn.GRU(3, 4).parameters(), strict=True):
        own.data.mul_(0.9).add_(other.data, alpha=0.1)


CHANGES = [
    in_place,
    by_copy,
    by_state_dict,
    by_assigned_state_dict,
    another_parameter,
    other_data,
    moved_and_back,
    through_data,
    through_numpy,
    by_vector,
    by_initializer,
    by_reset,
    by_average,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_weights_is_seen(change):
    module = make()
    for _ in range(3):
        first = on_fastgru(module, X)
        change(module)
        second = on_fastgru(module, X)
        assert not torch.equal(first[0], second[0])


def test_memory_of_weights_is_not_mistaken_for_that_of_others():
    """Data that is replaced twice may lie where the first lay, with the same count of changes."""
    module = make()
    for _ in range(50):
        module.weight_hh_l0.data = torch.randn(12, 4)
        on_fastgru(module, X)
        module.weight_hh_l0.data = torch.randn(12, 4)
        module.weight_hh_l0.data = torch.randn(12, 4)
        on_fastgru(module, X)


def test_a_single_element_written_through_data_is_seen_after_optimize():
    """As the documentation says: PyTorch does not count it."""
    module = make()
    before = on_fastgru(module, X)
    module.weight_hh_l0.data[0, 0] += 1
    with torch.no_grad():
        assert torch.equal(module(X)[0], before[0])
    fastgru.torch.optimize(module)
    assert not torch.equal(on_fastgru(module, X)[0], before[0])


def test_weights_made_in_inference_mode_are_run_and_watched():
    with torch.inference_mode():
        module = make()
        first = on_fastgru(module, X)
        module.load_state_dict(nn.GRU(3, 4).state_dict())
        assert not torch.equal(on_fastgru(module, X)[0], first[0])


def test_packed_weights_are_given_up_where_the_module_is_not_fastgrus():
    module = make()
    on_fastgru(module, X)
    module(X)  # whose gradient is wanted
    assert module.forward.packed is None
    on_fastgru(module, X)
    with torch.no_grad():
        module.double().bfloat16()(X.bfloat16())
    assert module.forward.packed is None


def test_weights_in_any_memory_order_are_read():
    module = make()
    module.weight_ih_l0 = nn.Parameter(torch.randn(3, 12).t())
    module.weight_hh_l0 = nn.Parameter(torch.randn(24, 8)[::2, ::2])
    module.bias_hh_l0 = nn.Parameter(torch.randn(1).expand(12))
    on_fastgru(module, X)


def test_shared_weights_are_seen_by_both():
    a, b = make(), make()
    b.weight_hh_l0 = a.weight_hh_l0
    on_fastgru(a, X)
    on_fastgru(b, X)
    in_place(a)
    on_fastgru(a, X)
    on_fastgru(b, X)


# ---- weights that are computed ---------------------------------------------------------------


def weight_norm(module):
    parametrizations.weight_norm(module, "weight_hh_l0")


def orthogonal(module):
    parametrizations.orthogonal(module, "weight_hh_l0")


def pruned(module):
    prune.l1_unstructured(module, "weight_hh_l0", 0.4)


@pytest.mark.parametrize("computed", [weight_norm, orthogonal, pruned])
@pytest.mark.parametrize("first", [True, False])
def test_computed_weights_are_pytorchs(computed, first):
    module = nn.GRU(3, 4).eval()
    if first:
        computed(module)
        assert fastgru.torch.optimize(module) is module
    else:
        fastgru.torch.optimize(module)
        on_fastgru(module, X)
        computed(module)
    with torch.no_grad():
        found = module(X)
        fastgru.torch.restore(module)
        assert_same(found, module(X), 0)


def test_copies_of_a_parametrized_module_do_not_run_the_first_one():
    module = make()
    weight_norm(module)
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.bias_hh_l0.add_(1)
        found = other(X)
        wanted = nn.GRU.forward(other, X)
    assert_same(found, wanted, 0)


def test_weights_of_a_functional_call_are_used():
    module = make()
    others = {name: torch.randn_like(each) for name, each in module.named_parameters()}
    on_fastgru(module, X)
    with torch.no_grad():
        found = torch.func.functional_call(module, others, (X,))
    other = nn.GRU(3, 4)
    other.load_state_dict(others)
    with torch.no_grad():
        assert_same(found, other(X))
    on_fastgru(module, X)


def test_a_replica_for_another_device_is_an_ordinary_module():
    module = make()
    replica = module._replicate_for_data_parallel()
    replica._parameters = {name: each * 2 for name, each in module._parameters.items()}
    replica._flat_weights = list(replica._parameters.values())
    assert not fastgru.torch.report(replica)[0].changed
    replica.forward(X)
    assert module._parameters["weight_hh_l0"] is not replica._parameters["weight_hh_l0"]


# ---- optimize, restore, report ---------------------------------------------------------------


class Mine(nn.GRU):
    """A subclass."""

    def forward(self, *arguments):
        output, h_n = super().forward(*arguments)
        return output + 1, h_n


def test_a_report_says_what_runs_where_and_why():
    model = nn.ModuleDict(
        {
            "gru": nn.GRU(3, 4),
            "cell": nn.GRUCell(3, 4),
            "lstm": nn.LSTM(3, 4),
            "mine": Mine(3, 4),
            "sixteen": nn.GRU(3, 4).half(),
            "meta": nn.GRU(3, 4, device="meta"),
            "replaced": nn.GRU(3, 4),
            "computed": nn.GRU(3, 4),
            "linear": nn.Linear(3, 4),
        }
    )
    model["replaced"].forward = lambda x, hx=None: (x, hx)
    weight_norm(model["computed"])
    before = fastgru.torch.report(model)
    assert {entry.name for entry in before if not entry.changed} == model.keys() - {"linear"}
    fastgru.torch.optimize(model)
    report = {entry.name: entry for entry in fastgru.torch.report(model)}
    assert [name for name, entry in report.items() if entry.changed] == ["gru", "cell", "sixteen", "meta"]
    reasons = {name: entry.reason for name, entry in report.items()}
    assert reasons["gru"] is reasons["cell"] is None
    for name, words in {
        "lstm": "no GRU",
        "mine": "subclass",
        "sixteen": "torch.float16",
        "meta": "device meta",
        "replaced": "replaced its forward",
        "computed": "subclass",
    }.items():
        assert words in reasons[name]
    with torch.inference_mode():
        model["gru"](X)
    model["cell"](X[0])
    report = fastgru.torch.report(model)
    assert str(report).splitlines()[:3] == [
        "gru: GRU, fastgru",
        "cell: GRUCell, fastgru; PyTorch computed a call, because a gradient is wanted",
        "lstm: LSTM, PyTorch: it is no GRU",
    ]
    fastgru.torch.restore(model)
    assert fastgru.torch.report(model) == before
    assert str(fastgru.torch.report(nn.Linear(3, 4))) == "no recurrent modules"
    assert str(fastgru.torch.report(nn.GRU(3, 4))) == "(the model): GRU, PyTorch: it has not been optimized"


def test_a_module_in_two_places_is_optimized_once():
    gru = nn.GRU(3, 4)
    model = fastgru.torch.optimize(nn.ModuleList([gru, gru]))
    assert len(fastgru.torch.report(model)) == 1
    on_fastgru(gru, X)


def test_a_block_is_optimized_and_then_is_what_it_was():
    model = nn.ModuleList([nn.GRU(3, 4), fastgru.torch.optimize(nn.GRU(3, 4))])
    kept = model[1].forward

    def run():
        with fastgru.torch.optimized(model) as same:
            assert same is model
            assert [entry.changed for entry in fastgru.torch.report(model)] == [True, True]
            on_fastgru(model[0], X)
            raise KeyError

    with pytest.raises(KeyError):
        run()
    assert [entry.changed for entry in fastgru.torch.report(model)] == [False, True]
    assert model[1].forward is kept
    on_fastgru(model[1], X)


def test_what_wraps_a_forward_keeps_its_place():
    module = make()
    inner = module.forward
    module.forward = lambda x, hx=None: [2 * each for each in inner(x, hx)]
    with torch.no_grad():
        wanted = [2 * each for each in nn.GRU.forward(module, X)]
        assert_same(module(X), wanted)
        fastgru.torch.optimize(module)
        assert fastgru.torch.report(module)[0].changed
        assert_same(module(X), wanted)
        fastgru.torch.restore(module)
        assert_same(module(X), wanted, 0)


def test_kernels_of_float16_round_weights_alone():
    module, half = nn.GRU(3, 64).eval(), nn.GRU(3, 64).eval()
    rounded = {
        name: tensor.half().float() if "weight" in name else tensor
        for name, tensor in module.state_dict().items()
    }
    half.load_state_dict(rounded)
    fastgru.torch.optimize(module, weights_dtype="float16")
    with torch.no_grad():
        assert_same(module(X), half(X))
        module.weight_ih_l0[0, 0] = 1e6  # which float16 does not hold
        assert_same(module(X), nn.GRU.forward(module, X), 0)
    assert "float16" in last_reason(module)
    module.double()
    with torch.no_grad():
        assert_same(module(X.double()), nn.GRU.forward(module, X.double()), 0)
    assert "weights_dtype" in fastgru.torch.report(module)[0].reason


def test_kernels_of_int8_are_those_of_a_layer():
    module = nn.GRU(3, 64, batch_first=True).eval()
    layer = fastgru.from_torch(module, weights_dtype="int8")
    fastgru.torch.optimize(module, weights_dtype="int8")
    x = X.transpose(0, 1).contiguous()
    with torch.no_grad():
        output, last = module(x)
        for found, wanted in zip((output, last[0]), layer(x.numpy()), strict=True):
            np.testing.assert_array_equal(found.numpy(), wanted)
        assert (output - nn.GRU.forward(module, x)[0]).abs().max() > 1e-4
        module.weight_ih_l0[0, 0] = float("nan")
        assert_same(module(x), nn.GRU.forward(module, x), 0)
    assert "must be finite with weights_dtype='int8'" in last_reason(module)


@pytest.mark.parametrize("function", [fastgru.torch.optimize, fastgru.torch.restore, fastgru.torch.report])
def test_what_is_no_module_is_refused(function):
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got dict"):
        function({})
    with pytest.raises(TypeError, match="got dict"), fastgru.torch.optimized({}):
        pass


@pytest.mark.parametrize("value", ["int4", "bfloat16", 16])
def test_another_type_of_weights_is_refused(value):
    module = nn.GRU(3, 4)
    with pytest.raises((ValueError, TypeError), match="weights_dtype"):
        fastgru.torch.optimize(module, weights_dtype=value)
    assert not fastgru.torch.report(module)[0].changed
