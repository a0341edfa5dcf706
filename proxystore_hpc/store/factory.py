"""Factories of proxies whose objects lie in a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from proxystore_hpc.exceptions import (
    ObjectEvictedError,
    ObjectMissingError,
    ProxyResolveMissingKeyError,
)
from proxystore_hpc.factory import Factory
from proxystore_hpc.key import Key
from proxystore_hpc.proxy import Proxy, unpickle
from proxystore_hpc.store.registry import get_store

if TYPE_CHECKING:
    from proxystore_hpc.store.base import Store

T = TypeVar("T")


class StoreFactory(Factory[T]):
    """Gets an object from a store when it is called.

    Only the key and the store's name travel in its pickle. A process that has no store of that name
    asks the object's owner for the store's configuration and opens one.

    Args:
        key: Key of the object.
        store_name: Name of its store.
        evict: Evict the object once it was got.
        deserializer: Used instead of the store's own.
    """

    __slots__ = ("deserializer", "evict", "key", "store_name")

    def __init__(
        self,
        key: Key,
        store_name: str,
        *,
        evict: bool = False,
        deserializer: Callable[[Any], T] | None = None,
    ) -> None:
        self.key = key
        self.store_name = store_name
        self.evict = evict
        self.deserializer = deserializer

    def __reduce__(self) -> tuple[Any, ...]:
        if self.evict or self.deserializer is not None:
            return factory_of, (self.key.packed, self.store_name, self.evict, self.deserializer)
        return factory_of, (self.key.packed, self.store_name)

    def __reduce_proxy__(self, *defaults: Any) -> tuple[Any, ...]:
        # A proxy and its factory in one: half the time and bytes of two references in a pickle.
        if self.evict or self.deserializer is not None:
            special = (self.evict, self.deserializer)
            return special_proxy_of, (self.key.packed, self.store_name, special, *defaults)
        return proxy_of, (self.key.packed, self.store_name, *defaults)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StoreFactory):
            return NotImplemented
        mine = (self.key, self.store_name, self.evict, self.deserializer)
        return mine == (other.key, other.store_name, other.evict, other.deserializer)

    def __hash__(self) -> int:
        return hash((self.key, self.store_name))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key!r}, {self.store_name!r})"

    def get_store(self) -> Store:
        """The store of the factory, opened if this process has none of its name.

        Raises:
            PeerError: It has to be opened and its owner cannot be asked.
        """
        store = get_store(self.store_name)
        if store is not None:
            return store
        from proxystore_hpc.store.opening import store_of_key

        return store_of_key(self.key, self.store_name)

    def resolve(self) -> T:
        """Gets the object.

        Raises:
            ProxyResolveMissingKeyError: It was evicted or never existed.
            OwnerGoneError: The process that held it has ended.
        """
        store = self.get_store()
        try:
            obj: T = store.get_or_raise(self.key, deserializer=self.deserializer)
        except (ObjectMissingError, ObjectEvictedError) as error:
            raise ProxyResolveMissingKeyError(
                self.key, type(store), store.name, self.key.owner
            ) from error
        if self.evict:
            store.evict(self.key)
        return obj


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


# Pickles carry this path: the shorter, the smaller every proxy.
for _function in (factory_of, proxy_of, special_proxy_of):
    _function.__module__ = "proxystore_hpc.store"
