"""Spectrograms, one above the other on the same scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from audio import Floats
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

WINDOW = 512  # samples: 32 ms at 16 kHz, enough to tell the harmonics of a voice apart
STEP = 64
RANGE = -80.0, -20.0  # dB


def power_spectrogram(signal: Floats) -> Floats:
    """Power in each bin and window, dB, a sine of full scale at 0 dB; shape (bins, windows).

    Parameters
    ----------
    signal : ndarray, shape (samples,)
    """
    window = np.hanning(WINDOW + 1)[:-1]
    padded = np.pad(signal, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::STEP]
    magnitude = np.abs(np.fft.rfft(frames * window)) * 2 / window.sum()
    return 20 * np.log10(np.maximum(magnitude, 1e-10)).T


def draw(path: Path, signals: dict[str, Floats], rate: int) -> None:
    """Write a PNG with a spectrogram for each title and signal.

    Parameters
    ----------
    signals : dict of str to ndarray, shape (samples,)
    rate : int
        Hz.
    """
    figure = Figure(figsize=(11, 7), dpi=120, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    axes = figure.subplots(len(signals), sharex=True)
    for axis, (title, signal) in zip(axes, signals.items(), strict=True):
        image = axis.imshow(
            power_spectrogram(signal),
            origin="lower",
            aspect="auto",
            extent=(0, len(signal) / rate, 0, rate / 2000),
            cmap="magma",
            vmin=RANGE[0],
            vmax=RANGE[1],
        )
        axis.set_title(title, loc="left", fontsize=14)
        axis.set_ylabel("Frequency, kHz", fontsize=12)
        axis.tick_params(labelsize=11)
    axes[-1].set_xlabel("Time, s", fontsize=12)
    axes[-1].xaxis.set_major_locator(MaxNLocator(12, steps=[1, 2, 5, 10]))
    bar = figure.colorbar(image, ax=axes, extend="both", pad=0.015, aspect=40)
    bar.set_label("Power, dB re full scale", fontsize=12)
    bar.ax.tick_params(labelsize=11)
    figure.savefig(path)
