"""Models in fastgru's own files: all of a model comes back, and files that are none are refused by name."""

import dataclasses
import io
import json
import re

import numpy as np
import pytest

import fastgru
from fastgru._nodes import KINDS, Clip, Convolution, Dense, Embedding, Node, Recurrent, Repeat
from fastgru.model import Input, Model, Output

RNG = np.random.default_rng(0)


def numbers(*shape):
    return RNG.normal(size=shape).astype("f4")


def model():
    """Of an input of indices, with a node of each sort of field."""
    layer = fastgru.GRU(4, return_sequences=True, name="g", activation=fastgru.activations.LeakyReLU(0.1))
    layer.build((None, None, 3))
    nodes = [
        Embedding(name="e", inputs=("x",), outputs=("e",), table=numbers(9, 3), mask_zero=True),
        Recurrent(name="g", inputs=("e",), outputs=("g",), layer=layer),
        Convolution(
            name="c",
            inputs=("g",),
            outputs=("c",),
            kernel=numbers(2, 4, 5),
            bias=numbers(5),
            padding="causal",
            activation=fastgru.activations.ELU(0.5),
        ),
        Dense(name="d", inputs=("c",), outputs=("d",), kernel=numbers(5, 2), activation="softmax"),
        Clip(name="k", inputs=("d",), outputs=("k",), least=0.25, most=float("inf"), passes_mask=False),
    ]
    return Model([Input("x", (None,), True)], nodes, [Output("k"), Output("g", "tbf")], name="whole")


def saved(one):
    file = io.BytesIO()
    one.save(file)
    return file.getvalue()


def changed(data, change=lambda header, arrays: None):
    """The file with another header, or other arrays."""
    with np.load(io.BytesIO(data)) as file:
        arrays = dict(file)
    header = json.loads(arrays.pop("fastgru").tobytes())
    change(header, arrays)
    file = io.BytesIO()
    np.savez(file, fastgru=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    return file.getvalue()


def test_all_of_a_model_comes_back():
    ours = model()
    data = saved(ours)
    theirs = fastgru.load_model(data)
    assert saved(theirs) == data
    assert (theirs.inputs, theirs.output_values, theirs.name) == (ours.inputs, ours.output_values, "whole")
    x = RNG.integers(0, 9, (3, 7))
    for one, two in zip(ours(x), theirs(x), strict=True):
        assert np.array_equal(one, two)
    assert fastgru.load_model(data, weights_dtype="int8").weights_dtype == "int8"
    assert fastgru.load_model(saved(fastgru.load_model(data, "int8"))).weights_dtype == "int8"
    with pytest.raises(ValueError, match=r"^weights_dtype must be None, 'float16' or 'int8', got 'int4'"):
        fastgru.load_model(data, weights_dtype="int4")


def test_every_field_of_every_node_has_a_type_that_files_have():
    plain = {str, bool, int, float, "array", "any"}
    for kind in KINDS.values():
        assert issubclass(kind, Node)
        for field in dataclasses.fields(kind):
            text = str(field.type)
            found = (
                "array" if "ndarray" in text
                else "any" if "Any" in text
                else str if "tuple" in text
                else field.type
            )  # fmt: skip
            assert found in plain, (kind, field.name, field.type)


def test_a_layer_is_no_model_and_a_model_no_layer():
    layer = fastgru.GRU(2)
    layer.build((None, None, 3))
    with pytest.raises(fastgru.FormatError, match="the class must be one of Model, got 'GRU'"):
        fastgru.load_model(saved(layer))
    with pytest.raises(fastgru.FormatError, match=r"got 'Model', a whole model: fastgru.load_model reads it"):
        fastgru.load(saved(model()))


def node(number, **fields):
    return lambda h, a: h["config"]["nodes"][number]["config"].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, a: h["config"].pop("nodes"), "the model must have the field 'nodes'"),
        (lambda h, a: h["config"].update(more=1), "the model has no field 'more'"),
        (lambda h, a: h["config"].update(name=3), "the name of the model must be of type str, got 3"),
        (lambda h, a: h["config"].update(dtype="float16"), "dtype must be float32 or float64, got float16"),
        (lambda h, a: h["config"].update(dtype="int8"), "dtype must be one of"),
        (lambda h, a: h["config"].update(weights_dtype="int4"), "weights_dtype must be None or one of"),
        (lambda h, a: h["config"].update(states=[["a"]]), "the states of the model must be 2 values, got 1"),
        (lambda h, a: h["config"]["inputs"][0].update(shape=[2**40]), "shape of an input must lie between"),
        (lambda h, a: h["config"]["inputs"][0].update(shape=[-1]), "must be a positive integer, got -1"),
        (lambda h, a: h["config"]["inputs"][0].update(shape=[True]), "must be of type int, got True"),
        (lambda h, a: h["config"]["inputs"][0].update(layout="bxt"), "must have a layout of the axes of"),
        (lambda h, a: h["config"]["inputs"][0].update(indices=1), "an input must be of type bool, got 1"),
        (lambda h, a: h["config"]["outputs"][0].update(name="z"), "output 'z' is written by no node"),
        (lambda h, a: h["config"]["outputs"][0].update(name="x"), "must be numbers, got the indices"),
        (lambda h, a: h["config"]["outputs"][0].update(layout="bf"), "must have a layout of the axes of"),
        (lambda h, a: h["config"].update(nodes=[7]), "node 0 must be an object, got 7"),
        (lambda h, a: h["config"]["nodes"][0].update(class_name="LSTM"), "node 0 must be one of Activation,"),
        (lambda h, a: h["config"]["nodes"][0].update(class_name=[]), "the class_name of node"),
        (node(0, mask_zero="yes"), "the Embedding 'e', must be of type bool, got 'yes'"),
        (node(0, table=[[1.0]]), "must have table as an array of its own, got it in the header"),
        (node(0, inputs="x"), "must be a list, got 'x'"),
        (node(0, inputs=["d"]), "Embedding 'e' reads 'd', which no node before it writes"),
        (node(1, layer=None), "the layer of node 1, the Recurrent 'g', must be an object, got None"),
        (node(1, layer={"class_name": "Stack", "config": {}}), "must be a GRU or a Bidirectional"),
        (node(2, strides=0), "Convolution 'c' must have strides of 1 or more, got 0"),
        (node(2, dilation=2**31), "dilation of node 2, the Convolution 'c', must lie between"),
        (node(2, dilation=1.5), "the Convolution 'c', must be of type int, got 1.5"),
        (node(2, padding="full"), "Convolution 'c' must have a padding among"),
        (node(2, activation="none of them"), "Unknown activation"),
        (node(2, activation={"class_name": "ELU", "config": {"alpha": np.nan}}), "must be finite, got nan"),
        (node(3, kernel=None, name="d", more=2), "node 3, the Dense 'd', has no field 'more'"),
        (node(4, least=float("nan")), "the least of node 4, the Clip 'k', must be finite, got nan"),
        (node(4, least="0"), "must be of type float, got '0'"),
        (lambda h, a: h["config"]["nodes"][4]["config"].pop("most"), "must have the field 'most'"),
        (lambda h, a: a.pop("3.kernel"), "the member 3.kernel.npy is missing"),
        (lambda h, a: a.update({"3.kernel": a["3.kernel"][:4]}), "'d' must have a kernel (5, 2), got"),
        (lambda h, a: a.update({"3.kernel": a["3.kernel"].astype("i4")}), "3.kernel.npy must be of float16,"),
        (lambda h, a: a.update({"3.kernel": a["3.kernel"] * np.inf}), "3.kernel.npy must be finite"),
        (lambda h, a: a.pop("1.layer.0"), "a GRU has kernel, recurrent_kernel and bias"),
        (lambda h, a: a.update({"2.bias": numbers(6)}), "Convolution 'c' must have a bias (5,), got (6,)"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_model_is_refused(change, message):
    with pytest.raises(fastgru.FormatError, match=re.escape(message)):
        fastgru.load_model(changed(saved(model()), change))


def test_a_model_of_very_many_nodes_is_refused_before_they_are_connected():
    def many(header, arrays):
        config = {"name": "m", "inputs": ["d"] * 10_001, "outputs": ["m"], "mode": "sum"}
        header["config"]["nodes"].append({"class_name": "Merge", "config": config})

    with pytest.raises(fastgru.FormatError, match="a network must have at most 10000 nodes"):
        fastgru.load_model(changed(saved(model()), many))


def test_sizes_that_memory_cannot_hold_are_refused_by_the_call():
    once = Repeat(name="r", inputs=("x",), outputs=("y",), times=2**31 - 1)
    huge = Model([Input("x", (2**31 - 1,))], [once], [Output("y")])
    with pytest.raises((MemoryError, ValueError)):
        fastgru.load_model(saved(huge))(np.broadcast_to(np.float32(0), (4, 2**31 - 1)))
    far = Convolution(
        name="c", inputs=("x",), outputs=("y",), kernel=numbers(2, 3, 2), padding="causal", dilation=2**31 - 1
    )
    with pytest.raises((MemoryError, ValueError)):
        Model([Input("x", (None, 3))], [far], [Output("y")]).stream(2**28)
