"""Sound in, sound out: WAV files, resampling, short-time Fourier frames, noise, quality.

A signal is a float32 array of shape (channels, samples), full scale 1.0. Rates are in Hz.
"""

from __future__ import annotations

import warnings
from math import gcd
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.io import wavfile

Floats = npt.NDArray[np.floating]

RATE = 16_000  # Hz
HOP = 160  # samples: 10 ms
WINDOW = 320  # samples: 20 ms
BINS = WINDOW // 2 + 1

RATES = range(100, 1_000_001)  # Hz; a rate outside comes from a damaged header
LOUDEST = 1e6  # 120 dB above full scale; a sample beyond is no sound


class WavError(Exception):
    """A file that cannot be read as a WAV; the message is one line and names the file."""


class Recording(NamedTuple):
    """A WAV file in memory.

    Attributes
    ----------
    samples : ndarray of float32, shape (channels, samples)
    rate : int
        Samples per second of each channel, Hz.
    sample_type : dtype
        Of the file: uint8, int16, int32, float32 or float64.
    damaged : int
        Number of samples (NaN, infinite, absurdly large) that were replaced by silence.
    """

    samples: Floats
    rate: int
    sample_type: np.dtype
    damaged: int = 0


def read_wav(path: Path) -> Recording:
    """The recording in a WAV file: integer or IEEE float PCM, any number of channels.

    PCM of more than 16 bits, packed 24-bit included, has the sample type int32.

    Raises
    ------
    WavError
        If the file is empty, is no WAV, is damaged, or holds no samples.
    OSError
        If the file cannot be opened.
    """
    with path.open("rb") as file:
        if not file.read(1):
            raise WavError(f"{path}: the file is empty")
        file.seek(0)
        try:
            with warnings.catch_warnings():
                # Chunks other than sound (tags, cue points) and a cut last chunk are no reason to refuse.
                warnings.simplefilter("ignore", wavfile.WavFileWarning)
                rate, data = wavfile.read(file)
        except ValueError as error:
            raise WavError(f"{path}: not a readable WAV file: {error}") from error
        except Exception as error:  # a damaged header shows as anything from struct.error to NameError
            raise WavError(f"{path}: not a readable WAV file: damaged or cut short") from error
    if data.size == 0:
        raise WavError(f"{path}: the file holds no samples")
    if rate not in RATES:
        raise WavError(f"{path}: sample rate {rate} Hz is outside {RATES[0]} Hz to {RATES[-1]} Hz")

    with np.errstate(over="ignore"):  # float64 beyond the range of float32 becomes infinite: damaged
        samples = np.atleast_2d(data.T).astype(np.float32)
    if data.dtype.kind == "u":
        samples -= _full_scale(data.dtype)
    if data.dtype.kind in "iu":
        samples /= _full_scale(data.dtype)
    damaged = ~(np.abs(samples) <= LOUDEST)  # written so that NaN counts as damaged
    samples[damaged] = 0.0

    sample_type = data.dtype.newbyteorder("=")
    if sample_type.kind == "i" and sample_type.itemsize > 2:
        sample_type = np.dtype(np.int32)
    return Recording(samples, rate, sample_type, int(damaged.sum()))


def write_wav(path: Path, recording: Recording) -> None:
    """Write a WAV file of the recording's rate, channels and sample type; integers saturate.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    samples, sample_type = recording.samples.T, recording.sample_type
    if sample_type.kind in "iu":
        limits = np.iinfo(sample_type)
        offset = _full_scale(sample_type) if sample_type.kind == "u" else 0.0
        samples = np.rint(samples * np.float64(_full_scale(sample_type)) + offset)
        samples = samples.clip(limits.min, limits.max)
    with path.open("wb") as file:
        wavfile.write(file, recording.rate, samples.astype(sample_type))


def _full_scale(sample_type: np.dtype) -> float:
    """The integer that stands for 1.0: half the range of the type."""
    return 2.0 ** (8 * sample_type.itemsize - 1)


def resample(samples: Floats, rate: int, new_rate: int) -> Floats:
    """The signal at another rate, without delay.

    Parameters
    ----------
    samples : ndarray, shape (channels, samples)
    rate, new_rate : int
        Hz. What lies above half of the lower one is lost.

    Returns
    -------
    ndarray of float32, shape (channels, ceil(samples * new_rate / rate))
    """
    if rate == new_rate:
        return samples
    from scipy.signal import resample_poly  # takes a second to load: only for those who need it

    common = gcd(rate, new_rate)
    resampled = resample_poly(samples, new_rate // common, rate // common, axis=1)
    return resampled.astype(np.float32, copy=False)


def split(samples: Floats) -> Floats:
    """The signal cut into hops, with silence to its end and one hop beyond.

    That hop pushes the last samples through the overlap-add of `Frames`, which answers one hop late.

    Parameters
    ----------
    samples : ndarray, shape (channels, samples)

    Returns
    -------
    ndarray of float32, shape (hops, channels, HOP)
    """
    channels, length = samples.shape
    count = -(-length // HOP) + 1
    padded = np.zeros((channels, count * HOP), np.float32)
    padded[:, :length] = samples
    return np.ascontiguousarray(padded.reshape(channels, count, HOP).swapaxes(0, 1))


def join(hops: Floats, length: int) -> Floats:
    """The signal of `length` samples whose `split` went through `Frames`, in time with it again.

    Parameters
    ----------
    hops : ndarray, shape (hops, channels, HOP)

    Returns
    -------
    ndarray of float32, shape (channels, length)
    """
    count, channels, _ = hops.shape
    return hops.swapaxes(0, 1).reshape(channels, count * HOP)[:, HOP : HOP + length]


# The square root of a periodic Hann window: its squares half a window apart sum to one.
TAPER = np.sin(np.pi * np.arange(WINDOW) / WINDOW).astype(np.float32)


def analyse(window: Floats) -> npt.NDArray[np.complexfloating]:
    """The spectrum, shape (channels, BINS), of 20 ms of sound, shape (channels, WINDOW)."""
    return np.fft.rfft(window * TAPER)


def synthesise(spectrum: npt.NDArray[np.complexfloating]) -> Floats:
    """The sound, shape (channels, WINDOW), of a spectrum, shape (channels, BINS).

    Of an untouched spectrum, its first half plus the second half of the window before is the signal.
    """
    window = np.fft.irfft(spectrum)
    window *= TAPER
    return window


class Frames:
    """Short-time Fourier analysis and synthesis of a stream, one hop in, one hop out.

    Windows of 20 ms, a hop of 10 ms: an untouched spectrum gives the input back, one hop (160 samples)
    late. The first window begins in the silence before the stream.

    Parameters
    ----------
    channels : int
    """

    def __init__(self, channels: int) -> None:
        self._latest = np.zeros((channels, WINDOW), np.float32)
        self._tail = np.zeros((channels, HOP), np.float32)

    def analyse(self, hop: Floats) -> npt.NDArray[np.complexfloating]:
        """The spectrum, shape (channels, BINS), of the last 20 ms, of which `hop` is the newer half.

        Parameters
        ----------
        hop : ndarray, shape (channels, HOP)
        """
        self._latest[:, :HOP] = self._latest[:, HOP:]
        self._latest[:, HOP:] = hop
        return analyse(self._latest)

    def synthesise(self, spectrum: npt.NDArray[np.complexfloating]) -> Floats:
        """The next hop of sound, shape (channels, HOP): this window's first half over the last one's second.

        Parameters
        ----------
        spectrum : ndarray, shape (channels, BINS)
        """
        window = synthesise(spectrum)
        hop = window[:, :HOP] + self._tail
        self._tail[...] = window[:, HOP:]
        return hop


def pink_noise(samples: int, seed: int) -> Floats:
    """Gaussian noise whose power falls by 3 dB per octave (1/f), without a mean, of unit power.

    Returns
    -------
    ndarray of float32, shape (1, samples)
    """
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    spectrum[0] = 0.0
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    noise = np.fft.irfft(spectrum, samples)
    return (noise / noise.std())[np.newaxis].astype(np.float32)


def mix(speech: Floats, noise: Floats, snr: float) -> Floats:
    """Speech plus noise, the noise scaled to lie `snr` dB below the speech in mean power."""
    gain = np.sqrt(np.mean(np.square(speech)) / np.mean(np.square(noise)) / 10 ** (snr / 10))
    return speech + gain * noise


def si_sdr(reference: npt.ArrayLike, estimate: npt.ArrayLike) -> float:
    """Scale-invariant signal-to-distortion ratio of an estimate, dB.

    The power of the estimate's projection on the reference over the power of the rest, so that
    a gain or a sign of the whole signal makes no difference; infinite if there is no rest.

    References
    ----------
    Le Roux, Wisdom, Erdogan, Hershey: "SDR - half-baked or well done?", ICASSP 2019, arXiv:1811.02508.
    """
    reference = np.asarray(reference, np.float64).ravel()
    estimate = np.asarray(estimate, np.float64).ravel()
    target = (estimate @ reference) / (reference @ reference) * reference
    distortion = estimate - target
    with np.errstate(divide="ignore"):
        return float(10.0 * np.log10((target @ target) / (distortion @ distortion)))
