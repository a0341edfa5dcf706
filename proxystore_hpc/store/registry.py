"""The stores of this process by name."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import ProxyStoreFactoryError, StoreError, StoreExistsError
from proxystore_hpc.utils.locks import make_rlock

if TYPE_CHECKING:
    from proxystore_hpc.store import Store
    from proxystore_hpc.store.config import StoreConfig

logger = logging.getLogger(__name__)

_stores: dict[str, Store] = {}
_lock = make_rlock()
# Separate, so that looking a store up never waits for one that is being opened.
_creation_lock = make_rlock()
_create: Callable[[StoreConfig], Store] | None = None
_inherited: list[Store] = []


def _leave_to_parent() -> None:
    # A forked child cannot use its parent's stores: it opens its own under their names. They are
    # not dropped, as destructors would run.
    _inherited.extend(_stores.values())
    _stores.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def set_store_creator(create: Callable[[StoreConfig], Store]) -> None:
    """Tells how a store is made of its configuration; the store module calls this."""
    global _create
    _create = create


def get_store(val: Any) -> Store | None:
    """A registered store.

    Args:
        val: Name of the store, or a proxy that a store created. The proxy is not resolved.

    Returns:
        The store, or `None` if none of this name is registered. A proxy's store is opened if
        it is not.

    Raises:
        ProxyStoreFactoryError: The proxy was not created by a store.
    """
    if type(val) is not str:
        from proxystore_hpc.proxy import Proxy, get_factory

        if issubclass(type(val), Proxy):
            factory: Any = get_factory(val)
            find = getattr(factory, "get_store", None)
            if find is None:
                raise ProxyStoreFactoryError(
                    "the proxy was not created by a store: its factory is a "
                    f"{type(factory).__name__}"
                )
            store: Store | None = find()
            return store
    with _lock:
        return _stores.get(val)


def get_or_create_store(store_config: StoreConfig, *, register: bool = True) -> Store:
    """The registered store of the configuration's name, or else a new one.

    Of several threads that ask at once, one creates the store and the others get the same if it
    is registered.

    Args:
        store_config: Configuration of the store, used if it has to be created.
        register: Register a store that had to be created.
    """
    store = get_store(store_config.name)
    if store is not None:
        return store
    with _creation_lock:
        store = get_store(store_config.name)
        if store is not None:
            return store
        if _create is None:
            # Importing the store calls set_store_creator.
            import proxystore_hpc.store  # noqa: F401
        if _create is None:
            raise StoreError("the part of proxystore_hpc that creates stores was not loaded")
        store = _create(store_config)
        if register:
            # It may have registered itself, as its configuration can say.
            register_store(store, exist_ok=True)
        return store


def register_store(store: Store, exist_ok: bool = False) -> None:
    """Makes a store known by its name to this process.

    Args:
        store: The store.
        exist_ok: Replace a store of the same name.

    Raises:
        StoreExistsError: A store of this name is registered and `exist_ok` is false.
    """
    name = store.name
    with _lock:
        if name in _stores and not exist_ok:
            raise StoreExistsError(
                f"a store named {name!r} is registered already: use get_store({name!r}), another "
                "name, or exist_ok=True to replace it"
            )
        _stores[name] = store
    logger.info("registered the store %r", name)


@contextmanager
def store_registration(*stores: Store, exist_ok: bool = False) -> Iterator[None]:
    """Registers stores for the duration of a `with` block, however it ends.

    Args:
        stores: The stores.
        exist_ok: Replace stores of the same names.

    Raises:
        StoreExistsError: A name is taken and `exist_ok` is false; then none is registered.
    """
    registered: list[Store] = []
    try:
        for store in stores:
            register_store(store, exist_ok=exist_ok)
            registered.append(store)
        yield
    finally:
        for store in reversed(registered):
            unregister_store(store)


def unregister_store(name_or_store: str | Store) -> None:
    """Forgets a store; does nothing if it is not registered.

    Args:
        name_or_store: Its name, or the store: then another store that has taken its name stays.
    """
    with _lock:
        if isinstance(name_or_store, str):
            removed = _stores.pop(name_or_store, None)
        else:
            name = name_or_store.name
            removed = _stores.pop(name) if _stores.get(name) is name_or_store else None
    if removed is not None:
        logger.info("unregistered the store %r", removed.name)
