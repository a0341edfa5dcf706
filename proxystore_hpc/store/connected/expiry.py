"""Objects that end at a time, where no owner keeps it: this process evicts them."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

logger = logging.getLogger(__name__)


class Expiry:
    """Evicts keys when their time is over. Thread-safe.

    A thread runs only while there are keys to wait for. In a forked child nothing expires: that is
    up to its parent.

    Args:
        evict: Evicts keys; a method, whose object is not kept alive.
    """

    def __init__(self, evict: Callable[[list[Any]], None]) -> None:
        self._evict = weakref.WeakMethod(evict)
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._deadlines: dict[Any, float] = {}
        # Entries whose time is not that of `_deadlines` any more are passed over.
        self._heap: list[tuple[float, int, Any]] = []
        self._numbers = itertools.count()
        self._running = False

    def set(self, keys: Iterable[Any], seconds: float | None) -> None:
        """Lets keys expire so many seconds from now, `None` for never."""
        if self._pid != os.getpid():
            self._reset()
        with self._changed:
            for key in keys:
                self._deadlines.pop(key, None)
                if seconds is not None:
                    deadline = time.monotonic() + seconds
                    self._deadlines[key] = deadline
                    heapq.heappush(self._heap, (deadline, next(self._numbers), key))
            if self._deadlines and not self._running:
                self._running = True
                threading.Thread(target=self._run, name="pshpc-expiry", daemon=True).start()
            self._changed.notify()

    def clear(self) -> list[Any]:
        """Forgets all keys; returns them."""
        with self._changed:
            keys = list(self._deadlines)
            self.set(keys, None)
        return keys

    def _run(self) -> None:
        while True:
            with self._changed:
                due = self._due()
                while not due:
                    if not self._deadlines:
                        self._heap.clear()
                        self._running = False
                        return
                    self._changed.wait(self._heap[0][0] - time.monotonic())
                    due = self._due()
            evict = self._evict()
            if evict is None:
                return
            try:
                evict(due)
            except Exception as error:
                logger.warning("objects whose time was over could not be evicted: %s", error)
            del evict

    def _due(self) -> list[Any]:
        due = []
        now = time.monotonic()
        while self._heap:
            # Taken first: the garbage collector may run a finalizer that adds an earlier one.
            entry = heapq.heappop(self._heap)
            deadline, _, key = entry
            if self._deadlines.get(key) != deadline:
                continue
            if deadline > now:
                heapq.heappush(self._heap, entry)
                break
            del self._deadlines[key]
            due.append(key)
        return due
