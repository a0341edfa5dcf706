"""The experiments of ProxyStore's paper (SC'23), repeated beside its published medians.

    python benchmarks/sc23.py [--part fig5,faas] [--largest 100000000] [--json FILE] [--plot FILE]

`fig5` puts an array on one node and gets it on another, for 1 B to 1 GB, by each connector that can
cross: two network namespaces as of ci/two_nodes, with a wire between them (root, iproute2). Times
are those of the store's calls, and include building the array. `faas` runs no-op tasks with inputs
of 10 B to 100 MB on this machine, with and without proxies.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import harness

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ci" / "lib"))

import two_nodes
from proxystore_hpc.bench import faas, published, sc23
from proxystore_hpc.bench.text import duration

PARTS = ("fig5", "faas")
# As the paper has them.
UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "B"))


def size(nbytes: int) -> str:
    """In decimal units."""
    for unit, name in UNITS:
        if nbytes >= unit:
            return f"{nbytes / unit:g} {name}"
    return "0 B"


@contextmanager
def nodes(rate: str | None) -> Iterator[sc23.Nodes]:
    """Two namespaces."""
    pair = two_nodes.Nodes(f"sc23x{os.getpid()}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            pair.up(rate, keep=[Path(folder)], lasting=False)
            places = [
                sc23.Place(pair.command(number), pair.address(number))
                for number in two_nodes.NUMBERS
            ]
            yield sc23.Nodes(places[0], places[1], folder, mpirun(pair))
        finally:
            pair.release()


def mpirun(pair: two_nodes.Nodes) -> list[str] | None:
    """What starts a rank on each node."""
    program = shutil.which(os.environ.get("PROXYSTORE_HPC_MPIRUN", "mpirun"))
    if program is None:
        return None
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    spread = ["-ppn", "1"] if "HYDRA" in said.stdout else ["--map-by", "ppr:1:node"]
    return pair.tool("mpirun", "-n", "2", *spread)


def fig5(run: harness.Run, options: Any) -> None:
    """Put on one node, get on another."""
    sizes = options.sizes or [nbytes for nbytes in sc23.SIZES if nbytes <= options.largest]
    only = options.only.split(",") if options.only else list(sc23.CROSSINGS)
    print("Fig. 5: put on one node + get on another, medians, of this run")
    print(f"{'':>8}" + "".join(f"{name:>22}" for name in only), flush=True)
    reasons: dict[str, str] = {}
    figures: dict[str, dict[int, tuple[float, float]]] = {}
    with nodes(options.rate) as pair:
        for nbytes, times, missing in sc23.measure(pair, sizes, only=only, rounds=options.rounds):
            reasons.update(missing)
            cells = ""
            for name in only:
                if name not in times:
                    cells += f"{'-':>22}"
                    continue
                puts, gets = times[name].puts, times[name].gets
                both = statistics.median(puts), statistics.median(gets)
                figures.setdefault(name, {})[nbytes] = both
                for what, samples in (("put", puts), ("get", gets)):
                    stats = harness.Stats(tuple(samples))
                    run.add(f"{name} {what} {size(nbytes)}", stats, way=name, nbytes=nbytes)
                cells += f"{' + '.join(map(duration, both)):>22}"
            print(f"{size(nbytes):>8}{cells}", flush=True)
    for name in only:
        print(f"  {name}: {reasons.get(name) or sc23.CROSSINGS[name].about}")
    print_published()
    if options.plot:
        plot(figures, options.plot)


def print_published() -> None:
    for site, connectors in published.SITES.items():
        print(f"\nPublished medians of {site}, put + get")
        print(f"{'':>8}" + "".join(f"{name:>22}" for name in connectors))
        for nbytes in sorted(set().union(*connectors.values())):
            cells = (" + ".join(map(duration, found[nbytes])) for found in connectors.values())
            print(f"{size(nbytes):>8}" + "".join(f"{cell:>22}" for cell in cells))
    print(f"\n{published.CAVEAT}\n", flush=True)


def plot(figures: dict[str, dict[int, tuple[float, float]]], path: str) -> None:
    """The paper's axes: input size against time, both logarithmic."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    sites = [("this run: two namespaces", figures), *published.SITES.items()]
    figure, axes = pyplot.subplots(1, len(sites), figsize=(14, 5), sharey=True, squeeze=False)
    # A connector has its colour in each panel.
    names = list(dict.fromkeys(name for _, found in sites for name in found))
    colours = {name: f"C{number}" for number, name in enumerate(names)}
    for axis, (title, found) in zip(axes[0], sites, strict=True):
        for name, points in found.items():
            sums = [sum(both) for both in points.values()]
            ours = found is figures and sc23.CROSSINGS[name].about.startswith(("ours", "the same"))
            style = "o-" if ours else "s--"
            axis.plot(list(points), sums, style, color=colours[name], label=name)
        axis.set(xscale="log", yscale="log", xlabel="input size (bytes)")
        axis.set_title(title if found is figures else f"published: {title}")
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0][0].set_ylabel("put + get (s)")
    figure.suptitle("The machines differ: compare within a panel only")
    figure.savefig(path, bbox_inches="tight")
    print(f"plot: {path}")


def round_trips(run: harness.Run, options: Any) -> None:
    """No-op tasks with and without proxies."""
    sizes = options.sizes or [nbytes for nbytes in faas.SIZES if nbytes <= options.largest]
    names = [contestant.name for contestant in faas.CONTESTANTS]
    print("No-op tasks of one worker on this machine: medians of a round trip, of this run")
    print(f"{'':>8}" + "".join(f"{name:>16}" for name in names), flush=True)
    for nbytes in sizes:
        figures, missing = faas.measure(nbytes, rounds=options.rounds)
        cells = ""
        for name in names:
            if name in figures:
                stats = figures[name]
                run.add(f"{name} {size(nbytes)}", stats, way=name, nbytes=nbytes)
            cells += f"{duration(figures[name].median) if name in figures else '-':>16}"
        print(f"{size(nbytes):>8}{cells}", flush=True)
    for name, reason in missing.items():
        print(f"  {name}: {reason}")
    print("\nPublished, on Theta through the cloud service Globus Compute:")
    for name, found in published.ROUND_TRIPS.items():
        cells = ", ".join(f"{size(nbytes)} {duration(s)}" for nbytes, s in found.items())
        print(f"  {name}: {cells}")
    print("There a task takes half a second anyway; here it does not leave the machine.\n")


def main() -> int:
    parser = harness.arguments(__doc__)
    parser.add_argument("--part", default=",".join(PARTS), help="default: %(default)s")
    parser.add_argument("--largest", type=int, default=10**9, help="bytes (default: %(default)s)")
    parser.add_argument("--sizes", type=harness.parse_sizes, help="these, such as 1000,1MB")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s, as theirs")
    parser.add_argument("--only", help=f"of Fig. 5, some of {','.join(sc23.CROSSINGS)}")
    parser.add_argument("--rate", help="of the wire, such as 10gbit (default: as it is)")
    parser.add_argument("--plot", metavar="FILE", help="Fig. 5 as SVG or PNG (matplotlib)")
    options = parser.parse_args()
    parts = options.part.split(",")
    if not set(parts) <= set(PARTS):
        parser.error(f"the parts are {', '.join(PARTS)}")
    if options.only and not set(options.only.split(",")) <= set(sc23.CROSSINGS):
        parser.error(f"there are {', '.join(sc23.CROSSINGS)}")
    run = harness.Run("sc23")
    run.header()
    if "fig5" in parts:
        fig5(run, options)
    if "faas" in parts:
        round_trips(run, options)
    run.finish(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
