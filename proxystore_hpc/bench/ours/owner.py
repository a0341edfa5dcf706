"""The other process: it owns arrays, and reads those of others when it is asked to."""

from __future__ import annotations

import time
from typing import Any

from proxystore_hpc.bench.data import expect, pattern
from proxystore_hpc.bench.ours.ways import Way

__all__ = ["Holder", "Owner"]


class Holder:
    """What is done with a store, in whichever process it is."""

    def __init__(self, store: Any, live: bool = False) -> None:
        self.store = store
        self.live = live
        self._kept: list[Any] = []
        self._arrays: list[Any] = []

    def address(self) -> bytes:
        """For puts to this one."""
        address: bytes = self.store.address
        return address

    def put(self, nbytes: int, shift: int = 0) -> Any:
        """Stores an array, or registers it; its key."""
        array = pattern(nbytes, shift)
        if self.live:
            handle = self.store.register(array)
            self._kept.append(handle)
            self._arrays.append(array)
            return handle.key
        return self.store.put(array)

    def proxy(self, nbytes: int) -> bytes:
        """Stores an array; a proxy of it, pickled."""
        import pickle

        return pickle.dumps(self.store.proxy(pattern(nbytes), populate_target=False))

    def puts(self, nbytes: int, count: int, shift: int = 0) -> tuple[float, list[Any]]:
        """Stores an array a few times; the seconds that one took, and the keys."""
        array, put, clock = pattern(nbytes, shift), self.store.put, time.perf_counter
        began = clock()
        keys = [put(array) for _ in range(count)]
        return (clock() - began) / count, keys

    def evict(self, keys: list[Any]) -> None:
        """Throws objects away."""
        self.store.evict_batch(keys)

    def expect(self, key: Any, nbytes: int, shift: int = 0) -> None:
        """Reads an object, which must be the pattern."""
        expect(self.store.get_or_raise(key), nbytes, shift)

    def gets(self, keys: list[Any], loops: int) -> float:
        """Seconds of one get, of these in turn."""
        get, clock = self.store.get_or_raise, time.perf_counter
        began = clock()
        for _ in range(loops):
            for key in keys:
                result = get(key)
        elapsed = clock() - began
        del result
        return elapsed / (loops * len(keys))

    def close(self) -> None:
        """Closes the store."""
        for handle in self._kept:
            handle.close()
        self.store.close()


class Owner(Holder):
    """Role: a store of a way in a process of its own."""

    def __init__(self, way: Way, capacity: int, state: str = "", gateway: Any = None) -> None:
        more: dict[str, Any] = {}
        if way.tls is not None:
            more["tcp"] = {"tls": way.tls, **({"state": state} if way.tls else {})}
        if gateway is not None:
            more["gateway"] = gateway
        # What serves others over tcp has doors of its own on the node.
        owning = {"doors": None} if way.door == "tcp" else {}
        super().__init__(_open(way, capacity, **more, **owning), way.live)


def _open(way: Way, capacity: int, **more: Any) -> Any:
    if "doors" not in more:
        return way.open_store(capacity, **more)
    from proxystore_hpc.store import Store

    more.pop("doors")
    return Store(f"bench-{way.name}", capacity=capacity, cache_size=0, **more)
