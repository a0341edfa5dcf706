"""Making what a store stands on: the core's instance, its doors, the stores of foreign keys."""

from __future__ import annotations

import atexit
import json
import logging
import os
import weakref
from typing import TYPE_CHECKING, Any, cast

from proxystore_hpc.exceptions import ConfigError, DoorUnavailableError
from proxystore_hpc.keeper.settings import keep_by_default
from proxystore_hpc.keeper.starting import join_keeper
from proxystore_hpc.store.absent import AbsentInstance
from proxystore_hpc.store.config import StoreConfig
from proxystore_hpc.store.options import Options
from proxystore_hpc.store.registry import get_store, register_store
from proxystore_hpc.utils.locks import make_rlock
from proxystore_hpc.utils.network import interface_with

if TYPE_CHECKING:
    from proxystore_hpc._core import Instance
    from proxystore_hpc.key import Key
    from proxystore_hpc.store.base import Store

logger = logging.getLogger(__name__)

DOORS = ("self", "shm", "ucx", "mpi", "socket", "tcp")
"""Doors of this version; `socket` is the last resort through the owners' own sockets, and `tcp`
leads to the servers that keys name."""

GRACE = 0.1
"""Seconds that the memory of an evicted object rests while peers may read it one-sidedly."""

_opening = make_rlock()
_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()
# A forked child cannot use those of its parent.
os.register_at_fork(after_in_child=_open_stores.clear)


def load_core() -> Any:
    """The native core.

    Raises:
        DoorUnavailableError: It was not built for this machine.
    """
    try:
        from proxystore_hpc import _core
    except ImportError as error:
        raise DoorUnavailableError(
            "shm",
            f"the native core cannot be loaded ({error}); it needs Linux and is built by "
            "'pip install proxystore_hpc' where a C++ compiler is present",
        ) from error
    return _core


def open_instance(
    config: StoreConfig,
    *,
    secret: bytes | None,
    capacity: int,
    host: str = "",
    network: bool = False,
) -> Instance:
    """The core's instance for a store.

    Args:
        config: Configuration of the store.
        secret: 16 bytes that the processes of a job share, `None` for none.
        capacity: Bytes of registered memory, 0 for the default.
        host: Address where peers off this node say hello, empty for none.
        network: Peers on other nodes are reached, whether or not there is such an address.

    Raises:
        ConfigError: A door's name is unknown.
        DoorUnavailableError: The native core is missing, and a door was asked for that needs it.
        KeeperError: The store shall be kept, and no keeper can be had.
    """
    doors = config.doors or ()
    for door in doors:
        if door not in DOORS:
            raise ConfigError(f"doors: there is no door {door!r}; the doors are {', '.join(DOORS)}")
    try:
        core = load_core()
    except DoorUnavailableError as error:
        if set(doors) - {"tcp"} or config.tcp or config.keep or secret is not None:
            raise
        return cast("Instance", AbsentInstance(error))
    options = Options.parse(config.options)
    keep = keep_by_default() if config.keep is None else config.keep
    keeper = join_keeper(facts_for_keeper(config, host, network)).detach() if keep else -1
    instance: Instance = core.Instance(
        config.name,
        capacity=capacity,
        pool_capacity=options.pool_capacity or capacity,
        grace=GRACE if config.grace is None else config.grace,
        doors=list(doors),
        secret=secret,
        host=host,
        port=options.port,
        polling=config.progress == "polling",
        spin=options.spin,
        rings=config.doors is None or "shm" in config.doors,
        keeper=keeper,
    )
    return instance


def facts_for_keeper(config: StoreConfig, host: str, network: bool) -> dict[str, Any]:
    """What a keeper has to know of a store beside what the core tells it."""
    doors = config.doors
    return {
        "store": config.name,
        "host": host,
        "ucx": "ucx" in doors if doors is not None else bool(host or network),
        "ucx_options": dict(Options.parse(config.options).ucx or {}),
    }


def ucx_door(config: StoreConfig, host: str) -> Any:
    """A new ucx door, as a capsule for `Instance.open_door`.

    Args:
        config: Configuration of the store; `options["ucx"]` are arguments of `_ucx.create_door`.
        host: Address of ours that other nodes use; UCX over TCP is bound to its interface, and to
            loopback if it is empty.

    Raises:
        DoorUnavailableError: UCX or our part of it is missing; says how to get it.
    """
    from proxystore_hpc.ucx_runtime import import_ucx_module

    module = import_ucx_module()
    options = dict(Options.parse(config.options).ucx or {})
    if host and not host.startswith("127."):
        options.setdefault("interface", interface_with(host) or "")
    return module.create_door(**options)


def config_for_peers(config: StoreConfig) -> str:
    """The part of a configuration that processes without this store need (JSON)."""
    shared = StoreConfig(
        config.name,
        cache_size=config.cache_size,
        cache_bytes=config.cache_bytes,
        populate_target=config.populate_target,
        timeout=config.timeout,
    ).to_dict()
    for name in ("serializer", "deserializer"):
        try:
            shared[name] = StoreConfig(config.name, **{name: getattr(config, name)}).to_dict()[name]
        except ConfigError:
            # A function without a path, such as a lambda: peers get the built-in one, and the
            # object tells them that it does not fit.
            shared[name] = None
    return json.dumps({k: v for k, v in shared.items() if v is not None})


def store_of_key(key: Key, name: str) -> Store:
    """The registered store `name`, or else one of this process that holds the object.

    If there is neither, one is opened as the object's owner describes it, and registered.

    Raises:
        PeerError: The owner cannot be asked.
    """
    from proxystore_hpc.store.base import Store

    with _opening:
        store = get_store(name)
        if store is not None:
            return store
        for store in list(_open_stores):
            if not store.closed and store.holds(key):
                return store
        store = Store(name)
        try:
            store.adopt(key)
        except BaseException:
            store.close()
            raise
        register_store(store)
        return store


def remember(store: Store) -> None:
    """Closes the store when the interpreter ends, unless that happened before."""
    with _opening:
        _open_stores.add(store)


@atexit.register
def _close_all() -> None:
    for store in list(_open_stores):
        try:
            store.close()
        except Exception:
            logger.exception("closing the store %r at exit failed", store.name)
