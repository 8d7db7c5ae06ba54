"""A PyTorch denoiser on the shipped recording, before and after one line makes its GRUs run on fastgru."""

from __future__ import annotations

import sys
import time
from pathlib import Path

DENOISE = Path(__file__).resolve().parents[1] / "denoise"
sys.path.append(str(DENOISE))  # the published weights and the sound are that example's

import audio  # noqa: E402
import nsnet2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from model import NSNet2  # noqa: E402

import fastgru  # noqa: E402
import fastgru.torch  # noqa: E402

ROUNDS = 5  # passes over the recording with and without fastgru, which alternate
LIMIT = 1e-5  # of the difference of a gain, which lies between 0 and 1


def trained() -> NSNet2:
    """The network with its trained weights, out of the ONNX file that they are published in."""
    path = nsnet2.model_file()
    model = NSNet2()
    layers = [node.weights for node in fastgru.load_model(path).nodes if "kernel" in node.weights]
    for name, layer in zip(("fc1", "fc2", "fc3", "fc4"), layers, strict=True):
        weights = {"weight": torch.tensor(layer["kernel"].T), "bias": torch.tensor(layer["bias"])}
        getattr(model, name).load_state_dict(weights)
    for name, layer in zip(("gru1", "gru2"), fastgru.load_all(path).values(), strict=True):
        weights = {key: torch.tensor(array) for key, array in layer.to_torch_state_dict().items()}
        getattr(model, name).load_state_dict(weights)
    return model.eval()


def spectra(samples: audio.Floats) -> np.ndarray:
    """Spectra of a signal's frames, shape (frames, channels, 161)."""
    frames = audio.Frames(len(samples))
    return np.stack([frames.analyse(hop) for hop in audio.split(samples)])


def sound(values: np.ndarray, length: int) -> audio.Floats:
    """The signal of these spectra, shape (channels, length)."""
    frames = audio.Frames(values.shape[1])
    return audio.join(np.stack([frames.synthesise(value) for value in values]), length)


@torch.inference_mode()
def frame_by_frame(model: NSNet2, features: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Gains, and milliseconds per frame, as in a call: a frame is denoised when it has come."""
    gains, states = [], (None, None)
    start = time.perf_counter()
    for frame in features.split(1):
        gain, states = model(frame, states)
        gains.append(gain)
    return torch.cat(gains), 1e3 * (time.perf_counter() - start) / len(features)


@torch.inference_mode()
def whole(model: NSNet2, features: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The same for a whole recording in one call."""
    start = time.perf_counter()
    gains, _ = model(features)
    return gains, 1e3 * (time.perf_counter() - start) / len(features)


def main() -> int:
    """Run the comparison; 1 if the gains differ by more than `LIMIT`."""
    torch.set_num_threads(1)
    speech = audio.read_wav(DENOISE / "data" / "jfk.wav").samples
    noisy = audio.mix(speech, audio.pink_noise(speech.shape[1], 7), 5.0)
    spectrum = spectra(noisy)
    features = torch.from_numpy(nsnet2.log_power(spectrum))
    model = trained()

    times: dict[str, list[float]] = {}
    gains = {}
    for _ in range(ROUNDS):
        for way in (frame_by_frame, whole):
            gains["PyTorch"], before = way(model, features)
            with fastgru.torch.optimized(model):  # or, for good, fastgru.torch.optimize(model)
                way(model, features[:10])  # the first call packs the weights
                gains["fastgru"], after = way(model, features)
                report = fastgru.torch.report(model)
            for name, each in (("PyTorch", before), ("fastgru", after)):
                times.setdefault(f"{way.__name__} {name}", []).append(each)

    difference = (gains["PyTorch"] - gains["fastgru"]).abs().max().item()
    clean = sound(spectrum * gains["fastgru"].numpy(), speech.shape[1])
    print(f"NSNet2 in PyTorch {torch.__version__}, {len(features)} frames of 10 ms, one thread\n")
    print(f"{report}\n")
    print(f"{'SI-SDR of the noisy speech':<34}{audio.si_sdr(speech, noisy):8.1f} dB")
    print(f"{'SI-SDR of the denoised speech':<34}{audio.si_sdr(speech, clean):8.1f} dB")
    print(f"{'largest difference of a gain':<34}{difference:8.1e}, limit {LIMIT:.0e}\n")
    print(f"{'ms per frame, median of rounds':<34}{'PyTorch':>8}{'fastgru':>9}{'ratio':>7}")
    for way in (frame_by_frame, whole):
        before, after = (np.median(times[f"{way.__name__} {name}"]) for name in ("PyTorch", "fastgru"))
        print(f"  {way.__name__.replace('_', ' '):<32}{before:8.3f}{after:9.3f}{before / after:7.1f}")
    return int(difference > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
