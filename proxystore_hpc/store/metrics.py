"""What the operations of a store cost, by object and by door."""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from proxystore_hpc.utils.locks import make_rlock

MAX_ENTRIES = 4096


class DoorStats(NamedTuple):
    """What went through one door.

    Attributes:
        operations: Number of transfers.
        bytes: Bytes transferred.
        seconds: Time from the start to the end of each transfer, summed; a batch counts as one.
    """

    operations: int
    bytes: int
    seconds: float


class DoorCounters:
    """Counts transfers by door; cheap enough to be always on. Thread-safe."""

    # The locks here are reentrant, as the garbage collector may run a finalizer that evicts, and
    # so records, while one is held.

    def __init__(self) -> None:
        self._lock = make_rlock()
        self._totals: dict[str, list[float]] = {}

    def add(self, door: str, nbytes: int, seconds: float, operations: int = 1) -> None:
        """Counts transfers of together `nbytes` that took `seconds`."""
        with self._lock:
            total = self._totals.get(door)
            if total is None:
                total = self._totals[door] = [0, 0, 0.0]
            total[0] += operations
            total[1] += nbytes
            total[2] += seconds

    def snapshot(self) -> dict[str, DoorStats]:
        """The counts until now, by name of the door."""
        with self._lock:
            return {
                door: DoorStats(int(operations), int(nbytes), seconds)
                for door, (operations, nbytes, seconds) in self._totals.items()
            }


@dataclasses.dataclass
class TimeStats:
    """How long a repeated event took.

    Attributes:
        count: Number of occurrences.
        avg_time_ms: Mean time in milliseconds.
        min_time_ms: Shortest time in milliseconds.
        max_time_ms: Longest time in milliseconds.
        last_time_ms: Time of the last occurrence in milliseconds.
        last_timestamp: When it was recorded, in seconds since the epoch.
    """

    count: int = 0
    avg_time_ms: float = 0
    min_time_ms: float = math.inf
    max_time_ms: float = 0
    last_time_ms: float = 0
    last_timestamp: float = 0

    def __add__(self, other: TimeStats) -> TimeStats:
        last = self if self.last_timestamp > other.last_timestamp else other
        count = self.count + other.count
        total = self.avg_time_ms * self.count + other.avg_time_ms * other.count
        return TimeStats(
            count=count,
            avg_time_ms=total / count if count else 0,
            min_time_ms=min(self.min_time_ms, other.min_time_ms),
            max_time_ms=max(self.max_time_ms, other.max_time_ms),
            last_time_ms=last.last_time_ms,
            last_timestamp=last.last_timestamp,
        )

    def add_time(self, time_ms: float) -> None:
        """Adds one occurrence that took `time_ms` milliseconds."""
        self.count += 1
        self.avg_time_ms += (time_ms - self.avg_time_ms) / self.count
        self.min_time_ms = min(self.min_time_ms, time_ms)
        self.max_time_ms = max(self.max_time_ms, time_ms)
        self.last_time_ms = time_ms
        self.last_timestamp = time.time()

    def as_dict(self) -> dict[str, Any]:
        """The fields as a dictionary."""
        return dataclasses.asdict(self)


@dataclasses.dataclass
class Metrics:
    """What is known about the operations on one key.

    Attributes:
        attributes: Values by name, the last one recorded.
        counters: Sums by name.
        times: Durations by name of the event.
    """

    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    counters: dict[str, int] = dataclasses.field(default_factory=dict)
    times: dict[str, TimeStats] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The fields as nested dictionaries."""
        return dataclasses.asdict(self)


class StoreMetrics:
    """Records what the operations of a store cost. Thread-safe.

    A key is given as itself, as a proxy of its object, or as a sequence of either for a batch;
    batches have entries of their own.

    Args:
        max_entries: Most keys that are remembered. The oldest is forgotten then, but its times
            and counters stay in `aggregate_times` and `aggregate_counters`.
        doors: Counters of the transfers, new ones if not given.
    """

    def __init__(
        self, max_entries: int = MAX_ENTRIES, *, doors: DoorCounters | None = None
    ) -> None:
        if max_entries < 1:
            raise ValueError(f"metrics need room for at least one entry, not {max_entries}")
        self._doors = DoorCounters() if doors is None else doors
        self._max_entries = max_entries
        self._entries: OrderedDict[Any, Metrics] = OrderedDict()
        self._forgotten: dict[str, TimeStats] = {}
        self._forgotten_counters: dict[str, int] = {}
        self._lock = make_rlock()

    @property
    def doors(self) -> dict[str, DoorStats]:
        """Transfers by name of the door: operations, bytes, seconds."""
        return self._doors.snapshot()

    def add_transfer(self, door: str, nbytes: int, seconds: float, operations: int = 1) -> None:
        """Counts transfers through a door."""
        self._doors.add(door, nbytes, seconds, operations)

    def __len__(self) -> int:
        return len(self._entries)

    def add_attribute(self, name: str, key: Any, value: Any) -> None:
        """Records a value for `key`, replacing an earlier one of this name."""
        known = _identify(key)
        with self._lock:
            self._entry(known).attributes[name] = value

    def add_counter(self, name: str, key: Any, value: int) -> None:
        """Adds `value` to a counter of `key`."""
        known = _identify(key)
        with self._lock:
            counters = self._entry(known).counters
            counters[name] = counters.get(name, 0) + value

    def add_time(self, name: str, key: Any, time_ms: float) -> None:
        """Records that an event of `key` took `time_ms` milliseconds."""
        known = _identify(key)
        with self._lock:
            times = self._entry(known).times
            stats = times.get(name)
            if stats is None:
                stats = times[name] = TimeStats()
            stats.add_time(time_ms)

    def aggregate_times(self) -> dict[str, TimeStats]:
        """Durations by name of the event, over all keys, forgotten ones too."""
        with self._lock:
            totals = {name: copy.copy(stats) for name, stats in self._forgotten.items()}
            for metrics in self._entries.values():
                _merge(totals, metrics.times)
        return totals

    def aggregate_counters(self) -> dict[str, int]:
        """Counters by name, over all keys, forgotten ones too."""
        with self._lock:
            totals = dict(self._forgotten_counters)
            for metrics in self._entries.values():
                _add(totals, metrics.counters)
        return totals

    def items(self) -> list[tuple[Any, Metrics]]:
        """Copies of what is known about each key, the oldest first."""
        with self._lock:
            return [(key, copy.deepcopy(metrics)) for key, metrics in self._entries.items()]

    def get_metrics(self, key_or_proxy: Any) -> Metrics | None:
        """A copy of what is known about a key, `None` if that is nothing."""
        known = _identify(key_or_proxy)
        with self._lock:
            metrics = self._entries.get(known)
            return None if metrics is None else copy.deepcopy(metrics)

    def _entry(self, key: Any) -> Metrics:
        metrics = self._entries.get(key)
        if metrics is None:
            metrics = self._entries[key] = Metrics()
            if len(self._entries) > self._max_entries:
                _, oldest = self._entries.popitem(last=False)
                _merge(self._forgotten, oldest.times)
                _add(self._forgotten_counters, oldest.counters)
        return metrics


def _merge(totals: dict[str, TimeStats], times: dict[str, TimeStats]) -> None:
    for name, stats in times.items():
        totals[name] = totals.get(name, TimeStats()) + stats


def _add(totals: dict[str, int], counters: dict[str, int]) -> None:
    for name, value in counters.items():
        totals[name] = totals.get(name, 0) + value


def _identify(key: Any) -> Any:
    # Without the module there are no proxies; and the type is asked, as a proxy would resolve.
    module = sys.modules.get("proxystore_hpc.proxy")
    proxy_type = getattr(module, "Proxy", None)
    if proxy_type is not None and issubclass(type(key), proxy_type):
        return module.get_factory(key).key  # type: ignore[union-attr]
    if not isinstance(key, Sequence) or isinstance(key, (str, bytes)):
        return key
    if proxy_type is None or not _any_proxy(key, proxy_type):
        return key if isinstance(key, tuple) else tuple(key)
    return tuple(_identify(part) for part in key)


def _any_proxy(parts: Iterable[Any], proxy_type: type[Any]) -> bool:
    return any(issubclass(type(part), proxy_type) for part in parts)
