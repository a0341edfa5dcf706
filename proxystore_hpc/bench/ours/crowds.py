"""Several processes at once: one owner for many, many owners for one, all for all, and pairs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from proxystore_hpc.bench.companion import Companion
from proxystore_hpc.bench.contestant import Burst, Kind, Operation
from proxystore_hpc.bench.data import expect, pattern
from proxystore_hpc.bench.ours import ways

__all__ = ["Crowd"]

_MEMBER = "proxystore_hpc.bench.ours.crowds:Member"
_LONG = 5e-3


class Crowd:
    """A contestant: as many readers, owners, members or pairs as it says, through one door.

    Arrays arrive in memory that the reader has already, so that all doors copy.

    Args:
        way: The door.
        count: How many.
    """

    kind = Kind.OURS
    # Each process holds a few arrays.
    most = 64 << 20

    def __init__(self, way: ways.Way, count: int) -> None:
        self.name = f"{way.name} x{count}"
        self.about = f"{count} at once, by {way.about}"
        self.operations = frozenset({Operation.WEAK, Operation.STRONG})
        if count > 1:
            self.operations |= {Operation.ONE_TO_MANY, Operation.MANY_TO_ONE, Operation.ALL_TO_ALL}
        self._way, self._count = way, count

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        return ways.check(self._way)

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return self._opened(operation, nbytes)

    @contextmanager
    def _opened(self, operation: Operation, nbytes: int) -> Iterator[Burst]:
        count = self._count
        if operation is Operation.STRONG:
            nbytes = max(1, nbytes // count)
        with ExitStack() as stack:

            def members(number: int) -> list[Companion]:
                return [
                    stack.enter_context(Companion(_MEMBER, way=self._way, nbytes=nbytes))
                    for _ in range(number)
                ]

            if operation is Operation.ONE_TO_MANY:
                (owner,), readers = members(1), members(count)
                sources = [[owner.call("key")]] * count
            elif operation is Operation.MANY_TO_ONE:
                owners, readers = members(count), members(1)
                sources = [[owner.call("key") for owner in owners]]
            elif operation is Operation.ALL_TO_ALL:
                readers = members(count)
                keys = [member.call("key") for member in readers]
                sources = [[key for key in keys if key is not own] for own in keys]
            else:
                owners, readers = members(count), members(count)
                sources = [[owner.call("key")] for owner in owners]
            for reader, theirs in zip(readers, sources, strict=True):
                reader.call("prepare", theirs)
            together = max if operation is Operation.STRONG else statistics.fmean
            yield lambda: float(together(_at_once(readers)))


def _at_once(readers: Sequence[Companion]) -> list[float]:
    for reader in readers:
        reader.start("read")
    return [reader.result() for reader in readers]


class Member:
    """Role: owns an array, and reads those of others into memory of its own."""

    def __init__(self, way: ways.Way, nbytes: int) -> None:
        self._way, self._nbytes = way, nbytes
        self._store = way.open_store(ways.capacity_for(nbytes))
        self._target = pattern(nbytes)
        self._keys: list[Any] = []
        self._loops = 1

    def key(self) -> Any:
        """Of its array."""
        return self._store.put(pattern(self._nbytes))

    def prepare(self, keys: list[Any]) -> None:
        """What it will read, and how often in a burst."""
        self._keys = keys
        self.read()
        self._loops = max(1, int(_LONG / (self.read() * len(keys))))

    def read(self) -> float:
        """Reads all of them a few times; seconds of one array."""
        self._target[:] = 0
        began = time.perf_counter()
        for _ in range(self._loops):
            for key in self._keys:
                self._store.get_into(key, self._target)
        elapsed = time.perf_counter() - began
        expect(self._target, self._nbytes)
        ways.check_doors(self._store, self._way, self._keys[0])
        return elapsed / (self._loops * len(self._keys))

    def close(self) -> None:
        """Closes the store."""
        self._store.close()
