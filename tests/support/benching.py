"""Runs of the benchmark command in which one contestant is not what it should be.

python -m support.benching slowed FACTOR CONTESTANT ARGUMENTS...
python -m support.benching hanging ARGUMENTS...
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from proxystore_hpc.bench import deadline, runner, suite
from proxystore_hpc.bench.contestant import Burst, Kind, Operation
from proxystore_hpc.cli import main

PATIENCE = 1.0


class Slowed:
    """Another contestant, whose bursts do their work and then say that it took longer."""

    def __init__(self, real: Any, factor: float) -> None:
        self._real, self._factor = real, factor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @contextmanager
    def open(self, operation: Operation, nbytes: int) -> Iterator[Burst]:
        with self._real.open(operation, nbytes) as burst:
            yield lambda: self._factor * burst()


class Hanging:
    """Hangs in its first burst with an array of more than a KiB, deaf to signals as foreign code
    can be."""

    name = "deaf"
    kind = Kind.PEER
    about = "hangs"
    operations = frozenset({Operation.GET})
    most = None

    def check(self) -> dict[str, str]:
        return {}

    @contextmanager
    def open(self, operation: Operation, nbytes: int) -> Iterator[Burst]:
        def burst() -> float:
            if nbytes > 1024:
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
                time.sleep(60)
            return 1.0

        yield burst


def slowed(factor: str, name: str, *arguments: str) -> int:
    offered = suite.contestants

    def contestants(*chosen: Any) -> list[Any]:
        return [
            Slowed(each, float(factor)) if each.name == name else each for each in offered(*chosen)
        ]

    suite.contestants = contestants
    return main(["bench", *arguments])


def hanging(*arguments: str) -> int:
    offered = suite.contestants
    suite.contestants = lambda *chosen: [*offered(*chosen), Hanging()]
    quick = suite.PACES["quick"]
    suite.PACES["quick"] = replace(quick, pace=replace(quick.pace, patience=PATIENCE))
    deadline.GRACE = 0.5
    assert runner.deadline is deadline.deadline
    return main(["bench", "--quick", *arguments])


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    sys.exit({"slowed": slowed, "hanging": hanging}[what](*rest))
