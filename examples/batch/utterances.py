"""The job of all examples: NSNet2's gains for utterances of a recording in noise, of different lengths."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import parquet

import fastgru

DENOISE = Path(__file__).resolve().parents[1] / "denoise"
sys.path.append(
    str(DENOISE)
)  # the recording, the trained network and the functions for sound are that example's

import audio  # noqa: E402
import nsnet2  # noqa: E402

SNRS = (0, 5, 10, 15)  # dB
PAUSE = 10  # frames of 10 ms, at least
QUIET = 0.1  # of the loudest sample
FILES = 4
FRAMES = pyarrow.list_(pyarrow.list_(pyarrow.float32()))


def features(samples: audio.Floats) -> np.ndarray:
    """The network's input of a signal, shape (frames, 161)."""
    frames = audio.Frames(len(samples))
    return np.concatenate([nsnet2.log_power(frames.analyse(hop)) for hop in audio.split(samples)])


def utterances(samples: audio.Floats) -> list[audio.Floats]:
    """The parts of a signal between its pauses, shape (1, samples) each."""
    hops = samples[:, : samples.shape[1] // audio.HOP * audio.HOP].reshape(-1, audio.HOP)
    loud = np.flatnonzero(np.abs(hops).max(axis=1) > QUIET * np.abs(hops).max())
    between = np.split(loud, np.flatnonzero(np.diff(loud) > PAUSE) + 1)
    return [samples[:, part[0] * audio.HOP : (part[-1] + 1) * audio.HOP] for part in between]


def write(folder: Path) -> None:
    """The job's input: Parquet files of the columns `id`, and `input` with a list of frames in each row."""
    speech = audio.read_wav(DENOISE / "data" / "jfk.wav").samples
    rows = [
        features(audio.mix(part, audio.pink_noise(part.shape[1], seed), snr))
        for seed, snr in enumerate(SNRS)
        for part in utterances(speech)
    ]
    ids = np.arange(len(rows))
    for number, some in enumerate(np.array_split(ids, FILES)):
        frames = pyarrow.array([rows[place].tolist() for place in some], FRAMES)
        parquet.write_table(pyarrow.table({"id": some, "input": frames}), folder / f"part-{number}.parquet")


def job() -> tuple[Path, Path]:
    """A new folder with the job's input, and the network's file."""
    folder = Path(tempfile.mkdtemp(prefix="utterances-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write(folder)
    return folder, nsnet2.model_file()


def check(engine: str, folder: Path, model: Path, gains: Mapping[int, np.ndarray]) -> int:
    """Compare with the network called for each row alone, in this process; 1 if a bit differs."""
    net, table = fastgru.load_model(model), parquet.read_table(folder)
    rows = dict(zip(table["id"].to_pylist(), table["input"].to_pylist(), strict=True))
    same = rows.keys() == gains.keys() and all(
        np.array_equal(np.array(gains[i], np.float32), net(np.array([row], np.float32))[0])
        for i, row in rows.items()
    )
    lengths = [len(row) for row in rows.values()]
    print(
        f"{engine}: {len(rows)} utterances of {min(lengths)} to {max(lengths)} frames, the same bits: {same}"
    )
    return int(not same)
