"""Bursts of puts, gets and both, of any store and any owner."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from proxystore_hpc.bench.bursts import Repeated, calibrated
from proxystore_hpc.bench.contestant import Burst
from proxystore_hpc.bench.data import expect, pattern
from proxystore_hpc.bench.ours.owner import Holder

__all__ = ["Asked", "Here", "exchange", "get", "put", "put_there"]

# Objects and bytes that one burst may store before it evicts them.
_COUNT = 64
_BYTES = 8 << 20


class Asked(Protocol):
    """Calls methods of a `Holder` elsewhere: a companion, or a rank."""

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls one and waits for what it returns."""


class Here:
    """A `Holder` of this process, asked as if it were elsewhere."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method."""
        return getattr(self._holder, method)(*arguments)


def _several(nbytes: int) -> int:
    return max(1, min(_COUNT, _BYTES // max(1, nbytes)))


def get(store: Any, owner: Asked, nbytes: int, check: Callable[[Any], object]) -> Burst:
    """Gets of two arrays by turns, so that what the last burst left is not taken for the array."""
    keys = [owner.call("put", nbytes, shift) for shift in range(2)]
    loops, turn = 0, 0

    def burst() -> float:
        nonlocal loops, turn
        turn = 1 - turn
        key = keys[turn]
        if not loops:
            loops = calibrated(lambda: store.get_or_raise(key))

        def run() -> Any:
            return store.get_or_raise(key)

        def verify(found: Any) -> None:
            expect(found, nbytes, turn)
            check(key)

        repeated = Repeated(run, verify)
        repeated.loops = loops
        return repeated()

    return burst


def put(store: Any, reader: Asked | None, nbytes: int) -> Burst:
    """Puts into the own memory; another process reads the last one."""
    count, shift = _several(nbytes), 0

    def burst() -> float:
        nonlocal shift
        shift += 1
        array, clock = pattern(nbytes, shift), time.perf_counter
        began = clock()
        keys = [store.put(array) for _ in range(count)]
        elapsed = clock() - began
        if reader is None:
            expect(store.get_or_raise(keys[-1]), nbytes, shift)
        else:
            reader.call("expect", keys[-1], nbytes, shift)
        store.evict_batch(keys)
        return elapsed / count

    return burst


def put_there(
    store: Any, owner: Asked, to: Any, nbytes: int, check: Callable[[Any], object]
) -> Burst:
    """Puts into the memory of another process, which looks at the last one."""
    count, shift = _several(nbytes), 0

    def burst() -> float:
        nonlocal shift
        shift += 1
        array, clock = pattern(nbytes, shift), time.perf_counter
        began = clock()
        keys = [store.put(array, to=to) for _ in range(count)]
        elapsed = clock() - began
        owner.call("expect", keys[-1], nbytes, shift)
        # Puts are not in the metrics: a get of the same store shows which door there is.
        expect(store.get_or_raise(keys[-1]), nbytes, shift)
        check(keys[-1])
        owner.call("evict", keys)
        return elapsed / count

    return burst


def exchange(store: Any, owner: Asked, nbytes: int, check: Callable[[Any], object]) -> Burst:
    """Puts at the owner and gets here, of new objects each time: the sum of both."""
    count, shift = _several(nbytes), 0

    def burst() -> float:
        nonlocal shift
        shift += 1
        put_s, keys = owner.call("puts", nbytes, count, shift)
        clock, found = time.perf_counter, None
        began = clock()
        for key in keys:
            found = store.get_or_raise(key)
        elapsed = clock() - began
        expect(found, nbytes, shift)
        del found
        check(keys[-1])
        owner.call("evict", keys)
        return float(put_s) + elapsed / count

    return burst
