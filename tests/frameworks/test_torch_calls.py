"""Calls of optimized modules: PyTorch's own answer wherever it is not fastgru's to give."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence
from torch_models import assert_same

import fastgru.torch

pytestmark = pytest.mark.filterwarnings(  # PyTorch's own
    "ignore:.*is deprecated:DeprecationWarning",
    "ignore:.*is deprecated:FutureWarning",
    "ignore:There is a performance drop:UserWarning",
    "ignore::torch.jit.TracerWarning",
)


def make(*arguments, kind=nn.GRU, **keywords):
    torch.manual_seed(5)
    return fastgru.torch.optimize(kind(*(arguments or (3, 4)), **keywords).eval())


def left(module):
    """Why the last call was left to PyTorch; None: none was."""
    return fastgru.torch.report(module)[0].last


X = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))


# ---- fastgru's -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_call_without_gradient_is_fastgrus(mode):
    module = make()
    with mode():
        output, h_n = module(X)
        assert_same((output, h_n), nn.GRU.forward(module, X))
    assert output.is_inference() == h_n.is_inference() == (mode is torch.inference_mode)
    assert left(module) is None


def test_a_call_of_what_requires_no_gradient_is_fastgrus():
    module = make().requires_grad_(False)
    assert_same(module(X), nn.GRU.forward(module, X))
    assert left(module) is None
    output, _ = module(X.clone().requires_grad_())
    assert output.requires_grad
    assert "gradient" in left(module)


def test_keywords_and_positions_are_the_same():
    module, cell, h, state = make(), make(kind=nn.GRUCell), torch.randn(1, 2, 4), torch.randn(2, 4)
    with torch.no_grad():
        assert_same(module(input=X, hx=h), module(X, h), 0)
        assert_same(cell(hx=state, input=X[0]), cell(X[0], state), 0)
        with pytest.raises(TypeError, match="unexpected keyword"):
            module(X, h0=h)


def test_parameters_are_plain_tensors_too():
    module = make()
    x, h = nn.Parameter(X), nn.Parameter(torch.randn(1, 2, 4))
    with torch.no_grad():
        assert_same(module(x, h), nn.GRU.forward(module, x, h))
    assert left(module) is None


def test_results_are_memory_of_their_own():
    module, state = make(), torch.randn(1, 2, 4)
    with torch.no_grad():
        kept = state.clone()
        output, h_n = module(X, state)
        output.zero_()
        assert_same(h_n, nn.GRU.forward(module, X, state)[1])
        h_n.zero_()
        assert torch.equal(state, kept)
        one, same = make(4, 4), torch.randn(1, 2, 4)
        assert_same(one(same, same), nn.GRU.forward(one, same, same))  # both arguments in the same memory


def test_nan_and_infinity_go_where_they_go_in_pytorch():
    module, x = make(), X.clone()
    x[2, 1, 0], x[1, 0, 1] = float("nan"), float("inf")
    with torch.no_grad():
        assert_same(module(x), nn.GRU.forward(module, x))


def test_a_loop_over_steps_gives_what_a_sequence_gives():
    module, cell = make(), make(kind=nn.GRUCell)
    cell.load_state_dict({name.removesuffix("_l0"): each for name, each in module.state_dict().items()})
    with torch.no_grad():
        output, h_n = module(X)
        state = None
        for step, wanted in zip(X, output, strict=True):
            state = cell(step, state)
            assert torch.equal(state, wanted)  # bit for bit
        assert torch.equal(state, h_n[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("levels", [1, 2])
def test_a_packed_sequence_gives_what_each_row_gives_alone(levels, bidirectional, dtype):
    module = make(3, 4, levels, bidirectional=bidirectional, dtype=dtype)
    rows = [torch.randn(length, 3, dtype=dtype) for length in (2, 7, 1, 7, 4)]
    with torch.no_grad():
        found, h_n = module(pack_sequence(rows, enforce_sorted=False))
        padded, lengths = pad_packed_sequence(found)
        for i, row in enumerate(rows):
            output, state = module(row)
            assert torch.equal(padded[: len(row), i], output)  # bit for bit
            assert torch.equal(h_n[:, i], state)
    assert lengths.tolist() == [2, 7, 1, 7, 4]
    assert left(module) is None


def test_a_packed_sequence_without_indices_comes_back_without_them():
    module = make()
    packed = PackedSequence(torch.randn(6, 3), torch.tensor([3, 2, 1]))
    with torch.no_grad():
        found, _ = module(packed)
    assert found.sorted_indices is found.unsorted_indices is None
    assert found.batch_sizes is packed.batch_sizes


# ---- PyTorch's -------------------------------------------------------------------------------


def pytorchs(module, *arguments, reason):
    """A call that is PyTorch's to compute, for this reason."""
    fastgru.torch.optimize(module)
    result = module(*arguments)
    assert reason in left(module)
    return result


def test_a_gradient_is_pytorchs():
    module, plain = make(), make()
    fastgru.torch.restore(plain)
    for each in (module, plain):
        each(X)[0].square().sum().backward()
    assert "gradient" in left(module)
    grads = [[p.grad for p in each.parameters()] for each in (module, plain)]
    assert_same(*grads, 0)


def test_active_dropout_is_pytorchs():
    module = make(3, 4, 2, dropout=0.5).train()
    with torch.no_grad():
        torch.manual_seed(1)
        found = pytorchs(module, X, reason="dropout")
        torch.manual_seed(1)
        assert_same(found, nn.GRU.forward(module, X), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns that one level drops nothing
        single = make(3, 4, dropout=0.5).train()
    with torch.no_grad():
        assert_same(single(X), nn.GRU.forward(single, X))
    assert left(single) is None


def test_autocast_is_pytorchs():
    module = make()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = pytorchs(module, X, reason="observes")
        assert_same(found, nn.GRU.forward(module, X), 0)


def test_half_precision_is_pytorchs():
    for kind, x in ((nn.GRU, X), (nn.GRUCell, X[0])):
        module = make(kind=kind).bfloat16()
        with torch.no_grad():
            found = pytorchs(module, x.bfloat16(), reason="type")
            assert_same(found, kind.forward(module, x.bfloat16()), 0)


def test_meta_tensors_are_pytorchs():
    module = make(device="meta")
    output, h_n = module(torch.empty(5, 2, 3, device="meta"))
    assert (output.device.type, output.shape, h_n.shape) == ("meta", (5, 2, 4), (1, 2, 4))


def test_fake_tensors_are_pytorchs():
    module = make()
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        output, _ = pytorchs(module, mode.from_tensor(X), reason="observes")
        assert output.shape == (5, 2, 4)


def test_vmap_is_pytorchs():
    cell, many = make(kind=nn.GRUCell), torch.randn(6, 2, 3)
    with torch.no_grad():
        found = torch.vmap(cell)(many)
        assert "observes" in left(cell)
        assert_same(found, torch.stack([cell(each) for each in many]))


def test_functional_gradients_are_pytorchs():
    cell = make(kind=nn.GRUCell).requires_grad_(False)
    found = torch.func.grad(lambda x: cell(x).square().sum())(X[0])
    x = X[0].clone().requires_grad_()
    nn.GRUCell.forward(cell, x).square().sum().backward()
    assert_same(found, x.grad, 1e-6)


def test_forward_gradients_are_pytorchs():
    cell = make(kind=nn.GRUCell)
    with torch.no_grad(), forward_ad.dual_level():
        dual = forward_ad.make_dual(X[0], torch.ones(2, 3))
        found = forward_ad.unpack_dual(pytorchs(cell, dual, reason="observes"))
        wanted = forward_ad.unpack_dual(nn.GRUCell.forward(cell, dual))
    assert_same(list(found), list(wanted), 0)
    assert found.tangent is not None


def test_a_default_device_is_pytorchs():
    module = make()
    with torch.no_grad(), torch.device("cpu"):
        assert_same(pytorchs(module, X, reason="observes"), nn.GRU.forward(module, X), 0)


class Mine(torch.Tensor):
    """A subclass, which is to be seen by every operator."""


def test_subclasses_of_tensors_are_pytorchs():
    module = make()
    with torch.no_grad():
        found = pytorchs(module, X.as_subclass(Mine), reason="plain")
        assert type(found[0]) is Mine
        assert type(pytorchs(module, X, torch.zeros(1, 2, 4).as_subclass(Mine), reason="plain")[0]) is Mine


def test_tensors_without_plain_memory_are_pytorchs():
    module, negative = make(), torch.complex(torch.zeros_like(X), X).conj().imag
    assert negative.is_neg()
    with torch.no_grad():
        assert_same(pytorchs(module, negative, reason="plain"), nn.GRU.forward(module, -X))
        for odd in (X.to_sparse(), X.to_mkldnn()):
            with pytest.raises(Exception, match=r".") as wanted:
                nn.GRU.forward(module, odd)
            with pytest.raises(type(wanted.value)) as found:
                module(odd)
            assert str(found.value) == str(wanted.value)


def test_memory_that_is_not_aligned_is_pytorchs():
    module = make()
    memory = np.zeros(4 * 6 + 1, np.uint8)
    x = torch.frombuffer(memory, dtype=torch.float32, offset=1).view(2, 3)
    with torch.no_grad():
        assert_same(module(x), nn.GRU.forward(module, x), 0)
    assert "plain" in left(module)


def test_deterministic_algorithms_change_nothing():
    module = make()
    with torch.no_grad():
        wanted = module(X)
        torch.use_deterministic_algorithms(True)
        try:
            assert_same(module(X), wanted, 0)
        finally:
            torch.use_deterministic_algorithms(False)


# ---- errors ----------------------------------------------------------------------------------


def outcome(function, *arguments):
    """What a function returns, or the type and the words of what it raises."""
    try:
        return function(*arguments)
    except Exception as error:
        return type(error), str(error)


def assert_like_pytorch(module, *arguments):
    """The same error, or, where PyTorch has none, the same results."""
    wanted = outcome(type(module).forward, module, *arguments)
    found = outcome(module, *arguments)
    if isinstance(wanted, tuple) and isinstance(wanted[0], type):
        assert found == wanted
    else:
        assert_same(found, wanted)


WRONG = {
    "features": ((5, 2, 7), None),
    "rank 1": ((3,), None),
    "rank 4": ((1, 5, 2, 3), None),
    "no steps": ((0, 2, 3), None),
    "states' batch": ((5, 2, 3), (1, 3, 4)),
    "states' count": ((5, 2, 3), (2, 2, 4)),
    "states' units": ((5, 2, 3), (1, 2, 5)),
    "states of no batch": ((5, 2, 3), (1, 4)),
    "states of a batch": ((5, 3), (1, 1, 4)),
    "states of rank 1": ((5, 3), (4,)),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("batch_first", [False, True])
def test_errors_are_pytorchs_own(case, batch_first):
    module = make(3, 4, batch_first=batch_first)
    shape, state = WRONG[case]
    arguments = (torch.zeros(shape), None if state is None else torch.zeros(state))
    with torch.no_grad():
        assert_like_pytorch(module, *arguments)


CELLS = {
    "features": ((2, 7), None),
    "rank 0": ((), None),
    "rank 3": ((5, 2, 3), None),
    "states' batch": ((2, 3), (3, 4)),
    "states' units": ((2, 3), (2, 5)),
    "states of no batch": ((2, 3), (4,)),
    "states of rank 3": ((2, 3), (1, 2, 4)),
    "states of a batch": ((3,), (1, 4)),
}


@pytest.mark.parametrize("case", CELLS)
def test_errors_of_cells_are_pytorchs_own(case):
    module = make(kind=nn.GRUCell)
    shape, state = CELLS[case]
    arguments = (torch.zeros(shape), None if state is None else torch.zeros(state))
    with torch.no_grad():
        assert_like_pytorch(module, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        (X.double(),),
        (X, torch.zeros(1, 2, 4, dtype=torch.float64)),
        (X.long(),),
        (X.numpy(),),
        (None,),
        (X, "state"),
    ],
    ids=["double", "double state", "integers", "array", "none", "text"],
)
def test_errors_of_types_are_pytorchs_own(arguments):
    module = make()
    with torch.no_grad():
        with pytest.raises(Exception, match=r".") as wanted:
            nn.GRU.forward(module, *arguments)
        with pytest.raises(type(wanted.value)) as found:
            module(*arguments)
    assert str(found.value) == str(wanted.value)


def test_an_empty_batch_is_pytorchs():
    module, cell = make(), make(kind=nn.GRUCell)
    with torch.no_grad():
        assert_same(module(X[:, :0]), nn.GRU.forward(module, X[:, :0]), 0)
        assert_same(cell(X[0, :0]), nn.GRUCell.forward(cell, X[0, :0]), 0)


@pytest.mark.parametrize("sizes", [[1, 2, 3], [3, 2, 2], [3, 3, 0]])
def test_packed_sequences_that_are_none_are_pytorchs(sizes):
    module = make()
    packed = PackedSequence(torch.randn(6, 3), torch.tensor(sizes))
    with torch.no_grad():
        assert_like_pytorch(module, packed)


# ---- TorchScript -----------------------------------------------------------------------------


def test_traces_and_scripts_are_of_pytorchs_operators(tmp_path):
    model = nn.Sequential(make())
    with torch.no_grad():
        wanted = model(X)
        traced = torch.jit.trace(model, X, check_trace=False)
        assert "aten::gru" in str(traced.inlined_graph)
        assert_same(traced(X), wanted)
        assert fastgru.torch.report(model)[0].changed
        scripted = torch.jit.script(model)
        assert "aten::gru" in str(scripted.inlined_graph)
        assert_same(scripted(X), wanted)
        scripted.save(tmp_path / "model.pt")
        assert_same(torch.jit.load(tmp_path / "model.pt")(X), wanted)
    assert not fastgru.torch.report(model)[0].changed  # as documented: TorchScript compiles what is there
