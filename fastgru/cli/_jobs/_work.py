"""The folder of a job that is not finished: what is done of it survives its processes."""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BOOT = Path("/proc/sys/kernel/random/boot_id")  # is another one after each start of a Linux machine


class Work:
    """A folder beside the output, OUT.unfinished, that becomes the output when all parts are done.

    Parameters
    ----------
    output : Path
    replaces : bool
        True: a file that is at `output` is replaced in the end.

    Raises
    ------
    ValueError
        If the output exists.
    """

    def __init__(self, output: Path, replaces: bool) -> None:
        self.output = Path(os.path.realpath(output))
        if self.output.exists() and (self.output.is_dir() or not replaces):
            raise ValueError(f"OUT must not exist already, got {output}: remove it, or name another")
        self.folder = self.output.with_name(f"{self.output.name}.unfinished")
        self.data = self.folder / f"data{self.output.suffix}"

    @contextlib.contextmanager
    def opened(self, identity: dict[str, Any], durable: bool = False) -> Iterator[None]:
        """The folder, for this process alone.

        Parameters
        ----------
        identity : dict of str to object
            What the results depend on, as JSON has it.
        durable : bool
            True: what is done is on disk. False: the system may have it in memory, and all is done anew if
            the machine has been started since.

        Raises
        ------
        ValueError
            If the folder is another job's, or another process is at work in it.
        """
        if not self.output.parent.is_dir():
            raise FileNotFoundError(2, "No such file or directory", str(self.output.parent))
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            if not _locked(lock):
                raise ValueError(f"OUT must be of one process alone, but another is writing {self.output}")
            self._check(identity)
            boot, now = self.folder / "boot", BOOT.read_bytes() if BOOT.exists() else b""
            if not durable and boot.exists() and boot.read_bytes() != now:
                shutil.rmtree(self.folder / "done")
            put(boot, now)
            (self.folder / "done").mkdir(exist_ok=True)
            yield

    def _check(self, identity: dict[str, Any]) -> None:
        """Refuse the folder of another job; an empty one becomes this job's."""
        path = self.folder / "job.json"
        told = json.loads(json.dumps(identity))
        if not path.exists():
            if {found.name for found in self.folder.iterdir()} - {"lock"}:
                raise ValueError(f"{self.folder} must be a job's folder, and is another: remove it")
            put(path, json.dumps(told, indent=1).encode())
        begun = json.loads(path.read_bytes())
        wrong = [name for name in {**told, **begun} if told.get(name) != begun.get(name)]
        if wrong:
            raise ValueError(
                f"{self.folder} must be of the same job, and was begun with another {wrong[0]}: remove it to "
                "begin anew"
            )

    def done(self, number: Any) -> Path:
        """The file that says that a part is done."""
        return self.folder / "done" / str(number)

    def finish(self) -> None:
        """Put the output in its place, once it is on disk, and remove the folder."""
        for path in [*self.data.rglob("*")] if self.data.is_dir() else [self.data]:
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        self.data.replace(self.output)
        shutil.rmtree(self.folder, ignore_errors=True)


def put(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a file that is there whole or not at all; if it is durable, also after a crash of the machine."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    new.replace(path)


def _locked(file: io.TextIOBase) -> bool:
    """True if no other process has locked the file; always where files cannot be locked."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # not on this kind of disk
        return True
    return True
