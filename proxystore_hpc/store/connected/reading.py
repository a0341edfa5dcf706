"""Getting objects from a connector, and asking about them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from proxystore_hpc.exceptions import ObjectMissingError, OperationTimeoutError, SerializationError
from proxystore_hpc.serialize import loads
from proxystore_hpc.store.connected.core import ConnectedCore, refuse, size_of
from proxystore_hpc.store.core import DeserializerT
from proxystore_hpc.store.polling import POLLING, Polling

_ABSENT: Any = object()


class ConnectedReading(ConnectedCore):
    """The reading half of a store with a connector."""

    def get(
        self,
        key: Any,
        *,
        deserializer: DeserializerT | None = None,
        default: Any = None,
        writable: bool = False,
        offset: int | None = None,
        length: int | None = None,
        timeout: float | None = None,
        progress: Any = False,
    ) -> Any:
        """Gets an object.

        Args:
            key: Its key.
            deserializer: Used instead of the store's.
            default: Returned if the object was evicted or never existed.
            writable: Give an object whose arrays can be written; they are read-only by default.
            offset: Not for stores with a connector.
            length: Not for stores with a connector.
            timeout: Without effect: the connector has its own deadlines.
            progress: Without effect.

        Raises:
            SerializationError: It cannot be made of the stored bytes.
            ConnectorError: The connector of this package could not read it.
        """
        refuse(offset=offset, length=length)
        found = self._find(key, deserializer, writable)
        return default if found is _ABSENT else found

    def get_or_raise(
        self,
        key: Any,
        *,
        deserializer: DeserializerT | None = None,
        writable: bool = False,
        timeout: float | None = None,
        progress: Any = False,
    ) -> Any:
        """As `get`, but raises `ObjectMissingError` if it is not there."""
        found = self._find(key, deserializer, writable)
        if found is _ABSENT:
            raise self._missing(key)
        return found

    def _missing(self, key: Any) -> ObjectMissingError:
        return ObjectMissingError(
            f"nothing is stored under {key!r} in {self!r}: it was evicted, or never stored", key=key
        )

    def _find(self, key: Any, deserializer: DeserializerT | None, writable: bool) -> Any:
        self._check_open()
        began = time.perf_counter()
        shared = self._share_cached and deserializer is None and not writable
        cached = None if self._share_cached and not shared else self._cached(key)
        if self._detailed:
            self._metrics.add_counter(
                f"store.get.cache_{'misses' if cached is None else 'hits'}", key, 1
            )
        if cached is not None:
            return cached[0] if shared else self._built(cached[0], deserializer, writable)
        with self._turns:
            data = self.connector.get(key)
        read_at = time.perf_counter()
        if data is None:
            return _ABSENT
        obj = self._got(key, data, deserializer, writable)
        self._count_transfer(self._door, size_of(data), read_at - began)
        if self._detailed:
            now = time.perf_counter()
            self._metrics.add_time("store.get", key, 1e3 * (now - began))
            self._metrics.add_time("store.get.connector", key, 1e3 * (read_at - began))
            self._metrics.add_time("store.get.deserialize", key, 1e3 * (now - read_at))
            self._metrics.add_attribute("store.get.object_size", key, size_of(data))
        return obj

    def _cached(self, key: Any) -> Any:
        """What is cached of an object that still exists, in a tuple."""
        cache: Any = self.cache
        if not len(cache):
            return None
        cached = cache.get(key)
        if cached is not None:
            with self._turns:
                if self.connector.exists(key):
                    return cached
            cache.evict(key)
        return None

    def _got(self, key: Any, data: Any, deserializer: DeserializerT | None, writable: bool) -> Any:
        obj = self._built(data, deserializer, writable)
        cache: Any = self.cache
        if self._share_cached:
            if deserializer is None and not writable:
                cache.set(key, (obj,), size_of(data))
        elif isinstance(data, (bytes, bytearray)) or _owned(data):
            cache.set(key, (data,), size_of(data))
        return obj

    def _built(self, data: Any, deserializer: DeserializerT | None, writable: bool) -> Any:
        deserializer = deserializer or self._deserializer
        if deserializer is None:
            return loads(bytearray(data) if writable else data, writable=writable)
        try:
            return deserializer(data)
        except Exception as error:
            name = getattr(deserializer, "__qualname__", repr(deserializer))
            raise SerializationError(
                f"the deserializer {name} failed: {type(error).__name__}: {error}"
            ) from error

    def get_batch(
        self,
        keys: Sequence[Any],
        *,
        deserializer: DeserializerT | None = None,
        default: Any = None,
        writable: bool = False,
        timeout: float | None = None,
    ) -> list[Any]:
        """Gets several objects by one request to the connector, `default` for those that are gone.

        The cache is not asked, as whether each object exists would take as long to ask.
        """
        self._check_open()
        if not keys:
            return []
        began = time.perf_counter()
        with self._turns:
            found = list(self.connector.get_batch(list(keys)))
        nbytes = sum(size_of(data) for data in found if data is not None)
        self._count_transfer(self._door, nbytes, time.perf_counter() - began, len(keys))
        return [
            default if data is None else self._got(key, data, deserializer, writable)
            for key, data in zip(keys, found, strict=True)
        ]

    def exists_batch(self, keys: Sequence[Any], *, timeout: float | None = None) -> list[bool]:
        """Whether each object is there, as the connector says."""
        self._check_open()
        ask_all: Callable[[Any], Iterable[bool]] | None = getattr(
            self.connector, "exists_batch", None
        )
        with self._timed("exists", keys), self._turns:
            if ask_all is not None:
                return list(ask_all(keys))
            return [bool(self.connector.exists(key)) for key in keys]

    def evict_batch(
        self, keys: Sequence[Any], *, force: bool = False, timeout: float | None = None
    ) -> None:
        """Removes several objects; nothing happens to those that are gone already.

        Raises:
            Exception: What the connector raised first; the others are removed all the same.
        """
        self._check_open()
        for key in keys:
            self.cache.evict(key)
        evict_all: Callable[[Any], None] | None = getattr(self.connector, "evict_batch", None)
        with self._timed("evict", keys), self._turns:
            if evict_all is not None:
                evict_all(keys)
                return
            # The stack raises when all were called.
            with contextlib.ExitStack() as stack:
                for key in keys:
                    stack.callback(self.connector.evict, key)

    @contextlib.contextmanager
    def _timed(self, event: str, keys: Sequence[Any]) -> Iterator[None]:
        began = time.perf_counter()
        yield
        if self._detailed:
            elapsed = 1e3 * (time.perf_counter() - began) / max(len(keys), 1)
            for key in keys:
                self._metrics.add_time(f"store.{event}", key, elapsed)
                self._metrics.add_time(f"store.{event}.connector", key, elapsed)

    def wait_for(
        self, key: Any, *, timeout: float | None = None, polling: Polling = POLLING
    ) -> None:
        """Waits until the object of a key from `new_key` is stored, by asking again and again.

        Args:
            key: The key.
            timeout: Seconds, instead of the store's default.
            polling: How often to ask.

        Raises:
            OperationTimeoutError: It was not stored in time.
        """
        limit = self._timeout if timeout is None else timeout
        for _ in polling.tries(limit):
            if self.exists(key):
                return
        raise self._late(key, limit)

    def _late(self, key: Any, timeout: float | None) -> OperationTimeoutError:
        return OperationTimeoutError(
            f"nothing was stored under {key!r} within {timeout} s", timeout=timeout
        )


def _owned(data: Any) -> bool:
    """Whether a view is of memory that nobody else needs back, so that it may be kept."""
    return isinstance(data, memoryview) and isinstance(data.obj, (bytes, bytearray))
