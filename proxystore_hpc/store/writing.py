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
from proxystore_hpc.store.outside import NATIVE_FAILED
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
        to: int | bytes | Key | None = None,
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
            to: Another process whose memory to store in: a rank of the communicator, its
                `Store.address`, or a key of an object that it holds. Only a key leads through a
                gateway, or the owner's TCP server, which wants `options={"put_token": ...}`.
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
            limit = self._timeout if timeout is None else timeout
            key = Key(self._put_elsewhere(to, layout, rules, limit))
        if lifetime is not None:
            self._live_with(lifetime, key)
        if self._detailed:
            self._record("store.put", key, began, layout.nbytes)
        return key

    def _put_elsewhere(
        self, to: int | bytes | Key, layout: Layout, rules: Policy, timeout: float
    ) -> bytes:
        flags = rules.flags & PINNED
        if isinstance(to, Key):
            self._reach(to)
            if self._outside.leads_to(to):
                began = time.perf_counter()
                (failure,) = self._instance.exists([to.packed], timeout)
                if isinstance(failure, NATIVE_FAILED):
                    return self._outside.put(
                        to, failure, layout, rules.ttl_ns, flags, began, timeout
                    )
        address = self._address_of(to)
        return self._instance.put_to(
            address, layout.nbytes, layout.segments(), rules.ttl_ns, flags, timeout
        )

    def _address_of(self, to: int | bytes | Key) -> bytes:
        if isinstance(to, bytes):
            return to
        if isinstance(to, Key):
            return to.address
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
        to: int | bytes | Key | None = None,
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
            self._live_with(lifetime, *keys)
        return keys

    def _live_with(self, lifetime: Any, *keys: Key) -> None:
        try:
            lifetime.add_key(*keys, store=self)
        except BaseException:
            self.evict_batch(keys, force=True)
            raise

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
        """A key whose object is stored later, by `set` in any process. Others may wait for it."""
        self._check_open()
        return Key(self._instance.new_key())

    def set(
        self,
        key: Key,
        obj: Any,
        *,
        serializer: SerializerT | None = None,
        policy: Policy | Iterable[Policy] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Stores the object of a key that `new_key` made, in the process that made it. Once.

        One that fails leaves the key as it was: it can be set again.

        Args:
            key: The key.
            obj: The object.
            serializer: Used instead of the store's.
            policy: As for `put`.
            timeout: Seconds, instead of the store's default.

        Raises:
            InvalidArgumentError: It was set before, or the key was not made by `new_key`.
            OwnerGoneError: The process that made the key has ended.
            AccessDeniedError: It does not let this one store anything there.
        """
        self._check_open()
        packed_bytes(key)  # refuses what is no key
        rules = _NO_RULES if policy is None else combine(policy)
        self._set(key, self._plan(obj, serializer), rules.flags & PINNED, rules.ttl_ns, timeout)

    def _set(
        self,
        key: Key,
        layout: Layout,
        flags: int = 0,
        ttl_ns: int = 0,
        timeout: float | None = None,
        claim: int = 0,
    ) -> Key:
        """Stores what becomes the object of a key; gives the key that says where it lies now.

        Args:
            key: A key without an object, or with one that the reference `claim` may change.
            layout: The object.
            flags: Bits for the core, see `Policy`.
            ttl_ns: Time to live in nanoseconds, 0 for ever. Not for a change.
            timeout: As for `set`.
            claim: Number of the reference, 0 for none.
        """
        if self.holds(key):
            packed = self._instance.put(
                layout.nbytes, layout.segments(), ttl_ns, flags, key.object_id, claim
            )
        else:
            self._reach(key)
            limit = self._timeout if timeout is None else timeout
            packed = self._instance.put_into(
                key.packed, claim, layout.nbytes, layout.segments(), ttl_ns, flags, limit
            )
        return Key(packed)
