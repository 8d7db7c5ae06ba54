"""Memory that runs out while files are loaded, clocks that jump, signals at any moment."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from campaign import files, serving
from campaign.part import ROOT, TESTS, Given, Trials, environment, finished, missing, not_run, python
from campaign.record import Record

HEAP = TESTS / "networks" / "heap_fails.c"
MOST = 200_000  # allocations that it takes to load a file
HOUR = 3600  # s
PATIENCE = 300  # s
HARMLESS = (signal.SIGWINCH, signal.SIGCHLD, signal.SIGURG, signal.SIGPIPE)  # a service lives on


def run(given: Given) -> Iterator[Record]:
    if (why := missing("gcc")) or sys.platform != "linux":
        yield not_run("machine", why or "needs Linux")
        return
    share = given.seconds / 4
    yield memory(given, share)
    yield engine_clock(given, share)
    if why := serving.cannot_serve():
        yield not_run("clock beneath the service", why)
        yield not_run("signals", why)
        return
    yield service_clock(given, share)
    yield signals(given, share)


# ---- memory ------------------------------------------------------------------------------------------------


def memory(given: Given, seconds: float) -> Record:
    """Load files while one allocation after the other fails, each time in a child of its own."""
    trials = Trials("allocations that fail", "loads", seconds, given.kept)
    library = given.work / "heap.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", HEAP, "-o", library], check=True)
    variables = environment(LD_PRELOAD=str(library), PYTHONMALLOC="malloc")
    command = python("-m", "campaign.machine", given.work, seconds, given.seed)
    done = finished(command, seconds + PATIENCE, env=variables)
    lines = [] if done is None else done.stdout.splitlines()
    *failed, ended = [json.loads(line) for line in lines] or [{}]
    trials.count, trials.figures["of these without memory"] = ended.get("trials", 0), ended.get("failed", 0)
    if failed or done is None or done.returncode:
        trials.fail(str(failed[:1] or "it broke off"), "\n".join(lines) + (done.stderr if done else ""))
    return trials.record()


def load_without_memory(work: str, seconds: str, seed: str) -> None:
    """Be the process whose children have no memory."""
    from formats.hostile import campaign

    import fastgru

    library = ctypes.CDLL(None)
    layer = fastgru.GRU(4, "tanh", "sigmoid", reset_after=True)
    layer.build((None, None, 3))
    paths = [Path(work, name) for name in ("gru.npz", "gru.onnx", "gru.pt", "gru.safetensors")]
    layer.save(paths[0])
    paths[1].write_bytes(layer.to_onnx().SerializeToString())
    kinds = {paths[2]: "pickles-zipped", paths[3]: "safetensors"}
    for path, kind in kinds.items():
        loads = (campaign.KINDS[kind].make(number) for number in itertools.count())
        path.write_bytes(next(one for one in loads if not one.hostile and not one.arguments).content)
    expected = {path: repr(fastgru.load_all(path)) for path in paths}
    rng, end = random.Random(f"memory {seed}"), time.monotonic() + float(seconds)
    failed = 0
    for trials in itertools.count(1):  # noqa: B007 - their number is told
        path, allocation = rng.choice(paths), int(MOST ** rng.random())
        child = os.fork()
        if not child:
            os._exit(load_once(library, path, allocation, expected[path]))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        failed += status == 1
        if status not in (0, 1):
            print(json.dumps([path.name, allocation, status]), flush=True)
        if time.monotonic() > end:
            break
    print(json.dumps({"trials": trials, "failed": failed}))


def load_once(library: ctypes.CDLL, path: Path, allocation: int, expected: str) -> int:
    """0: loaded, 1: there was no memory, and it has been loaded after that; 2, 3: an error."""
    import fastgru

    status = 0
    library.heap_fail(allocation, 0)
    try:
        fastgru.load_all(path)
        library.heap_fail(0, 0)
    except MemoryError:
        library.heap_fail(0, 0)
        status = 1
    except BaseException as error:
        library.heap_fail(0, 0)
        print(f"{path.name}, allocation {allocation}: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return status if repr(fastgru.load_all(path)) == expected else 3


# ---- clocks ------------------------------------------------------------------------------------------------


def engine_clock(given: Given, seconds: float) -> Record:
    """Calls with helpers, which the engine waits for by the clock, and whose costs it measures by it."""
    program = given.work / "threads"
    include = [f"-I{ROOT / 'include'}", f"-I{ROOT / 'src'}"]
    sources = [TESTS / "engine" / "threads.c", *sorted(ROOT.glob("src/*.c"))]
    flags = ["-O1", "-std=gnu11", "-ffp-contract=off", "-DFASTGRU_SCALAR=1"]
    built = finished(["gcc", *flags, *include, *sources, "-lm", "-pthread", "-o", program], PATIENCE)
    if built is None or built.returncode:
        return not_run("clock beneath threads", "gcc cannot build it")
    trials, rng = Trials("clock beneath threads", "calls", seconds, given.kept), given.rng()
    while trials.going:
        jump = str(rng.choice([-HOUR, -1, 1, HOUR]))
        variables = files.preloaded(given.work) | {"FAULT_CLOCK": jump, "FAULT_MONOTONIC": jump}
        first = rng.randrange(1 << 30)
        done = finished([program, first, 50, "small"], PATIENCE, env=variables)
        if done is None or done.returncode:
            trials.fail(f"seed {first}, {jump} s", "it hangs" if done is None else done.stdout + done.stderr)
        trials.count += 50
    return trials.record()


def service_clock(given: Given, seconds: float) -> Record:
    """The time of day jumps; nobody may be thrown out for it."""
    import service_clients

    trials = Trials("clock beneath the service", "conversations", seconds, given.kept)
    variables = files.preloaded(given.work)
    with changed_environment(LD_PRELOAD=variables["LD_PRELOAD"], FAULT_CLOCK=str(HOUR)):
        serves = service_clients.serving(*serving.ARGUMENTS)
        _, address = serves.__enter__()
    try:
        with serving.talkers(address, 2) as talkers:
            while trials.left and not talkers.wrong:
                time.sleep(min(1, trials.left))
        trials.count = talkers.talks
        if talkers.wrong or not talkers.talks:
            trials.fail(str(talkers.wrong[:1] or "no conversation"))
    finally:
        serves.__exit__(None, None, None)
    return trials.record()


@contextlib.contextmanager
def changed_environment(**variables: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# ---- signals -----------------------------------------------------------------------------------------------


def signals(given: Given, seconds: float) -> Record:
    """Signals that a service must survive, at any moment, and then one that ends it."""
    import service_clients

    trials, rng = Trials("signals", "signals", seconds, given.kept), given.rng()
    while trials.going:
        with service_clients.serving(*serving.ARGUMENTS) as (server, address):
            last = rng.choice([signal.SIGTERM, signal.SIGINT])
            with serving.talkers(address, 2) as talkers:
                end = time.monotonic() + max(2, min(trials.left, 10))
                while time.monotonic() < end and not talkers.wrong:
                    time.sleep(rng.random() ** 4 / 10)
                    if rng.random() < 0.1:
                        server.send_signal(signal.SIGSTOP)
                        time.sleep(rng.random() / 20)
                        server.send_signal(signal.SIGCONT)
                    server.send_signal(rng.choice(HARMLESS))
                    trials.count += 1
                talkers.ending = True
                server.send_signal(last)
            try:
                status = server.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                trials.fail(f"it does not end by {last.name}")
                break
            said = server.stderr.read()
            wanted = (130, "service: interrupted\n") if last is signal.SIGINT else (0, "")
            if talkers.wrong or (status, said) != wanted:
                trials.fail(f"{talkers.wrong[:1]}, {last.name}: status {status}: {said[-200:]}", said)
            trials.count += 1
    return trials.record()


if __name__ == "__main__":
    load_without_memory(*sys.argv[1:])
