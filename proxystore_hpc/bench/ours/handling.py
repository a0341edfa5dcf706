"""Bursts of what a store does besides puts and gets."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import Any

from proxystore_hpc.bench.bursts import Repeated
from proxystore_hpc.bench.contestant import Burst, Operation, arrays_of
from proxystore_hpc.bench.data import WrongBytesError, expect, pattern
from proxystore_hpc.bench.ours.moving import Asked

__all__ = ["batch", "evict", "exists", "resolve"]

_BATCH = arrays_of(Operation.BATCH)
_EVICTED = 64


def resolve(owner: Asked, nbytes: int) -> Burst:
    """Unpickles a proxy and looks at its target; the store of the reader is found by its name."""
    pickled = owner.call("proxy", nbytes)

    def run() -> Any:
        proxy = pickle.loads(pickled)
        assert proxy.nbytes == nbytes
        return proxy

    return Repeated(run, lambda proxy: expect(proxy.__proxy_wrapped__, nbytes))


def exists(store: Any, owner: Asked, nbytes: int) -> Burst:
    """Asks the owner whether it has an object."""
    key = owner.call("put", nbytes)

    def verify(found: object) -> None:
        if found is not True:
            raise WrongBytesError("an object that is there was said not to be")

    return Repeated(lambda: store.exists(key), verify)


def evict(store: Any, nbytes: int) -> Burst:
    """Throws away objects of this process, one by one."""
    array = pattern(nbytes)
    count = max(1, min(_EVICTED, (64 << 20) // max(1, nbytes)))

    def burst() -> float:
        keys = [store.put(array) for _ in range(count)]
        began = time.perf_counter()
        for key in keys:
            store.evict(key)
        elapsed = time.perf_counter() - began
        if any(store.exists(key) for key in keys):
            raise WrongBytesError("an object that was evicted is still there")
        return elapsed / count

    return burst


def batch(store: Any, owner: Asked, nbytes: int, check: Callable[[Any], object]) -> Burst:
    """Gets several arrays in one call."""
    keys = [owner.call("put", nbytes, shift) for shift in range(_BATCH)]

    def verify(found: list[Any]) -> None:
        for shift, array in enumerate(found):
            expect(array, nbytes, shift)
        check(keys[0])

    repeated = Repeated(lambda: store.get_batch(keys), verify)
    return lambda: repeated() / _BATCH
