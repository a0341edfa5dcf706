"""The cache of resolved objects."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Generic, TypeVar

from proxystore_hpc.utils.locks import make_rlock

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")

_ABSENT: Any = object()


class LRUCache(Generic[KeyT, ValueT]):
    """Keeps the values used last, bounded by their number and their bytes.

    Thread-safe; every operation takes constant time, but for a value that displaces several.

    Args:
        maxsize: Most values that are kept; 0 keeps none.
        max_bytes: Most bytes that are kept, `None` for no bound. A larger value is not kept.

    Attributes:
        hits: How often `get` found its key.
        misses: How often it did not.

    Raises:
        ValueError: A bound is negative.
    """

    def __init__(self, maxsize: int = 16, max_bytes: int | None = None) -> None:
        if maxsize < 0:
            raise ValueError(f"the size of a cache cannot be negative: {maxsize}")
        if max_bytes is not None and max_bytes < 0:
            raise ValueError(f"the bytes of a cache cannot be negative: {max_bytes}")
        self.maxsize = maxsize
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self._nbytes = 0
        self._entries: OrderedDict[KeyT, tuple[ValueT, int]] = OrderedDict()
        # Reentrant, as the garbage collector may run a finalizer that evicts while it is held.
        self._lock = make_rlock()

    @property
    def nbytes(self) -> int:
        """Bytes of the values that are kept, as told to `set`."""
        return self._nbytes

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: KeyT, default: ValueT | None = None) -> ValueT | None:
        """The value of `key`, which becomes the one used last, or `default`."""
        with self._lock:
            entry = self._entries.get(key, _ABSENT)
            if entry is _ABSENT:
                self.misses += 1
                return default
            self._entries.move_to_end(key)
            self.hits += 1
            value: ValueT = entry[0]
            return value

    def set(self, key: KeyT, value: ValueT, nbytes: int = 0) -> None:
        """Keeps `value`, dropping the values unused for longest until it fits.

        Args:
            key: Key of the value; a value that it had is replaced.
            value: The value.
            nbytes: Memory that keeping it costs, in bytes.
        """
        dropped = []  # Their finalizers run after the lock is released.
        with self._lock:
            old = self._entries.pop(key, _ABSENT)
            if old is not _ABSENT:
                self._nbytes -= old[1]
                dropped.append(old)
            limit = self.max_bytes
            if self.maxsize == 0 or (limit is not None and nbytes > limit):
                return
            self._entries[key] = (value, nbytes)
            self._nbytes += nbytes
            while len(self._entries) > self.maxsize or (limit is not None and self._nbytes > limit):
                _, oldest = self._entries.popitem(last=False)
                self._nbytes -= oldest[1]
                dropped.append(oldest)

    def evict(self, key: KeyT) -> None:
        """Drops the value of `key`, if there is one."""
        with self._lock:
            old = self._entries.pop(key, _ABSENT)
            if old is not _ABSENT:
                self._nbytes -= old[1]

    def exists(self, key: KeyT) -> bool:
        """Whether there is a value of `key`; does not count as a use."""
        with self._lock:
            return key in self._entries

    def clear(self) -> None:
        """Drops all values."""
        with self._lock:
            dropped, self._entries = self._entries, OrderedDict()
            self._nbytes = 0
        dropped.clear()
