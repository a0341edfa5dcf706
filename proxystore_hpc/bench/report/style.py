"""How the report looks: on a light or dark screen, and on paper."""

from __future__ import annotations

from proxystore_hpc.bench.contestant import Kind
from proxystore_hpc.bench.record import Record

__all__ = ["STYLE", "classes"]

COLOURS = 10

STYLE = """
:root {
  --page: #ffffff; --text: #1d2430; --soft: #5b6675; --line: #d9dee6; --panel: #f6f8fa;
  --grid: #e6eaf0; --limit: #8a94a3; --good: #1a7f4b; --bad: #b3261e;
  --c0: #0b62c4; --c1: #d1495b; --c2: #12876f; --c3: #b26a00; --c4: #7a3fb8;
  --c5: #0f8fb3; --c6: #8c564b; --c7: #5c7d10; --c8: #c2388f; --c9: #46566e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161c; --text: #e6eaf0; --soft: #9aa5b5; --line: #303a48; --panel: #1a2029;
    --grid: #252d38; --limit: #7d8898; --good: #5fd39a; --bad: #ff8a80;
    --c0: #63a8ff; --c1: #ff8a97; --c2: #4fd0b3; --c3: #f2b04c; --c4: #c195f5;
    --c5: #5fd0f0; --c6: #d2a79c; --c7: #b3d45a; --c8: #f58ccd; --c9: #b0bfd6;
  }
}
@media print {
  :root {
    --page: #ffffff; --text: #000000; --soft: #444444; --line: #bbbbbb; --panel: #ffffff;
    --grid: #dddddd; --limit: #777777; --good: #1a7f4b; --bad: #b3261e;
    --c0: #0b62c4; --c1: #d1495b; --c2: #12876f; --c3: #b26a00; --c4: #7a3fb8;
    --c5: #0f8fb3; --c6: #8c564b; --c7: #5c7d10; --c8: #c2388f; --c9: #46566e;
  }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  details { display: block; }
}
* { box-sizing: border-box; }
html { color-scheme: light dark; }
body {
  margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 74rem; background: var(--page);
  color: var(--text); font: 15px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .6rem; padding-top: .9rem;
  border-top: 2px solid var(--line); }
h3 { font-size: 1.02rem; margin: 2rem 0 .3rem; }
p { max-width: 46rem; margin: .4rem 0; }
.soft, .lead { color: var(--soft); }
.facts { display: flex; flex-wrap: wrap; gap: .5rem 1.6rem; padding: .9rem 1.1rem; margin: 1.2rem 0;
  background: var(--panel); border: 1px solid var(--line); border-radius: 8px; }
.facts div { min-width: 7rem; }
.facts b { display: block; font-size: .74rem; font-weight: 600; color: var(--soft); }
.scroll { overflow-x: auto; margin: .6rem 0 1.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .34rem .8rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; }
th:first-child, td:first-child { text-align: left; padding-left: .2rem; }
table.text td { text-align: left; white-space: normal; vertical-align: top; }
table.text th { text-align: left; }
td b { font-weight: 650; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 650; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(27rem, 1fr)); gap: 1rem; }
figure { margin: .6rem 0; max-width: 46rem; }
figcaption { color: var(--soft); font-size: .85rem; }
svg { width: 100%; height: auto; display: block; }
svg text { font: 11px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--text); }
svg text.soft { fill: var(--soft); }
svg text.end { text-anchor: end; } svg text.middle { text-anchor: middle; }
.grid { stroke: var(--grid); stroke-width: 1; } .axis { stroke: var(--line); stroke-width: 1.2; }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.peer .line { stroke-dasharray: 7 3; stroke-width: 1.7; }
.limit .line { stroke-dasharray: 2 3; stroke-width: 1.6; }
.band { fill: currentColor; opacity: .1; } .limit .band { opacity: .06; }
.dot { fill: currentColor; stroke: var(--page); stroke-width: 1; }
.bar { fill: currentColor; } .whisker { stroke: var(--text); stroke-width: 1.1; opacity: .6; }
.full { stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 4 3; }
svg text.name { fill: currentColor; font-weight: 600; }
.leader { stroke: currentColor; stroke-width: .7; opacity: .5; fill: none; }
.limit { color: var(--limit); }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); }
.c3 { color: var(--c3); } .c4 { color: var(--c4); } .c5 { color: var(--c5); }
.c6 { color: var(--c6); } .c7 { color: var(--c7); } .c8 { color: var(--c8); }
.c9 { color: var(--c9); }
code, pre { font: .88em/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px;
  padding: .6rem .9rem; overflow-x: auto; white-space: pre-wrap; }
"""


def classes(record: Record) -> dict[str, str]:
    """The classes of each contestant's marks: colour and dashes, the same in all plots."""
    found, counts = {}, {Kind.OURS: 0, Kind.PEER: 5}
    took_part = {series.contestant for each in record.comparisons for series in each.series}
    for entrant in record.entrants:
        if entrant.kind is Kind.LIMIT:
            found[entrant.name] = "limit"
        else:
            found[entrant.name] = f"{entrant.kind.value} c{counts[entrant.kind] % COLOURS}"
            # Colours are few: none is lost to who is not drawn.
            counts[entrant.kind] += entrant.name in took_part
    return found
