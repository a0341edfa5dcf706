"""Getting the bytes of one object, through broken connections and through several at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from proxystore_hpc.exceptions import (
    OperationTimeoutError,
    ProtocolError,
    ProxyStoreHpcError,
)
from proxystore_hpc.tcp import wire
from proxystore_hpc.tcp.connection import Connection, is_broken
from proxystore_hpc.tcp.endpoints import TcpEndpoint
from proxystore_hpc.tcp.pool import ConnectionPool, UnreachableError

T = TypeVar("T")
Progress = Callable[[int, int], object]

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_FRESH = 2.0
_UNDER_WAY = 15.0


class Retry:
    """Decides whether a request is tried again.

    Args:
        what: Names the request in messages.
        timeout: Seconds for all attempts together.
    """

    def __init__(self, what: str, timeout: float) -> None:
        self.what = what
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self._failing_since: float | None = None
        self._pause = 0.0
        self._patience = _FRESH

    @property
    def left(self) -> float:
        """Seconds until the deadline; not less than a millisecond."""
        return max(self.deadline - time.monotonic(), 1e-3)

    @property
    def allowance(self) -> float:
        """Seconds for an answer: always the same at first, as setting it costs system calls."""
        return self.timeout if self._failing_since is None else self.left

    def progressed(self) -> None:
        """Something arrived since the last failure."""
        self._failing_since = None
        self._pause = 0.0
        self._patience = _UNDER_WAY

    def again(self, error: Exception) -> None:
        """Pauses before another attempt, or raises what the caller of the request shall see."""
        now = time.monotonic()
        if now >= self.deadline:
            raise OperationTimeoutError(
                f"{self.what} did not end within {self.timeout:g} s: {error}", timeout=self.timeout
            ) from error
        if self._failing_since is None:
            self._failing_since = now
        if isinstance(error, UnreachableError) and now - self._failing_since >= self._patience:
            raise error.final() from error
        time.sleep(min(self._pause, self.left))
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)


def attempt(
    pool: ConnectionPool,
    endpoints: Sequence[TcpEndpoint],
    retry: Retry,
    action: Callable[[Connection], T],
) -> T:
    """Runs `action` with a connection, and again with another one if that breaks.

    Raises:
        ProxyStoreHpcError: What the server said, or why it cannot be asked.
    """
    while True:
        try:
            connection = pool.take(endpoints, retry.deadline)
        except UnreachableError as error:
            retry.again(error)
            continue
        try:
            result = action(connection)
        except ProxyStoreHpcError as error:
            if isinstance(error, ProtocolError):
                connection.close()
            else:
                pool.give(connection)
            raise
        except OSError as error:
            connection.close()
            retry.again(error)
            continue
        except BaseException:
            connection.close()
            raise
        pool.give(connection)
        return result


class Download:
    """Bytes of an object that are on their way into one piece of memory.

    Args:
        key: The object's key.
        offset: Byte of the object to begin with.
        length: How many; `None` up to the end.
        nbytes: Length of the object if it is known.
        target: Where to, of `length` bytes; `None`: what `memory` gives.
        memory: Gives memory of a length.
        progress: Told of the bytes that have arrived, and of all.
    """

    def __init__(
        self,
        key: bytes,
        offset: int,
        length: int | None,
        nbytes: int | None,
        target: memoryview | None,
        memory: Callable[[int], memoryview],
        progress: Progress | None = None,
    ) -> None:
        self._key = key
        self._offset = offset
        self._length = length
        self._nbytes = nbytes
        self.target = target
        self._memory = memory
        self._progress = progress
        self._live = False
        self._done = 0
        self._moved_since = False

    def run(self, connection: Connection, retry: Retry) -> None:
        """Gets what is missing. Raises as `Connection.receive_object`."""
        if self._live:  # parts of different times are no value
            self._done = 0
        if self._moved_since:
            self._moved_since = False
            retry.progressed()
        begin = self._offset + self._done
        wanted = wire.TO_THE_END if self._length is None else self._length - self._done
        request = wire.encode_get(wire.Get(self._key, begin, wanted, retry.left))
        number = connection.send(wire.GET, request, retry.allowance)
        connection.receive_object(number, begin, self._place, self._moved, retry.deadline)

    def _place(self, total: int, live: bool) -> memoryview:
        if self._nbytes is not None and total != self._nbytes:
            raise ProtocolError(f"an object of {self._nbytes} bytes was sent as one of {total}")
        self._live = live
        if self.target is None:
            length = total - self._offset if self._length is None else self._length
            self.target = self._memory(max(length, 0))
        return self.target[self._done :]

    def _moved(self, nbytes: int) -> None:
        self._done += nbytes
        self._moved_since = True
        if self._progress is not None and self.target is not None:
            self._progress(self._done, len(self.target))


def download_in_parts(
    pool: ConnectionPool,
    endpoints: Sequence[TcpEndpoint],
    retry: Retry,
    parts: Sequence[Download],
) -> None:
    """Runs several downloads at once, through a connection each.

    Raises:
        ProxyStoreHpcError: The first thing that went wrong; the others are ended then.
    """
    failures: list[BaseException] = []
    active: set[Connection] = set()
    lock = threading.Lock()

    def run(part: Download) -> None:
        mine = Retry(retry.what, retry.left)

        def action(connection: Connection) -> None:
            with lock:
                if failures:
                    raise failures[0]
                active.add(connection)
            try:
                part.run(connection, mine)
            except OSError as error:
                if failures and is_broken(error):
                    raise failures[0] from None
                raise
            finally:
                with lock:
                    active.discard(connection)

        try:
            attempt(pool, endpoints, mine, action)
        except BaseException as error:
            with lock:
                failures.append(error)
                for connection in active:
                    connection.end()

    threads = [
        threading.Thread(target=run, args=(part,), name="pshpc-download", daemon=True)
        for part in parts
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException as error:  # such as an interrupt: nobody may write into the memory now
        with lock:
            failures.append(error)
            for connection in active:
                connection.end()
        for thread in threads:
            thread.join()
        raise
    if failures:
        raise failures[0]
