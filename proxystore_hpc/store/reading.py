"""Getting objects, and asking about them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    ObjectChangedError,
    ObjectError,
    ObjectEvictedError,
    ObjectMissingError,
    OperationTimeoutError,
    ProxyStoreHpcError,
    SerializationError,
)
from proxystore_hpc.key import Key
from proxystore_hpc.serialize import PREFIX_NBYTES, ObjectInfo, describe, loads, loads_with
from proxystore_hpc.store.core import BUILT_IN, DeserializerT, StoreCore, packed_bytes
from proxystore_hpc.store.outside import DOOR, NATIVE_FAILED
from proxystore_hpc.utils.progress import Progress, progress_of

if TYPE_CHECKING:
    from proxystore_hpc._core import Lease

_MAPPED_DOORS = frozenset({"self", "shm"})
_MISSING = (ObjectMissingError, ObjectEvictedError)
# How long a wait does not look whether the user pressed Ctrl-C.
_WAIT = 2.0
_ANSWER = 1.0


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
        progress: bool | Progress = False,
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
            progress: True shows a bar on the terminal for an object of 64 MiB or more that comes
                over TCP; a callable is told `(bytes that arrived, bytes in all)` instead, at the
                least once in the end, and from any thread.

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
                key,
                deserializer=deserializer,
                writable=writable,
                timeout=timeout,
                progress=progress,
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
        progress: bool | Progress = False,
    ) -> Any:
        """As `get`, but raises `ObjectMissingError` or `ObjectEvictedError`."""
        if self._closed:
            self._check_open()
        began = time.perf_counter()
        cache = self.cache
        limit = self._timeout if timeout is None else timeout
        lease = None if writable or not len(cache) else cache.get(key)
        if lease is not None and not self._are_current([key], [lease], limit)[0]:
            lease = None
        if lease is None:
            packed = packed_bytes(key)
            if not self._ucx_tried:
                self._reach(key)
            try:
                lease = self._instance.get(packed, writable, limit)
                door = lease.door
            except ObjectError as error:
                error.key = key
                raise
            except NATIVE_FAILED as failure:
                with progress_of(progress, key.nbytes, _named(key)) as tell:
                    lease = self._outside.ask(
                        key,
                        failure,
                        lambda tcp, left: tcp.get(packed, writable, left, progress=tell),
                        began,
                        limit,
                        lambda left: self._instance.get(packed, writable, left),
                    )
                door = getattr(lease, "door", DOOR)
            self._count_transfer(door, len(lease), time.perf_counter() - began)
            if self._detailed or door not in _MAPPED_DOORS:
                self._keep(key, lease, door, began, writable)
        elif self._detailed:
            self._metrics.add_counter("store.get.cache_hits", key, 1)
        if callable(progress):
            progress(len(lease), len(lease))
        return self._build(lease, deserializer, writable)

    def _are_current(
        self, keys: Sequence[Key], kept: Sequence[Lease | memoryview], timeout: float
    ) -> list[bool]:
        """Whether cached payloads are those of their objects, as the owners say.

        Those that are not are dropped. Raises, for the first one whose object is gone, why.
        """
        wanted = [getattr(lease, "generation", 0) for lease in kept]
        wanted = [had or key.generation for had, key in zip(wanted, keys, strict=True)]
        began = time.perf_counter()
        outcome: list[Any] = self._instance.validate(
            [packed_bytes(key) for key in keys], wanted, timeout
        )
        current = []
        for key, generation, error in zip(keys, wanted, outcome, strict=True):
            if isinstance(error, NATIVE_FAILED) and self._outside.leads_to(key):
                left = max(timeout - (time.perf_counter() - began), 0.0)
                error = self._ask_outside(key, generation, left)
            current.append(error is None)
            if error is not None and not isinstance(error, OperationTimeoutError):
                self.cache.evict(key)
            if error is not None and not isinstance(error, ObjectChangedError):
                if isinstance(error, ObjectError):
                    error.key = key
                raise error
        return current

    def _ask_outside(self, key: Key, generation: int, timeout: float) -> BaseException | None:
        """Why an object that came over TCP is not that of its key any more, as a server says."""
        try:
            now = Key(self._by_any_door("wait_for", key, timeout=timeout))
        except ProxyStoreHpcError as error:
            return error
        if generation in (0, now.generation):
            return None
        return ObjectChangedError("the object was updated", key=key)

    def _keep(
        self, key: Key, lease: Lease | memoryview, door: str, began: float, writable: bool
    ) -> None:
        if door not in _MAPPED_DOORS and not writable and not key.live:
            self.cache.set(key, lease, len(lease))
        if self._detailed:
            self._record("store.get", key, began, len(lease))
            self._metrics.add_attribute("store.get.door", key, door)

    def _build(
        self, lease: Lease | memoryview, deserializer: DeserializerT | None, writable: bool
    ) -> Any:
        deserializer = deserializer or self._deserializer
        if deserializer is None or deserializer is BUILT_IN:
            return loads(lease, writable=writable)
        return loads_with(deserializer, lease, writable=writable)

    def describe(self, key: Key, *, timeout: float | None = None) -> ObjectInfo:
        """What an object is: kind, length, and of an array dtype and shape. Fetches a few bytes.

        Raises:
            ObjectMissingError, ObjectEvictedError: It is not there.
            OperationTimeoutError: It was not stored yet, or its owner did not answer in time.
            OwnerGoneError: The process that held it has ended.
        """
        self._check_open()
        self._reach(key)
        return self._info_of(key, self._timeout if timeout is None else timeout)

    def _info_of(self, key: Key, timeout: float) -> ObjectInfo:
        if key.deferred:
            (error,) = self._ask_about([key], timeout)
            if error is not None:
                raise error
            key = Key(self._by_any_door("wait_for", key, timeout=timeout))
        prefix = self._by_any_door(
            "get_range", key, 0, min(PREFIX_NBYTES, key.nbytes), timeout=timeout
        )
        return describe(memoryview(prefix))

    def _part_of(
        self, key: Key, offset: int, length: int | None, timeout: float
    ) -> tuple[int, int]:
        """Where the bytes asked for lie in the serialized object, and how many they are."""
        info = self._info_of(key, timeout)
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
        lease = self._by_any_door("get_range", key, start, length, timeout=limit)
        door = getattr(lease, "door", DOOR)
        self._count_transfer(door, length, time.perf_counter() - began)
        return memoryview(lease).toreadonly()

    def get_into(
        self,
        key: Key,
        buffer: Any,
        *,
        offset: int = 0,
        timeout: float | None = None,
        progress: bool | Progress = False,
    ) -> int:
        """Reads an object that is one buffer straight into memory of yours.

        Args:
            key: Its key.
            buffer: Writable contiguous memory; it is filled, or up to the object's end.
            offset: Byte of the object to begin with.
            timeout: Seconds, instead of the store's default.
            progress: As for `get`.

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
        with progress_of(progress, length, _named(key)) as tell:
            door = self._by_any_door(
                "read_into", key, start, target[:length], timeout=limit, progress=tell
            )
        if callable(progress):
            progress(length, length)
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
        kept: dict[int, Lease | memoryview] = {}
        if not self._ucx_tried:
            for key in keys:
                self._reach(key)
        if writable or not len(self.cache):
            wanted += range(len(keys))
        else:
            for index, key in enumerate(keys):
                cached = self.cache.get(key)
                if cached is None:
                    wanted.append(index)
                else:
                    kept[index] = cached
        if kept:
            wanted += self._build_current(keys, kept, results, deserializer, limit)
            wanted.sort()
        began = time.perf_counter()
        leases: list[Any] = self._instance.get_batch(
            [packed_bytes(keys[i]) for i in wanted], writable, limit
        )
        self._outside.ask_for_failed(
            [keys[i] for i in wanted],
            leases,
            lambda tcp, packed, left: tcp.get_batch(packed, writable, left),
            began,
            limit,
            lambda packed, left: self._instance.get_batch(packed, writable, left),
        )
        received: dict[str, list[int]] = {}
        elapsed = time.perf_counter() - began
        for index, lease in zip(wanted, leases, strict=True):
            if not isinstance(lease, BaseException):
                door = getattr(lease, "door", DOOR)
                received.setdefault(door, []).append(len(lease))
                if self._detailed or door not in _MAPPED_DOORS:
                    self._keep(keys[index], lease, door, began, writable)
                results[index] = self._build(lease, deserializer, writable)
            elif not isinstance(lease, _MISSING):
                raise lease
        for door, lengths in received.items():
            self._count_transfer(door, sum(lengths), elapsed, len(lengths))
        return results

    def _build_current(
        self,
        keys: Sequence[Key],
        kept: dict[int, Lease | memoryview],
        results: list[Any],
        deserializer: DeserializerT | None,
        timeout: float,
    ) -> list[int]:
        """Builds what is cached of a batch and current; the places of what has to be got."""
        places, leases = list(kept), list(kept.values())
        try:
            current = self._are_current([keys[i] for i in places], leases, timeout)
        except _MISSING:
            return places  # which of them, and why, is found out where they are got
        for place, lease, valid in zip(places, leases, current, strict=True):
            if valid:
                results[place] = self._build(lease, deserializer, False)
        return [place for place, valid in zip(places, current, strict=True) if not valid]

    def exists(self, key: Key, *, timeout: float | None = None) -> bool:
        """Whether the object is there, as its owner says."""
        return self.exists_batch([key], timeout=timeout)[0]

    def exists_batch(self, keys: Sequence[Key], *, timeout: float | None = None) -> list[bool]:
        """`exists` of several keys, asking each owner once."""
        self._check_open()
        found: list[bool] = []
        for error in self._ask_about(keys, self._timeout if timeout is None else timeout):
            if error is not None and not isinstance(error, _MISSING):
                raise error
            found.append(error is None)
        return found

    def _ask_about(self, keys: Sequence[Key], timeout: float) -> list[BaseException | None]:
        """Why objects are not there; `None` for those that are."""
        for key in keys:
            self._reach(key)
        began = time.perf_counter()
        outcome: list[Any] = self._instance.exists([packed_bytes(key) for key in keys], timeout)
        self._outside.ask_for_failed(
            keys,
            outcome,
            lambda tcp, packed, left: tcp.exists(packed, left),
            began,
            timeout,
            self._instance.exists,
        )
        return outcome

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
        began = time.perf_counter()
        outcome = self._instance.evict([packed_bytes(key) for key in keys], force, limit)
        self._outside.ask_for_failed(
            keys,
            outcome,
            lambda tcp, packed, left: tcp.evict(packed, force, left),
            began,
            limit,
            lambda packed, left: self._instance.evict(packed, force, left),
        )
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
        self.located(key, timeout=self._timeout if timeout is None else timeout)

    def located(self, key: Key, *, timeout: float) -> Key:
        """As `wait_for`; the key as it is now that there is an object.

        Args:
            key: The key.
            timeout: Seconds; infinity is allowed, as a wait can be interrupted.
        """
        self._check_open()
        self._reach(key)
        began = time.monotonic()
        while True:
            left = max(0.0, timeout - (time.monotonic() - began))
            try:
                return Key(self._by_any_door("wait_for", key, timeout=min(left, _WAIT)))
            except OperationTimeoutError as error:
                if left > _WAIT:
                    continue
                # The time is for the object to come, not for the answer of a busy owner.
                (absent,) = self._ask_about([key], _ANSWER)
                if absent is None:
                    return Key(self._by_any_door("wait_for", key, timeout=_ANSWER))
                if not isinstance(absent, (ObjectMissingError, OperationTimeoutError)):
                    raise absent from None
                error.timeout = timeout
                raise

    def is_cached(self, key: Key) -> bool:
        """Whether a copy is kept that came over a network."""
        return self.cache.exists(key)


def _named(key: Key) -> str:
    return f"object {key.object_id}"
