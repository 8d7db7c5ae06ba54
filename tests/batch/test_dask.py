"""A scorer on Dask: arrays, bags and DataFrames, in several processes, of which some are killed."""

import os
import signal

import dask
import dask.array
import dask.bag
import dask.dataframe
import numpy as np
import pandas
import pyarrow
import pytest
from batch_networks import FEATURES, layer, model
from dask.distributed import as_completed, wait

import fastgru

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6, FEATURES)).astype("f4")
pytestmark = [pytest.mark.outside, pytest.mark.xdist_group("clusters")]


@pytest.fixture
def sequences():
    return [RNG.normal(size=(n, FEATURES)).astype("f4") for n in RNG.integers(0, 9, 30)]


def frame(sequences):
    kind = pyarrow.list_(pyarrow.list_(pyarrow.float32()))
    column = pyarrow.array([row.tolist() for row in sequences], kind)
    cells = pandas.Series(column, dtype=pandas.ArrowDtype(kind))
    return pandas.DataFrame({"x": cells, "id": range(len(sequences))})


@pytest.mark.parametrize("kind", ["sequences", "last", "time-major", "float64", "both"])
@pytest.mark.parametrize("rows", [7, 40])
def test_an_array_has_the_bits_of_one_call(kind, rows, client):
    net = layer(kind)
    axis = 1 if net.time_major else 0
    x = np.swapaxes(X, 0, axis)
    lengths = RNG.integers(0, 7, 40)
    chunks = [rows if i == axis else -1 for i in range(3)]
    cut = dask.array.from_array(x, chunks=chunks)
    scorer = fastgru.Scorer(net, batch_size=4)
    mapped = scorer.map(cut)
    assert (mapped.shape, mapped.dtype) == (net(x).shape, net(x).dtype)
    np.testing.assert_array_equal(mapped.compute(), net(x))
    given = dask.array.from_array(lengths, chunks=11)
    np.testing.assert_array_equal(scorer.map(cut, given).compute(), net(x, lengths=lengths))


def test_map_blocks_takes_the_scorer_and_refuses_blocks_that_are_cut_in_time(client):
    net = layer("sequences")
    scorer, cut = fastgru.Scorer(net), dask.array.from_array(X, chunks=(9, -1, -1))
    chunks = (cut.chunks[0], (6,), (5,))
    found = dask.array.map_blocks(scorer, cut, dtype=scorer.dtype, chunks=chunks)
    np.testing.assert_array_equal(found.compute(), net(X))
    wrong = cut.rechunk((9, 3, -1))
    message = r"the array must be one chunk along axis 1, got 2: rechunk\(\{1: -1\}\)"
    with pytest.raises(ValueError, match=message):
        dask.array.map_blocks(scorer, wrong, dtype=scorer.dtype, chunks=(chunks[0], (3, 3), (5,))).compute()
    with pytest.raises(ValueError, match=message):
        scorer.map(wrong)


def test_bags_and_frames_have_the_bits_that_each_row_has_alone(sequences, client):
    net = layer("sequences")
    wanted = [net(row[np.newaxis])[0] if len(row) else np.zeros((0, 5), "f4") for row in sequences]
    bag = fastgru.Scorer(net).map(dask.bag.from_sequence(sequences, npartitions=4)).compute()
    table = dask.dataframe.from_pandas(frame(sequences), npartitions=3)
    table = fastgru.Scorer(net, keep="id").map(table).compute()
    assert list(table["id"]) == list(range(30))
    for i, one in enumerate(wanted):
        np.testing.assert_array_equal(bag[i], one)
        np.testing.assert_array_equal(np.array(table["output"].iloc[i], "f4").reshape(-1, 5), one)


def test_an_empty_partition_is_no_error(sequences, client):
    table = dask.dataframe.from_pandas(frame(sequences), npartitions=3)
    some = table[table["id"] < 3]  # of the others nothing is left
    assert len(fastgru.Scorer(layer("last"), keep="id").map(some).compute()) == 3


def test_workers_that_are_killed_change_no_bit(client, tmp_path):
    net = model("frames")
    net.save(tmp_path / "model.npz")
    scorer = fastgru.Scorer(tmp_path / "model.npz")
    rows = np.random.default_rng(1).normal(size=(60, 4000, FEATURES)).astype("f4")
    cut = dask.array.from_array(rows, chunks=(2, -1, -1))
    blocks = [client.compute(block) for block in scorer.map(cut).to_delayed().ravel()]
    before = set(client.run(os.getpid).values())
    done = as_completed(blocks)
    next(done)
    for victim in before:  # all that there are, one after the other
        os.kill(victim, signal.SIGKILL)
        next(done)
    wait(blocks)
    client.wait_for_workers(2)
    assert not before & set(client.run(os.getpid).values())
    np.testing.assert_array_equal(np.concatenate(client.gather(blocks)), net(rows))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda x: fastgru.Scorer(layer("state")).map(x),
            "outputs must name one output for an array of Dask",
        ),
        (
            lambda x: fastgru.Scorer(layer("last")).map(x, x[:3, 0, 0]),
            r"lengths must have shape \(40,\), .*got \(3,\)",
        ),
        (
            lambda x: fastgru.Scorer(layer("last")).map(X),
            "collection must be an array, a bag or a DataFrame of Dask",
        ),
        (lambda x: fastgru.Scorer(layer("last")).map(x[:, :, :2]), "is incompatible with the layer"),
        (lambda x: fastgru.Scorer(layer("last")).map(x[x[:, 0, 0] > 0]), "the array must have a known shape"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_runs(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make(dask.array.from_array(X, chunks=(9, -1, -1)))
