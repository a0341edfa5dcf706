"""How long objects live: until a block of code ends, a time is over, or the program ends."""

from __future__ import annotations

import atexit
import logging
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    LifetimeEndedError,
    ObjectEvictedError,
    ObjectMissingError,
    PeerError,
    ProxyStoreFactoryError,
)
from proxystore_hpc.key import Key
from proxystore_hpc.proxy import Proxy, get_factory
from proxystore_hpc.store.factory import StoreFactory
from proxystore_hpc.store.renewal import renewals
from proxystore_hpc.utils.locks import make_rlock

if TYPE_CHECKING:
    from proxystore_hpc.store.base import Store

__all__ = [
    "ContextLifetime",
    "LeaseLifetime",
    "Lifetime",
    "StaticLifetime",
    "register_lifetime_atexit",
]

logger = logging.getLogger(__name__)

LifetimeT = TypeVar("LifetimeT", bound="_Keys")


@runtime_checkable
class Lifetime(Protocol):
    """Something that evicts the objects that it was told of when it ends."""

    def add_key(self, *keys: Key, store: Store | None = None) -> None:
        """The objects of these keys of `store` end with it."""

    def add_proxy(self, *proxies: Proxy[Any]) -> None:
        """The objects of these proxies end with it."""

    def close(self, *, close_stores: bool = False) -> None:
        """Ends it, and closes the stores of its objects if asked to."""

    def done(self) -> bool:
        """Whether it has ended."""


class _Keys:
    """Keys by store, evicted together. Thread-safe."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._ended = False
        self._keys: dict[Store, set[Key]] = {}
        self._lock = make_rlock()

    def __enter__(self: LifetimeT) -> LifetimeT:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def _default_store(self) -> Store:
        raise InvalidArgumentError(f"{self!r} needs the store= of the keys")

    def add_key(self, *keys: Key, store: Store | None = None) -> None:
        """The objects of these keys end with this lifetime.

        Args:
            keys: The keys.
            store: The store that evicts them.

        Raises:
            LifetimeEndedError: It has ended.
        """
        self._add(keys, self._default_store() if store is None else store)

    def _add(self, keys: tuple[Key, ...], store: Store) -> None:
        with self._lock:
            if self.done():
                raise LifetimeEndedError(f"{self!r} has ended; make a new one")
            self._keys.setdefault(store, set()).update(keys)

    def add_proxy(self, *proxies: Proxy[Any]) -> None:
        """The objects of these proxies, which are not resolved, end with this lifetime.

        Raises:
            LifetimeEndedError: It has ended.
            ProxyStoreFactoryError: A proxy was not made by a store; then none is added.
        """
        factories = [get_factory(proxy) for proxy in proxies]
        for factory in factories:
            if not isinstance(factory, StoreFactory):
                raise ProxyStoreFactoryError(
                    "the proxy was not created by a store: its factory is a "
                    f"{type(factory).__name__}"
                )
        for factory in factories:
            self.add_key(factory.key, store=factory.get_store())  # type: ignore[attr-defined]

    def close(self, *, close_stores: bool = False) -> None:
        """Evicts all its objects, asking each owner once. Idempotent.

        Objects that are gone already, and those of processes that have ended, are passed over.

        Args:
            close_stores: Close their stores too.
        """
        with self._lock:
            if self._ended:
                return
            self._ended = True
            keys, self._keys = self._keys, {}
        self._on_end()
        for store, mine in keys.items():
            _evict(store, mine)
            if close_stores:
                store.close()

    def _on_end(self) -> None:
        """Before the objects go."""

    def done(self) -> bool:
        """Whether it has ended."""
        return self._ended


def _evict(store: Store, keys: set[Key]) -> None:
    if store.closed:
        return  # and with it what it held
    try:
        store.evict_batch(list(keys), force=True)
    except PeerError as error:
        logger.info("objects of a lifetime went with their owner: %s", error)


class ContextLifetime(_Keys):
    """Objects live until it is closed, which the end of its `with` block does.

    Args:
        store: The store of its keys.
        name: Name for messages.
    """

    def __init__(self, store: Store, *, name: str | None = None) -> None:
        super().__init__(uuid.uuid4().hex if name is None else name)
        self.store = store

    def _default_store(self) -> Store:
        return self.store


class LeaseLifetime(ContextLifetime):
    """Objects live until a point in time, which can be moved.

    The time is kept where the objects are, so they end by it whatever becomes of this process.

    Args:
        store: The store of its keys.
        expiry: Seconds or a `timedelta` from now, or a `datetime`.
        name: Name for messages.
        patience: Seconds after which the objects end if this process died, or stood still for so
            long; they are renewed in the background. By default they live until the expiry all the
            same. Code that keeps the GIL for long stands still.
    """

    def __init__(
        self,
        store: Store,
        expiry: datetime | timedelta | float,
        *,
        name: str | None = None,
        patience: float | None = None,
    ) -> None:
        super().__init__(store, name=name)
        if patience is not None and not patience > 0:
            raise InvalidArgumentError(f"patience: positive seconds are needed, not {patience!r}")
        self._patience = patience
        self._expiry = time.time()
        self._move(expiry)
        if patience is not None:
            renewals.add(self)

    def _move(self, expiry: datetime | timedelta | float) -> None:
        if isinstance(expiry, datetime):
            self._expiry = expiry.timestamp()
        elif isinstance(expiry, timedelta):
            self._expiry += expiry.total_seconds()
        else:
            self._expiry += float(expiry)

    def _left(self) -> float:
        left = self._expiry - time.time()
        return left if self._patience is None else min(left, self._patience)

    def _add(self, keys: tuple[Key, ...], store: Store) -> None:
        super()._add(keys, store)
        self._prolong({store: set(keys)})

    def extend(self, expiry: datetime | timedelta | float) -> None:
        """Moves the end.

        Args:
            expiry: Seconds or a `timedelta` to add, or a `datetime`, which may be earlier, too.

        Raises:
            LifetimeEndedError: It has ended.
            OwnerGoneError: The process of an object has ended.
        """
        with self._lock:
            if self.done():
                raise LifetimeEndedError(f"{self!r} has ended; make a new one")
            self._move(expiry)
            keys = {store: set(mine) for store, mine in self._keys.items()}
        self._prolong(keys)

    def _prolong(self, keys: dict[Store, set[Key]]) -> None:
        left = self._left()
        for store, mine in keys.items():
            # What is over ends at once, and not never.
            store.extend_batch(list(mine), max(left, 1e-9))

    def renew(self) -> float | None:
        """Lets the objects live on, if they are to outlive the patience.

        Returns:
            Seconds until this is due again; `None` if it has ended.
        """
        with self._lock:
            if self._patience is None or self.done():
                return None
            keys = {store: set(mine) for store, mine in self._keys.items() if not store.closed}
        try:
            self._prolong(keys)
        except (PeerError, ObjectEvictedError, ObjectMissingError) as error:
            logger.info("objects of %r ended before their time: %s", self, error)
        return self._patience / 3

    def done(self) -> bool:
        """Whether it has ended, by `close` or by time."""
        return self._ended or self._expiry <= time.time()


class StaticLifetime(_Keys):
    """Objects live until the program ends, which closes their stores. There is one of it."""

    _only: StaticLifetime | None = None

    def __new__(cls) -> StaticLifetime:
        """The one there is."""
        if cls._only is None:
            cls._only = super().__new__(cls)
            _Keys.__init__(cls._only, "static")
            cls._only._callback = register_lifetime_atexit(cls._only)
        return cls._only

    _callback: Callable[[], None]

    def __init__(self) -> None:
        """Made by the first call."""

    def _on_end(self) -> None:
        atexit.unregister(self._callback)


def register_lifetime_atexit(lifetime: Lifetime, close_stores: bool = True) -> Callable[[], None]:
    """Lets a lifetime end with the program, if that ends by itself.

    Args:
        lifetime: The lifetime.
        close_stores: Close the stores of its objects, too.

    Returns:
        What `atexit.unregister` wants to forget it.
    """

    def end() -> None:
        if close_stores and isinstance(lifetime, _Keys):
            # Not yet: other lifetimes may have objects of the same stores.
            _closing.update(lifetime._keys)
            lifetime.close()
        else:
            lifetime.close(close_stores=close_stores)

    atexit.register(end)
    return end


_closing: set[Store] = set()


# Handlers run in the reverse order: this one after those of all lifetimes.
@atexit.register
def _close_stores() -> None:
    for store in _closing:
        store.close()
