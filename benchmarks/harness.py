"""What all benchmarks share: timing, a second process, the machine's state, tables and JSON.

Figures are medians with the 99th percentile, the minimum and the number of rounds. Things that are
compared take turns within each round, so that a busy machine slows all of them. To compare two
checkouts, each with its extension modules built in place, run a benchmark of both by turns:

    python benchmarks/harness.py ab PATH_A PATH_B [--rounds N] -- doors.py --sizes 8,1MiB
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.metadata
import json
import math
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PATIENCE = 120.0
SERVING = (sys.executable, str(HERE / "harness.py"), "serve")


@dataclass(frozen=True)
class Stats:
    """Durations of one action in seconds."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def minimum(self) -> float:
        return min(self.samples)

    @property
    def p99(self) -> float:
        # The smallest sample that 99 % do not exceed.
        ordered = sorted(self.samples)
        return ordered[math.ceil(0.99 * len(ordered)) - 1]

    @property
    def p10(self) -> float:
        # What a tenth of the samples does not exceed: what it takes where nobody interferes.
        ordered = sorted(self.samples)
        return ordered[math.ceil(0.1 * len(ordered)) - 1]

    def as_dict(self) -> dict[str, float]:
        return {
            "median_s": self.median,
            "p10_s": self.p10,
            "p99_s": self.p99,
            "min_s": self.minimum,
            "rounds": len(self.samples),
        }


@dataclass(frozen=True)
class Action:
    """What is timed; `before` and `after` are not. `after` gets what `run` returned.

    With `time.thread_time` as its clock, what never waits is measured as if the machine were idle.
    """

    run: Callable[[], Any]
    before: Callable[[], object] | None = None
    after: Callable[[Any], object] | None = None
    loops: int = 1
    clock: Callable[[], float] = time.perf_counter

    def time(self) -> float:
        """Seconds of one run."""
        if self.before is not None:
            self.before()
        run, clock, result = self.run, self.clock, None
        began = clock()
        for _ in range(self.loops):
            result = run()
        elapsed = (clock() - began) / self.loops
        if self.after is not None:
            self.after(result)
        return elapsed


def interleaved(
    actions: Mapping[str, Action | Callable[[], Any]],
    *,
    seconds: float = 1.0,
    fewest: int = 5,
    most: int = 5_000,
    warm_up: int = 2,
) -> dict[str, Stats]:
    """Times actions by turns.

    Args:
        actions: By name.
        seconds: How long to go on, for all together; not counting the warm-up.
        fewest: Rounds that run whatever the time.
        most: Rounds after which it ends whatever the time.
        warm_up: Rounds before that, which do not count.
    """
    ready = {n: a if isinstance(a, Action) else Action(a) for n, a in actions.items()}
    for _ in range(warm_up):
        for action in ready.values():
            action.time()
    samples: dict[str, list[float]] = {name: [] for name in ready}
    collecting = gc.isenabled()
    gc.disable()
    try:
        end, rounds = time.perf_counter() + seconds, 0
        while rounds < fewest or (rounds < most and time.perf_counter() < end):
            for name, action in ready.items():
                samples[name].append(action.time())
            rounds += 1
    finally:
        if collecting:
            gc.enable()
    return {name: Stats(tuple(times)) for name, times in samples.items()}


def timed(action: Action | Callable[[], Any], **options: Any) -> Stats:
    """Times one action; options as for `interleaved`."""
    return interleaved({"": action}, **options)[""]


def ratio(results: Mapping[str, Stats], name: str, other: str) -> float:
    """How many times as long `name` takes as `other`: the median over the rounds they shared."""
    pairs = zip(results[name].samples, results[other].samples, strict=True)
    return statistics.median(mine / theirs for mine, theirs in pairs)


# A second process.


class PeerError(Exception):
    """A peer raised, was slow or died."""


class Peer:
    """An object in a process of its own, whose methods are called from here, one at a time.

    Args:
        role: `"module:Class"`, the module being one of this folder. Its `close` is called in the
            end.
        arguments: For its constructor.
        environment: Variables that the process gets besides ours.
        launcher: What starts it, on another node for example.
    """

    def __init__(
        self,
        role: str,
        *,
        environment: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
        **arguments: Any,
    ) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [*launcher, *SERVING, str(theirs.fileno()), role],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **(environment or {})},
            )
        self._pipe = Connection(ours.detach())
        self.role = role
        self.start("__init__", **arguments)
        self.result()

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self, method: str, *positional: Any, **arguments: Any) -> None:
        """Calls a method without waiting for it."""
        try:
            self._pipe.send((method, positional, arguments))
        except (BrokenPipeError, ConnectionResetError):
            raise self._ended() from None

    def result(self, timeout: float = PATIENCE) -> Any:
        """What the method started last returned."""
        if not self._pipe.poll(timeout):
            raise PeerError(f"{self.role} gave no answer within {timeout:.0f} s")
        try:
            failed, value = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._ended() from None
        if failed:
            raise PeerError(f"{self.role} raised\n{value}")
        return value

    def _ended(self) -> PeerError:
        return PeerError(f"{self.role} ended with {self.process.wait(timeout=5)}")

    def call(self, method: str, *positional: Any, **arguments: Any) -> Any:
        """Calls a method and waits for what it returns."""
        self.start(method, *positional, **arguments)
        return self.result()

    def close(self) -> None:
        """Ends the process, by force if need be."""
        self._pipe.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(descriptor: int, role: str) -> None:
    """The other end of `Peer`; ends with its process."""
    module, _, name = role.partition(":")
    kind = getattr(importlib.import_module(module), name)
    subject: Any = None
    with Connection(descriptor) as pipe:
        while True:
            try:
                method, positional, arguments = pipe.recv()
            except (EOFError, ConnectionResetError):
                break
            try:
                if method == "__init__":
                    subject, value = kind(*positional, **arguments), None
                else:
                    value = getattr(subject, method)(*positional, **arguments)
                answer = False, value
            except Exception:
                answer = True, traceback.format_exc()
            try:
                pipe.send(answer)
            except (BrokenPipeError, ConnectionResetError):
                break
    if hasattr(subject, "close"):
        subject.close()


# References that transfers are compared with.


class StreamSender:
    """Role: sends bytes over a plain TCP connection on loopback when it is asked to."""

    def __init__(self, nbytes: int) -> None:
        import threading

        self.payload = memoryview(bytearray(b"\1") * nbytes)
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._run, daemon=True).start()

    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def _run(self) -> None:
        connection, _ = self.listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            while request := connection.recv(8):
                connection.sendall(self.payload[: int.from_bytes(request, "little")])

    def close(self) -> None:
        self.listener.close()


@contextmanager
def plain_stream(nbytes: int) -> Iterator[Callable[[], int]]:
    """A function that receives `nbytes` from another process into the same warm memory."""
    target = memoryview(bytearray(b"\0") * nbytes)
    request = nbytes.to_bytes(8, "little")
    with (
        Peer("harness:StreamSender", nbytes=nbytes) as sender,
        socket.create_connection(("127.0.0.1", sender.call("port"))) as connection,
    ):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def receive() -> int:
            connection.sendall(request)
            done = 0
            while done < nbytes:
                got = connection.recv_into(target[done:])
                if got == 0:
                    raise ConnectionResetError("the sender of the plain stream has ended")
                done += got
            return done

        yield receive


def memcpy(nbytes: int) -> Callable[[], object]:
    """A function that copies `nbytes` between two arrays whose pages are all there."""
    import numpy as np

    source, target = np.ones(nbytes, "u1"), np.ones(nbytes, "u1")
    return lambda: np.copyto(target, source)


def pattern(nbytes: int) -> Any:
    """Float64 numbers, or bytes below one number, that are no others when shifted."""
    import numpy as np

    if nbytes % 8:
        return np.arange(nbytes, dtype="u1")
    return np.arange(nbytes // 8, dtype="f8")


# The machine, and what is printed.


def version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    text = Path("/proc/cpuinfo").read_text()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else platform.machine()


def describe_machine() -> dict[str, Any]:
    """What figures depend on."""
    from proxystore_hpc import __version__

    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "proxystore_hpc": __version__,
        "numpy": version_of("numpy"),
        "load": os.getloadavg()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def duration(seconds: float | None) -> str:
    """With three digits and a unit."""
    if seconds is None:
        return "-"
    for unit, factor in (("ns", 1e9), ("us", 1e6), ("ms", 1e3)):
        value = seconds * factor
        if value < 999.5:
            return f"{value:.{max(0, 2 - (value >= 10) - (value >= 100))}f} {unit}"
    return f"{seconds:.2f} s"


def size(nbytes: int) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if nbytes >= 1 << shift and nbytes % (1 << shift) == 0:
            return f"{nbytes >> shift} {unit}"
    return f"{nbytes} B"


def parse_sizes(text: str) -> tuple[int, ...]:
    from proxystore_hpc.utils.sizes import parse_size

    return tuple(parse_size(part) for part in text.split(","))


@dataclass
class Run:
    """The rows of one benchmark."""

    name: str
    machine: dict[str, Any] = field(default_factory=describe_machine)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def header(self) -> None:
        m = self.machine
        print(
            f"{self.name}: {m['cpu']}, {m['cores']} cores, load {m['load']:.1f}; "
            f"Python {m['python']}, numpy {m['numpy']}, proxystore_hpc {m['proxystore_hpc']}",
            flush=True,
        )

    def add(self, name: str, stats: Stats | None = None, **more: Any) -> dict[str, Any]:
        """Notes a row; `name` is what two runs are compared by."""
        row = {"name": name, **({} if stats is None else stats.as_dict()), **more}
        self.rows.append(row)
        return row

    def finish(self, path: Path | None) -> None:
        """Prints the closing line; writes the JSON document if a path is given."""
        self.machine["load_after"] = os.getloadavg()[0]
        print(f"load {self.machine['load']:.1f} before, {self.machine['load_after']:.1f} after")
        if path is not None:
            document = {"benchmark": self.name, "machine": self.machine, "rows": self.rows}
            path.write_text(json.dumps(document, indent=1) + "\n")


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    summary = (description or "").strip().splitlines()[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="time for each row (default: %(default)s)"
    )
    return parser


# Two checkouts by turns.


def compare_checkouts(a: Path, b: Path, rounds: int, command: Sequence[str]) -> int:
    """Runs a benchmark of both by turns; prints the medians and how many times as long B takes."""
    figures: dict[str, dict[str, list[float]]] = {"a": {}, "b": {}}
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "rows.json")
        for round_ in range(rounds):
            # Who goes first changes, in case the first one warms something up.
            order = (("a", a), ("b", b)) if round_ % 2 == 0 else (("b", b), ("a", a))
            for which, tree in order:
                script = tree / "benchmarks" / command[0]
                subprocess.run(
                    [sys.executable, str(script), *command[1:], "--json", str(output)],
                    env={**os.environ, "PYTHONPATH": str(tree)},
                    stdout=subprocess.DEVNULL,
                    check=True,
                )
                for row in json.loads(output.read_text())["rows"]:
                    if "median_s" in row:
                        figures[which].setdefault(row["name"], []).append(row["median_s"])
            print(f"round {round_ + 1} of {rounds}", file=sys.stderr, flush=True)
    print(f"{'':40}{'A':>12}{'B':>12}{'B / A':>9}   each round")
    for name, mine in figures["a"].items():
        theirs = figures["b"].get(name, [])
        pairs = [y / x for x, y in zip(mine, theirs, strict=False)]
        if not pairs:
            continue
        each = " ".join(f"{pair:.2f}" for pair in pairs)
        print(
            f"{name:40}{duration(statistics.median(mine)):>12}"
            f"{duration(statistics.median(theirs)):>12}{statistics.median(pairs):8.2f}x   {each}"
        )
    return 0


def main() -> int:
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), sys.argv[3])
        return 0
    parser = argparse.ArgumentParser(description="Runs a benchmark of two checkouts by turns.")
    commands = parser.add_subparsers(required=True)
    ab = commands.add_parser("ab", help="compare two checkouts")
    ab.add_argument("a", type=Path)
    ab.add_argument("b", type=Path)
    ab.add_argument("--rounds", type=int, default=5)
    ab.add_argument("command", nargs="+", help="after '--': a benchmark and its options")
    options = parser.parse_args()
    return compare_checkouts(
        options.a.resolve(), options.b.resolve(), options.rounds, options.command
    )


if __name__ == "__main__":
    raise SystemExit(main())
