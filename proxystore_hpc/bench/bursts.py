"""Bursts: an operation repeated until the clock's own cost does not matter."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

__all__ = ["LONG_ENOUGH", "Repeated", "calibrated"]

LONG_ENOUGH = 2e-3
"""Seconds that a burst should take; the clock's part is then far below a thousandth."""
_MOST = 100_000


def calibrated(run: Callable[[], Any], most: int = _MOST) -> int:
    """How many times `run` has to be called to take `LONG_ENOUGH`. The first call does not count.

    Args:
        run: What will be timed.
        most: As many times as it may be called in one burst.
    """
    run()
    loops = 1
    while loops < most:
        began = time.perf_counter()
        for _ in range(loops):
            run()
        elapsed = time.perf_counter() - began
        if elapsed >= LONG_ENOUGH:
            break
        loops = min(most, max(2 * loops, int(loops * LONG_ENOUGH / max(elapsed, 1e-7))))
    return loops


class Repeated:
    """A burst of one function, calibrated when it is first called.

    Args:
        run: What is timed, once for each operation.
        verify: Gets what `run` returned last, after the clock has stopped.
        before: Called before the clock starts.
        most: Times that `run` may be called in one burst.
    """

    def __init__(
        self,
        run: Callable[[], Any],
        verify: Callable[[Any], object] | None = None,
        *,
        before: Callable[[], object] | None = None,
        most: int = _MOST,
    ) -> None:
        self._run = run
        self._verify = verify
        self._before = before
        self._most = most
        self.loops = 0

    def __call__(self) -> float:
        """Seconds of one operation."""
        if self._before is not None:
            self._before()
        if not self.loops:
            self.loops = calibrated(self._run, self._most)
        run, clock, result = self._run, time.perf_counter, None
        collecting = gc.isenabled()
        gc.disable()
        try:
            began = clock()
            for _ in range(self.loops):
                result = run()
            elapsed = clock() - began
        finally:
            if collecting:
                gc.enable()
        if self._verify is not None:
            self._verify(result)
        return elapsed / self.loops
