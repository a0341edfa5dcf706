"""What calls and handlers cost: counters and histograms, cheap enough to be always on."""

from __future__ import annotations

import threading
from typing import Any

_BUCKETS = 64


class Histogram:
    """Durations by powers of two.

    `add` runs without a lock: it contains neither a call nor a loop after its first line, so
    CPython switches no thread in the middle of it, and the counts are exact.
    """

    __slots__ = ("_buckets", "_largest", "_total")

    def __init__(self) -> None:
        self._buckets = [0] * _BUCKETS
        self._total = 0
        self._largest = 0

    def add(self, ns: int) -> None:
        """Counts one duration in nanoseconds."""
        bucket = ns.bit_length()
        self._buckets[bucket] += 1
        self._total += ns
        if ns > self._largest:
            self._largest = ns

    def snapshot(self) -> dict[str, Any]:
        """`count`, `seconds` in all, `largest`, and `buckets`: counts by their upper bound.

        All times in seconds. `p50` and `p99` are upper bounds of their bucket.
        """
        buckets = list(self._buckets)
        count = sum(buckets)
        return {
            "count": count,
            "seconds": self._total * 1e-9,
            "largest": self._largest * 1e-9,
            "p50": _quantile(buckets, count, 0.5),
            "p99": _quantile(buckets, count, 0.99),
            "buckets": {(1 << i) * 1e-9: n for i, n in enumerate(buckets) if n},
        }


def _quantile(buckets: list[int], count: int, share: float) -> float:
    left = count * share
    for i, n in enumerate(buckets):
        left -= n
        if n and left <= 0:
            return (1 << i) * 1e-9
    return 0.0


class CallStats:
    """What this process asked of one procedure, of all peers and providers.

    Attributes:
        calls: Calls begun, one-way ones too.
        failures: Calls that ended with an error; a call given up is one.
        bytes_out: Bytes sent in bodies and payloads.
        bytes_in: Bytes received so.
        latency: From the call to its result. That of a call which was submitted ends when the
            result is taken.
    """

    __slots__ = ("_latency", "bytes_in", "bytes_out", "calls", "failures")

    def __init__(self) -> None:
        self.calls = 0
        self.failures = 0
        self.bytes_out = 0
        self.bytes_in = 0
        self._latency = Histogram()

    # As in Histogram: no call between reading and writing a counter.

    def began(self, nbytes: int) -> None:
        """Counts a call and what it sends."""
        self.calls += 1
        self.bytes_out += nbytes

    def ended(self, ns: int, nbytes: int) -> None:
        """Counts an answer and what came with it."""
        bucket = ns.bit_length()
        self.bytes_in += nbytes
        latency = self._latency
        latency._buckets[bucket] += 1
        latency._total += ns
        if ns > latency._largest:
            latency._largest = ns

    def called(self, ns: int) -> None:
        """Counts a call without arguments and its empty answer."""
        bucket = ns.bit_length()
        self.calls += 1
        latency = self._latency
        latency._buckets[bucket] += 1
        latency._total += ns
        if ns > latency._largest:
            latency._largest = ns

    def snapshot(self) -> dict[str, Any]:
        """The counts until now."""
        return {
            "calls": self.calls,
            "failures": self.failures,
            "bytes_out": self.bytes_out,
            "bytes_in": self.bytes_in,
            "latency": self._latency.snapshot(),
        }


class HandlerStats:
    """What the handlers in Python of one procedure and provider cost, beside the core's counts.

    Attributes:
        dropped: Requests that nobody waited for any more when their turn came.
        queue_wait: From the arrival of a request to its handler.
        handler_time: In the handler, with unpickling and pickling.
    """

    __slots__ = ("dropped", "handler_time", "queue_wait")

    def __init__(self) -> None:
        self.dropped = 0
        self.queue_wait = Histogram()
        self.handler_time = Histogram()

    def snapshot(self) -> dict[str, Any]:
        """The counts until now."""
        return {
            "dropped": self.dropped,
            "queue_wait": self.queue_wait.snapshot(),
            "handler_time": self.handler_time.snapshot(),
        }


class CallCounters:
    """`CallStats` by name of the procedure. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_name: dict[str, CallStats] = {}

    def of(self, name: str) -> CallStats:
        """The counters of a procedure, always the same ones."""
        with self._lock:
            stats = self._by_name.get(name)
            if stats is None:
                stats = self._by_name[name] = CallStats()
            return stats

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """The counts until now, by name."""
        with self._lock:
            known = list(self._by_name.items())
        return {name: stats.snapshot() for name, stats in known if stats.calls}
