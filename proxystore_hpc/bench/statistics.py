"""Medians, percentiles, how sure a ratio is, and whether two runs differ. Only numpy is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Interval", "Summary", "adjusted", "mann_whitney", "median_interval", "summarize"]

RESAMPLES = 2000
CONFIDENCE = 0.95
_SEED = 20231112


@dataclass(frozen=True)
class Summary:
    """What a table says of samples. All samples count: none is an outlier here."""

    median: float
    p50: float
    p90: float
    p99: float
    p10: float
    minimum: float
    maximum: float
    count: int


@dataclass(frozen=True)
class Interval:
    """A median, and where it would lie in most repetitions of the run.

    Attributes:
        value: The median.
        low: The end that 2.5 % of resamples fall below.
        high: The end that 2.5 % of resamples exceed.
    """

    value: float
    low: float
    high: float

    @property
    def noise(self) -> float:
        """Half the interval's width as a share of the value."""
        return (self.high - self.low) / 2 / self.value if self.value else math.inf


def summarize(samples: Sequence[float]) -> Summary:
    """Percentiles with linear interpolation.

    Raises:
        ValueError: There is no sample.
    """
    import numpy as np

    if not len(samples):
        raise ValueError("a summary needs at least one sample")
    p10, p50, p90, p99 = (float(p) for p in np.percentile(samples, (10, 50, 90, 99)))
    return Summary(p50, p50, p90, p99, p10, float(min(samples)), float(max(samples)), len(samples))


def median_interval(values: Sequence[float], resamples: int = RESAMPLES) -> Interval:
    """The median of values and its bootstrap interval, by percentiles; the same in each call.

    Args:
        values: Such as the ratios of two contestants, round by round.
        resamples: How many times as many values are drawn from them with replacement.

    Raises:
        ValueError: There is no value.
    """
    import numpy as np

    if not len(values):
        raise ValueError("an interval needs at least one value")
    array = np.asarray(values, "f8")
    drawn = np.random.default_rng(_SEED).integers(0, array.size, (resamples, array.size))
    medians = np.median(array[drawn], axis=1)
    edge = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(medians, (edge, 100 - edge))
    return Interval(float(np.median(array)), float(low), float(high))


def mann_whitney(first: Sequence[float], second: Sequence[float]) -> float:
    """The probability of ranks as different as these if both samples were of one distribution.

    Mann and Whitney's test, two-sided, by the normal approximation with corrections for ties and
    continuity; below five samples a side it says little.

    Raises:
        ValueError: A sample is empty.
    """
    import numpy as np

    n, m = len(first), len(second)
    if not n or not m:
        raise ValueError("both samples need at least one value")
    both = np.concatenate([np.asarray(first, "f8"), np.asarray(second, "f8")])
    _, where, counts = np.unique(both, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[where.reshape(-1)]
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    total = n + m
    ties = float((counts.astype("f8") ** 3 - counts).sum())
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0
    distance = max(0.0, abs(u - n * m / 2) - 0.5)
    return math.erfc(distance / math.sqrt(2 * variance))


def adjusted(probabilities: Sequence[float]) -> list[float]:
    """Probabilities after Holm's correction: many comparisons find something by chance alone."""
    order = sorted(range(len(probabilities)), key=lambda i: probabilities[i])
    found = [1.0] * len(order)
    largest = 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * probabilities[i]))
        found[i] = largest
    return found
