"""The command with any options: a known exit status, a message of one line, files whole or not at all."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import random
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from campaign.targets.target import Target

STATUSES = {0, 1, 2, 141}  # as fastgru.cli has them; nobody interrupts here
SLOW = {"bench", "compare", "completion"}  # measure, load other frameworks, start a shell
NAMES = [
    "gru",
    "stack",
    "first",
    "",
    "x" * 50,
    "ü",
    "-1",
    "0",
    "1",
    "2",
    "7",
    "1e9",
    "float16",
    "int8",
    "float32",
]


def prepare() -> Callable[[bytes], None]:
    """A function that runs a command, whose arguments are drawn from bytes."""
    import atheris
    import numpy as np

    import fastgru
    from fastgru.cli import _main
    from fastgru.cli._commands import fastgru as commands

    folder = Path(tempfile.mkdtemp())
    files = written(folder, fastgru, np)
    os.chdir(folder)
    options = {}
    for name, command in commands.commands.items():
        found = [option for parameter in command.params for option in parameter.opts]
        options[name] = [option for option in found if option.startswith("-")]
    names = [name for name in options if name not in SLOW]
    everything = sorted({*itertools.chain(*options.values()), "--debug", "--help", "--"})
    before = contents(folder)

    def drawn(bytes_: atheris.FuzzedDataProvider) -> list[str]:
        def value() -> str:
            match bytes_.ConsumeIntInRange(0, 9):
                case 0:
                    return bytes_.ConsumeUnicodeNoSurrogates(12).replace("\0", "")
                case 1:
                    return str(bytes_.PickValueInList(NAMES))
            return str(bytes_.PickValueInList(files))

        name = bytes_.PickValueInList(names)
        arguments = [name, value(), value()]
        if name in ("run", "quantize") and bytes_.ConsumeIntInRange(0, 5):
            arguments += ["-o", bytes_.PickValueInList(["out.npy", "out.npz", "out.onnx"])]
        for _ in range(bytes_.ConsumeIntInRange(0, 5)):
            option = bytes_.PickValueInList(options[name] or everything)
            if not bytes_.ConsumeIntInRange(0, 9):
                option = bytes_.PickValueInList(everything)
            arguments += [option, value()][: 1 if option == "--whole" else 2]
        return arguments

    def one(data: bytes) -> None:
        arguments = drawn(atheris.FuzzedDataProvider(data))
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            stdin, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(data))
            try:
                status = _main.run(arguments)
            finally:
                sys.stdin = stdin
        said = err.getvalue()
        assert status in STATUSES, (arguments, status, said)
        assert "please report it" not in said, (arguments, said)
        if "--debug" not in arguments:
            assert "Traceback" not in said, (arguments, said)
        if status == 2:
            assert said.startswith(("fastgru: ", "Usage: ")) or "--debug" in arguments, (arguments, said)
        after = contents(folder)
        for name in {name for name, _ in after.items() ^ before.items()}:
            check_output(folder / name, arguments, status)
            restore(folder / name, before.get(name))

    return one


def written(folder: Path, fastgru: object, np: object) -> list[str]:
    """Names of files that commands are given: models, sequences, damaged ones."""
    layer = fastgru.GRU(4, "tanh", "sigmoid", return_sequences=True, reset_after=True, name="gru")
    layer.build((None, None, 3))
    layer.save(folder / "gru.npz")
    both = fastgru.Bidirectional(fastgru.GRU(2))
    both.build((None, None, 3))
    both.save(folder / "both.npz")
    (folder / "gru.onnx").write_bytes(layer.to_onnx().SerializeToString())
    np.savez(folder / "torch.npz", **{f"v.{name}": a for name, a in layer.to_torch_state_dict().items()})
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("f4")
    for name, array in {
        "x.npy": x,
        "x64.npy": x.astype("f8"),
        "lengths.npy": np.array([5, 2]),
        "strings.npy": np.array(["a"]),
        "empty.npy": x[:0],
        "nan.npy": x * np.nan,
        "fortran.npy": np.asfortranarray(x),
    }.items():
        np.save(folder / name, array)
    np.savez(folder / "states.npz", np.ones((2, 4), "f4"))
    (folder / "damaged.npz").write_bytes((folder / "gru.npz").read_bytes()[:300])
    (folder / "text").write_text("text")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("x.npy")
    names = sorted(path.name for path in folder.iterdir())
    return [*names, "missing", "missing/out.npy", "-", "/dev/null", "."]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def restore(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def check_output(path: Path, arguments: list[str], status: int) -> None:
    """A file that a command has written is whole, and only a command that succeeds writes one."""
    import numpy as np

    import fastgru

    assert not re.match(r"\.[0-9a-f]{16}", path.name), (arguments, path.name)
    assert status == 0, (arguments, status, path.name)
    named = [*arguments, *("x.npy" for name in arguments if name == "link")]
    assert path.name in named, (arguments, path.name)
    if arguments[0] == "run":
        np.load(path, allow_pickle=False)
    elif "--whole" in arguments:
        fastgru.load_model(path)
    else:
        fastgru.load(path)


def seeds() -> dict[str, bytes]:
    return {f"seed-{i}": random.Random(i).randbytes(60) for i in range(100)}


MODULES = ("_commands", "_main", "_run", "_convert", "_quantize", "_inspect", "_whole", "_files", "_model")
TARGETS = {"options": Target(prepare, seeds, None, tuple(f"fastgru.cli.{name}" for name in MODULES))}
