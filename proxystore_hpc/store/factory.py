"""Factories of proxies whose objects lie in a store."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import astuple
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from proxystore_hpc.exceptions import (
    ObjectEvictedError,
    ObjectMissingError,
    ProxyResolveMissingKeyError,
)
from proxystore_hpc.factory import Factory
from proxystore_hpc.key import Key
from proxystore_hpc.proxy import Proxy, unpickle
from proxystore_hpc.store.carried import CarriedConfig
from proxystore_hpc.store.config import StoreConfig
from proxystore_hpc.store.polling import POLLING, Polling
from proxystore_hpc.store.registry import get_or_create_store, get_store
from proxystore_hpc.utils.offload import start

if TYPE_CHECKING:
    from proxystore_hpc.store.base import Store

T = TypeVar("T")


class StoreFactory(Factory[T]):
    """Gets an object from a store when it is called.

    Of a store in this package's own memory, only the key and the store's name travel in its pickle:
    a process that has no store of that name asks the object's owner for the store's configuration
    and opens one. With a connector there is no owner to ask, so the configuration travels too.

    Args:
        key: Key of the object.
        store_config: Name of its store, or the configuration of a store with a connector.
        evict: Evict the object once it was got.
        deserializer: Used instead of the store's own.
    """

    __slots__ = ("_ahead", "carried", "deserializer", "evict", "key", "store_name")

    writable: ClassVar[bool] = False
    """Whether it gets a private object whose arrays can be written."""

    def __init__(
        self,
        key: Any,
        store_config: str | StoreConfig | CarriedConfig,
        *,
        evict: bool = False,
        deserializer: Callable[[Any], T] | None = None,
    ) -> None:
        self.key = key
        self.evict = evict
        self.deserializer = deserializer
        self._ahead: Future[T] | None = None
        self.carried: CarriedConfig | None = None
        if isinstance(store_config, str):
            self.store_name = store_config
            return
        self.store_name = store_config.name
        if isinstance(store_config, CarriedConfig):
            self.carried = store_config
        elif store_config.connector is not None:
            self.carried = CarriedConfig(store_config.name, store_config)

    @property
    def store_config(self) -> StoreConfig:
        """Configuration of the store, as far as it is known here."""
        return StoreConfig(self.store_name) if self.carried is None else self.carried.config()

    @property
    def place(self) -> str | CarriedConfig:
        """The store, as a factory of another of its objects takes it."""
        return self.store_name if self.carried is None else self.carried

    def __call__(self) -> T:
        """The object: `resolve()`, unless that was begun by `resolve_async`."""
        ahead, self._ahead = self._ahead, None
        return self.resolve() if ahead is None else ahead.result()

    def __reduce__(self) -> tuple[Any, ...]:
        if self.carried is not None:
            return connected_factory_of, (self.key, self.carried, self.evict, self.deserializer)
        if self.evict or self.deserializer is not None:
            return factory_of, (self.key.packed, self.store_name, self.evict, self.deserializer)
        return factory_of, (self.key.packed, self.store_name)

    def __reduce_proxy__(self, *defaults: Any) -> tuple[Any, ...]:
        # A proxy and its factory in one: half the time and bytes of two references in a pickle.
        special = (self.evict, self.deserializer)
        if self.carried is not None:
            return connected_proxy_of, (self.key, self.carried, special, *defaults)
        if self.evict or self.deserializer is not None:
            return special_proxy_of, (self.key.packed, self.store_name, special, *defaults)
        return proxy_of, (self.key.packed, self.store_name, *defaults)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StoreFactory):
            return NotImplemented
        mine = (self.key, self.store_name, self.evict, self.deserializer, self.carried)
        return mine == (
            other.key,
            other.store_name,
            other.evict,
            other.deserializer,
            other.carried,
        )

    def __hash__(self) -> int:
        return hash((self.key, self.store_name))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key!r}, {self.store_name!r})"

    def get_store(self) -> Store:
        """The store of the factory, opened if this process has none of its name.

        Raises:
            PeerError: It has to be opened and its owner cannot be asked.
            ConfigError: It has to be opened and its connector cannot be made here.
        """
        store = get_store(self.store_name)
        if store is not None:
            return store
        if self.carried is not None:
            return self.carried.store() or get_or_create_store(self.carried.config())
        from proxystore_hpc.store.opening import store_of_key

        return store_of_key(self.key, self.store_name)

    def resolve(self) -> T:
        """Gets the object.

        Raises:
            ProxyResolveMissingKeyError: It was evicted or never existed.
            OwnerGoneError: The process that held it has ended.
        """
        began = time.perf_counter()
        store = self.get_store()
        try:
            obj: T = store.get_or_raise(
                self.key, deserializer=self.deserializer, writable=self.writable
            )
        except (ObjectMissingError, ObjectEvictedError) as error:
            owner = self.key.owner if isinstance(self.key, Key) else None
            raise ProxyResolveMissingKeyError(self.key, type(store), store.name, owner) from error
        if self.evict:
            store.evict(self.key)
        if store._detailed:
            store.metrics.add_time("factory.resolve", self.key, 1e3 * (time.perf_counter() - began))
        return obj

    def resolve_async(self) -> None:
        """Begins to get the object in the background, for the next call."""
        if self._ahead is None:
            self._ahead = start(self.resolve)


class PollingStoreFactory(StoreFactory[T]):
    """Waits until its object is stored, asking the connector again and again.

    Futures of stores with a connector stand on it; others are told by the object's owner.

    Args:
        key: Key of the object, which may not be there yet.
        store_config: As for `StoreFactory`.
        deserializer: Used instead of the store's own.
        evict: Evict the object once it was got.
        polling_interval: Seconds before the second question.
        polling_backoff_factor: By how much each interval is longer than the one before.
        polling_interval_limit: Longest interval in seconds, `None` for no limit.
        polling_timeout: Seconds after which waiting gives up, `None` to wait until the store is
            closed.
    """

    __slots__ = ("polling", "polling_timeout")

    def __init__(
        self,
        key: Any,
        store_config: str | StoreConfig | CarriedConfig,
        *,
        deserializer: Callable[[Any], T] | None = None,
        evict: bool = False,
        polling_interval: float = POLLING.interval,
        polling_backoff_factor: float = POLLING.backoff_factor,
        polling_interval_limit: float | None = POLLING.interval_limit,
        polling_timeout: float | None = None,
    ) -> None:
        super().__init__(key, store_config, evict=evict, deserializer=deserializer)
        self.polling = Polling(polling_interval, polling_backoff_factor, polling_interval_limit)
        self.polling_timeout = polling_timeout

    def __reduce__(self) -> tuple[Any, ...]:
        polling = (*astuple(self.polling), self.polling_timeout)
        return polling_factory_of, (self.key, self.place, self.evict, self.deserializer, polling)

    def __reduce_proxy__(self, *defaults: Any) -> tuple[Any, ...]:
        return polling_proxy_of, (*self.__reduce__()[1], *defaults)

    def resolve(self) -> T:
        """Waits for the object and gets it.

        Raises:
            OperationTimeoutError: It was not stored in time.
            Exception: It was stored as the result of a future.
        """
        value, error = self.fetch(self.polling_timeout)
        if error is not None:
            raise error
        return cast(T, value)

    def done(self) -> bool:
        """Whether the object, or an exception in its place, is stored."""
        return self.get_store().exists(self.key)

    def fetch(self, timeout: float | None) -> tuple[T | None, BaseException | None]:
        """The object or an exception in its place; waits so many seconds for it."""
        store: Any = self.get_store()
        value, error = store.wait_for_result(
            self.key, deserializer=self.deserializer, timeout=timeout, polling=self.polling
        )
        if self.evict:
            store.evict(self.key)
        return value, error

    def settle(self, obj: Any, serializer: Callable[[Any], Any] | None, raised: bool) -> None:
        """Stores the object, or an exception in its place.

        Raises:
            InvalidArgumentError: Something is stored there already.
        """
        store: Any = self.get_store()
        store.set_once(self.key, obj, serializer=serializer, raised=raised)

    def watch(self, queue: Any, token: object) -> None:
        """Nobody tells when the object is there, so `done` has to be asked."""


def factory_of(
    packed: bytes,
    store_name: str,
    evict: bool = False,
    deserializer: Callable[[Any], Any] | None = None,
) -> StoreFactory[Any]:
    """The factory that a pickle stands for."""
    return StoreFactory(Key(packed), store_name, evict=evict, deserializer=deserializer)


def proxy_of(packed: bytes, store_name: str, *defaults: Any) -> Proxy[Any]:
    """The proxy that a pickle stands for."""
    return unpickle(StoreFactory(Key(packed), store_name), *defaults)


def special_proxy_of(
    packed: bytes, store_name: str, special: tuple[bool, Any], *defaults: Any
) -> Proxy[Any]:
    """The proxy that a pickle stands for, with the options that few proxies have."""
    evict, deserializer = special
    factory = StoreFactory[Any](Key(packed), store_name, evict=evict, deserializer=deserializer)
    return unpickle(factory, *defaults)


def connected_factory_of(
    key: Any, carried: CarriedConfig, evict: bool, deserializer: Callable[[Any], Any] | None
) -> StoreFactory[Any]:
    """The factory that a pickle stands for, of a store with a connector."""
    return StoreFactory(key, carried, evict=evict, deserializer=deserializer)


def connected_proxy_of(
    key: Any, carried: CarriedConfig, special: tuple[bool, Any], *defaults: Any
) -> Proxy[Any]:
    """The proxy that a pickle stands for, of a store with a connector."""
    return unpickle(connected_factory_of(key, carried, *special), *defaults)


def polling_factory_of(
    key: Any,
    place: str | CarriedConfig,
    evict: bool,
    deserializer: Callable[[Any], Any] | None,
    polling: tuple[float, float, float | None, float | None],
) -> PollingStoreFactory[Any]:
    """The factory that a pickle stands for."""
    interval, backoff_factor, interval_limit, timeout = polling
    return PollingStoreFactory(
        key,
        place,
        evict=evict,
        deserializer=deserializer,
        polling_interval=interval,
        polling_backoff_factor=backoff_factor,
        polling_interval_limit=interval_limit,
        polling_timeout=timeout,
    )


def polling_proxy_of(
    key: Any, place: Any, evict: bool, deserializer: Any, polling: Any, *defaults: Any
) -> Proxy[Any]:
    """The proxy that a pickle stands for."""
    return unpickle(polling_factory_of(key, place, evict, deserializer, polling), *defaults)


# Pickles carry this path: the shorter, the smaller every proxy.
for _function in (
    factory_of,
    proxy_of,
    special_proxy_of,
    connected_factory_of,
    connected_proxy_of,
    polling_factory_of,
    polling_proxy_of,
):
    _function.__module__ = "proxystore_hpc.store"
