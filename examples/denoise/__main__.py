"""Denoise speech with NSNet2 on fastgru, 10 ms at a time as a phone call would be.

    python examples/denoise                        the shipped recording in pink noise -> demo-output/
    python examples/denoise my.wav -o clean.wav    any other recording

Exit status: 0 done, 1 something needed is missing or wrong, 2 a file cannot be read or written.
"""

from __future__ import annotations

import os

# A phone call has one core to itself at best, and the peer below is given one thread as well. The
# libraries read these once, when they are loaded: hence before the imports.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("VECLIB_MAXIMUM_THREADS", "1")

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent


def fail(status: int, message: object) -> NoReturn:
    """Say one line on stderr and end."""
    print(f"denoise: {message}", file=sys.stderr)
    raise SystemExit(status)


def fail_missing(package: ModuleNotFoundError) -> NoReturn:
    command = f"python -m pip install {HERE.parents[1]} -r {HERE / 'requirements.txt'}"
    fail(1, f"{package.name} is not installed: {command}")


try:
    import audio
    import numpy as np
    from nsnet2 import Denoiser, ModelError, NSNet2, model_file
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
except ModuleNotFoundError as package:
    fail_missing(package)

RECORDING = HERE / "data" / "jfk.wav"
OUTPUT = Path("demo-output")
SNR = 5.0  # dB
SEED = 0
BUDGET = 1e3 * audio.HOP / audio.RATE  # ms per frame
LIMIT = 1e-4  # of the difference from onnxruntime, in gains
BLOCK = 200  # frames; long enough that the first one, with the other's weights in the caches, is rare


class Call:
    """A signal on its way through a denoiser; iterating denoises it frame by frame.

    Parameters
    ----------
    denoiser : Denoiser
    noisy : ndarray of float32, shape (channels, samples)

    Attributes
    ----------
    milliseconds : ndarray, shape (frames,)
        Time each frame took, from a hop of samples to a hop of samples.
    """

    def __init__(self, denoiser: Denoiser, noisy: audio.Floats) -> None:
        self.denoiser = denoiser
        self._length = noisy.shape[1]
        self._noisy = audio.split(noisy)
        self._clean = np.zeros_like(self._noisy)
        self.milliseconds = np.zeros(len(self._noisy))

    def __iter__(self) -> Iterator[int]:
        """Denoise a frame, then yield its index."""
        for frame, hop in enumerate(self._noisy):
            start = time.perf_counter_ns()
            self._clean[frame] = self.denoiser(hop)
            self.milliseconds[frame] = 1e-6 * (time.perf_counter_ns() - start)
            yield frame

    @property
    def clean(self) -> audio.Floats:
        """The denoised signal, shape (channels, samples), in time with the noisy one."""
        return audio.join(self._clean, self._length)


def progress_bar() -> Progress:
    """A bar on stderr, silent where nobody watches."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, quiet=not sys.stderr.isatty()),
        # A thread that redraws the bar would take the interpreter in the middle of a timed frame.
        auto_refresh=False,
    )


def print_times(rows: dict[str, audio.Floats]) -> None:
    """Table of milliseconds per frame, one row for each array of them."""
    print(f"{'ms per frame':<30}{'p50':>8}{'p99':>8}{'max':>8}{'real-time factor':>19}")
    for name, milliseconds in rows.items():
        p50, p99, worst = np.percentile(milliseconds, [50, 99, 100])
        print(f"  {name:<28}{p50:8.2f}{p99:8.2f}{worst:8.2f}{milliseconds.mean() / BUDGET:19.3f}")
    print(f"  {'budget':<28}{BUDGET:8.2f}{BUDGET:8.2f}{BUDGET:8.2f}{1:19.3f}")


def demo() -> None:
    """The shipped recording in pink noise: quality, time and exactness, beside onnxruntime."""
    import peer  # only here: another recording needs neither onnxruntime nor matplotlib
    import picture

    OUTPUT.mkdir(exist_ok=True)
    recording = audio.read_wav(RECORDING)
    speech = recording.samples
    noisy = audio.mix(speech, audio.pink_noise(speech.shape[1], SEED), SNR)
    model = model_file()

    ours = Call(Denoiser(NSNet2(model, 1), 1), noisy)
    theirs = Call(Denoiser(peer.OnnxRuntime(model, 1), 1), noisy)
    frames = len(ours.milliseconds)
    features, gains = np.empty((2, 1, frames, audio.BINS), np.float32)
    with progress_bar() as progress:
        bar = progress.add_task("denoising", total=frames)
        our_frames, their_frames = iter(ours), iter(theirs)
        # alternating, so that both meet the same noise
        for _ in range(0, frames, BLOCK):
            for frame in islice(our_frames, BLOCK):
                features[:, frame] = ours.denoiser.features
                gains[:, frame] = ours.denoiser.gains
            done = sum(1 for _ in islice(their_frames, BLOCK))
            progress.update(bar, advance=done, refresh=True)

    before, after = audio.si_sdr(speech, noisy), audio.si_sdr(speech, ours.clean)
    difference = np.abs(gains - peer.whole_file(model, features)).max()
    print(f"NSNet2 on fastgru: {frames} frames of {BUDGET:.0f} ms, one at a time, one thread\n")
    print(f"{'SI-SDR of the noisy speech':<36}{before:8.1f} dB")
    print(f"{'SI-SDR of the denoised speech':<36}{after:8.1f} dB")
    print(f"{'largest difference of a gain':<36}{difference:8.1e} from onnxruntime, limit {LIMIT:.0e}\n")
    print_times({"fastgru": ours.milliseconds, "onnxruntime, frame by frame": theirs.milliseconds})

    for name, signal in ("noisy.wav", noisy), ("denoised.wav", ours.clean):
        audio.write_wav(OUTPUT / name, recording._replace(samples=signal))
    panels = {
        f"Speech in pink noise: SI-SDR {before:.1f} dB": noisy[0],
        f"Denoised, frame by frame: SI-SDR {after:.1f} dB": ours.clean[0],
    }
    picture.draw(OUTPUT / "spectrograms.png", panels, audio.RATE)
    print(f"\nwritten to {OUTPUT}: noisy.wav, denoised.wav, spectrograms.png")
    if not difference < LIMIT:
        fail(1, f"the gains differ from onnxruntime by {difference:.1e}, limit {LIMIT:.0e}")


def denoise_file(source: Path, target: Path) -> None:
    """Denoise a WAV file; the result has its rate, channels, length and sample type."""
    recording = audio.read_wav(source)
    if recording.damaged:
        print(
            f"denoise: {source}: {recording.damaged} damaged samples (not finite, or beyond any scale) "
            "are taken as silence",
            file=sys.stderr,
        )
    channels, length = recording.samples.shape
    noisy = audio.resample(recording.samples, recording.rate, audio.RATE)

    call = Call(Denoiser(NSNet2(model_file(), channels), channels), noisy)
    frames = len(call.milliseconds)
    with progress_bar() as progress:
        bar = progress.add_task("denoising", total=frames)
        for frame in call:
            if frame % BLOCK == 0 or frame == frames - 1:
                progress.update(bar, completed=frame + 1, refresh=True)

    clean = audio.resample(call.clean, audio.RATE, recording.rate)[:, :length]
    audio.write_wav(target, recording._replace(samples=clean))
    print_times({"fastgru": call.milliseconds})
    print(f"\nwritten to {target}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python examples/denoise",
        description="Remove the noise from recorded speech with NSNet2 on fastgru, frame by "
        f"frame. Without arguments: the shipped recording, in pink noise, into {OUTPUT}/, with figures.",
        epilog="A result has the rate, channels, length and sample type of its recording; 24-bit samples "
        "become 32-bit. What lies above 8 kHz is lost: the model hears 16 kHz.",
    )
    parser.add_argument(
        "wav", type=Path, nargs="?", help="recording: integer or float PCM, any rate and channels"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="WAV",
        help="result (default: <name>-clean.wav in the current folder)",
    )
    options = parser.parse_args(arguments)
    try:
        if options.wav:
            denoise_file(options.wav, options.output or Path(f"{options.wav.stem}-clean.wav"))
        elif options.output:
            fail(2, "-o needs a recording to denoise")
        else:
            demo()
    except audio.WavError as error:
        fail(2, error)
    except OSError as error:
        fail(2, f"{error.filename}: {error.strerror}" if error.filename else error)
    except ModelError as error:
        fail(1, error)
    except ModuleNotFoundError as package:
        fail_missing(package)
    except KeyboardInterrupt:
        fail(130, "interrupted")


if __name__ == "__main__":
    main()
