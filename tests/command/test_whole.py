"""The commands with --whole, on a model of fastgru's own."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import fastgru
from fastgru._nodes import Dense, Embedding, Merge, Pool, Recurrent
from fastgru.cli._commands import fastgru as command
from fastgru.model import Input, Model, Output

RNG = np.random.default_rng(0)


@pytest.fixture
def saved(tmp_path):
    """A function from the kind of a model to the path of its file."""

    def make(kind="frames"):
        def numbers(*shape):
            return RNG.normal(size=shape).astype("f4")

        layer = fastgru.GRU(4, return_sequences=True, name="g")
        layer.build((None, None, 3))
        first = [Embedding(name="e", inputs=("x",), outputs=("e",), table=numbers(9, 3))]
        nodes = first if kind == "indices" else []
        nodes.append(Recurrent(name="g", inputs=("e" if nodes else "x",), outputs=("g",), layer=layer))
        if kind == "pooled":
            nodes.append(Pool(name="p", inputs=("g",), outputs=("p",), largest=True))
        last = nodes[-1].outputs
        nodes.append(Dense(name="d", inputs=last, outputs=("y",), kernel=numbers(4, 2), activation="relu"))
        one = Input("x", (None,), True) if kind == "indices" else Input("x", (None, 3))
        several = kind == "several"
        if several:
            nodes.append(Dense(name="v", inputs=("b",), outputs=("v",), kernel=numbers(5, 4)))
            nodes.append(Merge(name="m", inputs=("g", "v"), outputs=("m",), mode="sum"))
        inputs = [one, Input("b", (5,))] if several else [one]
        outputs = ["y", "m"] if several else ["y"]
        path = tmp_path / f"{kind}.npz"
        Model(inputs, nodes, [Output(name) for name in outputs], name="whole").save(path)
        return path

    return make


def call(*arguments, status=0):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result


def test_inspect_lists_the_nodes(saved):
    text = " ".join(call("inspect", "--whole", "--measure", saved()).output.split())  # titles are wrapped
    for word in ("Dense", "GRU", "(None, 4)", "whole, float32", "a step takes"):
        assert word in text
    assert "a call of one row takes" in call("inspect", "--whole", "--measure", saved("pooled")).output


@pytest.mark.parametrize("kind", ["frames", "indices", "pooled"])
def test_run_writes_what_the_model_computes(saved, kind, tmp_path):
    path = saved(kind)
    x = RNG.integers(0, 9, (7, 5)) if kind == "indices" else RNG.normal(size=(7, 5, 3)).astype("f4")
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "y.npy"
    lengths = np.array([1, 2, 3, 4, 5, 0, 2])
    np.save(tmp_path / "lengths.npy", lengths)
    model = fastgru.load_model(path)
    for batch in (1, 3, 100):
        call("run", "--whole", path, tmp_path / "x.npy", "-o", out, "--batch", batch)
        assert np.array_equal(np.load(out), model(x))
    call("run", "--whole", path, tmp_path / "x.npy", "-o", out, "--lengths", tmp_path / "lengths.npy")
    assert np.array_equal(np.load(out), model(x, lengths=lengths))


def test_options_of_layers_are_refused(saved, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 2, 3), "f4"))
    arguments = ["run", "--whole", saved(), tmp_path / "x.npy", "-o", tmp_path / "y.npy"]
    result = CliRunner().invoke(command, [*map(str, arguments), "--layer", "g"])
    assert "--layer must be left out with --whole, got g" in str(result.exception)
    assert not (tmp_path / "y.npy").exists()


def test_convert_writes_the_same_model(saved, tmp_path):
    path, out = saved(), tmp_path / "other.npz"
    assert "outputs are the same" in call("convert", "--whole", path, out).output
    x = RNG.normal(size=(2, 5, 3)).astype("f4")
    assert np.array_equal(fastgru.load_model(out)(x), fastgru.load_model(path)(x))
    with np.load(out) as file:
        assert json.loads(file["fastgru"].tobytes())["class_name"] == "Model"


@pytest.mark.parametrize("kind", ["frames", "several"])
def test_bench_measures_a_step_and_calls(saved, kind):
    text = call("bench", "--whole", saved(kind), "--batch", "1,4", "--seconds", "0").output
    assert text.count("a call") == 2
    assert text.count("a step") == 1


@pytest.fixture
def exported(tmp_path):
    """A layer of fastgru in a file of ONNX."""
    import onnx

    layer = fastgru.GRU(4, recurrent_activation="sigmoid", return_sequences=True, name="g")
    layer.build((None, None, 3))
    path = tmp_path / "model.onnx"
    onnx.save(layer.to_onnx(), path)
    return path


def test_compare_finds_the_model_equal_in_its_own_runtime(exported):
    text = call("compare", "--whole", exported).output
    assert "onnxruntime, 8 trials" in text
    assert "equal" in text


def test_compare_finds_another_network(exported, monkeypatch):
    other = fastgru.load_model(exported)
    other.nodes[0].layer.set_weights([1.1 * one for one in other.nodes[0].layer.get_weights()])
    changed = Model(other.inputs, other.nodes, other.output_values)
    monkeypatch.setattr(fastgru, "load_model", lambda path: changed)
    result = CliRunner().invoke(command, ["compare", "--whole", str(exported)], standalone_mode=False)
    assert "DIFFERENT" in result.output
    assert result.return_value == 1


def test_compare_says_which_files_have_a_runtime(saved, exported):
    for arguments, message in (
        ([saved()], "files of Keras and ONNX, got a file of 'fastgru'"),
        ([exported, "--against", "torch"], "must be onnxruntime"),
    ):
        assert message in str(call("compare", "--whole", *arguments, status=1).exception)


@pytest.mark.parametrize("kind", ["frames", "indices", "pooled"])
def test_a_network_is_quantized(saved, kind, tmp_path):
    path, x = saved(kind), tmp_path / "x.npy"
    frames = RNG.integers(0, 9, (3, 40)) if kind == "indices" else RNG.normal(size=(3, 40, 3)).astype("f4")
    np.save(x, frames)
    np.save(tmp_path / "l.npy", np.array([40, 30, 20]))
    out = str(tmp_path / "small.npz")
    arguments = ["--calibration", str(x), "--lengths", str(tmp_path / "l.npy"), "-o", out]
    done = CliRunner().invoke(command, ["quantize", str(path), "--whole", *arguments])
    assert done.exit_code == 0, done.output
    wanted, report = fastgru.quantize(fastgru.load_model(path), frames, lengths=[40, 30, 20])
    assert done.stdout == f"{report}\n"
    found = fastgru.load_model(out)
    assert found.weights_dtype == "int8"
    assert np.array_equal(found(frames), wanted(frames))


def test_a_network_has_no_layer_to_quantize(saved, tmp_path):
    arguments = ["--layer", "g", "-o", str(tmp_path / "small.npz")]
    done = CliRunner().invoke(command, ["quantize", str(saved()), "--whole", *arguments])
    assert done.exit_code
    assert "--layer must be left out with --whole, got 'g'" in str(done.exception) + done.output
