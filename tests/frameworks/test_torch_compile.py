"""Compiled and exported programs call operators of fastgru's, in one graph, and give the same results."""

import copy
import gc
import subprocess
import sys
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch_models import assert_same

import fastgru.torch
from fastgru.torch import _operator

pytestmark = [
    pytest.mark.outside,  # takes a compiler of PyTorch's
    pytest.mark.filterwarnings(
        "ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning", "ignore:.*:UserWarning"
    ),
]


class Model(nn.Module):
    """A GRU and a cell between linear layers."""

    def __init__(self, **arguments):
        super().__init__()
        self.before = nn.Linear(3, 6)
        self.gru = nn.GRU(6, 5, **arguments)
        width = 10 if self.gru.bidirectional else 5
        self.cell = nn.GRUCell(width, 5)
        self.after = nn.Linear(5, 2)

    def forward(self, x, hx=None):
        output, h_n = self.gru(self.before(x), hx)
        return self.after(self.cell(output[-1])), output, h_n


@pytest.fixture(autouse=True)
def whole_graphs():
    """Dynamo breaks its graphs at every GRU, whatever its forward, unless this is set."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        yield
    torch._dynamo.reset()


def both(**arguments):
    torch.manual_seed(2)
    model = Model(**arguments).eval()
    return fastgru.torch.optimize(copy.deepcopy(model)), model


def targets(graph):
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"batch_first": True, "bidirectional": True, "num_layers": 2}, {"bias": False}],
    ids=["plain", "stacked", "without bias"],
)
def test_a_compiled_model_gives_the_same(arguments, backend):
    model, original = both(**arguments)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    count = model.gru.num_layers * (2 if model.gru.bidirectional else 1)
    with torch.no_grad():
        for shape in ((4, 2, 3), (4, 3)):
            x = torch.randn(shape)
            hx = torch.randn(count, *((4 if model.gru.batch_first else 2,) if len(shape) == 3 else ()), 5)
            for given in (None, hx):
                assert_same(compiled(x, given), original(x, given))
        model.gru.weight_hh_l0.mul_(1.5)
        original.gru.weight_hh_l0.mul_(1.5)
        assert_same(compiled(x), original(x))


def test_a_compiled_model_of_other_sizes_gives_the_same():
    model, original = both()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch.inference_mode():
        for timesteps, batch in ((4, 2), (7, 3), (2, 9)):
            x = torch.randn(timesteps, batch, 3)
            assert_same(compiled(x), original(x))


def test_a_compiled_model_calls_the_operators():
    model, _ = both()
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph

    with torch.no_grad():
        torch.compile(model, backend=keep, fullgraph=True)(torch.randn(4, 2, 3))
    called = [str(node.target) for graph in graphs for node in graph.graph.nodes]
    assert len(graphs) == 1
    assert sum("fastgru" in target for target in called) == 2


def test_a_compiled_model_trains_as_pytorchs():
    model, original = both()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(4, 2, 3)
    for each in (compiled, original):
        each(x)[0].square().sum().backward()
    assert_same([p.grad for p in model.parameters()], [p.grad for p in original.parameters()], 1e-6)


def test_graphs_that_break_at_modules_give_the_same():
    model, original = both()
    with torch._dynamo.config.patch(allow_rnn=False), torch.no_grad():
        compiled = torch.compile(model, backend="eager")
        x = torch.randn(4, 2, 3)
        assert_same(compiled(x), original(x))
    assert fastgru.torch.report(model)[0].last is None


def test_a_compiled_model_takes_packed_sequences():
    gru = fastgru.torch.optimize(nn.GRU(3, 4).eval())
    packed = pack_sequence([torch.randn(length, 3) for length in (4, 2, 1)])
    with torch.no_grad():
        compiled = torch.compile(gru, backend="eager")
        assert_same(compiled(packed), nn.GRU.forward(gru, packed))


def test_a_compiled_model_refuses_what_pytorch_refuses():
    model, _ = both()
    compiled = torch.compile(model.gru, backend="eager")
    with torch.no_grad(), pytest.raises(Exception, match=r"input_size|input\.size"):
        compiled(torch.randn(4, 2, 7))


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_program_gives_the_same_and_is_read_again(strict, tmp_path):
    model, original = both(bidirectional=True)
    x = torch.randn(4, 2, 3)
    with torch.no_grad():
        program = torch.export.export(model, (x,), strict=strict)
        assert sum("fastgru" in target for target in targets(program.graph)) == 2
        assert_same(program.module()(x), original(x))
        torch.export.save(program, tmp_path / "model.pt2")
        assert_same(torch.export.load(tmp_path / "model.pt2").module()(x), original(x))


WITHOUT = """
import sys
import weakref
import torch
try:
    torch.export.load(sys.argv[1])
except Exception as error:
    print(type(error).__name__, error)
else:
    print("loaded")
"""


def test_an_exported_program_without_fastgru_says_what_is_missing(tmp_path):
    model, _ = both()
    with torch.no_grad():
        torch.export.save(torch.export.export(model, (torch.randn(4, 2, 3),)), tmp_path / "model.pt2")
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT, tmp_path / "model.pt2"], capture_output=True, text=True, check=True
    )
    assert "Error" in run.stdout
    assert "torch.ops.fastgru.gru" in run.stdout + run.stderr


def test_the_operators_are_what_pytorch_asks_of_operators():
    weights = list(nn.GRU(3, 4, 2, bidirectional=True).requires_grad_(False).parameters())
    cell = list(nn.GRUCell(3, 4).requires_grad_(False).parameters())
    for batch_first in (False, True):
        for hx in (None, torch.randn(4, 2 if not batch_first else 5, 4)):
            arguments = torch.randn(5, 2, 3), hx, weights, True, 2, True, batch_first, None
            torch.library.opcheck(torch.ops.fastgru.gru.default, arguments)
    for hx in (None, torch.randn(2, 4)):
        torch.library.opcheck(torch.ops.fastgru.gru_cell.default, (torch.randn(2, 3), hx, cell, None))


def test_the_operators_leave_to_pytorch_what_is_not_fastgrus():
    gru, cell = nn.GRU(3, 4).requires_grad_(False), nn.GRUCell(3, 4).requires_grad_(False)
    x, empty = torch.complex(torch.zeros(5, 2, 3), torch.randn(5, 2, 3)).conj().imag, torch.zeros(5, 0, 3)
    for each in (x, empty):
        arguments = each, None, [*gru.parameters()], True, 1, False, False, None
        assert_same(torch.ops.fastgru.gru(*arguments), gru(each))
    for each in (x[0], x[0, 0], empty[0]):
        assert_same(torch.ops.fastgru.gru_cell(each, None, [*cell.parameters()], None), cell(each))


def test_the_operators_see_changes_and_keep_no_weights():
    gru, x = nn.GRU(3, 4).requires_grad_(False), torch.randn(5, 2, 3)

    def check(gru):
        arguments = x, None, [*gru.parameters()], True, 1, False, False, None
        assert_same(torch.ops.fastgru.gru(*arguments), gru(x))

    for _ in range(3):
        check(gru)
        check(gru)
        gru.weight_hh_l0.add_(1)
        check(gru)
        gru.weight_ih_l0.data = torch.randn(12, 3)
        check(gru)
        gru.bias_hh_l0 = nn.Parameter(torch.randn(12), requires_grad=False)
    kept = [weakref.ref(each) for each in gru.parameters()]
    gc.collect()  # what tests before have left
    count = len(_operator._kept)
    del gru
    gc.collect()
    assert [each() for each in kept] == [None] * 4
    assert len(_operator._kept) == count - 1
