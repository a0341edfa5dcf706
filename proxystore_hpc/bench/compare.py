"""What changed between two runs, and whether noise would explain it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from proxystore_hpc.bench.contestant import Kind
from proxystore_hpc.bench.record import Comparison, Record
from proxystore_hpc.bench.statistics import adjusted, mann_whitney, summarize
from proxystore_hpc.bench.text import size

__all__ = ["LEAST", "SURE", "Change", "changes", "lines"]

SURE = 0.01
"""Probability below which a difference is not put down to chance, after Holm's correction."""
LEAST = 1.1
"""Ratio below which a difference is of no interest, however sure it is."""


@dataclass(frozen=True)
class Change:
    """How one contestant did in one comparison, then and now.

    Attributes:
        group: The part of the suite.
        operation: What was done.
        nbytes: Size of the array.
        contestant: Who did it.
        limit: The limit of each run by which the times were divided, if there was one in both.
        times: How many times as long it takes now, of that limit if there is one.
        probability: Of such ranks if nothing had changed, after the correction.
    """

    group: str
    operation: str
    nbytes: int
    contestant: str
    limit: str | None
    times: float
    probability: float

    @property
    def slower(self) -> bool:
        """Whether it takes longer now, surely and by a share that matters."""
        return self.probability < SURE and self.times > LEAST

    @property
    def faster(self) -> bool:
        """Whether it takes less time now."""
        return self.probability < SURE and self.times < 1 / LEAST


def changes(before: Record, after: Record) -> list[Change]:
    """Compares what both have, but for limits.

    Where a contestant is held against a limit in both runs, its times are divided by the limit's of
    the same round, so that a machine that was busier in one of the runs is no change.
    """
    earlier = {(c.group, c.operation, c.nbytes): c for c in before.comparisons}
    found: list[tuple[Comparison, str, str | None, float, float]] = []
    for comparison in after.comparisons:
        other = earlier.get((comparison.group, comparison.operation, comparison.nbytes))
        if other is None:
            continue
        for series in comparison.series:
            name = series.contestant
            if other.of(name) is None or after.entrant(name).kind is Kind.LIMIT:
                continue
            limit = after.limit(comparison, name)
            if limit is not None and before.limit(other, name) != limit:
                limit = None
            then, now = _values(other, name, limit), _values(comparison, name, limit)
            if then and now:
                times = summarize(now).median / summarize(then).median
                found.append((comparison, name, limit, times, mann_whitney(then, now)))
    probabilities = adjusted([each[-1] for each in found])
    return [
        Change(c.group, c.operation.value, c.nbytes, name, limit, times, probability)
        for (c, name, limit, times, _), probability in zip(found, probabilities, strict=True)
    ]


def _values(comparison: Comparison, name: str, limit: str | None) -> list[float]:
    mine = comparison.of(name)
    assert mine is not None
    if limit is None:
        return mine.samples
    theirs = comparison.of(limit)
    assert theirs is not None
    by_round = dict(zip(theirs.rounds, theirs.samples, strict=True))
    return [
        sample / by_round[round_]
        for round_, sample in zip(mine.rounds, mine.samples, strict=True)
        if by_round.get(round_)
    ]


def lines(found: Sequence[Change]) -> Iterator[str]:
    """For the terminal: what changed, then how much did not."""
    yield f"\ncompared with the earlier run: {len(found)} pairs"
    changed = [each for each in found if each.slower or each.faster]
    for each in sorted(changed, key=lambda each: -each.times):
        what = f"{each.group} {each.operation}"
        if each.nbytes:
            what += f" {size(each.nbytes)}"
        word = "SLOWER" if each.slower else "faster"
        basis = f"of {each.limit}" if each.limit else "absolute"
        yield (
            f"  {word} {each.contestant:20} {what:28} {each.times:6.2f}x the time, {basis}"
            f" (p = {each.probability:.1g})"
        )
    yield (
        f"  {len(found) - len(changed)} others: no difference beyond {LEAST}x that chance does not "
        f"explain (Mann-Whitney, p < {SURE} after Holm's correction)"
    )
