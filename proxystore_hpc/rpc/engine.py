"""The engine: one participant in remote procedure calls."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from proxystore_hpc.exceptions import (
    AccessDeniedError,
    ConfigError,
    EngineClosedError,
    InvalidArgumentError,
    OwnerGoneError,
    PeerLostError,
    UnknownRpcError,
)
from proxystore_hpc.rpc.config import DEFAULT_POOL, EngineConfig, make_config, split_address
from proxystore_hpc.rpc.endpoint import Endpoint, check_provider
from proxystore_hpc.rpc.events import Hook, Hooks
from proxystore_hpc.rpc.functions import RemoteFunction, check_codec
from proxystore_hpc.rpc.futures import Completer
from proxystore_hpc.rpc.handlers import AsyncHandlers, Pools, Served, before_waiting, workers
from proxystore_hpc.rpc.opening import (
    LazyUcx,
    find_secret,
    leads_off_node,
    open_instance,
    remember,
)
from proxystore_hpc.rpc.provider import procedures_of
from proxystore_hpc.rpc.stats import CallCounters
from proxystore_hpc.store.opening import load_core

if TYPE_CHECKING:
    from mpi4py import MPI

    from proxystore_hpc.rpc.bulk import Bulk
    from proxystore_hpc.store.core import Job

logger = logging.getLogger(__name__)

T = TypeVar("T")
CallbackT = TypeVar("CallbackT", bound=Callable[[], object])

LOOKUP_TIMEOUT = 10.0
DRAIN = 2.0
"""Seconds that `close` waits for handlers that run."""

_LAST_WAIT = 0.5
_SHUTDOWN = "proxystore_hpc.shutdown"


class Engine:
    """One participant: it serves procedures, and calls those of other engines.

    All methods may be called from any thread; what waits releases the GIL and ends by a timeout.
    Engines that shall call each other must share a secret, unless they are of the same user on the
    same node: nothing of a stranger's is unpickled.

    Args:
        address: A transport (`"auto"`, `"shm"`, `"ucx"`, `"tcp"`), or one with the place to listen
            (`"tcp://10.0.0.5:7777"`, port 0 for any). For `"mpi"` see `from_mpi`.
        listen: That place by itself: `"HOST:PORT"` or `"INTERFACE:PORT"`. UCX's TCP is bound to its
            interface. By default the engine meets others on its node only.
        progress: `"adaptive"` sleeps when idle, `"polling"` keeps a core busy.
        handlers: Threads that run handlers: a number, or several pools' sizes by name.
        secret: What the processes of a job share; any text or bytes.
        name: Name of the engine in messages.
        timeout: Default deadline of a call in seconds.
        remote_shutdown: Peers may end this engine by `shutdown`.
        config: An `EngineConfig`, a mapping, or the path of a TOML or JSON file; the arguments
            override it. By default, what the environment says.
        options: Further fields of `EngineConfig`.

    Raises:
        ConfigError: An argument cannot be meant.
        DoorUnavailableError: The transport cannot be had here.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        listen: str | None = None,
        progress: str | None = None,
        handlers: int | Mapping[str, int] | None = None,
        secret: bytes | str | None = None,
        name: str | None = None,
        timeout: float | None = None,
        remote_shutdown: bool | None = None,
        config: EngineConfig | Mapping[str, Any] | str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        self._closing = self._closed = True
        self._job: Job | None = None
        self._ranks: Sequence[str] = ()
        mpi_door = options.pop("_mpi_door", None)
        given: dict[str, Any] = {
            "listen": listen,
            "progress": progress,
            "handlers": handlers,
            "name": name,
            "timeout": timeout,
            "remote_shutdown": remote_shutdown,
            **options,
        }
        given = {field: value for field, value in given.items() if value is not None}
        if address is not None:
            given["transport"], place = split_address(address)
            if place is not None:
                if listen is not None:
                    raise ConfigError("listen: the address says where to listen already")
                given["listen"] = place
        self._config = make_config(config, given)
        self._timeout = self._config.timeout
        self._core: Any = load_core()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._callbacks: list[Callable[[], object]] = []
        self._endpoints: dict[str, Endpoint] = {}
        self._served: dict[tuple[str, int], Served] = {}
        self._native: set[tuple[str, int]] = set()
        self._hooks = Hooks()
        self._calls = CallCounters()
        self._last_stats: dict[str, Any] | None = None
        self._instance = open_instance(self._config, find_secret(self._config, secret), mpi_door)
        try:
            self._ucx = LazyUcx(self._instance, self._config)
        except BaseException:
            self._instance.close()
            raise
        self._completer = Completer(f"rpc-completions-{self.name}")
        self._async_handlers = AsyncHandlers(f"rpc-async-{self.name}")
        self._pools = Pools(self._instance, self._config.handlers, self._config.extra_handlers)
        self._address: str = self._instance.address_text
        self._closing = self._closed = False
        try:
            if self._config.remote_shutdown:
                self._serve(_SHUTDOWN, self._shut_down, 0, self._pools.add(_SHUTDOWN, 1), raw=True)
        except BaseException:
            self.close()
            raise
        remember(self)

    @classmethod
    def from_mpi(cls, comm: MPI.Comm, transport: str = "auto", **options: Any) -> Engine:
        """An engine on every rank of a communicator. Collective.

        The engines share a secret and know each other: `lookup(rank)`. After `close` an engine
        refuses calls; memory that it exposes can be read until all ranks have closed.

        Args:
            comm: An intracommunicator of mpi4py; it is duplicated. Freeing one that leads to
                spawned processes closes the store.
            transport: As for the engine; `"mpi"` uses windows of MPI and nothing else.
            options: Arguments of the engine, but `secret` and `listen`; `linger` are the seconds
                that a rank which is about to end waits for the others to close.

        Raises:
            As the constructor, on every rank if it fails on one.
        """
        from proxystore_hpc.mpi.engine import open_on

        return open_on(cls, comm, transport, options)

    @property
    def address(self) -> str:
        """What other processes `lookup`; names this very engine, not one started here later."""
        return self._address

    @property
    def config(self) -> EngineConfig:
        """What it runs with, all but the secret: `Engine(config=...)` makes another such engine."""
        return EngineConfig.from_dict(self._config.to_dict())

    @property
    def name(self) -> str:
        """Name of the engine."""
        return self._config.name

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closing

    # Serving.

    def register(
        self,
        name: Any = None,
        handler: Any = None,
        provider_id: int = 0,
        *,
        pool: str = DEFAULT_POOL,
        one_way: bool = False,
        codec: str = "pickle",
    ) -> Any:
        """Registers a procedure, so that peers can call it.

        `engine.register("name", handler)` returns the remote function. Without a handler it is a
        decorator, `@engine.register("name")` or `@engine.register`, and leaves the function as it
        is; and a remote function of that name, to call it at peers.

        The handler is called with the caller's arguments, on a thread of `pool`, or, if it is an
        `async def`, on an event loop of the engine's. If its first parameter is annotated
        `Request`, it is given the request before them. What it returns or raises goes to the
        caller. A large array is sent from where it lies, so return a copy of one that is about to
        change.

        Args:
            name: Name of the procedure, the function's own by default.
            handler: Function or coroutine function; or a capsule of `proxystore_hpc/rpc.h`, whose
                C++ handler runs without the GIL.
            provider_id: Which provider this is, 0 to 65535.
            pool: Name of the pool whose threads run it.
            one_way: The remote function that is returned waits for no answer.
            codec: `"pickle"`, or `"raw"`: one bytes-like argument and result, no pickle.

        Raises:
            InvalidArgumentError: It is registered already.
            ConfigError: There is no such pool or codec.
            EngineClosedError: The engine is closed.
        """
        if callable(name) and handler is None:
            self.register(name.__name__, name, provider_id, pool=pool, one_way=one_way, codec=codec)
            return name
        if handler is None:
            options: dict[str, Any] = {
                "provider_id": provider_id,
                "pool": pool,
                "one_way": one_way,
                "codec": codec,
            }
            if name is None:
                return partial(self.register, **options)
            return RemoteFunction(self, name, codec, one_way, options)
        self._check_open()
        check_codec(codec)
        check_provider(provider_id)
        function = RemoteFunction(self, name, codec, one_way, {})
        if type(handler).__name__ == "PyCapsule":
            self._instance.serve_native(name, provider_id, handler)
            self._native.add((name, provider_id))
        elif callable(handler):
            self._serve(name, handler, provider_id, self._pools.get(pool), raw=codec == "raw")
        else:
            raise InvalidArgumentError(
                f"a handler is a function or a capsule, not a {type(handler).__name__}"
            )
        return function

    def deregister(self, name: str, provider_id: int = 0) -> None:
        """Takes a procedure back; calls that have come already are still handled.

        Raises:
            UnknownRpcError: It is not registered.
            UnknownProviderError: It is, but not for this provider.
        """
        self._check_open()
        self._instance.withdraw(name, provider_id)
        self._served.pop((name, provider_id), None)
        self._native.discard((name, provider_id))

    def register_provider(self, provider: T, provider_id: int = 0) -> T:
        """Registers all `@rpc` methods of an object, and returns it.

        Raises:
            InvalidArgumentError: It has none, or one is registered for this id already. None is
                registered then.
        """
        done: list[str] = []
        try:
            for attribute, name, options in procedures_of(type(provider)):
                self.register(name, getattr(provider, attribute), provider_id, **options)
                done.append(name)
        except BaseException:
            for name in done:
                self.deregister(name, provider_id)
            raise
        return provider

    def deregister_provider(self, provider: object, provider_id: int = 0) -> None:
        """Takes back what `register_provider` registered."""
        for _, name, _ in procedures_of(type(provider)):
            self.deregister(name, provider_id)

    def expose(self, buffers: Any, mode: str = "r") -> Bulk:
        """Exposes memory to peers, which pull from it (`"r"`), push to it (`"w"`) or both (`"rw"`).

        Args:
            buffers: A contiguous buffer or a list of them. They stay alive and registered until
                the handle is closed.
            mode: What peers may do.

        Raises:
            InvalidArgumentError: A buffer is not contiguous, or read-only and to be pushed to.
        """
        from proxystore_hpc.rpc.bulk import expose

        self._check_open()
        return expose(self._instance, buffers, mode)

    def empty(self, shape: Any, dtype: Any = "f8") -> Any:
        """A new array in registered memory of this engine, uninitialised.

        A `Bulk` of it costs peers on this node no more than a `memcpy`; other memory is copied by
        the kernel.

        Args:
            shape: Shape of the array.
            dtype: Its dtype.

        Raises:
            StoreFullError: It does not fit into the engine's capacity.
            InvalidArgumentError: The dtype holds Python objects.
        """
        import numpy as np

        dtype = np.dtype(dtype)
        if dtype.hasobject:
            raise InvalidArgumentError(f"an array of {dtype} cannot lie in registered memory")
        self._check_open()
        count = int(np.prod(shape, dtype="u8"))
        block = self._instance.allocate(max(1, count * dtype.itemsize))
        return np.frombuffer(memoryview(block), dtype, count).reshape(shape)

    # Calling.

    def rpc(self, name: str, *, one_way: bool = False, codec: str = "pickle") -> RemoteFunction:
        """A procedure by name, to be called at peers: `engine.rpc("name").on(endpoint)(...)`."""
        return RemoteFunction(self, name, codec, one_way, {"one_way": one_way, "codec": codec})

    def lookup(self, address: str | int | Endpoint, timeout: float = LOOKUP_TIMEOUT) -> Endpoint:
        """The engine at an address: connects, or returns what an earlier lookup found.

        Args:
            address: `Engine.address` of the peer, or `"HOST:PORT"` for whoever listens there; of an
                engine of `from_mpi` also a rank.
            timeout: Seconds to connect in.

        Raises:
            InvalidArgumentError: It is no address.
            PeerLostError: Nobody answers there.
            PeerRestartedError: Another process does.
            AccessDeniedError: The secrets differ.
            ProtocolError: The peer speaks another version of the protocol, or none.
            OperationTimeoutError: There was no answer in time.
        """
        self._check_open()
        if isinstance(address, Endpoint):
            address = address.address
        if self._ranks and isinstance(address, int):
            if not 0 <= address < len(self._ranks):
                raise InvalidArgumentError(
                    f"there is no rank {address}; the communicator of the engine {self.name!r} has "
                    f"ranks 0 to {len(self._ranks) - 1}"
                )
            address = self._ranks[address]
        if not isinstance(address, str):
            raise InvalidArgumentError(f"an address is a text, not a {type(address).__name__}")
        known = self._endpoints.get(address)
        if known is not None and known.alive:
            return known
        if workers:
            before_waiting()
        if leads_off_node(address):
            self._ucx.need()
        try:
            endpoint = Endpoint(self, self._instance.endpoint(address, timeout))
        except OwnerGoneError as error:
            raise PeerLostError(str(error), peer=address) from None
        logger.debug("%s: connected to %s over %s", self.name, endpoint, endpoint.lanes)
        self._endpoints[address] = self._endpoints[endpoint.address] = endpoint
        return endpoint

    def shutdown(self, target: Endpoint | str, timeout: float = LOOKUP_TIMEOUT) -> None:
        """Asks another engine to end: its `wait` returns, and it refuses further calls.

        Raises:
            AccessDeniedError: It was not made with `remote_shutdown=True`.
        """
        try:
            self.rpc(_SHUTDOWN, codec="raw").on(target)(timeout=timeout)
        except UnknownRpcError as error:
            raise AccessDeniedError(
                f"{target} does not let others end it: make it with remote_shutdown=True",
                peer=str(target),
            ) from error

    # Its life.

    def wait(self, timeout: float | None = None) -> bool:
        """For servers: waits until a peer ended this engine, or it was closed. Ctrl-C works.

        Returns:
            Whether that happened within `timeout` seconds.
        """
        return self._ended.wait(timeout)

    def on_finalize(self, callback: CallbackT) -> CallbackT:
        """Has `callback()` called when the engine closes, while it can still call and be called.

        The last one given is called first; what it raises is logged.
        """
        self._check_open()
        self._callbacks.append(callback)
        return callback

    def close(self) -> None:
        """Ends the engine. Idempotent.

        Handlers that run may end within two seconds; calls still under way, here and at peers, end
        with `EngineClosedError` or `PeerLostError`. In a forked child nothing is done: the engine
        is its parent's.
        """
        with self._lock:
            if self._closing:
                return
            self._closing = os.getpid() == self._pid
        if not self._closing:
            return
        while self._callbacks:
            callback = self._callbacks.pop()
            try:
                callback()
            except Exception:
                logger.exception("%s: a callback of on_finalize failed", self.name)
        self._ended.set()
        self._instance.refuse_requests()
        pools = self._pools.all()
        for pool in pools:
            pool.close()
        deadline = monotonic() + DRAIN
        for pool in pools:
            pool.join(deadline, monotonic)
        self._closed = True
        self._async_handlers.close(DRAIN)
        self._last_stats = self.stats()
        # The core holds them, they hold the engine, and no collector sees through the core.
        for name, provider in (*self._served, *self._native):
            self._instance.withdraw(name, provider)
        if self._job is None:
            self._instance.close()
        else:
            self._instance.end_calls()
            self._job.leave()
        # Handlers that waited for calls of their own end now.
        deadline = monotonic() + _LAST_WAIT
        if not all(pool.join(deadline, monotonic) for pool in pools):
            logger.warning("%s: a handler still runs, though its engine is closed", self.name)
        self._completer.close(DRAIN)
        self._endpoints.clear()

    # What it does.

    def stats(self) -> dict[str, Any]:
        """Counters and histograms since the engine was made, to its close; times in seconds.

        `calls` tells by name what was asked of peers: `calls`, `failures`, `bytes_out`, `bytes_in`,
        and `latency`. `served` lists what was answered, by name and provider: `calls`, `failures`,
        `bytes_in`, `bytes_out`, and, where handlers are in Python, `dropped`, `queue_wait` and
        `handler_time`. `in_flight` are calls under way now, `pools` the threads of handlers.
        """
        if self._last_stats is not None:
            return self._last_stats
        core = self._instance.rpc_stats()
        for facts in core["served"]:
            served = self._served.get((facts["name"], facts["provider"]))
            if served is not None:
                facts.update(served.stats.snapshot())
        return {
            "calls": self._calls.snapshot(),
            "served": core["served"],
            "in_flight": core["in_flight"],
            "pools": self._pools.snapshot(),
        }

    def on_event(self, callback: Hook) -> Callable[[], None]:
        """Has `callback(event)` called at the start and end of each call, handler and transfer.

        It is called on the thread that does the work, so it should be quick. Returns a function
        that ends it.
        """
        return self._hooks.add(callback)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Engine {self.name!r}, {'closed' if self._closing else self._address}>"

    def __reduce__(self) -> Any:
        raise TypeError("an engine cannot be pickled: send its address")

    def _serve(
        self, name: str, handler: Callable[..., Any], provider: int, pool: Any, *, raw: bool
    ) -> None:
        served = Served(self, name, provider, handler, self._hooks, raw=raw)
        self._instance.serve(name, provider, served, pool.queue)
        self._served[name, provider] = served

    def _shut_down(self, _: bytes) -> None:
        logger.info("%s: a peer ended this engine", self.name)
        self._instance.refuse_requests()
        self._ended.set()

    def _method_id(self, name: Any) -> int:
        if not isinstance(name, str) or not name:
            raise InvalidArgumentError(f"the name of a procedure is a text, not {name!r}")
        return int(self._core.method_id(name))

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosedError(f"the engine {self.name!r} is closed")
