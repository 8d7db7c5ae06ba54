"""A scorer: the bits of one call however a job is cut, in every form of a batch, and its errors."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from batch_networks import FEATURES, KINDS, inputs, layer, model, network
from hypothesis import given, settings
from hypothesis import strategies as st

import fastgru
from fastgru._scoring import _source

TESTS = str(Path(__file__).parents[1])
SOME = settings(max_examples=12, deadline=None, print_blob=True)


def listed(found):
    return list(found) if isinstance(found, list | tuple) else [found]


def same(found, wanted):
    for one, other in zip(listed(found), listed(wanted), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def alone(net, row):
    """The outputs of one sequence by itself."""
    axis = 1 if getattr(net, "time_major", False) else 0
    if not len(row):  # a sequence of none: one that is masked
        row = np.zeros((1, *row.shape[1:]), row.dtype)
        found = [
            np.take(y, 0, axis if y.ndim == 3 else 0)
            for y in listed(net(np.expand_dims(row, axis), lengths=[0]))
        ]
        return [y[:0] if y.ndim == 2 else y for y in found]
    return [np.take(y, 0, axis if y.ndim == 3 else 0) for y in listed(net(np.expand_dims(row, axis)))]


def cuts(data, rows):
    """Where a job of these rows is cut; parts may be empty."""
    places = data.draw(st.lists(st.integers(0, rows), max_size=4).map(sorted))
    return list(zip([0, *places], [*places, rows], strict=True))


@pytest.mark.parametrize("kind", KINDS)
@SOME
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_rows_have_the_bits_of_one_call_however_they_are_cut(kind, data, seed):
    rng, net = np.random.default_rng(seed), network(kind)
    rows, steps = data.draw(st.integers(0, 13)), data.draw(st.integers(1, 6))
    x = inputs(kind, rng, rows, steps)
    axis = 1 if getattr(net, "time_major", False) else 0
    x = np.swapaxes(x, 0, 1) if axis else x
    lengths = rng.integers(0, steps, rows, endpoint=True) if data.draw(st.booleans()) else None
    scorer = fastgru.Scorer(net, batch_size=data.draw(st.integers(1, 14)))
    if kind == "model: batch of 4":
        wanted = network("model: frames")(x, lengths=lengths)
    else:
        wanted = net(x, lengths=lengths)
    same(scorer(x, lengths), wanted)
    parts = []
    for first, end in cuts(data, rows):
        some = None if lengths is None else lengths[first:end]
        parts.append(listed(scorer(np.take(x, range(first, end), axis), some)))
    axes = [axis if y.ndim == 3 else 0 for y in listed(wanted)]
    same([np.concatenate(ys, ax) for ys, ax in zip(zip(*parts, strict=True), axes, strict=True)], wanted)


@pytest.mark.parametrize("kind", KINDS)
@SOME
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_sequences_of_any_lengths_have_the_bits_that_each_has_alone(kind, data, seed):
    rng, net = np.random.default_rng(seed), network(kind)
    least = int(kind in ("model: pooled", "model: convolved"))
    rows = [inputs(kind, rng, n) for n in data.draw(st.lists(st.integers(least, 7), max_size=12))]
    one = network("model: frames") if kind == "model: batch of 4" else net
    wanted = [alone(one, row) for row in rows]
    scorer = fastgru.Scorer(net, batch_size=data.draw(st.integers(1, 14)), keep="id")
    found = []
    plain = fastgru.Scorer(net, batch_size=3)
    for first, end in cuts(data, len(rows)):
        as_list = plain(rows[first:end])
        listed_rows = [{"x": row, "id": i} for i, row in enumerate(rows[first:end], first)]
        as_dicts = scorer(listed_rows)
        column = pyarrow.array([row.tolist() for row in rows[first:end]], arrow_type(kind))
        as_table = scorer(pyarrow.table({"x": column, "id": np.arange(first, end)}))
        for place in range(end - first):
            same(listed(as_list[place]), wanted[first + place])
            same([as_dicts[place][name] for name in scorer.output_names], wanted[first + place])
        assert as_table["id"].to_pylist() == list(range(first, end))
        found += zip(*(as_table[name].to_pylist() for name in scorer.output_names), strict=True)
    for cells, ys in zip(found, wanted, strict=True):
        same([np.array(cell, y.dtype).reshape(y.shape) for cell, y in zip(cells, ys, strict=True)], ys)


def arrow_type(kind):
    if kind == "model: indices":
        return pyarrow.list_(pyarrow.int64())
    return pyarrow.list_(pyarrow.list_(pyarrow.float32()))


# ---- forms of a batch --------------------------------------------------------------------------------


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def x(rng):
    return rng.normal(size=(6, 4, FEATURES)).astype("f4")


def test_a_dict_of_arrays_and_a_data_frame_give_the_same(x):
    import pandas

    net = layer("sequences")
    lengths = np.array([4, 0, 1, 2, 3, 4])
    wanted = net(x, lengths=lengths)
    scorer = fastgru.Scorer(net, lengths="steps", columns="frames", keep=["id"], batch_size=4)
    found = scorer({"frames": x, "steps": lengths, "id": np.arange(6)})
    assert list(found) == ["output", "id"]
    same(found["output"], wanted)
    dense = pyarrow.list_(pyarrow.list_(pyarrow.float32(), FEATURES), 4)
    table = pyarrow.table({"frames": pyarrow.array(x.tolist(), dense), "steps": lengths, "id": range(6)})
    same(np.array(scorer(table)["output"].to_pylist(), "f4"), wanted)
    frame = table.to_pandas(types_mapper=pandas.ArrowDtype).set_index(pandas.Index(list("abcdef")))
    found = scorer(frame)
    assert isinstance(found, pandas.DataFrame)
    assert list(found.index) == list("abcdef")
    same(np.array(found["output"].tolist(), "f4"), wanted)
    ragged = fastgru.Scorer(net, columns="frames")(
        table.to_pandas()[["frames"]]
    )  # cells are arrays of arrays
    assert [len(cell) for cell in ragged["output"]] == [4] * 6


def test_a_column_may_be_a_feature(x):
    names = ["a", "b", "c"]
    scorer, net = fastgru.Scorer(layer("sequences"), columns=names), layer("sequences")
    wanted = net(x)
    columns = {name: x[:, :, i] for i, name in enumerate(names)}
    same(scorer(columns)["output"], wanted)
    table = pyarrow.table({name: [row.tolist() for row in column] for name, column in columns.items()})
    same(np.array(scorer(table)["output"].to_pylist(), "f4"), net(x.astype("f8")))
    with pytest.raises(ValueError, match="column 'c' must have rows of the same lengths as 'a'"):
        scorer(table.set_column(2, "c", pyarrow.array([[1.0]] * 6)))


def test_several_inputs_are_columns_by_name(rng):
    from fastgru._nodes import Concatenate, Recurrent, Repeat
    from fastgru.model import Input, Model, Output

    inner = layer("sequences", FEATURES + 2)
    nodes = [
        Recurrent(name="g", inputs=("x",), outputs=("g",), layer=layer("sequences")),
        Repeat(name="r", inputs=("who",), outputs=("r",), times=4),
        Concatenate(name="c", inputs=("x", "r"), outputs=("c",)),
        Recurrent(name="h", inputs=("c",), outputs=("h",), layer=inner),
    ]
    net = Model([Input("x", (4, FEATURES)), Input("who", (2,))], nodes, [Output("h"), Output("g")])
    x, who = rng.normal(size=(5, 4, FEATURES)).astype("f4"), rng.normal(size=(5, 2)).astype("f4")
    wanted = net([x, who])
    found = fastgru.Scorer(net, batch_size=2)({"x": x, "who": who})
    same([found["h"], found["g"]], wanted)
    table = pyarrow.table({"x": x.tolist(), "left": who[:, 0], "right": who[:, 1]})
    table = table.set_column(0, "x", table["x"].cast(pyarrow.list_(pyarrow.list_(pyarrow.float32()))))
    scorer = fastgru.Scorer(net, columns={"x": "x", "who": ["left", "right"]}, outputs="g")
    same(np.array(scorer(table)["g"].to_pylist(), "f4"), wanted[1])
    with pytest.raises(ValueError, match="batch must be a dict or a table with 'x', 'who', got one array"):
        scorer(x)


def test_outputs_can_be_chosen(x):
    net = layer("state")
    output, state = net(x)
    same(fastgru.Scorer(net)(x), [output, state])
    same(fastgru.Scorer(net, outputs="state")(x), state)
    assert fastgru.Scorer(net).output_names == ("output", "state")
    assert fastgru.Scorer(net).output_shape(x.shape, "state") == state.shape
    with pytest.raises(ValueError, match=r"outputs must be among \['output', 'state'\], got 'y'"):
        fastgru.Scorer(net, outputs="y")


# ---- where it is loaded ------------------------------------------------------------------------------


def test_files_bytes_and_objects_give_the_same(x, tmp_path):
    net, whole = layer("sequences"), model("frames")
    net.save(tmp_path / "layer.npz")
    whole.save(tmp_path / "model.npz")
    for path, one in (("layer.npz", net), ("model.npz", whole)):
        data = (tmp_path / path).read_bytes()
        for source in (tmp_path / path, str(tmp_path / path), data, one):
            scorer = fastgru.Scorer(source)
            same(scorer(x), one(x))
            carried = pickle.dumps(scorer)
            assert (len(carried) < 1000) == (source is not data and source is not one)
            same(pickle.loads(carried)(x), one(x))
    small = fastgru.load(tmp_path / "layer.npz", weights_dtype="int8")
    same(fastgru.Scorer(tmp_path / "layer.npz", weights_dtype="int8")(x), small(x))
    double = fastgru.load(tmp_path / "layer.npz", dtype="float64")
    same(fastgru.Scorer(tmp_path / "layer.npz", dtype="float64")(x), double(x))


def test_a_process_loads_a_network_once(tmp_path, monkeypatch):
    layer("sequences", seed=12).save(tmp_path / "layer.npz")
    loads = []
    monkeypatch.setattr(
        _source.formats, "load", lambda *a, load=fastgru.load, **o: loads.append(1) or load(*a, **o)
    )
    first = fastgru.Scorer(tmp_path / "layer.npz")
    for scorer in (
        first,
        pickle.loads(pickle.dumps(first)),
        fastgru.Scorer(tmp_path / "layer.npz", batch_size=2),
    ):
        scorer(np.zeros((1, 2, FEATURES), "f4"))
    assert len(loads) == 1


def test_a_call_has_one_thread_unless_told():
    code = f"""
import fastgru, sys
sys.path.append({TESTS!r})
from batch_networks import layer
net = layer("sequences")
for scorer in (fastgru.Scorer(net), fastgru.Scorer(net, num_threads=2)):
    print(scorer._source.network()._layer.num_threads)
print(net.num_threads)
"""
    environment = os.environ | {"FASTGRU_NUM_THREADS": "2"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "2", "None"]


def test_a_file_that_has_changed_is_refused(tmp_path):
    path = tmp_path / "layer.npz"
    layer("sequences", seed=1).save(path)
    carried = pickle.dumps(fastgru.Scorer(path))
    layer("sequences", seed=2).save(path)
    _source._loaded.cache_clear()
    with pytest.raises(
        ValueError, match=r"layer\.npz must be the file that the scorer was made of, and has changed"
    ):
        pickle.loads(carried)([np.zeros((1, FEATURES), "f4")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "model must be a path, the bytes of a file, a layer or a Model, got 3 of type int"),
        ({"model": fastgru.GRU(3)}, "model must have its weights, got .*, which is not built"),
        (
            {"model": fastgru.GRU(3, stateful=True, batch_input_shape=(2, None, 3))},
            "model must have its weights",
        ),
        ({"batch_size": 0}, "batch_size must be .*, got 0"),
        ({"num_threads": 0}, "num_threads must be .*, got 0"),
        ({"dtype": "float64"}, "dtype must be left out or 'float32', that of .*, got 'float64'"),
        ({"weights_dtype": "int8"}, "weights_dtype must be left out or 'float32', that of .*, got 'int8'"),
        ({"layer": "g"}, "layer must be left out for a layer or a model, got 'g'"),
        ({"lengths": [1]}, r"lengths must be the name of a column, got \[1\]"),
        ({"columns": {"y": "frames"}}, r"columns must be a dict with the inputs \['x'\], got \['y'\]"),
        ({"columns": []}, "columns must name a column or more for each input, got "),
        ({"keep": [3]}, r"keep must be a name or a sequence of names, got \[3\]"),
    ],
)
def test_what_does_not_fit_is_said_when_it_is_made(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fastgru.Scorer(**{"model": layer("sequences"), **arguments})


def test_a_stateful_layer_is_refused():
    net = fastgru.GRU(3, stateful=True, batch_input_shape=(2, None, 3))
    net.build()
    with pytest.raises(ValueError, match="model must not be stateful"):
        fastgru.Scorer(net)


# ---- what does not fit in a batch --------------------------------------------------------------------

F4 = pyarrow.float32()
LISTS = pyarrow.list_(pyarrow.list_(F4))
ROW = [[1.0, 2.0, 3.0]]


def table(column, kind=LISTS):
    return pyarrow.table({"frames": pyarrow.array(column, kind)})


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (table([ROW, None]), "column 'frames' must have a list in each row, got None in row 1"),
        (table([ROW, [ROW[0], None]]), "column 'frames' must have a list in each row, got None in row 1"),
        (
            table([ROW, [[1.0, None, 2.0]]]),
            "column 'frames' must have numbers alone in each row, got None in row 1",
        ),
        (
            table([ROW, [], [ROW[0], [1.0, 2.0]]]),
            "'frames' must have 3 numbers in each timestep, got 2 in row 2",
        ),
        (
            table([[1.0]], pyarrow.list_(F4)),
            "must hold lists of lists of numbers for the input 'x', got lists of numbers",
        ),
        (table([1.0], F4), "must hold lists of lists of numbers for the input 'x', got numbers"),
        (table([None], F4), "column 'frames' must have a number in each row, got None in row 0"),
        (table(["a"], pyarrow.string()), "column 'frames' must hold numbers or lists of them, got string"),
        (
            table([[[1, 2, 3]]], pyarrow.list_(pyarrow.list_(pyarrow.int64()))),
            "must hold floats for .*, got integers",
        ),
        (
            {"frames": np.zeros((2, 4, 5), "f4")},
            r"'frames' must have rows of the shape \(timesteps, 3\), got \(4, 5\)",
        ),
        ({"frames": np.zeros((2, 3), "f4")}, r"must have rows of the shape \(timesteps, 3\), got \(3,\)"),
        (
            {"frames": np.zeros((2, 4, 3), int)},
            "column 'frames' must hold floats for the input 'x', got integers",
        ),
        (
            {"frames": [np.zeros((2, 3), "f4"), None]},
            "must have an array or a list in each row, got None in row 1",
        ),
        ({"frames": [np.zeros((2, 3), "f4"), np.zeros((2, 4), "f4")]}, r"got \(2, 4\) in row 1"),
        ({"a": 1, "b": 2}, r"columns must name those of the inputs \['x'\], of the columns \['a', 'b'\]"),
        (
            [np.zeros((2, 4), "f4")],
            r"column 'batch' must have rows of the shape \(timesteps, 3\), got \(2, 4\) in row 0",
        ),
        ([{"x": ROW}, {"y": ROW}], r"batch must have rows of the same columns \['x'\], got \['y'\] in 1"),
        (3, "batch must be an array, an iterable of rows, a dict of columns or a table, got 3 of type int"),
    ],
)
def test_what_does_not_fit_in_a_batch_is_said(batch, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fastgru.Scorer(layer("sequences"))(batch)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"columns": "voice"},
            r"columns must be among \['frames', 'steps', 'output'\], got 'voice' for the input 'x'",
        ),
        ({"lengths": "n"}, r"lengths must be one of the columns \['frames', 'steps', 'output'\], got 'n'"),
        ({"lengths": "steps"}, "lengths must be left out for a column of lists, .*, got 'steps'"),
        ({"lengths": "output"}, "lengths must be left out for a column of lists"),
        ({"keep": "id"}, "keep must have names of the columns .*, got 'id'"),
        ({"keep": "output"}, "keep must have no name of an output, got 'output': rename the column"),
    ],
)
def test_wrong_columns_are_said(arguments, message):
    batch = table([ROW]).append_column("steps", [[1]]).append_column("output", [[1.5]])
    with pytest.raises(ValueError, match=message):
        fastgru.Scorer(layer("sequences"), **{"columns": "frames", **arguments})(batch)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([1, None], "column 'n' must have a length in each row, got None in row 1"),
        ([1.0, 2.0], "column 'n' must have integers, the lengths of rows, got float64"),
        ([1, 5], "lengths must lie between 0 and the 4 timesteps, got 1 to 5"),
        ([-1, 2], "lengths must lie between 0 and the 4 timesteps, got -1 to 2"),
    ],
)
def test_wrong_lengths_are_said(steps, message):
    dense = pyarrow.list_(pyarrow.list_(F4, FEATURES), 4)
    batch = pyarrow.table({"x": pyarrow.array([[[0.0] * FEATURES] * 4] * 2, dense), "n": steps})
    with pytest.raises((ValueError, TypeError), match=message):
        fastgru.Scorer(layer("sequences"), lengths="n")(batch)


def test_an_empty_sequence_of_a_network_that_needs_steps_is_said():
    with pytest.raises(
        ValueError, match="column 'batch' must have a timestep or more in each row, got 0 in row 1"
    ):
        fastgru.Scorer(model("pooled"))([np.zeros((2, FEATURES), "f4"), np.zeros((0, FEATURES), "f4")])


def test_an_empty_part_of_any_form_has_the_types_of_others(x):
    import pandas

    scorer = fastgru.Scorer(layer("sequences"))
    full = table([ROW, []])
    assert scorer(full.slice(0, 0)).schema == scorer(full).schema
    frame = full.to_pandas(types_mapper=pandas.ArrowDtype)
    assert (scorer(frame.iloc[:0]).dtypes == scorer(frame).dtypes).all()
    assert scorer(x[:0]).shape == (0, 4, 5)
    assert scorer([]) == []
    assert scorer({"x": x[:0]})["output"].shape == (0, 4, 5)


def test_parts_of_a_larger_table_are_read_as_they_are():
    scorer, rows = fastgru.Scorer(layer("sequences")), [ROW * n for n in (1, 3, 0, 2)]
    whole = scorer(table(rows))["output"].to_pylist()
    found = [cell for i in range(4) for cell in scorer(table(rows).slice(i, 1))["output"].to_pylist()]
    assert found == whole
    large = pyarrow.large_list(pyarrow.large_list(F4))
    assert scorer(table(rows, large))["output"].to_pylist() == whole
