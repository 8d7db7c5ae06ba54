"""Starts the process that reads an HDF5 file, also where `sys.executable` is not Python.

That is so in frozen programs (PyInstaller, cx_Freeze), uWSGI, and programs that embed Python: to start it
would start the user's program again. A Python beside its libraries is taken instead, or this process forks.
"""

import contextlib
import importlib
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

PROGRAM = Path(__file__).with_name("_hdf5_process.py")
SWITCH = "FASTGRU_HDF5"  # "here": read in this process
NAME = re.compile(r"(python|pypy)[0-9.]*[a-z]?(\.exe)?", re.I)  # python3.13t, pythonw.exe


class Process(NamedTuple):
    """A process, or a thread, that reads one file.

    Attributes
    ----------
    requests, answers : file-like
        Its standard input and output.
    kill : callable
        Ends it.
    close : callable
        Ends it, waits until it has, and closes both files.
    """

    requests: IO[bytes]
    answers: IO[bytes]
    kill: Callable[[], None]
    close: Callable[[], None]


def started(seconds: int, limit: int, size: int) -> Process:
    """A process that reads a file; the arguments are those of its program.

    Raises
    ------
    OSError
        If none can be started; says what to do.
    """
    arguments = seconds, limit, size
    if os.environ.get(SWITCH):
        if os.environ[SWITCH] != "here":
            raise OSError(f"{SWITCH} must be here, or not be set, got {os.environ[SWITCH]!r}")
        return _thread(arguments)
    program = python()
    if program is not None:
        return _program(program, arguments)
    if hasattr(os, "fork"):
        return _fork(arguments)
    raise OSError(
        "HDF5 files are read in a process of their own, and this program is none that starts Python: "
        f"set {SWITCH}=here to read those that you trust in this process, or convert them to .npz"
    )


def python() -> str | None:
    """A program that is this version of Python; None if only others are known."""
    if getattr(sys, "frozen", False):
        return None
    base = Path(sys.base_exec_prefix)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    beside = sys.executable, getattr(sys, "_base_executable", ""), base / "bin" / version, base / "python.exe"
    for program in filter(None, beside):
        if NAME.fullmatch(Path(program).name) and Path(program).is_file() and os.access(program, os.X_OK):
            return str(program)
    return None


def _program(python: str, arguments: tuple[int, ...]) -> Process:
    # -P: the names of modules beside the program, torch and onnx, are others' elsewhere
    command = [python, "-P", str(PROGRAM), *map(str, arguments)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OPENBLAS_NUM_THREADS": "1",
        "HDF5_PLUGIN_PRELOAD": "::",  # load no library for a filter that the file names
        "HDF5_PLUGIN_PATH": "",  # nor look for one for a file that is none of HDF5's
    }
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment)
    assert process.stdin is not None
    assert process.stdout is not None

    def close() -> None:
        process.kill()
        try:
            _closed(process.stdin, process.stdout)
        finally:
            process.wait()

    return Process(process.stdin, process.stdout, process.kill, close)


def _fork(arguments: tuple[int, ...]) -> Process:
    requests, to_requests = os.pipe()
    from_answers, answers = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fork beside threads: the child uses nothing that they may hold
        child = os.fork()
    if not child:
        _forked(requests, answers, arguments)
    os.close(requests)
    os.close(answers)
    files = os.fdopen(to_requests, "wb"), os.fdopen(from_answers, "rb")
    ended = threading.Lock()  # held once the child has been waited for, and its number may be another's

    def kill() -> None:
        if ended.acquire(blocking=False):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            ended.release()

    def close() -> None:
        kill()
        try:
            _closed(*files)
        finally:
            ended.acquire()
            with contextlib.suppress(ChildProcessError):  # the program waits for all of its children
                os.waitpid(child, 0)

    return Process(*files, kill, close)


def _forked(requests: int, answers: int, arguments: tuple[int, ...]) -> NoReturn:
    """Be the child of a fork, with two files and nothing else of what its parent has open."""
    try:
        import fcntl

        requests, answers = (fcntl.fcntl(file, fcntl.F_DUPFD, 3) for file in (requests, answers))
        os.dup2(requests, 0)
        os.dup2(answers, 1)
        os.closerange(2, os.sysconf("SC_OPEN_MAX"))
        os.environ |= {"HDF5_PLUGIN_PRELOAD": "::", "HDF5_PLUGIN_PATH": ""}
        vars(platform.uname())["processor"] = ""  # for which h5py's import would start a program
        _run(os.fdopen(0, "rb"), os.fdopen(1, "wb"), arguments, confined=True)
    finally:
        os._exit(0)


def _thread(arguments: tuple[int, ...]) -> Process:
    """A thread of this process, which a crash or a hang affects, too."""
    requests, to_requests = os.pipe()
    from_answers, answers = os.pipe()
    inner = os.fdopen(requests, "rb"), os.fdopen(answers, "wb")
    files = os.fdopen(to_requests, "wb"), os.fdopen(from_answers, "rb")

    def run() -> None:
        with contextlib.suppress(OSError), inner[0], inner[1]:
            _run(*inner, arguments, confined=False)

    thread = threading.Thread(target=run, name="fastgru-hdf5", daemon=True)
    thread.start()

    def close() -> None:
        _closed(*files)
        thread.join()

    return Process(*files, lambda: None, close)


def _run(requests: IO[bytes], answers: IO[bytes], arguments: tuple[int, ...], confined: bool) -> None:
    """Run the program in this process."""
    program: Any = importlib.import_module("fastgru.formats._hdf5_process")
    program.main(*arguments, requests, answers, confined)


@contextlib.contextmanager
def closed_pipes_ignored() -> Iterator[None]:
    """Ignore the errors of a pipe that the other process has closed, and no other error.

    The system numbers its errors. A TimeoutError that a signal handler raises has no number.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise


def _closed(*files: IO[bytes] | None) -> None:
    for file in files:
        if file is not None:
            with closed_pipes_ignored():  # what could not be written is not wanted any more
                file.close()
