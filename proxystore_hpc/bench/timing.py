"""Timing by turns: what is compared shares every moment of the machine."""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Action", "Stats", "interleaved", "ratio", "timed"]


@dataclass(frozen=True)
class Stats:
    """Durations of one action in seconds."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Half of the samples are shorter."""
        return statistics.median(self.samples)

    @property
    def minimum(self) -> float:
        """The shortest sample."""
        return min(self.samples)

    @property
    def p99(self) -> float:
        """The smallest sample that 99 % do not exceed."""
        ordered = sorted(self.samples)
        return ordered[math.ceil(0.99 * len(ordered)) - 1]

    @property
    def p10(self) -> float:
        """What a tenth does not exceed: what it takes where nobody interferes."""
        ordered = sorted(self.samples)
        return ordered[math.ceil(0.1 * len(ordered)) - 1]

    def as_dict(self) -> dict[str, float]:
        """The figures of a row, without the samples."""
        return {
            "median_s": self.median,
            "p10_s": self.p10,
            "p99_s": self.p99,
            "min_s": self.minimum,
            "rounds": len(self.samples),
        }


@dataclass(frozen=True)
class Action:
    """What is timed; `before` and `after` are not. `after` gets what `run` returned.

    With `time.thread_time` as its clock, what never waits is measured as if the machine were idle.
    """

    run: Callable[[], Any]
    before: Callable[[], object] | None = None
    after: Callable[[Any], object] | None = None
    loops: int = 1
    clock: Callable[[], float] = time.perf_counter

    def time(self) -> float:
        """Seconds of one run."""
        if self.before is not None:
            self.before()
        run, clock, result = self.run, self.clock, None
        began = clock()
        for _ in range(self.loops):
            result = run()
        elapsed = (clock() - began) / self.loops
        if self.after is not None:
            self.after(result)
        return elapsed


def interleaved(
    actions: Mapping[str, Action | Callable[[], Any]],
    *,
    seconds: float = 1.0,
    fewest: int = 5,
    most: int = 5_000,
    warm_up: int = 2,
) -> dict[str, Stats]:
    """Times actions by turns, in another order each round.

    So none of them always finds what the same other one has left in the caches and the scheduler.

    Args:
        actions: By name.
        seconds: How long to go on, for all together; not counting the warm-up.
        fewest: Rounds that run whatever the time.
        most: Rounds after which it ends whatever the time.
        warm_up: Rounds before that, which do not count.
    """
    ready = {n: a if isinstance(a, Action) else Action(a) for n, a in actions.items()}
    for _ in range(warm_up):
        for action in ready.values():
            action.time()
    samples: dict[str, list[float]] = {name: [] for name in ready}
    collecting = gc.isenabled()
    gc.disable()
    try:
        end, rounds = time.perf_counter() + seconds, 0
        turns = list(ready)
        order = random.Random(0)
        while rounds < fewest or (rounds < most and time.perf_counter() < end):
            order.shuffle(turns)
            for name in turns:
                samples[name].append(ready[name].time())
            rounds += 1
    finally:
        if collecting:
            gc.enable()
    return {name: Stats(tuple(times)) for name, times in samples.items()}


def timed(action: Action | Callable[[], Any], **options: Any) -> Stats:
    """Times one action; options as for `interleaved`."""
    return interleaved({"": action}, **options)[""]


def ratio(results: Mapping[str, Stats], name: str, other: str) -> float:
    """How many times as long `name` takes as `other`: the median over the rounds they shared."""
    pairs = zip(results[name].samples, results[other].samples, strict=True)
    return statistics.median(mine / theirs for mine, theirs in pairs)
