"""Contestants of which everything is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from proxystore_hpc.bench.contestant import Burst, Kind, Operation


class StandIn:
    """Bursts as it is told to."""

    about = "a stand-in"

    def __init__(
        self,
        name: str,
        burst: Burst,
        *,
        kind: Kind = Kind.OURS,
        limit: str | None = None,
        most: int | None = None,
        opening: Callable[[], object] = lambda: None,
        checking: Callable[[], object] = lambda: None,
        reach: tuple[str, ...] = (),
        operations: frozenset[Operation] = frozenset({Operation.GET}),
    ) -> None:
        self.name = name
        self.kind = kind
        self.limit = limit
        self.most = most
        self.reach = reach
        self.operations = operations
        self.bursts = 0
        self.rests = 0
        self.ended = 0
        self._burst = burst
        self._opening = opening
        self._checking = checking

    def check(self) -> dict[str, str]:
        self._checking()
        return {"stand-in": "1"}

    @contextmanager
    def open(self, operation: Operation, nbytes: int) -> Iterator[Burst]:
        self._opening()
        try:
            yield self._counted
        finally:
            self.ended += 1

    def rest(self) -> None:
        self.rests += 1

    def _counted(self) -> float:
        self.bursts += 1
        return self._burst()


def spin(seconds: float) -> None:
    """Uses the processor's time, which sleeping would not measure as well."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
