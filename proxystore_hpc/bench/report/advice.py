"""Which door to use for which size, and who is ahead of whom."""

from __future__ import annotations

from collections.abc import Iterator

from proxystore_hpc.bench.contestant import Kind, Operation
from proxystore_hpc.bench.record import Comparison, Record
from proxystore_hpc.bench.report.markup import Markup, element, join
from proxystore_hpc.bench.statistics import summarize
from proxystore_hpc.bench.table import times
from proxystore_hpc.bench.text import duration

__all__ = [
    "REACHES",
    "best",
    "champion",
    "comparisons_of",
    "door_rows",
    "peer_names",
    "peer_rows",
]

REACHES = {
    "node": "within a node",
    "fabric": "between nodes",
    "outside": "from outside the cluster",
}
"""How far a door leads; all were measured where the run was."""


def comparisons_of(record: Record, operation: Operation) -> list[Comparison]:
    """Those of an operation, the smallest size first."""
    found = [c for c in record.comparisons if c.operation is operation]
    return sorted(found, key=lambda c: c.nbytes)


def _median(comparison: Comparison, name: str) -> float:
    series = comparison.of(name)
    assert series is not None
    return summarize(series.samples).median


def best(record: Record, comparison: Comparison, reach: str) -> list[str]:
    """The fastest of ours that lead so far, and whoever noise does not tell from it."""
    able = [
        series.contestant
        for series in comparison.series
        if reach in record.entrant(series.contestant).reach
    ]
    if not able:
        return []
    able.sort(key=lambda name: _median(comparison, name))
    first = able[0]
    equal = []
    for name in able[1:]:
        ratio = comparison.ratio(name, first)
        if ratio is not None and ratio.low <= 1:
            equal.append(name)
    return [first, *equal]


def door_rows(record: Record, operation: Operation) -> Iterator[tuple[Comparison, list[Markup]]]:
    """For each size the doors to use, one cell for each of `REACHES`."""
    for comparison in comparisons_of(record, operation):
        cells = []
        for reach in REACHES:
            names = best(record, comparison, reach)
            if not names:
                cells.append(element("span", "-", class_="soft"))
                continue
            parts = [element("b", names[0]), f" {duration(_median(comparison, names[0]))}"]
            if names[1:]:
                parts.append(element("span", f" or {', '.join(names[1:])}", class_="soft"))
            cells.append(join(parts))
        yield comparison, cells


def peer_names(record: Record, operation: Operation) -> list[str]:
    """Peers that took part in an operation."""
    took_part = {s.contestant for c in comparisons_of(record, operation) for s in c.series}
    return [e.name for e in record.entrants if e.kind is Kind.PEER and e.name in took_part]


def champion(record: Record, comparisons: list[Comparison], peers: list[str]) -> str | None:
    """Of ours between processes whom peers are held against, the same for all sizes.

    That is who met most of them in the same rounds; of equals, who is fastest with the largest
    size.
    """

    def rounds(comparison: Comparison, name: str) -> set[int]:
        series = comparison.of(name)
        return set() if series is None else set(series.rounds)

    def met(name: str) -> int:
        return sum(
            bool(rounds(comparison, peer) & rounds(comparison, name))
            for comparison in comparisons
            for peer in peers
        )

    able: list[str] = []
    for comparison in reversed(comparisons):
        names = [
            series.contestant
            for series in comparison.series
            if "node" in record.entrant(series.contestant).reach
        ]
        able += sorted(set(names) - set(able), key=lambda name: _median(comparison, name))
    return max(able, key=met, default=None)


def peer_rows(
    record: Record, operation: Operation, ours: str
) -> Iterator[tuple[str, list[Markup | str]]]:
    """For each peer how many times as long it takes as one of ours, by size."""
    comparisons = comparisons_of(record, operation)
    for peer in peer_names(record, operation):
        cells: list[Markup | str] = []
        for comparison in comparisons:
            ratio = comparison.ratio(peer, ours)
            if ratio is None:
                cells.append("-")
                continue
            word = "bad" if ratio.high < 1 else "good" if ratio.low > 1 else "soft"
            cells.append(element("span", times(ratio), class_=word))
        yield peer, cells
