"""How much `mpi_rma.py` measures, and how it compares."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import harness
from targets import Verdict

KIB, MIB = 1 << 10, 1 << 20
LIMITS = {8: 1.5, KIB: 1.5, MIB: 1.1, 64 * MIB: 1.1}
PIECES = (KIB, 64 * KIB)
Figures = dict[str, harness.Stats]
Arms = dict[str, harness.Action]


@dataclass
class Scale:
    """Sizes and times; the small ones only show that everything runs."""

    seconds: float = 3.0
    sizes: tuple[int, ...] = tuple(LIMITS)
    batch: int = 20
    in_flight: int = 16
    pauses: int = 40
    asleep: float = 3.0
    idles: tuple[float, ...] = (0.2e-3, 0.5e-3, 1e-3, 2e-3, 5e-3)
    cells: int = 512
    steps: int = 200
    every: int = 20
    rounds: int = 5

    fewest: int = 5

    def timed(self, arms: Arms) -> Figures:
        """Times them by turns."""
        warm_up = min(2, self.fewest)
        return harness.interleaved(arms, seconds=self.seconds, fewest=self.fewest, warm_up=warm_up)

    @property
    def largest(self) -> int:
        """Bytes of the target's memory that are read at once."""
        return max(*self.sizes, self.in_flight * PIECES[-1])

    def loops(self, nbytes: int) -> int:
        """Actions in a batch."""
        return self.batch if nbytes <= 64 * KIB else 1


QUICK = Scale(
    seconds=0.02,
    sizes=(8, 64 * KIB),
    batch=2,
    in_flight=4,
    pauses=3,
    asleep=0.1,
    idles=(0.5e-3, 2e-3),
    cells=32,
    steps=6,
    every=3,
    rounds=1,
    fewest=1,
)


def numbers_of(figures: Figures) -> dict[str, dict[str, float]]:
    return {name: stats.as_dict() for name, stats in figures.items()}


def compared(
    what: str, figures: Figures, mine: str, other: str, limit: float | None = None
) -> Verdict:
    """How many times as long one arm takes as another, round by round.

    Beside it stands the ratio of their best tenths, which a busy machine disturbs less.
    """
    times = harness.ratio(figures, mine, other)
    best = figures[mine].p10 / figures[other].p10
    arms = ", ".join(f"{name} {harness.duration(s.median)}" for name, s in figures.items())
    return Verdict(
        what,
        f"<= {limit:g}x" if limit else "",
        f"{times:.2f}x",
        times <= limit if limit else None,
        f"{best:.2f}x of the best tenths; {arms}",
        numbers_of(figures),
    )


def more(figures: Figures, name: str, other: str) -> float:
    """How much longer `name` takes: the median over the rounds, not less than nothing."""
    rounds = zip(figures[name].samples, figures[other].samples, strict=True)
    return max(0.0, statistics.median(a - b for a, b in rounds))
