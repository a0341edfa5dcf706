"""The store: objects in registered memory, by key and by proxy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from proxystore_hpc.exceptions import NonProxiableTypeError
from proxystore_hpc.key import Key
from proxystore_hpc.proxy import Proxy, ProxyLocker, get_factory, is_resolved
from proxystore_hpc.store.config import CACHE_BYTES, TIMEOUT, StoreConfig
from proxystore_hpc.store.core import DeserializerT, SerializerT, packed_bytes
from proxystore_hpc.store.factory import StoreFactory
from proxystore_hpc.store.policy import Policy
from proxystore_hpc.store.registry import set_store_creator
from proxystore_hpc.store.writing import Writing

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")


class Store(Writing):
    """Objects in registered memory of this process, for it and for others.

    Objects are values: what was stored does not change, and what `get` returns is read-only unless
    a private copy is asked for. All methods may be called from any thread; they release the GIL
    while they wait or copy much, hold no lock across a transfer, and end by their timeout.

    Args:
        name: Name of the store. Processes that resolve a proxy of it look for a store of this name.
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
        doors: Names of the doors that may be used, out of `"shm"`, `"ucx"`, `"socket"`; by default
            all that are needed.
        timeout: Seconds after which an operation gives up, unless its call says otherwise.
        interface: Network interface, or its address, through which other nodes reach this store.
        progress: `"adaptive"` sleeps when idle, `"polling"` keeps a core busy.
        grace: Seconds that evicted memory rests while peers may read it one-sidedly.
        secret: 16 bytes that stores share which may put into each other from other nodes.
        options: What few stores need, see `proxystore_hpc.store.options.Options`.

    Raises:
        StoreExistsError: `register` is true and the name is taken.
        ConfigError: An argument cannot be meant.
        DoorUnavailableError: A door was named that cannot be had here.
    """

    def __init__(
        self,
        name: str,
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
        options: dict[str, Any] | None = None,
    ) -> None:
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
            options=options or {},
        )
        self._open(config, secret=secret)

    @classmethod
    def from_mpi(cls, comm: MPI.Comm, name: str = "mpi", **options: Any) -> Store:
        """A store on every rank of a communicator. Collective.

        The ranks share a secret, know each other (`put(..., to=rank)`), and go on serving what they
        hold after `close` until all have closed.

        Args:
            comm: An intracommunicator of mpi4py; it is duplicated.
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
        store = cls.__new__(cls)
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
        to: int | bytes | None = None,
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

        Raises:
            NonProxiableTypeError: `obj` is `None` or a boolean and that is not skipped.
            ValueError: Both `evict` and `lifetime` are given.
        """
        if evict and lifetime is not None:
            raise ValueError("evict and lifetime exclude each other: the lifetime evicts")
        if obj is None or obj is True or obj is False:
            if skip_nonproxiable:
                return obj  # type: ignore[return-value]
            raise NonProxiableTypeError(
                f"{obj!r} cannot be proxied, as code compares it by identity; pass "
                "skip_nonproxiable=True to leave such objects as they are"
            )
        key = self.put(obj, lifetime=lifetime, serializer=serializer, policy=policy, to=to)
        factory: StoreFactory[T] = StoreFactory(
            key, self._config.name, evict=evict, deserializer=deserializer
        )
        if self._config.populate_target if populate_target is None else populate_target:
            return Proxy(factory, cache_defaults=True, target=obj)
        return Proxy(factory)

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
        to: int | bytes | None = None,
    ) -> list[Proxy[T]]:
        """Proxies of several objects; if one fails, none is left. See `proxy`."""
        made: list[Proxy[T]] = []
        try:
            for obj in objs:
                made.append(
                    self.proxy(
                        obj,
                        evict=evict,
                        lifetime=lifetime,
                        serializer=serializer,
                        deserializer=deserializer,
                        populate_target=populate_target,
                        skip_nonproxiable=skip_nonproxiable,
                        policy=policy,
                        to=to,
                    )
                )
        except BaseException:
            keys = [cast(Any, get_factory(p)).key for p in made if issubclass(type(p), Proxy)]
            self.evict_batch(keys, force=True)
            raise
        return made

    def proxy_from_key(
        self,
        key: Key,
        *,
        evict: bool = False,
        lifetime: Any = None,
        deserializer: DeserializerT | None = None,
    ) -> Proxy[Any]:
        """A proxy of an object that is stored already, or will be. See `proxy`."""
        if evict and lifetime is not None:
            raise ValueError("evict and lifetime exclude each other: the lifetime evicts")
        packed_bytes(key)
        if lifetime is not None:
            lifetime.add_key(key, store=self)
        factory: StoreFactory[Any] = StoreFactory(
            key, self.name, evict=evict, deserializer=deserializer
        )
        return Proxy(factory)

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
            simple = isinstance(factory, StoreFactory) and not (
                factory.evict or factory.deserializer
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


set_store_creator(Store.from_config)
