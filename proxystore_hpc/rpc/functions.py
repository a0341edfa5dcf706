"""The calling side: procedures by name, and calls bound to a peer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, TypeVar

from proxystore_hpc.exceptions import (
    ConfigError,
    InvalidArgumentError,
    UnknownProviderError,
    UnknownRpcError,
)
from proxystore_hpc.rpc import codec
from proxystore_hpc.rpc.endpoint import Endpoint, check_provider
from proxystore_hpc.rpc.events import Event
from proxystore_hpc.rpc.futures import Completer, RpcFuture, Sink
from proxystore_hpc.rpc.handlers import before_waiting, workers

if TYPE_CHECKING:
    from proxystore_hpc._core import Lease
    from proxystore_hpc.rpc.engine import Engine

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

CODECS = ("pickle", "raw")


class RemoteFunction:
    """A procedure by its name; `on` binds it to a peer.

    What `engine.register("name")` gives is a decorator as well: it registers what it is put on.
    """

    __slots__ = ("_engine", "_options", "codec", "method", "name", "one_way")

    def __init__(
        self, engine: Engine, name: str, codec: str, one_way: bool, options: dict[str, Any]
    ) -> None:
        check_codec(codec)
        self.name = name
        self.codec = codec
        self.one_way = one_way
        self.method: int = engine._method_id(name)
        self._engine = engine
        self._options = options

    def on(self, endpoint: Endpoint | str, provider_id: int = 0) -> BoundCall:
        """The procedure at a peer. Keep it: a call through it builds nothing anew.

        Args:
            endpoint: The peer, or its address.
            provider_id: Which of its providers.

        Raises:
            PeerError: An address leads nowhere.
        """
        if isinstance(endpoint, str):
            endpoint = self._engine.lookup(endpoint)
        elif not isinstance(endpoint, Endpoint):
            raise InvalidArgumentError(
                f"an endpoint or its address is needed, not {type(endpoint).__name__}"
            )
        cls = OneWayCall if self.one_way else BoundCall
        return cls(self._engine, self, endpoint, check_provider(provider_id))

    def __call__(self, handler: FunctionT) -> FunctionT:
        """Registers `handler` under this name; for use as a decorator."""
        if not callable(handler):
            raise InvalidArgumentError(
                f"{self.name!r} is called at a peer: engine.rpc({self.name!r}).on(endpoint)(...)"
            )
        self._engine.register(self.name, handler, **self._options)
        return handler

    def __repr__(self) -> str:
        return f"<RemoteFunction {self.name!r}>"


class BoundCall:
    """A procedure at one provider of one peer: call it.

    All ways to call may be used from any thread, release the GIL while they wait, and take
    `timeout=` in seconds (by default the engine's, `math.inf` for none). Large buffers among the
    arguments are sent from where they lie: of `submit` and `notify`, they must not change before
    the call has ended.
    """

    __slots__ = (
        "_call",
        "_decode",
        "_empty",
        "_encode",
        "_engine",
        "_hooks",
        "_method",
        "_notify",
        "_provider",
        "_raw",
        "_start",
        "_stats",
        "_timeout",
        "endpoint",
        "name",
    )

    def __init__(
        self, engine: Engine, function: RemoteFunction, endpoint: Endpoint, provider: int
    ) -> None:
        self.name = function.name
        self.endpoint = endpoint
        raw = self._raw = function.codec == "raw"
        self._encode: Callable[[Any, Any], codec.Encoded] = (
            self._encode_raw if raw else codec.encode_arguments
        )
        self._decode: Callable[[bytes, Lease | None], Any] = (
            codec.decode_raw if raw else codec.decode_result
        )
        self._empty = b"" if raw else None
        self._engine = engine
        self._hooks = engine._hooks
        self._stats = engine._calls.of(function.name)
        self._timeout = engine._timeout
        self._method = function.method
        self._provider = provider
        core = endpoint._core
        self._call = core.call
        self._start = core.start
        self._notify = core.notify

    @property
    def provider_id(self) -> int:
        """The provider that is called."""
        return self._provider

    def __call__(self, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Calls and waits for the result.

        Raises:
            OperationTimeoutError: It did not come by the deadline.
            PeerLostError: The peer ended, or cannot be reached any more.
            PeerRestartedError: Another process answers at its address.
            UnknownRpcError: The peer has no such procedure.
            UnknownProviderError: It has, but not for this provider.
            EngineClosedError: The engine here or there was closed meanwhile.
            SerializationError: Arguments or result cannot be pickled or unpickled.
            RemoteError: The handler raised something that cannot be raised here as it is.
            Exception: What the handler raised, with its `remote_traceback`.
        """
        if workers:
            before_waiting()
        if self._hooks.active:
            return self._observed(args, kwargs, timeout)
        if timeout is None:
            timeout = self._timeout
        stats = self._stats
        if args or kwargs:
            body, payload = self._encode(args, kwargs)
            stats.began(len(body) if payload is None else codec.nbytes_of(body, payload))
        else:
            began = perf_counter_ns()
            try:
                body, lease = self._call(self._method, self._provider, b"", None, timeout)
            except BaseException as error:
                stats.began(0)
                self.fail(error)
                raise
            if not body and lease is None:
                stats.called(perf_counter_ns() - began)
                return self._empty
            stats.calls += 1
            return self.settle(body, lease, perf_counter_ns() - began)
        began = perf_counter_ns()
        try:
            body, lease = self._call(self._method, self._provider, body, payload, timeout)
            return self.settle(body, lease, perf_counter_ns() - began)
        except BaseException as error:
            self.fail(error)
            raise

    def submit(self, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> RpcFuture:
        """Begins a call; returns its future at once. Thousands may be under way.

        Raises:
            PeerLostError: The peer was lost before. All else is raised by the future.
        """
        if self._hooks.active:
            return RpcFuture(self._begin(args, kwargs, timeout), _Observer(self))
        if timeout is None:
            timeout = self._timeout
        stats = self._stats
        if args or kwargs:
            body, payload = self._encode(args, kwargs)
            stats.began(len(body) if payload is None else codec.nbytes_of(body, payload))
        else:
            body, payload = b"", None
            stats.calls += 1
        try:
            pending = self._start(self._method, self._provider, body, payload, timeout)
        except BaseException as error:
            self.fail(error)
            raise
        return RpcFuture(pending, self)

    async def aio(self, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Calls from a coroutine; raises as `__call__`. Cancelling it cancels the call."""
        sink: Sink = _Observer(self) if self._hooks.active else self
        pending = self._begin(args, kwargs, timeout)
        began = perf_counter_ns()
        try:
            if not pending.done():
                loop = asyncio.get_running_loop()
                waiter = loop.create_future()
                self.completer.of_loop(loop).watch(pending, waiter)
                try:
                    await waiter
                except asyncio.CancelledError:
                    pending.cancel()
                    raise
            body, lease = pending.result()
            return sink.settle(body, lease, perf_counter_ns() - began)
        except BaseException as error:
            sink.fail(error)
            raise

    def notify(self, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Calls without waiting for an answer, nor hearing of errors there.

        Raises:
            PeerLostError: The peer was lost before.
        """
        if timeout is None:
            timeout = self._timeout
        body, payload = self._encode(args, kwargs) if args or kwargs else (b"", None)
        self._stats.began(len(body) if payload is None else codec.nbytes_of(body, payload))
        if self._hooks.active:
            self._emit("start", len(body))
        try:
            self._notify(self._method, self._provider, body, payload, timeout)
        except BaseException as error:
            self.fail(error)
            raise

    def map(
        self, items: Iterable[Any], window: int = 64, timeout: float | None = None
    ) -> Iterator[Any]:
        """Results for each item as the only argument, in order, `window` calls in flight.

        Raises:
            Exception: What the first call failed with; those under way are cancelled then.
        """
        if window < 1:
            raise InvalidArgumentError(f"at least one call is to be in flight, not {window}")
        if self._hooks.active:
            yield from self._observed_map(items, window, timeout)
            return
        if workers:
            before_waiting()
        timeout = self._timeout if timeout is None else timeout
        stream = self.endpoint._core.stream(self._method, self._provider, window, timeout)
        raw = self._raw
        stats, step, settle = self._stats, stream.step, self.settle
        try:
            for item in items:
                body, payload = codec.encode_raw(item) if raw else codec.encode_one(item)
                stats.calls += 1
                stats.bytes_out += len(body) if payload is None else codec.nbytes_of(body, payload)
                answer = step(body, payload)
                if answer is not None:
                    yield settle(*answer)
            while (answer := stream.finish()) is not None:
                yield settle(*answer)
        except GeneratorExit:
            raise
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            stream.cancel()

    def _observed_map(
        self, items: Iterable[Any], window: int, timeout: float | None
    ) -> Iterator[Any]:
        flying: deque[RpcFuture] = deque()
        try:
            for item in items:
                flying.append(self.submit(item, timeout=timeout))
                if len(flying) >= window:
                    yield flying.popleft().result()
            while flying:
                yield flying.popleft().result()
        finally:
            for future in flying:
                future.cancel()

    @property
    def completer(self) -> Completer:
        """Tells of the ends of calls; for futures."""
        return self._engine._completer

    def settle(self, body: bytes, lease: Lease | None, ns: int) -> Any:
        """Counts an answer and makes its result; for futures."""
        if lease is None:
            self._stats.ended(ns, len(body))
            return self._decode(body, None) if body else self._empty
        self._stats.ended(ns, len(body) + len(lease))
        return self._decode(body, lease)

    def fail(self, error: BaseException) -> None:
        """Counts a failure; for futures. The peer says that it lacks a procedure, but not which."""
        self._stats.failures += 1
        of_ours = not hasattr(error, "remote_traceback")
        if of_ours and isinstance(error, (UnknownRpcError, UnknownProviderError)):
            error.args = (f"{self.name!r} at {self.endpoint.address}: {error}",)

    def __repr__(self) -> str:
        return f"<call of {self.name!r}[{self._provider}] on {self.endpoint.address}>"

    @staticmethod
    def _encode_raw(args: tuple[Any, ...], kwargs: dict[str, Any]) -> codec.Encoded:
        if len(args) != 1 or kwargs:
            raise InvalidArgumentError(
                f"a procedure with codec='raw' takes one bytes-like argument, not {len(args)} and "
                f"{len(kwargs)} by name"
            )
        return codec.encode_raw(args[0])

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any], timeout: float | None) -> Any:
        body, payload = self._encode(args, kwargs) if args or kwargs else (b"", None)
        stats = self._stats
        nbytes = len(body) if payload is None else codec.nbytes_of(body, payload)
        stats.began(nbytes)
        if self._hooks.active:
            self._emit("start", nbytes)
        try:
            return self._start(
                self._method,
                self._provider,
                body,
                payload,
                self._timeout if timeout is None else timeout,
            )
        except BaseException as error:
            self.fail(error)
            raise

    def _observed(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], timeout: float | None
    ) -> Any:
        observer = _Observer(self)
        return RpcFuture(self._begin(args, kwargs, timeout), observer).result()

    def _emit(
        self, phase: Any, nbytes: int, seconds: float = 0.0, error: BaseException | None = None
    ) -> None:
        peer = self.endpoint.address
        event = Event("call", phase, self.name, self._provider, peer, nbytes, seconds, error)
        self._hooks.emit(event)


class _Observer:
    """Tells the hooks of the end of a call."""

    __slots__ = ("_began", "_call", "completer")

    def __init__(self, call: BoundCall) -> None:
        self._began = perf_counter_ns()
        self._call = call
        self.completer = call.completer

    def settle(self, body: bytes, lease: Lease | None, ns: int) -> Any:
        result = self._call.settle(body, lease, ns)
        self._end(len(body) + (0 if lease is None else len(lease)), None)
        return result

    def fail(self, error: BaseException) -> None:
        self._call.fail(error)
        self._end(0, error)

    def _end(self, nbytes: int, error: BaseException | None) -> None:
        self._call._emit("end", nbytes, (perf_counter_ns() - self._began) * 1e-9, error)


class OneWayCall(BoundCall):
    """A procedure that answers nothing: calling it returns when the message is on its way."""

    __slots__ = ()

    def __call__(self, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """As `notify`."""
        self.notify(*args, timeout=timeout, **kwargs)


def check_codec(codec: str) -> None:
    """Raises ConfigError if there is no such codec."""
    if codec not in CODECS:
        raise ConfigError(f"codec: one of {', '.join(CODECS)} is needed, not {codec!r}")
