"""Getting objects, and asking about them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    ObjectError,
    ObjectEvictedError,
    ObjectMissingError,
    SerializationError,
)
from proxystore_hpc.key import Key
from proxystore_hpc.serialize import PREFIX_NBYTES, describe, loads, loads_with
from proxystore_hpc.store.core import DeserializerT, StoreCore, packed_bytes

if TYPE_CHECKING:
    from proxystore_hpc._core import Lease

_MAPPED_DOORS = frozenset({"self", "shm"})
_MISSING = (ObjectMissingError, ObjectEvictedError)


class Reading(StoreCore):
    """The reading half of a store."""

    def get(
        self,
        key: Key,
        *,
        deserializer: DeserializerT | None = None,
        default: Any = None,
        writable: bool = False,
        offset: int | None = None,
        length: int | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Gets an object through the cheapest door that leads to it.

        Args:
            key: Its key.
            deserializer: Used instead of the store's.
            default: Returned if the object was evicted or never existed.
            writable: Give a private object whose arrays can be written. By default they are
                read-only views of the stored object.
            offset: With `length`: get only these bytes, of an object that is one buffer (an array,
                `bytes`, ...), as a memoryview.
            length: Number of bytes; up to the end by default.
            timeout: Seconds, instead of the store's default.

        Raises:
            OwnerGoneError: The process that held the object has ended.
            OperationTimeoutError: Its owner did not answer in time.
            DoorUnavailableError: No door that may be used leads to it.
            SerializationError: It cannot be made of the stored bytes.
        """
        try:
            if offset is not None or length is not None:
                return self._get_part(key, offset or 0, length, timeout)
            return self.get_or_raise(
                key, deserializer=deserializer, writable=writable, timeout=timeout
            )
        except _MISSING:
            return default

    def get_or_raise(
        self,
        key: Key,
        *,
        deserializer: DeserializerT | None = None,
        writable: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """As `get`, but raises `ObjectMissingError` or `ObjectEvictedError`."""
        if self._closed:
            self._check_open()
        began = time.perf_counter()
        cache = self.cache
        lease = None if writable or not len(cache) else cache.get(key)
        if lease is None:
            packed = packed_bytes(key)
            if not self._ucx_tried:
                self._reach(key)
            try:
                lease = self._instance.get(
                    packed, writable, self._timeout if timeout is None else timeout
                )
            except ObjectError as error:
                error.key = key
                raise
            self._received(key, lease, began, writable)
        elif self._detailed:
            self._metrics.add_counter("store.get.cache_hits", key, 1)
        return self._build(lease, deserializer, writable)

    def _received(self, key: Key, lease: Lease, began: float, writable: bool) -> None:
        door = lease.door
        self._count_transfer(door, len(lease), time.perf_counter() - began)
        if door not in _MAPPED_DOORS and not writable and not key.live:
            self.cache.set(key, lease, len(lease))
        if self._detailed:
            self._record("store.get", key, began, len(lease))
            self._metrics.add_attribute("store.get.door", key, door)

    def _build(self, lease: Lease, deserializer: DeserializerT | None, writable: bool) -> Any:
        deserializer = deserializer or self._deserializer
        if deserializer is None:
            return loads(lease, writable=writable)
        return loads_with(deserializer, lease, writable=writable)

    def _part_of(
        self, key: Key, offset: int, length: int | None, timeout: float
    ) -> tuple[int, int]:
        """Where the bytes asked for lie in the serialized object, and how many they are."""
        packed = packed_bytes(key)
        if key.deferred:
            packed = self._instance.wait_for(packed, 0.0)
            key = Key(packed)
        prefix = self._instance.get_range(packed, 0, min(PREFIX_NBYTES, key.nbytes), timeout)
        info = describe(memoryview(prefix))
        if info.data_offset is None:
            raise SerializationError(
                f"only parts of objects that are one buffer can be read; this is a {info.kind}"
            )
        if length is None:
            length = info.nbytes - offset
        if offset < 0 or length < 0 or offset + length > info.nbytes:
            raise InvalidArgumentError(
                f"bytes {offset} to {offset + length} lie outside of the object's {info.nbytes}"
            )
        return info.data_offset + offset, length

    def _get_part(
        self, key: Key, offset: int, length: int | None, timeout: float | None
    ) -> memoryview:
        self._check_open()
        limit = self._timeout if timeout is None else timeout
        self._reach(key)
        began = time.perf_counter()
        start, length = self._part_of(key, offset, length, limit)
        lease = self._instance.get_range(packed_bytes(key), start, length, limit)
        self._count_transfer(lease.door, length, time.perf_counter() - began)
        return memoryview(lease).toreadonly()

    def get_into(
        self, key: Key, buffer: Any, *, offset: int = 0, timeout: float | None = None
    ) -> int:
        """Reads an object that is one buffer straight into memory of yours.

        Args:
            key: Its key.
            buffer: Writable contiguous memory; it is filled, or up to the object's end.
            offset: Byte of the object to begin with.
            timeout: Seconds, instead of the store's default.

        Returns:
            Number of bytes read.

        Raises:
            ObjectMissingError, ObjectEvictedError: The object is not there.
            SerializationError: It is more than one buffer.
        """
        self._check_open()
        limit = self._timeout if timeout is None else timeout
        self._reach(key)
        began = time.perf_counter()
        target = memoryview(buffer).cast("B")
        start, length = self._part_of(key, offset, None, limit)
        length = min(length, len(target))
        door = self._instance.read_into(packed_bytes(key), start, target[:length], limit)
        self._count_transfer(door, length, time.perf_counter() - began)
        return length

    def get_batch(
        self,
        keys: Sequence[Key],
        *,
        deserializer: DeserializerT | None = None,
        default: Any = None,
        writable: bool = False,
        timeout: float | None = None,
    ) -> list[Any]:
        """Gets several objects; transfers overlap. See `get`."""
        self._check_open()
        limit = self._timeout if timeout is None else timeout
        results: list[Any] = [default] * len(keys)
        wanted: list[int] = []
        for index, key in enumerate(keys):
            self._reach(key)
            cached = None if writable else self.cache.get(key)
            if cached is None:
                wanted.append(index)
            else:
                results[index] = self._build(cached, deserializer, writable)
        began = time.perf_counter()
        leases = self._instance.get_batch([packed_bytes(keys[i]) for i in wanted], writable, limit)
        for index, lease in zip(wanted, leases, strict=True):
            if not isinstance(lease, BaseException):
                self._received(keys[index], lease, began, writable)
                results[index] = self._build(lease, deserializer, writable)
            elif not isinstance(lease, _MISSING):
                raise lease
        return results

    def exists(self, key: Key, *, timeout: float | None = None) -> bool:
        """Whether the object is there, as its owner says."""
        return self.exists_batch([key], timeout=timeout)[0]

    def exists_batch(self, keys: Sequence[Key], *, timeout: float | None = None) -> list[bool]:
        """`exists` of several keys, asking each owner once."""
        self._check_open()
        for key in keys:
            self._reach(key)
        limit = self._timeout if timeout is None else timeout
        found: list[bool] = []
        for error in self._instance.exists([packed_bytes(key) for key in keys], limit):
            if error is not None and not isinstance(error, _MISSING):
                raise error
            found.append(error is None)
        return found

    def evict(self, key: Key, *, force: bool = False, timeout: float | None = None) -> None:
        """Removes the object; nothing happens if it is gone already. See `evict_batch`."""
        self.evict_batch([key], force=force, timeout=timeout)

    def evict_batch(
        self, keys: Sequence[Key], *, force: bool = False, timeout: float | None = None
    ) -> None:
        """Removes several objects, asking each owner once.

        Views of them that are held anywhere on this node stay valid.

        Args:
            keys: Their keys.
            force: Also those stored with `Pinned()`.
            timeout: Seconds, instead of the store's default.

        Raises:
            ObjectPinnedError: One is pinned; the others are removed all the same.
            OwnerGoneError: The process that held one has ended.
        """
        self._check_open()
        for key in keys:
            self._reach(key)
            self.cache.evict(key)
        limit = self._timeout if timeout is None else timeout
        outcome = self._instance.evict([packed_bytes(key) for key in keys], force, limit)
        for key, error in zip(keys, outcome, strict=True):
            if error is not None and not isinstance(error, _MISSING):
                if isinstance(error, ObjectError):
                    error.key = key
                raise error

    def wait_for(self, key: Key, *, timeout: float | None = None) -> None:
        """Waits until the object of a key from `new_key` is stored. The owner tells, nobody polls.

        Raises:
            OperationTimeoutError: It was not stored in time.
            ObjectEvictedError: It cannot be any more.
        """
        self._check_open()
        self._reach(key)
        self._instance.wait_for(packed_bytes(key), self._timeout if timeout is None else timeout)

    def is_cached(self, key: Key) -> bool:
        """Whether a copy is kept that came over a network."""
        return self.cache.exists(key)
