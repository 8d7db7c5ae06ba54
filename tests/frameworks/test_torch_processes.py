"""Optimized models in threads, in other processes, and in files that are read without fastgru."""

import copy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import multiprocessing, nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, Dataset
from torch_models import assert_same

import fastgru.torch

pytestmark = [pytest.mark.outside, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]


def make(seed=4):
    torch.manual_seed(seed)
    model = nn.ModuleDict({"gru": nn.GRU(3, 4, 2, bidirectional=True), "cell": nn.GRUCell(3, 4)})
    return model.eval().requires_grad_(False)


X = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))


def results(model):
    """What both modules return for the same inputs."""
    with torch.inference_mode():
        output, h_n = model["gru"](X)
        return [output.clone(), h_n.clone(), model["cell"](X[0]).clone()]


def test_eight_threads_call_one_model():
    model = make()
    generator = torch.Generator().manual_seed(1)
    shapes = [(timesteps, batch) for timesteps in (1, 4, 9) for batch in (1, 3, 8)]
    calls = [torch.randn(*shape, 3, generator=generator) for shape in shapes]
    calls += [pack_sequence([torch.randn(n, 3, generator=generator) for n in (6, 4, 1)])]
    with torch.no_grad():
        wanted = [model["gru"](x) for x in calls]
    fastgru.torch.optimize(model)

    def work(first):
        with torch.no_grad():  # which holds for one thread
            for k in range(first, first + 300):
                assert_same(model["gru"](calls[k % len(calls)]), wanted[k % len(calls)])
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_threads_call_a_model_whose_weights_are_replaced():
    """No call computes with memory that is gone, and the last ones with the last weights."""
    gru = make()["gru"]
    sets = [gru.state_dict(), {name: 0.5 * each for name, each in gru.state_dict().items()}]
    sets = [copy.deepcopy(each) for each in sets]
    wanted = []
    with torch.no_grad():
        for each in sets:
            gru.load_state_dict(each, assign=True)
            wanted.append(gru(X)[0])
    fastgru.torch.optimize(gru)

    def work(_):
        with torch.no_grad():
            return [gru(X)[0] for _ in range(200)]

    with ThreadPoolExecutor(8) as pool:
        found = pool.map(work, range(8))
        for k in range(100):
            for name, each in sets[k % 2].items():
                setattr(gru, name, nn.Parameter(each, requires_grad=False))
        found = [each for many in found for each in many]
    assert all(torch.isfinite(each).all() for each in found)
    with torch.no_grad():
        assert_same(gru(X)[0], wanted[1])


def child(model, queue):
    try:
        entries = fastgru.torch.report(model)
        queue.put(([each.numpy() for each in results(model)], [entry.changed for entry in entries]))
    except BaseException as error:  # or the parent waits for ever
        queue.put((repr(error), None))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("called", [False, True])
def test_a_model_runs_in_another_process(method, called):
    model = make()
    wanted = results(model)
    fastgru.torch.optimize(model)
    if called:
        assert_same(results(model), wanted)
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=child, args=(model, queue))
    process.start()
    found, optimized = queue.get()
    process.join()
    assert isinstance(found, list), found
    assert_same([torch.from_numpy(each) for each in found], wanted)
    assert optimized == [method == "fork"] * 2  # what is sent is an ordinary module


class Rows(Dataset):
    """A data set that a model takes part in."""

    def __init__(self, model):
        self.model = model

    def __len__(self):
        return 6

    def __getitem__(self, index):
        with torch.no_grad():
            return self.model["gru"](X[:, :1] * index)[0]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_loader_call_a_model(method):
    model = make()
    wanted = [Rows(model)[i] for i in range(6)]
    fastgru.torch.optimize(model)
    results(model)
    loader = DataLoader(Rows(model), batch_size=None, num_workers=2, multiprocessing_context=method)
    assert_same(list(loader), wanted)


WITHOUT = """
import sys
sys.modules["fastgru"] = None  # importing it fails
import pickle
import torch

path, kind = sys.argv[1:]
if kind == "pickle":
    with open(path, "rb") as file:
        model = pickle.load(file)
elif kind == "weights":
    gru = torch.nn.GRU(3, 4, 2, bidirectional=True)
    model = torch.nn.ModuleDict({"gru": gru, "cell": torch.nn.GRUCell(3, 4)})
    model.load_state_dict(torch.load(path, weights_only=True))
else:
    model = torch.load(path, weights_only=False)
x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    results = [*model["gru"](x), model["cell"](x[0])]
torch.save(results, path + ".results")
print(sorted(set(vars(model["gru"])) - set(vars(torch.nn.GRU(3, 4)))))
"""


@pytest.mark.parametrize("kind", ["pickle", "save", "weights"])
def test_a_saved_model_is_read_without_fastgru(kind, tmp_path):
    import pickle

    model = make()
    wanted = results(model)
    fastgru.torch.optimize(model)
    results(model)
    path = tmp_path / "model"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(model))
    else:
        torch.save(model.state_dict() if kind == "weights" else model, path)
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT, path, kind], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
    assert_same(torch.load(f"{path}.results"), wanted)


WITHOUT_TORCH = """
import sys
import fastgru
assert "torch" not in sys.modules
sys.modules["torch"] = None
try:
    import fastgru.torch
except ImportError as error:
    print(type(error).__name__, error)
"""


def test_without_pytorch_the_import_says_what_is_missing():
    run = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == (
        "ModuleNotFoundError fastgru.torch needs PyTorch 2.3 or newer, which is not installed: "
        "pip install torch"
    )
