"""Errors of the denoiser's layers with int8 weights: python -m benchmarks.int8_denoiser

The network and the recording are those of examples/denoise. It is calibrated on the recording played
backwards, in other noise. Differences are from float32 weights: root mean square, and the largest.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import fastgru
from fastgru.model import Input, Model, Output

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "denoise"
sys.path.append(str(EXAMPLE))
import audio  # noqa: E402
import nsnet2  # noqa: E402

SNR, OTHER_SNR, SEED, OTHER_SEED = 5.0, 0.0, 0, 7  # of the demo, and of what calibrates


def denoised(path: Path, layers: dict[str, Any], signal: Any) -> tuple[Any, Any, Any]:
    """The clean signal, the gains, and what the first layer reads, of the network with these layers."""
    before, behind = dense_parts(path)

    class Network:
        """The network with these layers between its dense ones."""

        def step(self, features: Any) -> Any:
            """The gains of a frame."""
            x = before(features[:, np.newaxis])
            for layer in layers.values():
                x = layer(x)[:, np.newaxis]
            return behind(x)[:, 0]

    denoiser = nsnet2.Denoiser(Network(), 1)
    hops = audio.split(signal)
    clean, gains, inputs = np.zeros_like(hops), [], []
    for i, hop in enumerate(hops):
        clean[i] = denoiser(hop)
        gains.append(denoiser.gains.copy())
        inputs.append(before(denoiser.features[:, np.newaxis])[:, 0])
    return audio.join(clean, signal.shape[1]), np.array(gains), np.array(inputs).swapaxes(0, 1)


def dense_parts(path: Path) -> tuple[Model, Model]:
    """What lies before and behind the GRU layers of the file, as models of their own."""
    model = fastgru.load_model(path)
    first, *_ = model.nodes
    last = model.nodes[3:]
    widths = first.weights["kernel"].shape[0], last[0].weights["kernel"].shape[0]
    return tuple(
        Model([Input(nodes[0].inputs[0], (None, width))], nodes, [Output(nodes[-1].outputs[0])])
        for nodes, width in zip(([first], last), widths, strict=True)
    )


def error(found: Any, wanted: Any) -> str:
    """Root mean square and largest of a difference."""
    difference = found.astype(np.float64) - wanted
    return f"{np.sqrt(np.mean(difference**2)):.1e}, {np.abs(difference).max():.1e}"


def main() -> None:
    """Print a row of a table for each kind of weights."""
    path = nsnet2.model_file()
    speech = audio.read_wav(EXAMPLE / "data" / "jfk.wav").samples
    noisy = audio.mix(speech, audio.pink_noise(speech.shape[1], SEED), SNR)
    other = audio.mix(speech[:, ::-1].copy(), audio.pink_noise(speech.shape[1], OTHER_SEED), OTHER_SNR)

    def layers(weights: Any = None, **flags: Any) -> dict[str, Any]:
        dtype = None if weights is None else "int8"
        found = fastgru.load_all(path, time_major=False, weights_dtype=dtype, **flags)
        for layer, member in zip(found.values(), weights.layers if weights else (), strict=False):
            layer.set_weights(member.get_weights())
        return found

    def steps(weights: Any = None) -> dict[str, Any]:
        return layers(weights, stateful=True, return_sequences=False)

    clean, gains, inputs = denoised(path, steps(), noisy)
    calibration = denoised(path, steps(), other)[2]
    exact = fastgru.Stack(list(layers(return_sequences=True, stateful=False).values()))
    print(f"| float32 | | | | {audio.si_sdr(speech, clean):.3f} dB |")
    for name, given in (("int8", None), ("int8, calibrated", calibration)):
        small, _ = fastgru.quantize(exact, given)
        x = y = inputs
        errors = []
        for ours, theirs in zip(small.layers, exact.layers, strict=True):
            x, y = ours(x), theirs(y)
            errors.append(error(x, y))
        clean, found, _ = denoised(path, steps(small), noisy)
        errors.append(error(found, gains))
        print(f"| {name} | {' | '.join(errors)} | {audio.si_sdr(speech, clean):.3f} dB |")


if __name__ == "__main__":
    main()
