"""The store: objects in registered memory, by key and by proxy."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from proxystore_hpc.exceptions import ConfigError, NonProxiableTypeError
from proxystore_hpc.key import Key
from proxystore_hpc.proxy import Proxy, ProxyLocker, get_factory, is_resolved
from proxystore_hpc.store.config import CACHE_BYTES, TIMEOUT, StoreConfig
from proxystore_hpc.store.core import DeserializerT, SerializerT, packed_bytes
from proxystore_hpc.store.factory import StoreFactory
from proxystore_hpc.store.keyfile import write_key_file
from proxystore_hpc.store.policy import Policy
from proxystore_hpc.store.registry import set_store_creator
from proxystore_hpc.store.sharing import Sharing

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")


class Store(Sharing):
    """Objects in registered memory of this process, for it and for others.

    Objects are values: what was stored does not change, and what `get` returns is read-only unless
    a private copy is asked for. All methods may be called from any thread; they release the GIL
    while they wait or copy much, hold no lock across a transfer, and end by their timeout.

    Args:
        name: Name of the store. Processes that resolve a proxy of it look for a store of this name.
        connector: Keeps the objects somewhere else, such as in files or in a Redis server: one of
            `proxystore_hpc.connectors`, of ProxyStore, or any other. The result is then a
            `proxystore_hpc.store.connected.ConnectedStore`, to which what is said here about memory
            and doors does not apply.
        serializer: Makes bytes of an object, instead of the built-in one.
        deserializer: Makes an object of these bytes.
        cache_size: Most payloads kept that came over a network. What lies on this node is mapped,
            not cached.
        cache_bytes: Most bytes that they may take.
        metrics: Record what every operation costs, see `metrics`.
        populate_target: New proxies keep the object that they were made of.
        register: Make the store known to `get_store`.
        capacity: Bytes of registered memory, also as `"4GiB"`; a quarter of the machine's if not
            given.
        doors: Names of the doors that may be used, out of `"shm"`, `"ucx"`, `"socket"`, `"tcp"`;
            by default all that are needed.
        timeout: Seconds after which an operation gives up, unless its call says otherwise.
        interface: Network interface, or its address, through which other nodes reach this store.
        progress: `"adaptive"` sleeps when idle, `"polling"` keeps a core busy.
        grace: Seconds that evicted memory rests while peers may read it one-sidedly.
        secret: 16 bytes that stores share which may put into each other from other nodes.
        tcp: Serve processes off the cluster too, by a helper process: true for this machine only,
            `"host:port"` to listen at, or a mapping, see `proxystore_hpc.store.serving.Serving`.
        gateway: Gateways that lead here, for keys to carry: `"host:port"`, a mapping, or a list of
            them, see `proxystore_hpc.store.serving.Gateway`.
        keep: When this process ends, in whatever way, or closes the store, what is stored goes to
            the keeper of this node, which is started if there is none; see the guide. By default
            only where `PROXYSTORE_HPC_KEEP` is 1.
        options: What few stores need, see `proxystore_hpc.store.options.Options`.

    Raises:
        StoreExistsError: `register` is true and the name is taken.
        ConfigError: An argument cannot be meant.
        DoorUnavailableError: A door was named that cannot be had here.
        KeeperError: `keep` is true, and no keeper can be had.
    """

    def __new__(cls, name: str = "", connector: Any = None, *_: Any, **__: Any) -> Store:
        """A store of the kind that the arguments need."""
        if connector is not None and cls is Store and _connected_type is not None:
            return object.__new__(_connected_type)
        return object.__new__(cls)

    def __init__(
        self,
        name: str,
        connector: Any = None,
        *,
        serializer: SerializerT | None = None,
        deserializer: DeserializerT | None = None,
        cache_size: int = 16,
        cache_bytes: int | str = CACHE_BYTES,
        metrics: bool = False,
        populate_target: bool = True,
        register: bool = False,
        capacity: int | str | None = None,
        doors: Sequence[str] | None = None,
        timeout: float = TIMEOUT,
        interface: str | None = None,
        progress: str = "adaptive",
        grace: float | None = None,
        secret: bytes | None = None,
        tcp: bool | str | dict[str, Any] | None = None,
        gateway: str | dict[str, Any] | list[Any] | None = None,
        keep: bool | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        if connector is not None:
            raise ConfigError(
                f"connector: derive {type(self).__name__} from ConnectedStore to use one"
            )
        config = StoreConfig(
            name,
            serializer=serializer,
            deserializer=deserializer,
            cache_size=cache_size,
            cache_bytes=cast(int, cache_bytes),
            metrics=metrics,
            populate_target=populate_target,
            auto_register=register,
            capacity=cast("int | None", capacity),
            doors=cast("tuple[str, ...] | None", doors),
            timeout=timeout,
            interface=interface,
            progress=progress,
            grace=grace,
            tcp=tcp,
            gateway=gateway,
            keep=keep,
            options=options or {},
        )
        self._open(config, secret=secret)

    @classmethod
    def from_mpi(cls, comm: MPI.Comm, name: str = "mpi", **options: Any) -> Store:
        """A store on every rank of a communicator. Collective.

        The ranks share a secret, know each other (`put(..., to=rank)`), and go on serving what they
        hold after `close` until all have closed.

        Args:
            comm: An intracommunicator of mpi4py; it is duplicated. Freeing one that leads to
                spawned processes closes the store.
            name: Name of the store, the same on all ranks; it is registered.
            options: As for `Store`, but `secret`. The default capacity is shared by the ranks of a
                node.

        Raises:
            As the constructor, on every rank if it fails on one.
        """
        from proxystore_hpc.mpi.store import open_on

        return open_on(cls, comm, name, options)

    @classmethod
    def from_config(cls, config: StoreConfig) -> Store:
        """A new store of a configuration."""
        store = cls.__new__(cls, config.name, config.connector)
        store._open(config)
        return store

    def proxy(
        self,
        obj: T,
        *,
        evict: bool = False,
        lifetime: Any = None,
        serializer: SerializerT | None = None,
        deserializer: DeserializerT | None = None,
        populate_target: bool | None = None,
        skip_nonproxiable: bool = False,
        policy: Policy | Iterable[Policy] | None = None,
        to: int | bytes | Key | None = None,
        **options: Any,
    ) -> Proxy[T]:
        """Stores an object and makes a proxy of it.

        Args:
            obj: The object.
            evict: Evict it when the proxy resolves, for objects that are used once.
            lifetime: As for `put`; excludes `evict`.
            serializer: As for `put`.
            deserializer: Used when the proxy resolves; it is pickled with the proxy.
            populate_target: The proxy keeps `obj` here; `None` for the store's setting.
            skip_nonproxiable: Return `None` and booleans, whose identity matters, as they are.
            policy: As for `put`.
            to: As for `put`.
            options: Further arguments of `put`.

        Raises:
            NonProxiableTypeError: `obj` is `None` or a boolean and that is not skipped.
            ValueError: Both `evict` and `lifetime` are given.
        """
        _check_end(evict, lifetime)
        if _by_identity(obj):
            return cast("Proxy[T]", _left_as_it_is(obj, skip_nonproxiable))
        key = self.put(
            obj, lifetime=lifetime, serializer=serializer, policy=policy, to=to, **options
        )
        return self._proxy_of(key, obj, evict, deserializer, populate_target)

    def _proxy_of(
        self, key: Any, obj: T, evict: bool, deserializer: Any, populate_target: bool | None
    ) -> Proxy[T]:
        factory: StoreFactory[T] = self._factory_of(key, evict, deserializer)
        if self._config.populate_target if populate_target is None else populate_target:
            return Proxy(factory, cache_defaults=True, target=obj)
        return Proxy(factory)

    def _factory_of(self, key: Any, evict: bool, deserializer: Any) -> StoreFactory[Any]:
        return StoreFactory(key, self._config.name, evict=evict, deserializer=deserializer)

    def proxy_batch(
        self,
        objs: Sequence[T],
        *,
        evict: bool = False,
        lifetime: Any = None,
        serializer: SerializerT | None = None,
        deserializer: DeserializerT | None = None,
        populate_target: bool | None = None,
        skip_nonproxiable: bool = False,
        policy: Policy | Iterable[Policy] | None = None,
        to: int | bytes | Key | None = None,
        **options: Any,
    ) -> list[Proxy[T]]:
        """Proxies of several objects; if one fails, none is left. See `proxy`."""
        _check_end(evict, lifetime)
        results: list[Any] = [
            _left_as_it_is(obj, skip_nonproxiable) if _by_identity(obj) else _TO_STORE
            for obj in objs
        ]
        places = [place for place, result in enumerate(results) if result is _TO_STORE]
        keys = self.put_batch(
            [objs[place] for place in places],
            lifetime=lifetime,
            serializer=serializer,
            policy=policy,
            to=to,
            **options,
        )
        for place, key in zip(places, keys, strict=True):
            results[place] = self._proxy_of(key, objs[place], evict, deserializer, populate_target)
        return results

    def proxy_from_key(
        self,
        key: Key,
        *,
        evict: bool = False,
        lifetime: Any = None,
        deserializer: DeserializerT | None = None,
    ) -> Proxy[Any]:
        """A proxy of an object that is stored already, or will be. See `proxy`."""
        _check_end(evict, lifetime)
        self._check_key(key)
        if lifetime is not None:
            lifetime.add_key(key, store=self)
        return Proxy(self._factory_of(key, evict, deserializer))

    def export(self, what: Key | Proxy[Any], path: str | os.PathLike[str]) -> None:
        """Writes a key file, for the commands of `proxystore-hpc` and for `load_proxy`.

        Who can read the file can get the object: its mode is 0600. It is written in one step, and
        replaces a file that is there.

        Args:
            what: A key of this store, or a proxy, which is not resolved.
            path: The file.

        Raises:
            ProxyStoreFactoryError: The proxy was not made by a store.
            InvalidArgumentError: The proxy has a deserializer of its own.
            OSError: The file cannot be written.
        """
        write_key_file(what, self.name, path)

    def locked_proxy(self, obj: T, **options: Any) -> ProxyLocker[T] | T:
        """As `proxy`, locked against resolving by accident; `unlock()` gives the proxy."""
        options.setdefault("skip_nonproxiable", True)
        proxy = self.proxy(obj, **options)
        return ProxyLocker(proxy) if issubclass(type(proxy), Proxy) else obj

    def resolve(self, proxies: Iterable[Proxy[Any]], *, timeout: float | None = None) -> None:
        """Resolves many proxies at once, of any store, their transfers overlapped.

        Raises:
            ObjectMissingError, ObjectEvictedError: One has no object; the others are resolved.
        """
        todo = [p for p in proxies if issubclass(type(p), Proxy) and not is_resolved(p)]
        plain: list[Proxy[Any]] = []
        special: list[Proxy[Any]] = []
        for proxy in todo:
            factory: Any = get_factory(proxy)
            simple = (
                isinstance(factory, StoreFactory)
                and not (factory.evict or factory.deserializer)
                and self._can_get(factory)
            )
            (plain if simple else special).append(proxy)
        keys = [cast(Any, get_factory(p)).key for p in plain]
        absent = object()
        first_missing: Key | None = None
        for proxy, key, obj in zip(
            plain, keys, self.get_batch(keys, default=absent, timeout=timeout), strict=True
        ):
            if obj is absent:
                first_missing = first_missing or key
            else:
                proxy.__proxy_wrapped__ = obj
        for proxy in special:
            _ = proxy.__proxy_wrapped__
        if first_missing is not None:
            self.get_or_raise(first_missing, timeout=timeout)

    def _check_key(self, key: Any) -> None:
        packed_bytes(key)

    def _can_get(self, factory: StoreFactory[Any]) -> bool:
        return factory.carried is None


def _check_end(evict: bool, lifetime: Any) -> None:
    if evict and lifetime is not None:
        raise ValueError("evict and lifetime exclude each other: the lifetime evicts")


def _by_identity(obj: object) -> bool:
    return obj is None or obj is True or obj is False


def _left_as_it_is(obj: Any, skip_nonproxiable: bool) -> Any:
    if skip_nonproxiable:
        return obj
    raise NonProxiableTypeError(
        f"{obj!r} cannot be proxied, as code compares it by identity; pass "
        "skip_nonproxiable=True to leave such objects as they are"
    )


_TO_STORE: Any = object()
_connected_type: type[Store] | None = None


def set_connected_type(kind: type[Store]) -> None:
    """Tells what a `Store` with a connector is; the module above calls this."""
    global _connected_type
    _connected_type = kind


set_store_creator(Store.from_config)
