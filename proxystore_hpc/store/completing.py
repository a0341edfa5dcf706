"""Waiting for many futures at once."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    OperationTimeoutError,
    ProxyStoreHpcError,
)
from proxystore_hpc.store.future import Future

if TYPE_CHECKING:
    from proxystore_hpc._core import Completions

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "Done",
    "as_completed",
    "wait",
]

T = TypeVar("T")

# How long a wait does not look whether the user pressed Ctrl-C.
_WAIT = 0.5
# Where no owner can tell: over TCP, and over the node socket alone.
_LOOK_AGAIN = 0.01


class _Watcher(Generic[T]):
    """Hears of the ends of many futures, without a thread for any."""

    def __init__(self, futures: Iterable[Future[T]], timeout: float | None) -> None:
        self._began = time.monotonic()
        self._timeout = timeout
        self._queue: Completions | None = None
        self._told: dict[int, tuple[Future[T], Callable[[], bool]]] = {}
        self._asked: deque[Future[T]] = deque()
        self.unfinished = {id(future): future for future in futures}

    def __iter__(self) -> Iterator[Future[T]]:
        """The futures, each when it is done.

        Raises:
            OperationTimeoutError: Some are not in time.
        """
        try:
            for future in list(self.unfinished.values()):
                if future._outcome is not None or not self._watch(future):
                    self._asked.append(future)
            while self.unfinished:
                for future in self._done():
                    del self.unfinished[id(future)]
                    yield future
        finally:
            if self._queue is not None:
                self._queue.close()

    def _watch(self, future: Future[T]) -> bool:
        try:
            if self._queue is None:
                from proxystore_hpc import _core

                self._queue = _core.Completions()
            ended = future._factory.watch(self._queue, id(future))
        except (ImportError, ProxyStoreHpcError):
            return False  # done() tells what is wrong, or that it is over
        if ended is not None:
            self._told[id(future)] = future, ended
        return ended is not None

    def _done(self) -> list[Future[T]]:
        """Those that are done by now; waits a moment for one."""
        done = []
        for _ in range(len(self._asked)):
            future = self._asked.popleft()
            if future.done():
                done.append(future)
            else:
                self._asked.append(future)
        left = math.inf
        if self._timeout is not None:
            left = self._timeout - (time.monotonic() - self._began)
        pause = 0.0 if done else min(left, _LOOK_AGAIN if self._asked else _WAIT)
        for token in self._tokens(max(pause, 0.0)):
            future, ended = self._told.pop(token)
            if ended() or (not self._watch(future) and future.done()):
                done.append(future)
            elif token not in self._told:
                self._asked.append(future)
        if not done and left <= 0:
            raise OperationTimeoutError(
                f"{len(self.unfinished)} futures were not done within {self._timeout} s",
                timeout=self._timeout,
            )
        return done

    def _tokens(self, pause: float) -> list[Any]:
        if self._queue is not None and self._told:
            return self._queue.wait(pause) if pause > 0 else self._queue.drain()
        time.sleep(pause)
        return []


def as_completed(futures: Iterable[Future[T]], timeout: float | None = None) -> Iterator[Future[T]]:
    """The futures in the order in which they are done, each once.

    Their owners tell of it, whose threads they are: none is started here.

    Args:
        futures: Futures of any stores.
        timeout: Seconds for all of them; `None` for ever.

    Raises:
        OperationTimeoutError: Some were not done in time; those that were have been given.
    """
    return iter(_Watcher(futures, timeout))


class Done(NamedTuple):
    """What `wait` returns: two sets."""

    done: set[Future[Any]]
    not_done: set[Future[Any]]


def wait(
    futures: Iterable[Future[Any]],
    timeout: float | None = None,
    return_when: str = ALL_COMPLETED,
) -> Done:
    """Waits for futures, as `concurrent.futures.wait`.

    Args:
        futures: Futures of any stores.
        timeout: Seconds; `None` for ever. Its end is no error.
        return_when: `ALL_COMPLETED`, `FIRST_COMPLETED`, or `FIRST_EXCEPTION`, which gets the
            results to see.
    """
    if return_when not in (ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION):
        raise InvalidArgumentError(f"return_when: {return_when!r} is none of the three constants")
    watcher = _Watcher(futures, timeout)
    done: set[Future[Any]] = set()
    try:
        for future in watcher:
            done.add(future)
            if return_when == FIRST_COMPLETED:
                break
            if return_when == FIRST_EXCEPTION and future.failed():
                break
    except OperationTimeoutError:
        pass
    return Done(done, set(watcher.unfinished.values()) - done)
