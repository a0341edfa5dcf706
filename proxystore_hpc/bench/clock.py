"""What looking at the clock costs."""

from __future__ import annotations

import statistics
import time

__all__ = ["clock_figures"]

_READINGS = 1000
_ROUNDS = 25


def clock_figures() -> dict[str, float]:
    """Seconds that a pair of readings takes, and the smallest step of the clock.

    A burst has one such pair, so its part in the time of an operation is this divided by the
    operations of the burst.
    """
    clock = time.perf_counter
    costs, steps = [], []
    for _ in range(_ROUNDS):
        began = clock()
        for _ in range(_READINGS):
            clock()
        costs.append((clock() - began) / _READINGS)
        first = last = clock()
        while last == first:
            last = clock()
        steps.append(last - first)
    return {"pair_s": 2 * statistics.median(costs), "step_s": min(steps)}
