"""What all benchmarks share: timing, a second process, the machine's state, tables and JSON.

Figures are medians with the 99th percentile, the minimum and the number of rounds. Things that are
compared take turns within each round, so that a busy machine slows all of them. To compare two
checkouts, each with its extension modules built in place, run a benchmark of both by turns:

    python benchmarks/harness.py ab PATH_A PATH_B [--rounds N] -- tcp.py --sizes 1KiB,1MiB
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxystore_hpc.bench.companion import PATIENCE, Companion, CompanionError
from proxystore_hpc.bench.machine import describe_machine, version_of
from proxystore_hpc.bench.text import duration, size
from proxystore_hpc.bench.timing import Action, Stats, interleaved, ratio, timed

__all__ = [
    "HERE",
    "PATIENCE",
    "Action",
    "Companion",
    "CompanionError",
    "Run",
    "Stats",
    "arguments",
    "describe_machine",
    "duration",
    "interleaved",
    "memcpy",
    "parse_sizes",
    "pattern",
    "plain_stream",
    "ratio",
    "size",
    "timed",
    "version_of",
]

HERE = Path(__file__).resolve().parent


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
        Companion("harness:StreamSender", nbytes=nbytes) as sender,
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
