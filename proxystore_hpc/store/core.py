"""What a store is: its configuration, the core's instance it stands on, its end."""

from __future__ import annotations

import time
import warnings
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from proxystore_hpc.exceptions import (
    ConfigError,
    DoorUnavailableError,
    InvalidKeyError,
    ObjectError,
    StoreClosedError,
)
from proxystore_hpc.key import Key
from proxystore_hpc.store.absent import AbsentInstance
from proxystore_hpc.store.arrays import FreshArrays
from proxystore_hpc.store.cache import LRUCache
from proxystore_hpc.store.config import StoreConfig
from proxystore_hpc.store.metrics import DoorCounters, StoreMetrics
from proxystore_hpc.store.opening import config_for_peers, open_instance, remember, ucx_door
from proxystore_hpc.store.options import Options
from proxystore_hpc.store.outside import NATIVE_FAILED, Outside
from proxystore_hpc.store.registry import register_store, unregister_store
from proxystore_hpc.store.serving import gateways, start_server
from proxystore_hpc.tcp.endpoints import TcpEndpoint, pack
from proxystore_hpc.utils.network import address_of

if TYPE_CHECKING:
    from proxystore_hpc._core import Instance, Lease
    from proxystore_hpc.store.base import Store
    from proxystore_hpc.tcp.process import ServerProcess

SerializerT = Callable[[Any], Any]
DeserializerT = Callable[[Any], Any]

BUILT_IN: Any = object()
"""In the place of a deserializer: the built-in one, whatever the store's is."""

StoreT = TypeVar("StoreT", bound="StoreCore")


class Job(Protocol):
    """The other processes of a store that was opened together with them."""

    def address_of(self, rank: int) -> bytes:
        """`Store.address` on a rank."""

    def leave(self, *, clear: bool = False) -> None:
        """Goes on serving until all have left, then closes the instance."""


class StoreCore:
    """Opening, configuration and closing; `Store` adds what it is for."""

    def _open(
        self,
        config: StoreConfig,
        *,
        secret: bytes | None = None,
        capacity: int = 0,
        host: str = "",
        network: bool = False,
        mpi_door: Callable[[], Any] | None = None,
    ) -> None:
        self._closed = True
        self._job: Job | None = None
        self._server: ServerProcess | None = None
        if config.connector is not None:
            raise ConfigError(
                f"connector: a {type(self).__name__} keeps objects in its own memory; leave the "
                "connector out, or use Store itself"
            )
        if mpi_door is None and config.doors is not None and "mpi" in config.doors:
            raise DoorUnavailableError(
                "mpi", "it leads to the ranks of a job: open the store with Store.from_mpi(comm)"
            )
        self._apply(config)
        if not host and config.interface is not None:
            host = address_of(config.interface)
        self._host = host
        self._instance: Instance = open_instance(
            config,
            secret=secret,
            capacity=config.capacity or capacity,
            host=host,
            network=network,
        )
        self._fresh = FreshArrays(self._instance)
        self._outside = Outside(
            self._instance,
            config.doors is None or "tcp" in config.doors,
            bytes.fromhex(Options.parse(config.options).put_token),
        )
        self._ucx_tried = isinstance(self._instance, AbsentInstance)
        self._closed = False
        try:
            if config.doors is not None and "ucx" in config.doors:
                self._ucx_tried = True
                self._instance.open_door(ucx_door(config, host))
            elif (host or network) and config.doors is None:
                self._try_ucx()
            if mpi_door is not None:
                self._instance.open_door(mpi_door())
            self._instance.set_config(config_for_peers(config))
            self._serve_outside(config)
            if config.auto_register:
                register_store(self._whole)
        except BaseException:
            self._closed = True
            self._end(clear=True)
            raise
        remember(self._whole)

    def _serve_outside(self, config: StoreConfig) -> None:
        """Starts the TCP server if one is asked for; keys name it, and the gateways."""
        endpoints: list[TcpEndpoint] = []
        if config.tcp is not None:
            self._server = start_server(config.tcp, self._instance.address)
            # Dropped without close(), the instance ends by itself; not before, as ranks of a job go
            # on serving without their store.
            weakref.finalize(self._instance, self._server.close).atexit = False
            endpoints.extend(self._server.endpoints)
        named = gateways(config.gateway)
        endpoints.extend(gateway.endpoint for gateway in named)
        if not self._host and not all(gateway.on_loopback for gateway in named):
            warnings.warn(
                f"the store {self.name!r} names a gateway, which does not reach it from another "
                "node: name the network interface= between them, too",
                stacklevel=4,
            )
        if endpoints:
            self._instance.set_outside(pack(endpoints))

    def _end(self, *, clear: bool = False) -> None:
        if self._server is not None:
            self._server.close()
        self._instance.close(clear)

    def _apply(self, config: StoreConfig) -> None:
        self._config = config
        self._serializer = config.get_serializer()
        self._deserializer = config.get_deserializer()
        self._timeout = config.timeout
        self.cache: LRUCache[Any, Lease | memoryview] = LRUCache(
            config.cache_size, config.cache_bytes
        )
        doors = DoorCounters()
        self._metrics = StoreMetrics(doors=doors)
        self._count_transfer = doors.add
        self._detailed = config.metrics

    def _try_ucx(self, *, needed: bool = True) -> None:
        """Opens the ucx door if it can be had; says once, loudly, if not and it is `needed`."""
        self._ucx_tried = True
        try:
            self._instance.open_door(ucx_door(self._config, self._host))
        except DoorUnavailableError as error:
            if not needed:
                return
            warnings.warn(
                f"the store {self.name!r} has no fast way to other nodes: {error}",
                stacklevel=4,
            )

    @property
    def _whole(self) -> Store:
        return cast("Store", self)

    def config(self) -> StoreConfig:
        """What `from_config` needs to make such a store."""
        return self._config

    def adopt(self, key: Key) -> None:
        """Takes over the serializer, cache sizes and timeout of the store that a key comes from.

        Raises:
            PeerError: Its owner cannot be asked.
        """
        self._reach(key)
        _, text = self._by_any_door("store_of", key, timeout=self._timeout)
        theirs = StoreConfig.from_json(text)
        theirs.name = self.name
        self._apply(theirs)

    @property
    def name(self) -> str:
        """Name of the store."""
        return self._config.name

    @property
    def address(self) -> bytes:
        """Names this process to others: `put(..., to=address)` stores here."""
        return self._instance.address

    @property
    def metrics(self) -> StoreMetrics:
        """Costs by key if the store was made with `metrics=True`, transfers by door always."""
        return self._metrics

    @property
    def serializer(self) -> SerializerT | None:
        """The default serializer, `None` for the built-in one."""
        return self._serializer

    @property
    def deserializer(self) -> DeserializerT | None:
        """The default deserializer, `None` for the built-in one."""
        return self._deserializer

    def holds(self, key: Key) -> bool:
        """Whether this store made the key, so that the object is in its memory or was."""
        try:
            return key.owner_id == self._instance.address[:16]
        except DoorUnavailableError:
            return False  # without the core nothing is held here

    @property
    def closed(self) -> bool:
        """Whether it was closed in this process."""
        return self._closed

    def stats(self) -> dict[str, int]:
        """Memory and objects of this process: bytes of `capacity`, `used`, `warm`, ..., counts."""
        return self._instance.stats()

    def close(self, *, clear: bool = False) -> None:
        """Ends the store in this process; what it holds is evicted. Idempotent.

        With `keep=True` it goes to the keeper of this node instead. Views that are still held stay
        valid. A store of `from_mpi` goes on serving the other ranks until all have closed.

        Args:
            clear: Evict what a keeper would have taken over.
        """
        if self._closed:
            return
        self._closed = True
        unregister_store(self._whole)
        self.cache.clear()
        self._outside.close()
        if self._job is not None:
            self._job.leave(clear=clear)
        else:
            self._end(clear=clear)

    def __enter__(self: StoreT) -> StoreT:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"owner {self._instance.owner_id}"
        return f"<Store {self.name!r}, {state}>"

    def __reduce__(self) -> Any:
        raise TypeError("a store cannot be pickled: pickle proxies, or its config()")

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError(f"the store {self.name!r} is closed")

    def _reach(self, key: Key) -> None:
        """Before a first contact: opens the door that leads off this node if the key needs it."""
        if self._ucx_tried or self._config.doors is not None:
            return
        packed_bytes(key)  # refuses what is no key
        if key.contact is not None:
            self._try_ucx(needed=not self._outside.leads_to(key))

    def _by_any_door(
        self, method: str, key: Key, *args: Any, timeout: float, **outside: Any
    ) -> Any:
        """What a method of the instance gives, or else the TCP client's method of that name.

        The latter alone gets the arguments `outside`.
        """
        began = time.perf_counter()
        packed = packed_bytes(key)
        try:
            return getattr(self._instance, method)(packed, *args, timeout)
        except ObjectError as error:
            error.key = key
            raise
        except NATIVE_FAILED as failure:
            return self._outside.ask(
                key,
                failure,
                lambda tcp, left: getattr(tcp, method)(packed, *args, left, **outside),
                began,
                timeout,
                lambda left: getattr(self._instance, method)(packed, *args, left),
            )

    def _record(self, event: str, key: Key, began: float, nbytes: int) -> None:
        self._metrics.add_time(event, key, 1e3 * (time.perf_counter() - began))
        self._metrics.add_attribute(f"{event}.object_size", key, nbytes)


def packed_bytes(key: Key) -> bytes:
    """The key's bytes.

    Raises:
        InvalidKeyError: It is something else.
    """
    try:
        return key.packed
    except AttributeError:
        raise InvalidKeyError(
            f"a Key of a proxystore_hpc store is needed, not {type(key).__name__}", key=key
        ) from None
