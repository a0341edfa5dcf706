"""Storing objects."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import InvalidArgumentError
from proxystore_hpc.key import Key
from proxystore_hpc.serialize import Layout, plan, plan_with
from proxystore_hpc.store.core import SerializerT, packed_bytes
from proxystore_hpc.store.live import RegisteredBuffer
from proxystore_hpc.store.policy import PINNED, Policy, combine
from proxystore_hpc.store.reading import Reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

_NO_RULES = Policy()


class Writing(Reading):
    """The storing half of a store."""

    def _plan(self, obj: Any, serializer: SerializerT | None) -> Layout:
        serializer = serializer or self._serializer
        return plan(obj) if serializer is None else plan_with(serializer, obj)

    def put(
        self,
        obj: Any,
        *,
        lifetime: Any = None,
        serializer: SerializerT | None = None,
        policy: Policy | Iterable[Policy] | None = None,
        to: int | bytes | None = None,
        timeout: float | None = None,
    ) -> Key:
        """Stores an object.

        Large buffers are copied once, straight into registered memory; an array from `empty` is not
        copied but sealed: it turns read-only.

        Args:
            obj: The object.
            lifetime: Told of the key (ProxyStore's `Lifetime` protocol).
            serializer: Used instead of the store's.
            policy: `TimeToLive(seconds)`, `Pinned()`, or both.
            to: Another process whose memory to store in: a rank of the communicator, or its
                `Store.address`.
            timeout: Seconds, instead of the store's default.

        Raises:
            StoreFullError: The capacity is reached, or the machine has no more memory.
            SerializationError: The object cannot be serialized.
        """
        if self._closed:
            self._check_open()
        began = time.perf_counter() if self._detailed else 0.0
        rules = _NO_RULES if policy is None else combine(policy)
        layout = self._plan(obj, serializer)
        key: Key | None = None
        if to is None:
            if self._fresh and hasattr(type(obj), "__array_interface__"):
                key = self._fresh.seal(obj, layout, rules.ttl_ns, rules.flags & PINNED)
            if key is None:
                packed = self._instance.put(
                    layout.nbytes, layout.segments(), rules.ttl_ns, rules.flags & PINNED
                )
                key = Key(packed)
        else:
            address = self._address_of(to)
            limit = self._timeout if timeout is None else timeout
            packed = self._instance.put_to(
                address, layout.nbytes, layout.segments(), rules.ttl_ns, rules.flags & PINNED, limit
            )
            key = Key(packed)
        if lifetime is not None:
            lifetime.add_key(key, store=self)
        if self._detailed:
            self._record("store.put", key, began, layout.nbytes)
        return key

    def _address_of(self, to: int | bytes) -> bytes:
        if isinstance(to, bytes):
            return to
        if self._job is None:
            raise InvalidArgumentError(
                "to: ranks are known to stores of Store.from_mpi() only; pass the other's address"
            )
        return self._job.address_of(to)

    def put_batch(
        self,
        objs: Sequence[Any],
        *,
        lifetime: Any = None,
        serializer: SerializerT | None = None,
        policy: Policy | Iterable[Policy] | None = None,
        to: int | bytes | None = None,
        timeout: float | None = None,
    ) -> list[Key]:
        """Stores several objects; if one fails, none is left. See `put`."""
        keys: list[Key] = []
        try:
            for obj in objs:
                keys.append(
                    self.put(obj, serializer=serializer, policy=policy, to=to, timeout=timeout)
                )
        except BaseException:
            self.evict_batch(keys, force=True)
            raise
        if lifetime is not None:
            lifetime.add_key(*keys, store=self)
        return keys

    def empty(
        self, shape: int | Sequence[int], dtype: DTypeLike = float, order: str = "C"
    ) -> NDArray[np.generic]:
        """A new array in registered memory, with undefined contents, to be filled and then stored.

        Storing it copies nothing; the array turns read-only then. An array that is dropped without
        being stored gives its memory back.

        Args:
            shape: Shape of the array.
            dtype: Its dtype, without Python objects.
            order: `"C"` or `"F"`.

        Raises:
            StoreFullError: The capacity is reached.
            InvalidArgumentError: There is no array of this shape, or it would hold Python objects.
        """
        self._check_open()
        return self._fresh.empty(shape, dtype, order)

    def register(self, buffer: Any) -> RegisteredBuffer:
        """Lets others read a buffer of yours in place, while it changes. See `RegisteredBuffer`.

        Args:
            buffer: A contiguous array, bytearray, memoryview or cffi buffer.
        """
        self._check_open()
        return RegisteredBuffer(self._instance, buffer)

    def new_key(self) -> Key:
        """A key whose object is stored later, by `set` in this process. Others may wait for it."""
        self._check_open()
        return Key(self._instance.new_key())

    def set(
        self,
        key: Key,
        obj: Any,
        *,
        serializer: SerializerT | None = None,
        policy: Policy | Iterable[Policy] | None = None,
    ) -> None:
        """Stores the object of a key that `new_key` made. Once.

        Raises:
            InvalidArgumentError: It was set before, or the key is of another process.
        """
        self._check_open()
        rules = _NO_RULES if policy is None else combine(policy)
        layout = self._plan(obj, serializer)
        packed_bytes(key)  # refuses what is no key
        if key.owner_id != self._instance.address[:16]:
            raise InvalidArgumentError(f"{key!r} can be set by the process that made it only")
        self._instance.put(
            layout.nbytes, layout.segments(), rules.ttl_ns, rules.flags & PINNED, key.object_id
        )
