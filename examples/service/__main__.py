"""A service that denoises many calls at once, and a load test that measures how many it serves in time.

    python examples/service serve      a websocket for each call, on port 8000, for 10 minutes
    python examples/service load       more and more clients on it, each with a frame every 10 ms

Exit status: 0 done, 1 something needed is missing or wrong, 2 an address or a file cannot be used.
"""

from __future__ import annotations

import os

# One thread computes and one serves the sockets; BLAS, which reads this when it is loaded, must add no more.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import errno
import math
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "denoise"))  # the model and the sound are that example's

TOKEN_BYTES = range(0x21, 0x7F)  # what a header may hold, without spaces
STEPS = [1, 4, 8, 12, 16, 24, 32]  # clients


def fail(status: int, message: object) -> NoReturn:
    """Say one line on stderr and end."""
    print(f"service: {message}", file=sys.stderr)
    raise SystemExit(status)


def serve(options: argparse.Namespace) -> None:
    """Denoise what comes in until the time is over."""
    import server
    from call import Limits
    from denoiser import Denoiser
    from nsnet2 import ModelError, model_file

    try:
        token = read_token(options.token_file)
        tls = server.tls_context(options.certificate, options.key) if options.certificate else None
    except OSError as error:
        fail(2, f"{error.filename or options.certificate}: {error.strerror or error}")
    limits = Limits(token, options.per_address, options.idle, options.rate)
    try:
        denoiser = Denoiser(model_file(), options.clients)
    except ModelError as error:
        fail(1, error)
    try:
        listener = server.listen(options.host, options.port)
    except OSError as error:
        fail(2, f"{options.host} port {options.port}: {error.strerror}")
    with listener:
        host, port = listener.getsockname()[:2]
        url = f"{'wss' if tls else 'ws'}://{host}:{port}/denoise"
        print(f"{url}: {options.clients} clients, {options.seconds:g} s", flush=True)
        server.run(denoiser, listener, options.seconds, limits, tls)
    print(f"{denoiser.frames} frames denoised")


def load(options: argparse.Namespace) -> None:
    """Put clients on a running server and say how late its answers were."""
    import chart
    import load

    try:
        token = read_token(options.token_file)
        tls = ssl.create_default_context(cafile=options.authority) if options.authority else None
    except OSError as error:
        fail(2, f"{error.filename or options.authority}: {error.strerror or error}")
    target = load.Server(options.host, options.port, token, tls)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        print(load.HEADING, flush=True)
        rounds = []
        for one in load.rounds(target, options.clients, options.seconds):
            rounds.append(one)
            print(one.row(), flush=True)
        print(f"\np99 below {load.BUDGET:g} ms: {load.verdict(rounds)}")
        picture = options.output / "latency.png"
        chart.draw(picture, rounds, load.BUDGET)
    except load.LoadError as error:
        fail(1, error)
    except OSError as error:
        fail(2, f"{error.filename}: {error.strerror}" if error.filename else error)
    print(f"written to {picture}")


def read_token(path: Path | None) -> bytes | None:
    """The token in a file, without the white space around it; None without a file.

    Raises
    ------
    OSError
        If the file cannot be read, or holds no token: that would let in who shows none.
    """
    if path is None:
        return None
    token = path.read_bytes().strip()
    if not token or any(byte not in TOKEN_BYTES for byte in token):
        raise OSError(errno.EINVAL, "a token must be one word of ASCII", str(path))
    return token


def positive(text: str) -> float:
    """A length of time or a rate from the command line, more than nothing and finite."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def count(text: str) -> int:
    """A number of clients from the command line."""
    value = int(text)
    if not 1 <= value <= 900:  # a process may have 1024 files open
        raise ValueError
    return value


def port(text: str) -> int:
    """A TCP port from the command line."""
    value = int(text)
    if not 0 <= value < 65536:
        raise ValueError
    return value


def main(arguments: Sequence[str] | None = None) -> None:
    address = argparse.ArgumentParser(add_help=False)
    address.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    address.add_argument(
        "--token-file", type=Path, metavar="FILE", help="holds what every request must show as a bearer token"
    )
    parser = argparse.ArgumentParser(prog="python examples/service", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="serve|load")

    command = commands.add_parser("serve", parents=[address], help="denoise what comes in on a websocket")
    command.add_argument(
        "--port", type=port, default=8000, help="0 for any that is free, and printed (default: %(default)s)"
    )
    command.add_argument(
        "--clients", type=count, default=64, metavar="N", help="at most (default: %(default)s)"
    )
    command.add_argument("--seconds", type=positive, default=600.0, help="then end (default: %(default)g)")
    command.add_argument(
        "--per-address",
        type=count,
        default=100,
        metavar="N",
        help="connections (default: %(default)s)",
    )
    command.add_argument(
        "--idle",
        type=positive,
        default=30.0,
        metavar="SECONDS",
        help="without a frame, then a call is closed (default: %(default)g)",
    )
    command.add_argument(
        "--rate",
        type=positive,
        default=200.0,
        metavar="N",
        help="frames of a call per second that are read; further ones wait (default: %(default)g)",
    )
    command.add_argument("--certificate", type=Path, metavar="FILE", help="for TLS, PEM")
    command.add_argument("--key", type=Path, metavar="FILE", help="of the certificate, if not in its file")
    command.set_defaults(run=serve)

    command = commands.add_parser("load", parents=[address], help="measure how late a server's answers are")
    command.add_argument("--port", type=port, default=8000, help="of the server (default: %(default)s)")
    command.add_argument(
        "--clients",
        type=count,
        nargs="+",
        default=STEPS,
        metavar="N",
        help=f"at once, one number after the other (default: {' '.join(map(str, STEPS))})",
    )
    command.add_argument(
        "--seconds", type=positive, default=10.0, help="for each number (default: %(default)g)"
    )
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("load-output"),
        metavar="FOLDER",
        help="where the picture goes (default: %(default)s)",
    )
    command.set_defaults(run=load)

    command.add_argument(
        "--authority",
        type=Path,
        metavar="FILE",
        help="use TLS, and trust this PEM's certificates",
    )

    options = parser.parse_args(arguments)
    if getattr(options, "key", None) and not options.certificate:
        parser.error("--key needs --certificate")
    try:
        options.run(options)
    except ModuleNotFoundError as package:
        command = f"python -m pip install '{HERE.parents[1]}[service]'"
        fail(1, f"{package.name} is not installed: {command}")
    except KeyboardInterrupt:
        fail(130, "interrupted")


if __name__ == "__main__":
    main()
