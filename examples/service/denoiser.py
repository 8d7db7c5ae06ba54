"""NSNet2 for many calls at once, from samples to samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import audio
import numpy as np
import numpy.typing as npt
from nsnet2 import log_power

from fastgru import StreamPool, load_model

HOP = audio.HOP
PCM = np.dtype("<i2")  # samples as telephones send them; none can be NaN or infinite
FULL_SCALE = np.float32(32768)


class Denoiser:
    """Calls that are denoised side by side, each with a slot: its last sound and its states.

    Fourier transforms and the network run once for all rows of a batch. Sound comes out
    10 ms late, as from `nsnet2.Denoiser`. It belongs to one thread.

    Parameters
    ----------
    path : Path
        The model's ONNX file.
    capacity : int
        Calls at once.

    Attributes
    ----------
    frames : int
        Frames denoised so far, all calls together.
    """

    def __init__(self, path: Path, capacity: int) -> None:
        self.capacity = capacity
        self.frames = 0
        self._pool = StreamPool(load_model(path), capacity)
        self._heard = np.zeros((capacity, HOP), np.float32)  # the hop before this one
        self._tail = np.zeros((capacity, HOP), np.float32)  # of its window, to be added to the next
        self._free = list(range(capacity))
        self._rows: dict[int, int] = {}  # of the arrays above, by slot
        self._warm_up()

    def _warm_up(self) -> None:
        """The first batches load libraries and touch all memory: better now than when somebody speaks."""
        slots = [self.open() for _ in range(self.capacity)]
        for size in {1, self.capacity}:
            self.step(slots[:size], np.zeros((size, HOP), np.float32))
        for slot in slots:
            self.close(slot)
        self.frames = 0

    def __len__(self) -> int:
        """Number of open slots."""
        return len(self._rows)

    def open(self) -> int:
        """A slot for a new call, with silence before it.

        Raises
        ------
        ValueError
            If there are as many calls as the capacity.
        """
        slot = self._pool.open()
        row = self._rows[slot] = self._free.pop()
        self._heard[row] = self._tail[row] = 0.0
        return slot

    def close(self, slot: int) -> None:
        """Give up a slot.

        Raises
        ------
        ValueError
            If the slot is not open.
        """
        if slot not in self._rows:
            raise ValueError(f"slot must be open, got {slot}")
        self._free.append(self._rows.pop(slot))
        self._pool.close(slot)

    def step(self, slots: Sequence[int], x: npt.ArrayLike) -> npt.NDArray[np.int16]:
        """The next 10 ms of some calls.

        Parameters
        ----------
        slots : sequence of int, shape (n,)
        x : array_like of float32, shape (n, 160)
            Full scale 1.0.

        Returns
        -------
        ndarray of int16, shape (n, 160)
            PCM, rounded here for all calls at once.

        Raises
        ------
        ValueError
            If a slot is not open or comes twice, or `x` has another shape. All calls are then as they were.
        """
        x = np.asarray(x, np.float32)
        if x.shape != (len(slots), HOP):
            raise ValueError(f"x must have shape ({len(slots)}, {HOP}), got {x.shape}")
        if not self._rows.keys() >= set(slots):
            raise ValueError(f"slots must be open, got {slots}")
        rows = [self._rows[slot] for slot in slots]
        spectrum = audio.analyse(np.concatenate([self._heard[rows], x], axis=1))
        spectrum *= self._pool.step(slots, log_power(spectrum))
        window = audio.synthesise(spectrum)
        clean = window[:, :HOP] + self._tail[rows]
        self._heard[rows] = x
        self._tail[rows] = window[:, HOP:]
        self.frames += len(slots)
        clean *= FULL_SCALE
        np.rint(clean, out=clean)
        return clean.clip(-FULL_SCALE, FULL_SCALE - 1, out=clean).astype(PCM)
