"""The serving side in Python: pools of threads that take requests, run handlers and answer."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import ConfigError, ProxyStoreHpcError
from proxystore_hpc.rpc import codec, raising
from proxystore_hpc.rpc.events import Event, Hooks
from proxystore_hpc.rpc.stats import HandlerStats

if TYPE_CHECKING:
    from proxystore_hpc._core import IncomingCall, Instance
    from proxystore_hpc.rpc.endpoint import Endpoint
    from proxystore_hpc.rpc.engine import Engine

logger = logging.getLogger(__name__)

_CLOSED = "the engine there is shutting down"
_FOR_EVER = float("inf")
_IDLE = 1.0
"""Seconds without a request after which a thread that stood in ends."""

workers: dict[int, Pool] = {}
"""The pool of each thread that runs handlers, of all engines of this process."""

os.register_at_fork(after_in_child=workers.clear)


def before_waiting() -> None:
    """To be called before a thread waits for a peer.

    If it runs a handler, another thread stands in for it where nobody else would take the next
    request: that one may be what the peer needs to answer.
    """
    pool = workers.get(threading.get_ident())
    if pool is not None:
        pool.ensure_taker()


class Request:
    """A call as its handler sees it: what a first parameter annotated `Request` is given."""

    __slots__ = ("_call", "_engine", "_served", "name")

    def __init__(self, call: IncomingCall, engine: Engine, served: Served) -> None:
        self._call = call
        self._engine = engine
        self._served = served
        self.name = served.name

    @property
    def engine(self) -> Engine:
        """The engine that was called."""
        return self._engine

    @property
    def caller(self) -> str:
        """Address of the engine that calls."""
        return self._call.caller

    @property
    def endpoint(self) -> Endpoint:
        """The engine that calls, to call it back. Looked up when it is first asked for.

        Raises:
            PeerLostError: It is gone.
        """
        return self._engine.lookup(self._call.caller)

    @property
    def provider_id(self) -> int:
        """The provider that was called."""
        return self._call.provider

    @property
    def one_way(self) -> bool:
        """Whether nobody waits for an answer."""
        return self._call.one_way

    @property
    def cancelled(self) -> bool:
        """Whether the caller gave up, or is gone. A long handler looks now and then."""
        return self._call.cancelled

    def remaining(self) -> float:
        """Seconds that the caller still waits, infinity if for ever; good as a `timeout`."""
        return self._call.remaining

    def later(self) -> LaterAnswer:
        """For a handler that is no coroutine to return, if it has no answer yet.

        No thread waits for it: whoever has the answer gives it.
        """
        return LaterAnswer(self._served, self._call)

    def __repr__(self) -> str:
        return f"<Request {self.name!r} for provider {self.provider_id} from {self.caller}>"


class LaterAnswer:
    """The answer that a call still waits for; what `Request.later` returns.

    It is given once, from any thread; who gives it later than that is told by `False`. Dropped
    without an answer, it leaves the caller to its timeout.
    """

    __slots__ = ("_began", "_call", "_open", "_served")

    def __init__(self, served: Served, call: IncomingCall) -> None:
        self._served = served
        self._call = call
        self._began = perf_counter_ns()
        self._open = [True]  # popping from a list is atomic

    @property
    def cancelled(self) -> bool:
        """Whether the caller gave up, or is gone."""
        return self._call.cancelled

    def remaining(self) -> float:
        """Seconds that the caller still waits, infinity if for ever."""
        return self._call.remaining

    def reply(self, result: Any = None) -> bool:
        """Answers with what the handler would have returned; whether this was the first answer."""
        if not self._take():
            return False
        self._served.answer(self._call, result, self._began)
        return True

    def fail(self, error: BaseException) -> bool:
        """Answers with what the handler would have raised; whether this was the first answer."""
        if not self._take():
            return False
        self._served._failed(self._call, error, self._began)
        return True

    def _take(self) -> bool:
        try:
            return self._open.pop()
        except IndexError:
            return False


class Served:
    """One registered handler, as the core hands it back with each request."""

    __slots__ = (
        "_engine",
        "_function",
        "_hooks",
        "_is_async",
        "_raw",
        "_wants_request",
        "name",
        "provider",
        "stats",
    )

    def __init__(
        self,
        engine: Engine,
        name: str,
        provider: int,
        function: Callable[..., Any],
        hooks: Hooks,
        *,
        raw: bool,
    ) -> None:
        self.name = name
        self.provider = provider
        self.stats = HandlerStats()
        self._engine = engine
        self._function = function
        self._hooks = hooks
        self._raw = raw
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004
        )
        self._wants_request = wants_request(function)

    def handle(self, call: IncomingCall) -> None:
        """Runs the handler and answers, whatever happens in it."""
        stats = self.stats
        stats.queue_wait.add(max(0, int(call.waited * 1e9)))
        if call.cancelled or call.remaining <= 0:
            stats.dropped += 1
            return
        began = perf_counter_ns()
        if self._hooks.active:
            self._emit(call, "start")
        try:
            result = self._run(call)
            if self._is_async:
                self._engine._async_handlers.start(self._finish(call, result, began))
                return
            if type(result) is LaterAnswer:
                return
            if not call.one_way:
                call.reply(*self._encode(result))
        except BaseException as error:
            self._failed(call, error, began)
        else:
            self._done(call, began, None)

    def answer(self, call: IncomingCall, result: Any, began: int) -> None:
        """Answers a call whose handler returned before it had the result."""
        try:
            if not call.one_way:
                call.reply(*self._encode(result))
        except BaseException as error:
            self._failed(call, error, began)
        else:
            self._done(call, began, None)

    def _run(self, call: IncomingCall) -> Any:
        body, payload = call.body, call.payload
        if self._raw:
            data = codec.decode_raw(body, payload)
            if self._wants_request:
                return self._function(Request(call, self._engine, self), data)
            return self._function(data)
        args, kwargs = codec.decode_arguments(body, payload)
        if self._wants_request:
            args = (Request(call, self._engine, self), *args)
        return self._function(*args, **kwargs) if kwargs else self._function(*args)

    async def _finish(
        self, call: IncomingCall, running: Coroutine[Any, Any, Any], began: int
    ) -> None:
        try:
            result = await running
            if not call.one_way:
                call.reply(*self._encode(result))
        except BaseException as error:
            self._failed(call, error, began)
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            self._done(call, began, None)

    def _encode(self, result: Any) -> codec.Encoded:
        if not self._raw:
            return codec.encode_result(result)
        return codec.encode_raw(b"" if result is None else result)

    def _failed(self, call: IncomingCall, error: BaseException, began: int) -> None:
        if call.one_way:
            logger.warning(
                "%s[%d] failed for %s, which does not wait for it",
                self.name,
                self.provider,
                call.caller,
                exc_info=error,
            )
        else:
            logger.debug("%s[%d] raised %r for %s", self.name, self.provider, error, call.caller)
            try:
                if isinstance(error, asyncio.CancelledError) and self._engine.closed:
                    call.fail("closed", _CLOSED)
                else:
                    call.raised(raising.encode(error))
            except ProxyStoreHpcError as lost:
                logger.debug("%s could not be told: %s", call.caller, lost)
        self._done(call, began, error)

    def _done(self, call: IncomingCall, began: int, error: BaseException | None) -> None:
        took = perf_counter_ns() - began
        self.stats.handler_time.add(took)
        if self._hooks.active:
            self._emit(call, "end", took * 1e-9, error)

    def _emit(
        self,
        call: IncomingCall,
        phase: Any,
        seconds: float = 0.0,
        error: BaseException | None = None,
    ) -> None:
        nbytes = len(call.body) + (0 if call.payload is None else len(call.payload))
        self._hooks.emit(
            Event(
                "handler",
                phase,
                self.name,
                call.provider,
                call.caller,
                nbytes if phase == "start" else 0,
                seconds,
                error,
            )
        )


def wants_request(function: Callable[..., Any]) -> bool:
    """Whether the first parameter of a handler is annotated `Request`."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some callables written in C
        return False
    first = next(iter(parameters), None)
    if first is None:
        return False
    annotation = first.annotation
    if isinstance(annotation, str):  # from __future__ import annotations
        return annotation.rpartition(".")[2].strip("'\"") == Request.__name__
    return annotation is Request


class Pool:
    """Threads that work off the requests of the procedures that belong to it."""

    def __init__(self, instance: Instance, name: str, size: int, extra: int) -> None:
        from proxystore_hpc import _core

        self.name = name
        self.size = size
        self.queue = _core.HandlerPool(instance)
        self._rest: deque[IncomingCall] = deque()  # taken with others, still to be handled
        self._extra = extra
        self._closed = False
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        for _ in range(size):
            self._start(_FOR_EVER)

    def ensure_taker(self) -> None:
        """Starts a thread that stands in if nobody is there to take the next request."""
        if self.queue.waiting and not self._rest:
            return
        with self._lock:
            room = len(self._threads) < self.size + self._extra and not self._closed
        if room:
            self._start(_IDLE)

    def snapshot(self) -> dict[str, int]:
        """`size`, and now: `threads`, those of them that `wait`, requests `queued`."""
        return {
            "size": self.size,
            "threads": len(self._threads),
            "waiting": self.queue.waiting,
            "queued": self.queue.queued + len(self._rest),
        }

    def close(self) -> None:
        """No more requests: those that wait are answered that the engine is closed."""
        with self._lock:
            self._closed = True
        self.queue.close()
        while self._rest:
            try:
                call = self._rest.popleft()
            except IndexError:
                break
            call.fail("closed", _CLOSED)

    def join(self, deadline: float, clock: Callable[[], float]) -> bool:
        """Waits for the handlers that run, until `deadline`; whether all have ended."""
        here = threading.current_thread()
        with self._lock:
            threads = [thread for thread in self._threads if thread is not here]
        for thread in threads:
            thread.join(max(0.0, deadline - clock()))
        return not any(thread.is_alive() for thread in threads)

    def _start(self, idle: float) -> None:
        thread = threading.Thread(
            target=self._work,
            args=(idle,),
            name=f"rpc-{self.name}-{next(self._numbers)}",
            daemon=True,
        )
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            with self._lock:
                self._threads.discard(thread)
            raise

    def _work(self, idle: float) -> None:
        ident = threading.get_ident()
        workers[ident] = self
        rest, take = self._rest, self.queue.take
        try:
            while True:
                try:
                    call = rest.popleft()
                except IndexError:
                    calls = take(idle)
                    if not calls:
                        return  # closed, or nothing to do for a thread that stands in
                    call = calls[0]
                    if len(calls) > 1:
                        # Where other threads find them, should this one be held up.
                        rest.extend(calls[1:])
                    del calls
                try:
                    call.handler.handle(call)
                except BaseException:
                    logger.exception("answering %s failed", call.caller)
                del call  # its payload goes back now, not with the next request
        finally:
            workers.pop(ident, None)
            with self._lock:
                self._threads.discard(threading.current_thread())


class Pools:
    """The pools of an engine, their threads started when the first procedure needs them."""

    def __init__(self, instance: Instance, sizes: dict[str, int], extra: int) -> None:
        self._instance = instance
        self._sizes = sizes
        self._extra = extra
        self._lock = threading.Lock()
        self._pools: dict[str, Pool] = {}

    def get(self, name: str) -> Pool:
        """The pool of this name.

        Raises:
            ConfigError: The engine was given none.
        """
        with self._lock:
            pool = self._pools.get(name)
            if pool is None:
                size = self._sizes.get(name)
                if size is None:
                    raise ConfigError(
                        f"pool: there is no pool {name!r}; the engine's handlers= name "
                        f"{', '.join(map(repr, self._sizes))}"
                    )
                pool = self._pools[name] = Pool(self._instance, name, size, self._extra)
            return pool

    def add(self, name: str, size: int) -> Pool:
        """A further pool, of the engine's own."""
        with self._lock:
            pool = self._pools[name] = Pool(self._instance, name, size, 0)
            return pool

    def snapshot(self) -> dict[str, dict[str, int]]:
        """What each pool that is in use does now."""
        with self._lock:
            pools = list(self._pools.items())
        return {name: pool.snapshot() for name, pool in pools}

    def all(self) -> list[Pool]:
        """Those in use."""
        with self._lock:
            return list(self._pools.values())


class AsyncHandlers:
    """The event loop of an engine's `async def` handlers, on a thread of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Lets it run; from any thread."""
        self._running().call_soon_threadsafe(self._begin, coroutine)

    def close(self, timeout: float) -> None:
        """Cancels what runs and ends the loop, waiting for it so many seconds."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        if thread is threading.current_thread():
            self._cancel_all()
            return
        loop.call_soon_threadsafe(self._cancel_all)
        thread.join(timeout)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._work, args=(self._loop,), name=self._name, daemon=True
                )
                self._thread.start()
            return self._loop

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        loop = self._loop
        if loop is None or self._closed:
            coroutine.close()
            return
        task = loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # told to the caller by now
        if self._closed and not self._tasks and self._loop is not None:
            self._loop.stop()

    def _cancel_all(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if not self._tasks and self._loop is not None:
            self._loop.stop()
