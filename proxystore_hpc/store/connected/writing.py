"""Storing objects by a connector."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from proxystore_hpc.connectors.base import set_once
from proxystore_hpc.connectors.protocols import DeferrableConnector
from proxystore_hpc.exceptions import NotDeferrableError
from proxystore_hpc.serialize import Layout, is_bytes_like, plan
from proxystore_hpc.store.connected.core import joined, refuse, size_of
from proxystore_hpc.store.connected.reading import ConnectedReading
from proxystore_hpc.store.core import SerializerT


class ConnectedWriting(ConnectedReading):
    """The storing half of a store with a connector."""

    def put(
        self,
        obj: Any,
        *,
        lifetime: Any = None,
        serializer: SerializerT | None = None,
        policy: Any = None,
        to: Any = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Any:
        """Stores an object.

        Args:
            obj: The object.
            lifetime: Told of the key (ProxyStore's `Lifetime` protocol).
            serializer: Used instead of the store's.
            policy: Not for stores with a connector.
            to: Not for stores with a connector.
            timeout: Without effect: the connector has its own deadlines.
            options: Further arguments of the connector's `put`.

        Raises:
            SerializationError: The object cannot be serialized.
            ConnectorError: The connector of this package could not store it.
        """
        self._check_open()
        refuse(policy=policy, to=to)
        began = time.perf_counter()
        packed = self._pack(obj, serializer)
        packed_at = time.perf_counter()
        put_parts = getattr(self.connector, "put_parts", None)
        with self._turns:
            if put_parts is not None and isinstance(packed, Layout):
                key = put_parts(packed.pieces(), **options)
            else:
                key = self.connector.put(joined(packed), **options)
        self._stored("put", key, size_of(packed), began, packed_at)
        if lifetime is not None:
            self._live_with(lifetime, key)
        return key

    def put_batch(
        self,
        objs: Sequence[Any],
        *,
        lifetime: Any = None,
        serializer: SerializerT | None = None,
        policy: Any = None,
        to: Any = None,
        timeout: float | None = None,
        **options: Any,
    ) -> list[Any]:
        """Stores several objects by one request to the connector, after all were serialized."""
        self._check_open()
        refuse(policy=policy, to=to)
        if not objs:
            return []
        began = time.perf_counter()
        packed = [joined(self._pack(obj, serializer)) for obj in objs]
        packed_at = time.perf_counter()
        with self._turns:
            keys = list(self.connector.put_batch(packed, **options))
        self._stored("put_batch", tuple(keys), sum(map(size_of, packed)), began, packed_at)
        if lifetime is not None:
            self._live_with(lifetime, *keys)
        return keys

    def new_key(self, obj: Any = None) -> Any:
        """A key whose object is stored later, by `set` in any process.

        Args:
            obj: The bytes to come, if they are known, as a hint for the connector.

        Raises:
            NotDeferrableError: The connector has no such keys.
        """
        self._check_open()
        self._check_deferrable()
        with self._turns:
            return self.connector.new_key(obj)

    def set(
        self,
        key: Any,
        obj: Any,
        *,
        serializer: SerializerT | None = None,
        policy: Any = None,
        timeout: float | None = None,
    ) -> None:
        """Stores the object of a key that `new_key` made, here or in another process.

        Raises:
            NotDeferrableError: The connector has no such keys.
        """
        refuse(policy=policy)
        self._set_by_connector(key, obj, serializer)

    def _set_by_connector(
        self, key: Any, obj: Any, serializer: SerializerT | None, *, once: bool = False
    ) -> bool:
        self._check_open()
        self._check_deferrable()
        began = time.perf_counter()
        packed = self._pack(obj, serializer)
        packed_at = time.perf_counter()
        with self._turns:
            if not once:
                self.connector.set(key, joined(packed))
            elif not set_once(self.connector, key, joined(packed)):
                return False
        self.cache.evict(key)
        self._stored("set", key, size_of(packed), began, packed_at)
        return True

    def _check_deferrable(self) -> None:
        if not isinstance(self.connector, DeferrableConnector):
            raise NotDeferrableError(
                f"a {type(self.connector).__name__} gives no keys for objects to come (it has no "
                "new_key and set), so it has no futures: use another connector, or none",
                connector=repr(self.connector),
            )

    def _pack(self, obj: Any, serializer: SerializerT | None) -> Any:
        serializer = serializer or self._serializer
        if serializer is None:
            return plan(obj, 0)
        result = serializer(obj)
        if not is_bytes_like(result):
            raise TypeError(
                "a serializer must return bytes, a bytearray or a memoryview, this one returned "
                f"{type(result).__name__}"
            )
        return result

    def _stored(self, event: str, key: Any, nbytes: int, began: float, packed_at: float) -> None:
        now = time.perf_counter()
        self._count_transfer(self._door, nbytes, now - packed_at)
        if self._detailed:
            event = f"store.{event}"
            self._metrics.add_time(event, key, 1e3 * (now - began))
            self._metrics.add_time(f"{event}.serialize", key, 1e3 * (packed_at - began))
            self._metrics.add_time(f"{event}.connector", key, 1e3 * (now - packed_at))
            self._metrics.add_attribute(f"{event}.object_size", key, nbytes)
