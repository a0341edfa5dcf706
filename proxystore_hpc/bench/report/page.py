"""The report's page."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from proxystore_hpc.bench import compare
from proxystore_hpc.bench.contestant import Kind, Operation, unit_of
from proxystore_hpc.bench.record import Comparison, Record
from proxystore_hpc.bench.report import advice, plots
from proxystore_hpc.bench.report.markup import Markup, element, table
from proxystore_hpc.bench.report.style import STYLE, classes
from proxystore_hpc.bench.report.words import ABOUT
from proxystore_hpc.bench.statistics import Summary, summarize
from proxystore_hpc.bench.table import figure, percent, rows
from proxystore_hpc.bench.text import duration, size

__all__ = ["render"]

# Sizes whose shares are drawn, at most.
_BARS = 4
# Lines that can be told apart in one plot.
_LINES = 10


def render(record: Record, before: Record | None = None) -> str:
    """The whole page.

    Args:
        record: What was measured.
        before: An earlier run to compare it with.
    """
    marks = classes(record)
    head = element(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", "proxystore-hpc bench"),
        element("style", Markup(STYLE)),
    )
    body = element("body", *_top(record), *_sections(record, marks, before), *_end(record))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _top(record: Record) -> Iterator[Markup]:
    machine = record.machine
    yield element("h1", "Which transport, and how far from the limit")
    state = "" if record.finished else " This run was not finished."
    yield element(
        "p",
        f"Measured by proxystore-hpc bench in {record.seconds:.0f} s. Everything that is compared "
        f"took turns in one run, and what arrived was compared with what was sent.{state}",
        class_="lead",
    )
    facts = {
        "processor": machine.get("cpu"),
        "cores": f"{machine.get('cores')} (numbers {machine.get('pinning')})",
        "memory": f"{machine.get('memory', 0) / 2**30:.0f} GiB",
        "load before, after": f"{machine.get('load', 0):.1f}, {machine.get('load_after', 0):.1f}",
        "kernel": machine.get("kernel"),
        "proxystore_hpc": machine.get("proxystore_hpc"),
        "Python, numpy": f"{machine.get('python')}, {machine.get('numpy')}",
        "MPI": machine.get("mpi"),
        "reading the clock twice": duration(record.clock.get("pair_s")),
        "at": machine.get("time"),
    }
    yield element(
        "div",
        *(element("div", element("b", k), str(v)) for k, v in facts.items() if v is not None),
        class_="facts",
    )


def _sections(record: Record, marks: dict[str, str], before: Record | None) -> Iterator[Markup]:
    yield from _doors(record)
    yield from _shares(record, marks)
    yield from _peers(record)
    if before is not None:
        yield from _changes(before, record)
    group = ""
    for operation in dict.fromkeys(c.operation for c in record.comparisons):
        comparisons = advice.comparisons_of(record, operation)
        if comparisons[0].group != group:
            group = comparisons[0].group
            yield element("h2", group.capitalize())
        yield element("h3", operation.value)
        yield element("p", ABOUT[operation], class_="soft")
        yield from _operation(record, comparisons, marks)


def _doors(record: Record) -> Iterator[Markup]:
    for operation in (Operation.EXCHANGE, Operation.GET):
        found = list(advice.door_rows(record, operation))
        if not found or not any("<b>" in cell for _, cells in found for cell in cells):
            continue
        if operation is Operation.EXCHANGE:
            yield element("h2", "Use this door for this size")
            yield element(
                "p",
                "The fastest that leads so far, all measured on this machine, and whoever the "
                "noise of this run does not tell from it.",
                class_="soft",
            )
        title = "Stored once, got once" if operation is Operation.EXCHANGE else "Got again"
        yield element("h3", title)
        yield table(
            ["size", *advice.REACHES.values()],
            ([size(comparison.nbytes), *cells] for comparison, cells in found),
        )


def _shares(record: Record, marks: dict[str, str]) -> Iterator[Markup]:
    figures = []
    for operation in dict.fromkeys(c.operation for c in record.comparisons):
        comparisons = advice.comparisons_of(record, operation)[-_BARS:]
        drawn = []
        for entrant in record.entrants:
            if entrant.kind is not Kind.OURS:
                continue
            found = [
                plots.Bar(c.nbytes, share, record.limit(c, entrant.name) or "")
                for c in comparisons
                if (share := record.share(c, entrant.name)) is not None
            ]
            if found:
                drawn.append((entrant.name, marks[entrant.name], found))
        if drawn:
            title = f"{operation.value}: share of the limit's speed"
            figures.append(_figure(plots.bars(drawn, title), title))
    if figures:
        yield element("h2", "How far from the limit")
        yield element(
            "p",
            "100 % is the limit that belongs to each door, measured by turns with it. The thin "
            "line is a 95 % interval. A door that copies nothing can be faster than a copy.",
            class_="soft",
        )
        yield element("div", *figures, class_="pair")


def _peers(record: Record) -> Iterator[Markup]:
    for operation in (Operation.EXCHANGE, Operation.ECHO, Operation.TASK):
        names = advice.peer_names(record, operation)
        comparisons = advice.comparisons_of(record, operation)
        ours = advice.champion(record, comparisons, names)
        if not names or ours is None:
            continue
        yield element("h2", f"Peers: {operation.value}")
        yield element(
            "p",
            f"How many times as long each takes as {ours}; below 1 the peer is ahead. "
            "In parentheses the 95 % interval.",
            class_="soft",
        )
        head = ["peer", *(size(c.nbytes) for c in comparisons)]
        yield table(head, ([n, *cells] for n, cells in advice.peer_rows(record, operation, ours)))


def _changes(before: Record, after: Record) -> Iterator[Markup]:
    found = compare.changes(before, after)
    changed = [each for each in found if each.slower or each.faster]
    yield element("h2", "What changed")
    yield element(
        "p",
        f"Compared with the run of {before.machine.get('time')}: of {len(found)} pairs "
        f"{len(changed)} differ by more than {compare.LEAST}x with p < {compare.SURE} "
        "(Mann and Whitney, after Holm's correction).",
        class_="soft",
    )
    if changed:
        yield table(
            ["contestant", "operation", "size", "times as long", "relative to", "p"],
            (
                [
                    each.contestant,
                    each.operation,
                    size(each.nbytes),
                    element("span", f"{each.times:.2f}x", class_="bad" if each.slower else "good"),
                    each.limit or "nothing",
                    f"{each.probability:.1g}",
                ]
                for each in sorted(changed, key=lambda each: -each.times)
            ),
        )


def _operation(
    record: Record, comparisons: list[Comparison], marks: dict[str, str]
) -> Iterator[Markup]:
    operation = comparisons[0].operation
    unit = unit_of(operation)

    def label(value: float) -> str:
        return _short(value, unit)

    if len(comparisons) > 1:
        for who, names in _together(record, comparisons):
            drawn = [
                plots.Line(name, marks[name], points)
                for name in names
                if (points := _points(comparisons, name))
            ]
            pair = [_figure(plots.lines(drawn, label, f"{operation.value}: time"), f"time{who}")]
            if unit == "s" and comparisons[-1].nbytes > 4096:
                speeds = [_speeds(line) for line in drawn]
                picture = plots.lines(speeds, _speed, f"{operation.value}: bandwidth")
                pair.append(_figure(picture, f"bandwidth{who}"))
            yield element("div", *pair, class_="pair")
    else:
        (comparison,) = comparisons
        found = []
        for name in rows(record, comparison):
            summary = _summary(comparison, name)
            found.append(plots.Range(name, marks[name], summary.p10, summary.median, summary.p90))
        yield _figure(
            plots.ranges(found, label, operation.value), "median, 10th to 90th percentile"
        )
    yield element(
        "details",
        element("summary", "figures"),
        *(_numbers(record, comparison) for comparison in comparisons),
    )


def _speeds(line: plots.Line) -> plots.Line:
    points = [(n, n / high, n / middle, n / low) for n, low, middle, high in line.points]
    return plots.Line(line.name, line.class_, points)


def _together(record: Record, comparisons: list[Comparison]) -> Iterator[tuple[str, list[str]]]:
    """Whose lines share a plot: all of them, unless nobody could tell so many apart."""
    took_part = {series.contestant for comparison in comparisons for series in comparison.series}
    names = [entrant.name for entrant in record.entrants if entrant.name in took_part]
    peers = [name for name in names if record.entrant(name).kind is Kind.PEER]
    if len(names) <= _LINES or not peers:
        yield "", names
        return
    yield ", ours and limits", [name for name in names if name not in peers]
    ours = advice.champion(record, comparisons, peers)
    if ours is None:
        yield ", peers", peers
    else:
        yield f", peers and {ours}", [ours, *peers]


def _summary(comparison: Comparison, name: str) -> Summary:
    series = comparison.of(name)
    assert series is not None
    return summarize(series.samples)


def _points(comparisons: list[Comparison], name: str) -> list[tuple[int, float, float, float]]:
    found = []
    for comparison in comparisons:
        if comparison.of(name) is not None:
            summary = _summary(comparison, name)
            found.append((comparison.nbytes, summary.p10, summary.median, summary.p90))
    return found


def _numbers(record: Record, comparison: Comparison) -> Markup:
    head = [size(comparison.nbytes) if comparison.nbytes else "", "median", "p90", "p99"]
    cells = []
    for name in rows(record, comparison):
        summary = _summary(comparison, name)
        share = record.share(comparison, name)
        cells.append(
            [
                name,
                *(figure(v, comparison.unit) for v in (summary.median, summary.p90, summary.p99)),
                str(summary.count),
                f"{percent(share)} of {record.limit(comparison, name)}" if share else "",
            ]
        )
    return table([*head, "rounds", "of its limit"], cells)


def _end(record: Record) -> Iterator[Markup]:
    if record.absences:
        yield element("h2", "What could not be measured")
        told: dict[tuple[str, str], list[str]] = {}
        for each in record.absences:
            where = each.operation or "everything"
            if each.nbytes:
                where += f" {size(each.nbytes)}"
            told.setdefault((each.contestant, each.reason.splitlines()[-1]), []).append(where)
        yield table(
            ["who", "in what", "why"],
            ([name, ", ".join(where), why] for (name, why), where in told.items()),
            class_="text",
        )
    yield element("h2", "Who took part")
    yield table(
        ["name", "", "what it is", "versions", "turns", "opening and closing"],
        (
            [
                *(e.name, e.kind.value, e.about),
                ", ".join(f"{k} {v}" for k, v in e.versions.items()),
                *(f"{seconds:.1f}\N{NO-BREAK SPACE}s" for seconds in (e.turns_s, e.opening_s)),
            ]
            for e in record.entrants
        ),
        class_="text",
    )
    yield element("h2", "How it was measured")
    pace = record.pace
    yield element(
        "p",
        f"After {pace.get('warm_up')} rounds of warm-up, each contestant does one burst in each "
        "round, in random order; a burst repeats the operation for 2 ms or more, if it is short, "
        "and gives the time of one. A sample is a burst, so the 99th percentile is that of bursts. "
        "No sample is left out. A ratio is the median of the ratios round by round, its interval "
        "that of 2000 bootstrap resamples. Nothing is subtracted for the clock: it is read twice "
        "in a burst.",
    )
    yield element("pre", shlex.join(record.command))
    if record.environment:
        settings = "\n".join(f"{name}={value}" for name, value in record.environment.items())
        yield element("pre", settings)


def _figure(picture: Markup, caption: str) -> Markup:
    return element("figure", picture, element("figcaption", caption))


def _short(value: float, unit: str) -> str:
    if unit != "s":
        return figure(value, unit)
    for name, factor in (("ns", 1e9), ("µs", 1e6), ("ms", 1e3)):
        if value * factor < 999.5:
            return f"{value * factor:.3g} {name}"
    return f"{value:.3g} s"


def _speed(value: float) -> str:
    for name, factor in (("B/s", 1.0), ("kB/s", 1e3), ("MB/s", 1e6), ("GB/s", 1e9)):
        if value < 999.5 * factor:
            return f"{value / factor:.3g} {name}"
    return f"{value / 1e12:.3g} TB/s"
