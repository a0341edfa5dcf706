"""Several processes at once: one owner for many, many owners for one, all for all, and pairs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from proxystore_hpc.bench.companion import Companion
from proxystore_hpc.bench.contestant import Burst, Kind, Operation
from proxystore_hpc.bench.data import expect, pattern
from proxystore_hpc.bench.ours import ways

if TYPE_CHECKING:
    from proxystore_hpc.store import Store

__all__ = [
    "Crowd",
    "Reading",
    "gathering",
    "members_of",
    "operations_of",
    "owners_of",
    "share_of",
    "who_reads_whom",
]

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
        self.operations = operations_of(count)
        self._way, self._count = way, count

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        return ways.check(self._way)

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return self._opened(operation, nbytes)

    @contextmanager
    def _opened(self, operation: Operation, nbytes: int) -> Iterator[Burst]:
        readings = who_reads_whom(operation, self._count)
        nbytes = share_of(operation, self._count, nbytes)
        with ExitStack() as stack:
            members = {
                number: stack.enter_context(Companion(_MEMBER, way=self._way, nbytes=nbytes))
                for number in members_of(readings)
            }
            keys = {owner: members[owner].call("key") for owner in owners_of(readings)}
            for reader, owners in readings.items():
                members[reader].call("prepare", [keys[owner] for owner in owners])
            readers, together = [members[reader] for reader in readings], gathering(operation)
            yield lambda: together(_at_once(readers))


def operations_of(count: int) -> frozenset[Operation]:
    """What so many at once can do."""
    pairs = frozenset({Operation.WEAK, Operation.STRONG})
    if count == 1:
        return pairs
    return pairs | {Operation.ONE_TO_MANY, Operation.MANY_TO_ONE, Operation.ALL_TO_ALL}


def who_reads_whom(operation: Operation, count: int) -> dict[int, list[int]]:
    """For each reader the owners whose arrays it reads; member 0 reads, and 1 owns.

    Args:
        operation: One of `operations_of`.
        count: Of readers, owners, members or pairs; there are at most twice as many members.
    """
    if operation is Operation.ONE_TO_MANY:
        return {reader: [1] for reader in (0, *range(2, count + 1))}
    if operation is Operation.MANY_TO_ONE:
        return {0: list(range(1, count + 1))}
    if operation is Operation.ALL_TO_ALL:
        return {one: [other for other in range(count) if other != one] for one in range(count)}
    return {2 * pair: [2 * pair + 1] for pair in range(count)}


def owners_of(readings: Mapping[int, Iterable[int]]) -> list[int]:
    """Those whose arrays are read."""
    return sorted({owner for owners in readings.values() for owner in owners})


def members_of(readings: Mapping[int, Iterable[int]]) -> list[int]:
    """All readers and owners."""
    return sorted({*readings, *owners_of(readings)})


def share_of(operation: Operation, count: int, nbytes: int) -> int:
    """Bytes of each array."""
    return max(1, nbytes // count) if operation is Operation.STRONG else nbytes


def gathering(operation: Operation) -> Callable[[Sequence[float]], float]:
    """What the result is of the seconds that the readers took."""
    return max if operation is Operation.STRONG else statistics.fmean


def _at_once(readers: Sequence[Companion]) -> list[float]:
    for reader in readers:
        reader.start("read")
    return [reader.result() for reader in readers]


class Reading:
    """Owns an array, and reads those of others into memory of its own.

    Args:
        store: What it does so with.
        way: The door that the store must take.
        nbytes: Of an array.
    """

    def __init__(self, store: Store, way: ways.Way, nbytes: int) -> None:
        self._store, self._way, self._nbytes = store, way, nbytes
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


class Member(Reading):
    """Role: one of a crowd, with a store of its own."""

    def __init__(self, way: ways.Way, nbytes: int) -> None:
        super().__init__(way.open_store(ways.capacity_for(nbytes)), way, nbytes)
