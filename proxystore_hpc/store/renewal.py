"""One thread that looks after everything that is due from time to time."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from typing import Protocol

logger = logging.getLogger(__name__)


class Renewable(Protocol):
    """What is due from time to time."""

    def renew(self) -> float | None:
        """Does what is due; seconds until the next time, `None` if there is none."""


class Renewals:
    """Renews what it was given, on a thread that is started with the first of them.

    Thread-safe; a forked child begins anew.
    """

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Renewable]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def add(self, what: Renewable) -> None:
        """Renews it from now on, for as long as it says when."""
        self._put(what, 0.0)

    def _put(self, what: Renewable, pause: float) -> None:
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + pause, next(self._numbers), what))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="proxystore-hpc-renewals", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                what = heapq.heappop(self._due)[2]
            try:
                pause = what.renew()
            except Exception:
                logger.exception("renewing %r failed; it is tried again", what)
                pause = 1.0
            if pause is not None:
                self._put(what, pause)
            del what


renewals = Renewals()
"""That of the process."""
