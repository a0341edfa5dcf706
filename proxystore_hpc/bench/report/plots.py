"""Plots as SVG: lines over sizes, ranges of one size, and shares of limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from proxystore_hpc.bench.report.markup import Markup, element, join
from proxystore_hpc.bench.statistics import Interval
from proxystore_hpc.bench.text import size

__all__ = ["Bar", "Line", "Range", "bars", "lines", "ranges"]

WIDTH, HEIGHT = 580, 400
LEFT, RIGHT, TOP, BOTTOM = 58, 136, 12, 34
_LABEL = 13.0


@dataclass(frozen=True)
class Line:
    """A contestant over sizes: (bytes, low, middle, high), and the class of its marks."""

    name: str
    class_: str
    points: Sequence[tuple[int, float, float, float]]


@dataclass(frozen=True)
class Range:
    """A contestant in one comparison."""

    name: str
    class_: str
    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Bar:
    """The share of a limit that a contestant reaches with one size."""

    nbytes: int
    share: Interval
    limit: str


class _Log:
    """A logarithmic axis from whole decades to whole pixels."""

    def __init__(self, values: Iterable[float], start: float, end: float, pad: float = 0.04):
        logs = [math.log10(value) for value in values]
        low, high = min(logs), max(logs)
        room = max(pad * (high - low), 0.02)
        self.low, self.high = low - room, high + room
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Decades, or where there are fewer than two of them also twos and fives."""
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        for steps in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
            found = [
                step * 10.0**decade
                for decade in decades
                for step in steps
                if self.low <= math.log10(step * 10.0**decade) <= self.high
            ]
            if len(found) >= 3:
                break
        return found


def lines(series: Sequence[Line], label: Callable[[float], str], title: str) -> Markup:
    """Log-log lines over sizes, with bands, each named at its end."""
    xs = sorted({point[0] for line in series for point in line.points})
    x = _Log(xs, LEFT, WIDTH - RIGHT)
    values = [v for line in series for point in line.points for v in point[1:]]
    y = _Log(values, HEIGHT - BOTTOM, TOP)
    parts = [*_grid_y(y, label), *_sizes(xs, x)]
    ends: list[tuple[float, float, Line]] = []
    for line in series:
        middle = [(x(n), y(m)) for n, _, m, _ in line.points]
        band = [(x(n), y(high)) for n, _, _, high in line.points]
        band += [(x(n), y(low)) for n, low, _, _ in reversed(line.points)]
        dots = [element("circle", cx=a, cy=b, r=2.6, class_="dot") for a, b in middle]
        parts.append(
            element(
                "g",
                element("title", line.name),
                element("polygon", points=_points(band), class_="band"),
                element("polyline", points=_points(middle), class_="line"),
                *dots,
                class_=line.class_,
            )
        )
        ends.append((*middle[-1], line))
    parts += _names(ends)
    return _svg(HEIGHT, title, parts)


def ranges(found: Sequence[Range], label: Callable[[float], str], title: str) -> Markup:
    """One row for each contestant: the median, and from the 10th to the 90th percentile."""
    left, step, right = 150, 22, 70
    height = TOP + step * len(found) + BOTTOM
    x = _Log([v for each in found for v in (each.low, each.middle, each.high)], left, WIDTH - right)
    parts = []
    for tick in x.ticks():
        at = x(tick)
        parts.append(element("line", x1=at, x2=at, y1=TOP, y2=height - BOTTOM, class_="grid"))
        parts.append(element("text", label(tick), x=at, y=height - 14, class_="soft middle"))
    for i, each in enumerate(found):
        y = TOP + step * (i + 0.5)
        parts.append(
            element(
                "g",
                element("text", each.name, x=left - 10, y=y + 4, class_="name end"),
                element(
                    "rect",
                    x=x(each.low),
                    width=max(1.0, x(each.high) - x(each.low)),
                    y=y - 5,
                    height=10,
                    rx=3,
                    class_="band",
                ),
                element("circle", cx=x(each.middle), cy=y, r=4.5, class_="dot"),
                element(
                    "text", label(each.middle), x=max(x(each.high), x(each.middle)) + 9, y=y + 4
                ),
                class_=each.class_,
            )
        )
    return _svg(height, title, parts)


def bars(found: Sequence[tuple[str, str, Sequence[Bar]]], title: str) -> Markup:
    """Shares of limits: for each contestant a bar for each size; the dashed line is the limit."""
    left, right, thick, gap = 150, 150, 13, 9
    most = 1.25
    height = TOP + BOTTOM + sum(thick * len(rows) + gap for _, _, rows in found)

    def x(share: float) -> float:
        return left + min(share, most) / most * (WIDTH - left - right)

    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        kind = "full" if tick == 1 else "grid"
        at = x(tick)
        parts.append(element("line", x1=at, x2=at, y1=TOP, y2=height - BOTTOM, class_=kind))
        text = f"{100 * tick:.0f} %"
        parts.append(element("text", text, x=at, y=height - 14, class_="soft middle"))
    y = float(TOP)
    for name, class_, rows in found:
        marks = [element("text", name, x=left - 10, y=y + 11, class_="name end")]
        for i, bar in enumerate(rows):
            at = y + thick * i
            opacity = 0.35 + 0.65 * (i + 1) / len(rows)
            share = bar.share
            beyond = " →" if share.value > most else ""
            marks.append(
                element(
                    "rect",
                    x=left,
                    y=at + 1,
                    width=max(1.0, x(share.value) - left),
                    height=thick - 3,
                    rx=2,
                    class_="bar",
                    opacity=opacity,
                )
            )
            if not beyond:
                marks.append(_whisker(x(share.low), x(share.high), at + thick / 2))
            what = f"{size(bar.nbytes)}: " if bar.nbytes else ""
            text = f"{what}{100 * share.value:.0f} %{beyond}"
            marks.append(
                element(
                    "text",
                    text,
                    element("title", f"of {bar.limit}"),
                    class_="soft",
                    x=max(x(share.high), x(share.value)) + 7,
                    y=at + 10,
                )
            )
        parts.append(element("g", *marks, class_=class_))
        y += thick * len(rows) + gap
    return _svg(height, title, parts)


def _whisker(start: float, end: float, y: float) -> Markup:
    return element("line", x1=start, x2=end, y1=y, y2=y, class_="whisker")


def _svg(height: float, title: str, parts: Iterable[Markup]) -> Markup:
    return element(
        "svg", element("title", title), join(parts), viewBox=f"0 0 {WIDTH} {height:.0f}", role="img"
    )


def _points(pairs: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in pairs)


def _grid_y(y: _Log, label: Callable[[float], str]) -> list[Markup]:
    parts = []
    for tick in y.ticks():
        at = y(tick)
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_="grid"))
        parts.append(element("text", label(tick), x=LEFT - 7, y=at + 4, class_="soft end"))
    return parts


def _sizes(xs: Sequence[int], x: _Log) -> list[Markup]:
    parts, last = [], -math.inf
    for nbytes in xs:
        at = x(nbytes)
        parts.append(element("line", x1=at, x2=at, y1=TOP, y2=HEIGHT - BOTTOM, class_="grid"))
        if at - last > 46:
            parts.append(element("text", size(nbytes), x=at, y=HEIGHT - 14, class_="soft middle"))
            last = at
    return parts


def _names(ends: Sequence[tuple[float, float, Line]]) -> list[Markup]:
    """Names right of the lines, moved apart where they would overlap."""
    ordered = sorted(ends, key=lambda end: end[1])
    places = [y for _, y, _ in ordered]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + _LABEL)
    over = places[-1] - (HEIGHT - 6) if places else 0
    if over > 0:
        places[-1] -= over
        for i in range(len(places) - 2, -1, -1):
            places[i] = min(places[i], places[i + 1] - _LABEL)
    at = WIDTH - RIGHT + 16
    return [
        element(
            "g",
            element("polyline", points=_points([(x + 4, y), (at - 4, place)]), class_="leader"),
            element("text", line.name, x=at, y=place + 4, class_="name"),
            class_=line.class_,
        )
        for (x, y, line), place in zip(ordered, places, strict=True)
    ]
