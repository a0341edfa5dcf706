"""What one client, or all of them, may take of a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from proxystore_hpc.exceptions import StoreFullError
from proxystore_hpc.tcp.stream import Pace

_WINDOW = 10.0
_GRACE = 60.0


@dataclass(frozen=True)
class Limits:
    """Bounds of a server. Times are in seconds, sizes in bytes.

    Attributes:
        connections: Connections that have said hello.
        greeting: Connections that have not yet; those of one host may be a quarter of them.
        hello: How long a hello may take, with the handshake of TLS.
        request: How long a request may take to arrive once it has begun.
        unproven: How long a connection may idle that never showed a valid capability.
        stranger: How long it may last.
        idle: How long others may.
        stall: How long a client may take nothing of what it asked for.
        slowest: Bytes per second that it must take, over 10 seconds.
        average: Bytes per second that it must take of one object, after the first minute.
        rate: Bytes per second that are sent to all together; 0 for no bound.
        put: Largest object that may be put.
        uploads: Objects whose put broke off that are kept, to go on with.
        resume: How long they are, and the keys of those that were stored.
        staging: Memory for objects that are being put, or relayed in one piece.
        waits: Waits of one connection at a time.
        waiting: Waits of all connections at a time.
    """

    connections: int = 1024
    greeting: int = 512
    hello: float = 10.0
    request: float = 10.0
    unproven: float = 10.0
    stranger: float = 120.0
    idle: float = 600.0
    stall: float = 30.0
    slowest: int = 1024
    average: int = 128 << 10
    rate: int = 0
    put: int = 1 << 30
    uploads: int = 64
    resume: float = 120.0
    staging: int = 2 << 30
    waits: int = 64
    waiting: int = 512


class TokenBucket:
    """Lets bytes pass at a rate, in the order of who asked. Thread-safe.

    Args:
        rate: Bytes per second.
        clock: Seconds that count up.
        sleep: Waits for some seconds.
    """

    def __init__(
        self,
        rate: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_from = clock()
        # What may go at once after a pause, and in one piece.
        self.quantum = max(rate // 50, 1024)

    def take(self, nbytes: int) -> None:
        """Waits until `nbytes` may pass."""
        with self._lock:
            now = self._clock()
            start = max(self._free_from, now - self.quantum / self._rate)
            self._free_from = start + nbytes / self._rate
            wait = start - now
        if wait > 0:
            self._sleep(wait)


class ClientPace(Pace):
    """Bounds how fast all clients are sent to, and how slowly one may take it.

    One for each object that is sent or received. Time between pieces is not the client's.
    """

    def __init__(self, bucket: TokenBucket | None, limits: Limits) -> None:
        self._bucket = bucket
        self._slowest = limits.slowest
        self._average = limits.average
        self._mark = time.monotonic()
        self._spent = self._window = 0.0
        self._total = self._taken = 0
        if bucket is not None:
            self.quantum = min(bucket.quantum, 256 << 10)

    def before(self, nbytes: int) -> None:
        """Waits until so many bytes may go."""
        if self._bucket is not None:
            self._bucket.take(nbytes)
        self._mark = time.monotonic()

    def after(self, nbytes: int) -> None:
        """Raises `TimeoutError` if the client took less than it must over a while."""
        now = time.monotonic()
        elapsed, self._mark = now - self._mark, now
        self._spent += elapsed
        self._window += elapsed
        self._total += nbytes
        self._taken += nbytes
        if self._total < self._average * (self._spent - _GRACE):
            raise TimeoutError("the client takes or sends an object too slowly")
        if self._window < _WINDOW:
            return
        if self._taken < self._slowest * self._window:
            raise TimeoutError("the client takes or sends an object far too slowly")
        self._window, self._taken = 0.0, 0


class Staging:
    """Memory that may be in use for objects on their way. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._used = 0
        self._changed = threading.Condition()

    def take(self, nbytes: int, timeout: float) -> None:
        """Waits for so much memory.

        Raises:
            StoreFullError: There is not as much, or not in time.
        """
        with self._changed:
            fits = nbytes <= self._capacity and self._changed.wait_for(
                lambda: self._used + nbytes <= self._capacity, timeout
            )
            if not fits:
                raise StoreFullError(
                    f"{nbytes} bytes at once are more than this server has memory for now "
                    f"({self._capacity - self._used} of {self._capacity}); ask for parts, or later",
                    requested=nbytes,
                    capacity=self._capacity,
                    used=self._used,
                )
            self._used += nbytes

    def give(self, nbytes: int) -> None:
        """Gives memory back."""
        with self._changed:
            self._used -= nbytes
            self._changed.notify_all()
