"""Calls in flight as futures, and how threads and event loops learn of their ends."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from _thread import allocate_lock
from collections.abc import Callable, Generator
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol

from proxystore_hpc.exceptions import EngineClosedError, RpcCancelledError
from proxystore_hpc.rpc.handlers import before_waiting, workers

if TYPE_CHECKING:
    from proxystore_hpc._core import Completions, Lease, PendingCall

logger = logging.getLogger(__name__)

_FOR_EVER = float("inf")
# What concurrent.futures.Future.__init__ sets, and its functions look at.
_BASE_FIELDS = frozenset(
    {"_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks"}
)


class CallCancelledError(RpcCancelledError, concurrent.futures.CancelledError):
    """The call was cancelled; caught as `concurrent.futures.CancelledError` too."""


class Sink(Protocol):
    """Who is told how a call ended, before anybody else."""

    @property
    def completer(self) -> Completer:
        """That of the engine."""

    def settle(self, body: bytes, lease: Lease | None, ns: int) -> Any:
        """The result of an answer that came after so many nanoseconds."""

    def fail(self, error: BaseException) -> None:
        """There is no result."""


class RpcFuture(concurrent.futures.Future[Any]):
    """A call that is under way: a `concurrent.futures.Future` that can be awaited too.

    Unlike those of an executor it can be cancelled while it runs: the peer is told. It costs next
    to nothing until somebody wants to be told of its end (callbacks, `concurrent.futures.wait`,
    `as_completed`, `asyncio.wrap_future`): then a thread of the engine's tells them. `result()`
    waits by itself, without the GIL.
    """

    # No call of Future.__init__: its lock and lists are made when they are first looked at.

    _value: Any = None
    _error: BaseException | None = None
    _waiter: asyncio.Future[None] | None = None
    _told = False

    def __init__(
        self,
        pending: PendingCall,
        sink: Sink,
    ) -> None:
        self._pending: PendingCall | None = pending
        self._sink = sink
        self._began = perf_counter_ns()
        self._lock = allocate_lock()

    def result(self, timeout: float | None = None) -> Any:
        """The result of the call; waits for it at most `timeout` seconds, `None`: to its end.

        Raises:
            concurrent.futures.TimeoutError: It did not end by then; it goes on.
            CancelledError: It was cancelled.
            Exception: What the call failed with.
        """
        pending = self._pending
        if pending is not None:
            if workers:
                before_waiting()
            if not pending.wait(_FOR_EVER if timeout is None else timeout):
                raise self._late(timeout)
            self._settle()
        if self._error is None:
            return self._value
        try:
            raise self._error
        finally:
            self = None  # type: ignore[assignment]  # or the traceback keeps it alive

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call failed with, `None` if it did not; waits as `result`."""
        try:
            self.result(timeout)
        except BaseException:
            # It did not end, or nobody is to hear of its error but as an exception.
            if self._pending is not None or isinstance(self._error, CallCancelledError):
                raise
        return self._error

    def done(self) -> bool:
        """Whether it has ended, however it did."""
        pending = self._pending
        return pending is None or pending.done()

    def running(self) -> bool:
        """Whether it has not ended."""
        return not self.done()

    def cancelled(self) -> bool:
        """Whether it ended by `cancel`."""
        if self._pending is not None and self._pending.done():
            self._settle()
        return self._pending is None and isinstance(self._error, CallCancelledError)

    def cancel(self) -> bool:
        """Gives the call up and tells the peer; false if it has ended otherwise.

        A handler that runs already is not interrupted: it may look at `Request.cancelled`.
        """
        pending = self._pending
        if pending is not None:
            pending.cancel()
            if not pending.done():
                return False  # its answer is arriving
            self._settle()
            if "_condition" in self.__dict__:
                self._tell()
        return isinstance(self._error, CallCancelledError)

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[Any]], object]) -> None:
        """Calls `fn(self)` when it has ended, on a thread of the engine's; at once if it has."""
        super().add_done_callback(fn)

    def __await__(self) -> Generator[Any, None, Any]:
        if self._pending is not None and not self._pending.done():
            loop = asyncio.get_running_loop()
            with self._lock:
                first = self._waiter is None and "_condition" not in self.__dict__
                if first:
                    self._waiter = loop.create_future()
            if first and self._waiter is not None:
                self._sink.completer.of_loop(loop).watch(self._pending, self)
                yield from self._arrival(self._waiter)
            else:
                return (yield from asyncio.wrap_future(self, loop=loop).__await__())
        return self.result(0)

    def __repr__(self) -> str:
        if not self.done():
            state = "under way"
        elif self._pending is not None:
            state = "ended"
        else:
            state = "ended well" if self._error is None else f"failed: {self._error!r}"
        return f"<RpcFuture, {state}>"

    def __getattr__(self, name: str) -> Any:
        if name not in _BASE_FIELDS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with self._lock:
            fresh = "_condition" not in self.__dict__
            if fresh:
                super().__init__()
            pending, awaited = self._pending, self._waiter is not None
        if fresh:
            if workers:
                before_waiting()
            if pending is None:
                self._tell()
            elif not awaited:  # else whoever awaits it tells of its end
                self._sink.completer.watch(pending, self)
        return self.__dict__[name]

    def _arrival(self, waiter: asyncio.Future[None]) -> Generator[Any, None, None]:
        try:
            yield from waiter.__await__()
        except asyncio.CancelledError:
            self.cancel()
            raise

    @staticmethod
    def _late(timeout: float | None) -> concurrent.futures.TimeoutError:
        return concurrent.futures.TimeoutError(
            f"the call did not end within {timeout} s; it goes on until its own timeout"
        )

    def _settle(self) -> None:
        """Takes the outcome of a call that has ended; once, whoever comes first."""
        with self._lock:
            pending = self._pending
            if pending is None:
                return
            try:
                body, lease = pending.result()
                self._value = self._sink.settle(body, lease, perf_counter_ns() - self._began)
            except RpcCancelledError as error:
                self._sink.fail(error)
                self._error = CallCancelledError(str(error), peer=error.peer)
            except BaseException as error:
                self._sink.fail(error)
                self._error = error
            self._pending = None

    def _arrived(self) -> None:
        """The call has ended; called where its end was waited for."""
        self._settle()
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if "_condition" in self.__dict__:
            self._tell()

    def _tell(self) -> None:
        """Tells those who wait by way of `concurrent.futures`; once."""
        with self._lock:
            if self._told:
                return
            self._told = True
        if isinstance(self._error, CallCancelledError):
            super().cancel()
            super().set_running_or_notify_cancel()
        elif self._error is not None:
            super().set_exception(self._error)
        else:
            super().set_result(self._value)


class LoopQueue:
    """Ends of calls for one event loop, which watches their descriptor."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        from proxystore_hpc import _core

        self.queue: Completions = _core.Completions()
        loop.add_reader(self.queue.fileno(), self._drain)

    def watch(self, pending: PendingCall, token: Any) -> None:
        """`token`, a future of the loop or an RpcFuture, hears of the end of the call."""
        pending.notify(self.queue, token)

    def end(self, loop: asyncio.AbstractEventLoop) -> None:
        """The last look; on the loop."""
        self._drain()
        loop.remove_reader(self.queue.fileno())
        self.queue.close()

    def _drain(self) -> None:
        for token in self.queue.drain():
            if isinstance(token, RpcFuture):
                token._arrived()
            elif not token.done():
                token.set_result(None)


class Completer:
    """Tells of the ends of calls of one engine: on a thread, or on the loops that await them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._closed = False
        self._queue: Completions | None = None
        self._thread: threading.Thread | None = None
        self._loops: dict[asyncio.AbstractEventLoop, LoopQueue] = {}

    def watch(self, pending: PendingCall, future: RpcFuture) -> None:
        """Lets the thread tell of the end of a call."""
        if self._closed:  # and with it all calls have ended
            future._arrived()
        else:
            pending.notify(self._started(), future)

    def of_loop(self, loop: asyncio.AbstractEventLoop) -> LoopQueue:
        """The queue that a running loop watches.

        Raises:
            EngineClosedError: Nothing is told any more.
        """
        queue = self._loops.get(loop)
        if queue is not None:
            return queue
        with self._lock:
            if self._closed:
                raise EngineClosedError(f"{self._name} is closed")
            for other in [other for other in self._loops if other.is_closed()]:
                del self._loops[other]
            queue = self._loops[loop] = LoopQueue(loop)
            return queue

    def close(self, timeout: float) -> None:
        """After the last call has ended: tells of what there is to tell, and ends."""
        with self._lock:
            self._closed = True
            loops = list(self._loops.items())
            self._loops.clear()
            queue, thread = self._queue, self._thread
        for loop, ends in loops:
            try:
                loop.call_soon_threadsafe(ends.end, loop)
            except RuntimeError:  # it is closed
                ends.queue.close()
        if queue is not None and thread is not None:
            queue.close()
            if thread is not threading.current_thread():
                thread.join(timeout)

    def _started(self) -> Completions:
        with self._lock:
            if self._queue is None:
                from proxystore_hpc import _core

                self._queue = _core.Completions()
                self._thread = threading.Thread(
                    target=self._work, args=(self._queue,), name=self._name, daemon=True
                )
                self._thread.start()
            return self._queue

    def _work(self, queue: Completions) -> None:
        while True:
            futures = queue.wait(_FOR_EVER)
            if not futures and self._closed:
                return
            for future in futures:
                try:
                    future._arrived()
                except Exception:
                    logger.exception("telling of the end of a call failed")
            del futures
