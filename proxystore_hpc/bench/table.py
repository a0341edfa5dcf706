"""Results for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from proxystore_hpc.bench.contestant import Kind
from proxystore_hpc.bench.record import Comparison, Record
from proxystore_hpc.bench.statistics import Interval, summarize
from proxystore_hpc.bench.text import duration, size

__all__ = ["figure", "percent", "rows", "table", "times"]

_ORDER = {Kind.OURS: 0, Kind.PEER: 1, Kind.LIMIT: 2}


def figure(value: float, unit: str) -> str:
    """A sample's value as people write it."""
    if unit == "s":
        return duration(value)
    if unit == "B":
        return f"{value / 2**20:.1f} MiB"
    return f"{value:.3g}x"


def percent(share: Interval | None) -> str:
    """A share of a limit and its interval."""
    if share is None:
        return ""
    low, value, high = (100 * each for each in (share.low, share.value, share.high))
    return f"{value:.0f} % ({low:.0f} to {high:.0f})"


def times(ratio: Interval | None) -> str:
    """A ratio and its interval."""
    if ratio is None:
        return ""
    value, low, high = map(_digits, (ratio.value, ratio.low, ratio.high))
    return f"{value}x ({low} to {high})"


def _digits(value: float) -> str:
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def rows(record: Record, comparison: Comparison) -> list[str]:
    """Names of who took part: ours first, then peers, then limits, the quickest of each first."""

    def place(name: str) -> tuple[int, float]:
        series = comparison.of(name)
        assert series is not None
        return _ORDER[record.entrant(name).kind], summarize(series.samples).median

    return sorted((series.contestant for series in comparison.series), key=place)


def table(record: Record) -> Iterator[str]:
    """Lines: for each comparison who took part, how long it took, and what of its limit it has."""
    for comparison in record.comparisons:
        what = f"{comparison.group}: {comparison.operation.value}"
        if comparison.nbytes:
            what += f" of {size(comparison.nbytes)}"
        yield ""
        yield f"{what:32}{'median':>10}{'p90':>10}{'p99':>10}{'GB/s':>8}{'rounds':>7}  of limit"
        for name in rows(record, comparison):
            series = comparison.of(name)
            assert series is not None
            found = summarize(series.samples)
            unit = comparison.unit
            speed = ""
            if unit == "s" and comparison.nbytes >= 4096:
                speed = f"{comparison.nbytes / found.median / 1e9:.2f}"
            share = record.share(comparison, name)
            of_limit = f"{percent(share)} of {record.limit(comparison, name)}" if share else ""
            cells = "".join(
                f"{figure(value, unit):>10}" for value in (found.median, found.p90, found.p99)
            )
            mark = {Kind.OURS: " ", Kind.PEER: "*", Kind.LIMIT: "="}[record.entrant(name).kind]
            yield f"{mark} {name:30}{cells}{speed:>8}{found.count:>7}  {of_limit}".rstrip()
    yield ""
    yield "= limit of the machine, * peer; in parentheses the 95 % bootstrap interval of the ratio"
