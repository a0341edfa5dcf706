"""Results that come later, for futures of stores with a connector: nobody tells, so they poll."""

from __future__ import annotations

from typing import Any

from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    ProxyStoreHpcError,
    SerializationError,
)
from proxystore_hpc.serialize import loads, serialize
from proxystore_hpc.store.connected.writing import ConnectedWriting
from proxystore_hpc.store.core import DeserializerT, SerializerT
from proxystore_hpc.store.factory import PollingStoreFactory
from proxystore_hpc.store.future import Future
from proxystore_hpc.store.polling import POLLING, Polling

# Before an exception that is stored in the place of an object.
_RAISED = b"\x93pshpc-raised\x00"


class ConnectedResults(ConnectedWriting):
    """Futures of a store with a connector, and what they stand on."""

    def future(
        self,
        *,
        evict: bool = False,
        serializer: SerializerT | None = None,
        deserializer: DeserializerT | None = None,
        polling_interval: float = POLLING.interval,
        polling_backoff_factor: float = POLLING.backoff_factor,
        polling_interval_limit: float | None = POLLING.interval_limit,
        polling_timeout: float | None = None,
    ) -> Future[Any]:
        """A result that is set later, here or elsewhere, and that anybody can wait for.

        Args:
            evict: Evict the result when it is got for the first time.
            serializer: Makes bytes of the result, instead of the store's.
            deserializer: Makes the result of them.
            polling_interval: Seconds before who waits asks the connector for the second time.
            polling_backoff_factor: By how much each interval is longer than the one before.
            polling_interval_limit: Longest interval in seconds, `None` for no limit.
            polling_timeout: Seconds that a proxy of the future waits; `None` for as long as its
                store is open.

        Raises:
            NotDeferrableError: The connector has no keys for objects to come.
        """
        factory: PollingStoreFactory[Any] = PollingStoreFactory(
            self.new_key(),
            self._place(),
            evict=evict,
            deserializer=deserializer,
            polling_interval=polling_interval,
            polling_backoff_factor=polling_backoff_factor,
            polling_interval_limit=polling_interval_limit,
            polling_timeout=polling_timeout,
        )
        return Future(factory, serializer=serializer)

    def wait_for_result(
        self,
        key: Any,
        *,
        deserializer: DeserializerT | None = None,
        timeout: float | None = None,
        polling: Polling = POLLING,
    ) -> tuple[Any, BaseException | None]:
        """Waits for what `set_once` stores.

        Args:
            key: A key of `new_key`.
            deserializer: Used instead of the store's.
            timeout: Seconds; `None` for as long as the store is open.
            polling: How often to ask.

        Returns:
            The object and `None`, or `None` and an exception that was stored in its place.

        Raises:
            OperationTimeoutError: Nothing was stored in time.
        """
        for _ in polling.tries(timeout):
            self._check_open()
            with self._turns:
                data = self.connector.get(key)
            if data is None:
                continue
            if bytes(data[: len(_RAISED)]) == _RAISED:
                return None, loads(memoryview(data)[len(_RAISED) :])
            return self._built(data, deserializer, False), None
        raise self._late(key, timeout)

    def set_once(
        self, key: Any, obj: Any, *, serializer: SerializerT | None = None, raised: bool = False
    ) -> None:
        """As `set`, for what waits by `wait_for_result`.

        With a connector that is no `OnceConnector`, two processes that do so at the same moment
        may both succeed.

        Args:
            key: A key of `new_key`.
            obj: The object.
            serializer: Used instead of the store's.
            raised: It is an exception, to be raised for those who wait.

        Raises:
            InvalidArgumentError: Something is stored there already.
        """
        if not self._set_by_connector(key, obj, _raising if raised else serializer, once=True):
            raise InvalidArgumentError(f"something is stored under {key!r} already, and it stays")


def _raising(error: BaseException) -> bytes:
    try:
        return _RAISED + serialize(error)
    except SerializationError:
        return _RAISED + serialize(ProxyStoreHpcError(f"{type(error).__name__}: {error}"))
