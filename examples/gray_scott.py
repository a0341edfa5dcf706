#!/usr/bin/env python3
"""Gray-Scott reaction-diffusion in two dimensions, drawn while it runs.

    mpirun -n 4 python examples/gray_scott.py --pattern theta --size 512 --steps 5000 --out frames

Two substances react and diffuse on a square with periodic borders:

    du/dt = Du lap(u) - u v^2 + F (1 - u)
    dv/dt = Dv lap(v) + u v^2 - (F + k) v

as in J. E. Pearson, "Complex Patterns in a Simple System", Science 261 (1993) 189: Du = 2e-5,
Dv = 1e-5, cells of 2.5/256, steps of 1, the five-point Laplacian and forward Euler. The Greek letters
of the patterns are his classes; each pair of F and k below lies within the class that it is named
after.

Rank 0 analyses, the others simulate; a single rank does both. Every tile of the simulation lies in
the store's memory from the start (`store.empty`), so handing it over copies nothing: it is sealed,
and rank 0 is sent a proxy of it, some 200 bytes. Rank 0 resolves the proxies of all ranks to views
of their memory, draws, and evicts; the simulation goes on meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from proxystore_hpc import Store
from proxystore_hpc.proxy import Proxy, get_factory

Array = NDArray[np.float64]

DIFFUSION = (2e-5, 1e-5)
CELL = 2.5 / 256
SEED_SPACING = 40
"""One disturbance, on average, on a square of so many cells."""

PATTERNS = {
    # name: (F, k, what grows)
    "beta": (0.026, 0.051, "waves and turbulence that never settle"),
    "gamma": (0.022, 0.051, "stripes that break and join again"),
    "delta": (0.030, 0.055, "holes in almost hexagonal order"),
    "epsilon": (0.022, 0.059, "spots that divide and die for ever"),
    "theta": (0.038, 0.061, "stripes that curl into a labyrinth"),
    "kappa": (0.050, 0.063, "a looser labyrinth that grows from its tips"),
    "lambda": (0.034, 0.065, "spots that divide until they fill the plane"),
    "mu": (0.046, 0.065, "worms that grow at their ends"),
}

OUTPUT, REPORT = 1, 2
MOST_UNSEEN = 4
"""Tiles that a rank keeps for the analysis before it waits for it."""


def main() -> int:
    world = MPI.COMM_WORLD
    options = parse_arguments(world)
    analyses = world.rank == 0
    simulates = world.size == 1 or not analyses
    simulating = world.Split(0 if simulates else MPI.UNDEFINED, key=world.rank)
    with Store.from_mpi(world, name="gray-scott", capacity=options.capacity) as store:
        tally = Tally()
        analysis = Analysis(options, store, tally, world) if analyses else None
        world.Barrier()
        began = time.perf_counter()
        if simulates:
            simulate(options, store, tally, simulating, world, analysis)
        elif analysis is not None:
            analysis.follow()
        tally.seconds = time.perf_counter() - began
        tallies = world.gather(tally, root=0)
        if analysis is not None:
            analysis.finish()
            print(closing_table(options, tallies, store, analysis), flush=True)
    return 0


def parse_arguments(world: MPI.Comm) -> argparse.Namespace:
    """The options, checked; a mistake is told once and ends all ranks."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary,
        epilog=rest + "\n\npatterns:\n" + pattern_list(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--size", type=positive, default=512, metavar="CELLS", help="cells a side (%(default)s)")
    add("--steps", type=positive, default=5000, help="steps of time (%(default)s)")
    add("--every", type=positive, default=250, help="steps between two frames (%(default)s)")
    add("--pattern", choices=PATTERNS, default="theta", help="what grows, see below (%(default)s)")
    add("--feed", type=float, metavar="F", help="F, instead of the pattern's")
    add("--kill", type=float, metavar="K", help="k, instead of the pattern's")
    add("--seed", type=int, default=1993, help="of the initial disturbances (%(default)s)")
    add("--out", type=Path, default=Path("frames"), help="folder of the results (%(default)s)")
    add("--palette", default="lagoon", help="lagoon, ember or porcelain (%(default)s)")
    add("--pixels", type=positive, default=1024, help="least width of a frame (%(default)s)")
    add("--save-fields", action="store_true", help="also write u and v of each frame (.npy)")
    add("--capacity", metavar="SIZE", help="memory of a rank for the store, such as 2GiB")
    add("--hand-out", type=Path, metavar="FILE", help="keep proxies of the latest tiles in a file")
    complaint = None
    options = argparse.Namespace()
    try:
        with quiet_unless(world.rank == 0):
            options = parser.parse_args()
            complaint = objection(options, world.size)
            if complaint:
                parser.error(complaint)
    except SystemExit as end:
        world.Barrier()  # a launcher ends the others when one fails: let it print first
        raise SystemExit(end.code) from None
    feed, kill, _ = PATTERNS[options.pattern]
    options.feed = feed if options.feed is None else options.feed
    options.kill = kill if options.kill is None else options.kill
    return options


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"a positive number is needed, not {text}")
    return number


def objection(options: argparse.Namespace, ranks: int) -> str | None:
    """Why these options cannot work, if so."""
    parts = MPI.Compute_dims(max(1, ranks - 1), 2)
    if options.size < 2 * max(parts):
        return (
            f"--size {options.size}: {max(1, ranks - 1)} simulating ranks make {parts[0]} x "
            f"{parts[1]} tiles, and a tile needs 2 x 2 cells at least: take {2 * max(parts)} or more"
        )
    for name, value in (("--feed", options.feed), ("--kill", options.kill)):
        if value is not None and not 0 <= value <= 0.1:
            return f"{name} {value}: nothing grows outside of 0 to 0.1"
    return None


def pattern_list() -> str:
    return "\n".join(
        f"  {name:<9} F={feed:.3f} k={kill:.3f}  {what}"
        for name, (feed, kill, what) in PATTERNS.items()
    )


@contextmanager
def quiet_unless(speaks: bool) -> Iterator[None]:
    """Without output on the ranks that do not speak for all."""
    streams = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:
        if not speaks:
            sys.stdout = sys.stderr = nowhere
        try:
            yield
        finally:
            sys.stdout, sys.stderr = streams


@dataclass
class Tally:
    """What a rank spent: seconds by kind of call, objects and bytes stored."""

    inside: dict[str, float] = field(default_factory=dict)
    objects: int = 0
    nbytes: int = 0
    seconds: float = 0.0

    @contextmanager
    def of(self, call: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.inside[call] = self.inside.get(call, 0.0) + time.perf_counter() - began

    def share(self, *calls: str) -> float:
        """Share of the run that was spent in some calls, in percent."""
        return 100 * sum(self.inside.get(call, 0.0) for call in calls) / (self.seconds or 1.0)


@dataclass(frozen=True)
class Tile:
    """The part of the grid that a rank computes: these rows and columns of the whole."""

    rows: slice
    columns: slice

    @classmethod
    def of(cls, size: int, parts: list[int], coordinates: list[int]) -> Tile:
        """The tile at some coordinates. Tiles differ by one row or column where they must."""
        return cls(
            *(slice(size * i // n, size * (i + 1) // n) for n, i in zip(parts, coordinates))
        )

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def begin(self, now: Array, size: int, seed: int) -> None:
        """Fills u and v of the tile: a calm state with noise, and squares where v is put in.

        What a cell gets depends on its place and the seed alone, not on the tiles.
        """
        for row, line in zip(range(self.rows.start, self.rows.stop), now.swapaxes(0, 1)):
            noise = np.random.default_rng([seed, row]).random((2, size))[:, self.columns]
            line[0], line[1] = 1 - 0.02 * noise[0], 0.02 * noise[1]
        random = np.random.default_rng(seed)
        for _ in range(max(1, (size // SEED_SPACING) ** 2)):
            top, left = random.integers(0, size, 2)
            height, width = random.integers(min(6, size), min(14, size + 1), 2)
            rows = inside(self.rows, top, height, size)
            columns = inside(self.columns, left, width, size)
            for value, plane in zip((0.5, 0.25), now):
                noise = np.random.default_rng([seed, top, left]).random()
                plane[np.ix_(rows, columns)] = value * (0.95 + 0.1 * noise)


def inside(part: slice, start: int, length: int, size: int) -> NDArray[np.intp]:
    """Which places of a part of the axis lie in a periodic interval, counted from the part's."""
    places = np.arange(part.start, part.stop)
    return np.flatnonzero((places - start) % size < length)


class Borders:
    """The cells around a tile, exchanged with the four neighbours by persistent requests.

    Args:
        grid: A periodic Cartesian communicator of two dimensions.
        shape: Shape of the tile.
    """

    def __init__(self, grid: MPI.Cartcomm, shape: tuple[int, int]) -> None:
        rows, columns = shape
        north, south = grid.Shift(0, 1)
        west, east = grid.Shift(1, 1)
        self._sides = [np.empty((2, n)) for n in (columns, columns, rows, rows)]
        self.north, self.south, self.west, self.east = (np.empty_like(s) for s in self._sides)
        around = [(north, self.north), (south, self.south), (west, self.west), (east, self.east)]
        # What leaves to the north arrives from the south: tags tell the two apart where both
        # neighbours are the same rank.
        self._requests = [
            *(grid.Recv_init(into, source, tag) for tag, (source, into) in enumerate(around)),
            *(
                grid.Send_init(side, target, tag ^ 1)
                for tag, ((target, _), side) in enumerate(zip(around, self._sides))
            ),
        ]

    def send(self, now: Array) -> None:
        """Sends the tile's own outermost cells."""
        for side, cells in zip(
            self._sides, (now[:, 0], now[:, -1], now[:, :, 0], now[:, :, -1])
        ):
            side[...] = cells
        MPI.Prequest.Startall(self._requests)

    def receive(self) -> None:
        """Waits for the neighbours' cells."""
        MPI.Prequest.Waitall(self._requests)

    def free(self) -> None:
        for request in self._requests:
            request.Free()


class Kernel:
    """One step of time on a tile, without temporary arrays.

    Args:
        feed: F.
        kill: k.
        shape: Shape of the tile.
    """

    def __init__(self, feed: float, kill: float, shape: tuple[int, int]) -> None:
        spread = np.array(DIFFUSION) / CELL**2
        self._feed = feed
        self._spread = spread.reshape(2, 1, 1)
        self._kept = (1 - 4 * spread - np.array([feed, feed + kill])).reshape(2, 1, 1)
        self._reaction = np.empty(shape)
        self._own = np.empty((2, *shape))

    def react(self, now: Array) -> None:
        """The part that needs no neighbour, done while their cells are under way."""
        u, v = now
        np.multiply(v, v, out=self._reaction)
        self._reaction *= u
        np.multiply(now, self._kept, out=self._own)

    def diffuse(self, now: Array, borders: Borders, new: Array) -> None:
        """The rest; `new` is complete then. The order of additions is that of every tiling."""
        np.add(now[:, :-2], now[:, 2:], out=new[:, 1:-1])
        np.add(borders.north, now[:, 1], out=new[:, 0])
        np.add(now[:, -2], borders.south, out=new[:, -1])
        new[:, :, 1:] += now[:, :, :-1]
        new[:, :, 0] += borders.west
        new[:, :, :-1] += now[:, :, 1:]
        new[:, :, -1] += borders.east
        new *= self._spread
        new += self._own
        new[0] -= self._reaction
        new[0] += self._feed
        new[1] += self._reaction


def simulate(
    options: argparse.Namespace,
    store: Store,
    tally: Tally,
    simulating: MPI.Intracomm,
    world: MPI.Intracomm,
    analysis: Analysis | None,
) -> None:
    """Computes this rank's tile and hands it over every so many steps."""
    parts = MPI.Compute_dims(simulating.size, 2)
    grid = simulating.Create_cart(parts, periods=[True, True])
    tile = Tile.of(options.size, parts, grid.coords)
    borders = Borders(grid, tile.shape)
    kernel = Kernel(options.feed, options.kill, tile.shape)
    handed: deque[Any] = deque()
    messages: list[MPI.Request] = []

    def fresh() -> Array:
        with tally.of("empty"):
            return store.empty((2, *tile.shape))

    now, new = fresh(), fresh()
    tile.begin(now, options.size, options.seed)
    for step in range(options.steps + 1):
        if step > 0:
            borders.send(now)
            kernel.react(now)
            borders.receive()
            kernel.diffuse(now, borders, new)
            # What was sealed belongs to its readers; what was not is written again.
            now, new = new, now if now.flags.writeable else fresh()
        if step % options.every == 0 or step == options.steps:
            with tally.of("waiting for the analysis"):
                wait_for_analysis(store, handed)
            with tally.of("proxy"):
                proxy = store.proxy(now)
            handed.append(get_factory(proxy).key)
            tally.objects += 1
            tally.nbytes += now.nbytes
            if analysis is not None:
                analysis.frame(step, [tile], [pickle.loads(pickle.dumps(proxy))])
            else:
                messages.append(world.isend((step, tile, proxy), dest=0, tag=OUTPUT))
    MPI.Request.Waitall(messages)
    borders.free()
    grid.Free()


def wait_for_analysis(store: Store, handed: deque[Any]) -> None:
    """Lets the analysis catch up, so that tiles which it has not seen do not fill the memory."""
    while len(handed) >= MOST_UNSEEN:
        if store.exists(handed[0]):
            time.sleep(1e-3)
        else:
            handed.popleft()


class Analysis:
    """Draws frames and keeps statistics, from views of the tiles in the other ranks' memory."""

    def __init__(
        self, options: argparse.Namespace, store: Store, tally: Tally, world: MPI.Intracomm
    ) -> None:
        from picture import Painter

        self._options = options
        self._store = store
        self._tally = tally
        self._world = world
        self._painter = Painter(options.palette, 0.0, 0.40, options.pixels)
        self._field = np.empty((options.size, options.size))
        self._progress = Progress(options.steps)
        self._handed_out: list[Any] = []
        self.frames = 0
        options.out.mkdir(parents=True, exist_ok=True)
        self._statistics = (options.out / "statistics.jsonl").open("w")

    def follow(self) -> None:
        """Makes frames of what the other ranks send, until the last step."""
        step = -1
        while step < self._options.steps:
            arrived = [receive(self._world, rank) for rank in range(1, self._world.size)]
            steps, tiles, proxies = zip(*arrived)
            if len(set(steps)) > 1:
                raise RuntimeError(f"tiles of different steps came together: {steps}")
            step = steps[0]
            self.frame(step, list(tiles), list(proxies))

    def frame(self, step: int, tiles: list[Tile], proxies: list[Proxy[Array]]) -> None:
        """Draws one step and evicts its tiles."""
        with self._tally.of("resolve"):
            self._store.resolve(proxies)
        for tile, proxy in zip(tiles, proxies):
            if proxy.shape != (2, *tile.shape):
                raise RuntimeError(f"a tile of step {step} has the shape {proxy.shape}")
            self._field[tile.rows, tile.columns] = proxy[1]
        self._write(step, tiles, proxies)
        keys = [get_factory(proxy).key for proxy in proxies]
        if self._options.hand_out:
            # Who reads the file needs some time to resolve what it names: until the next frame.
            hand_out(self._options.hand_out, step, tiles, proxies)
            keys, self._handed_out = self._handed_out, keys
        with self._tally.of("evict"):
            self._store.evict_batch(keys)
        self.frames += 1
        self._progress.show(step)

    def _write(self, step: int, tiles: list[Tile], proxies: list[Proxy[Array]]) -> None:
        options = self._options
        v = self._field
        self._painter.save(v, options.out / f"{step:06d}.png")
        if step == options.steps:
            self._painter.save(v, options.out / "final.png")
        if options.save_fields:
            whole = np.empty((2, *v.shape))
            for tile, proxy in zip(tiles, proxies):
                whole[:, tile.rows, tile.columns] = proxy
            np.save(options.out / f"{step:06d}.npy", whole)
        line = {
            "step": step,
            "mean_u": sum(float(proxy[0].sum()) for proxy in proxies) / v.size,
            "mean_v": float(v.mean()),
            "min_v": float(v.min()),
            "max_v": float(v.max()),
            "covered": float((v > 0.2).mean()),
        }
        self._statistics.write(json.dumps(line) + "\n")
        self._statistics.flush()

    def finish(self) -> None:
        """Ends the progress bar and files, and takes back what was handed out."""
        self._progress.close()
        self._statistics.close()
        if self._options.hand_out:
            self._options.hand_out.unlink(missing_ok=True)
            self._store.evict_batch(self._handed_out)


def receive(world: MPI.Intracomm, rank: int) -> tuple[int, Tile, Proxy[Array]]:
    """The next message of a rank. Sleeps meanwhile: MPI itself would keep a core busy."""
    while not world.Iprobe(rank, OUTPUT):
        time.sleep(1e-3)
    message: tuple[int, Tile, Proxy[Array]] = world.recv(source=rank, tag=OUTPUT)
    return message


def hand_out(path: Path, step: int, tiles: list[Tile], proxies: list[Proxy[Array]]) -> None:
    """Writes proxies for processes outside of the job. Whoever can read the file can use them."""
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.touch(mode=0o600)
    places = [(tile.rows, tile.columns) for tile in tiles]
    unfinished.write_bytes(pickle.dumps((step, places, proxies)))
    unfinished.replace(path)


class Progress:
    """A bar on the terminal that this job was started from; nothing where there is none."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._began = time.monotonic()
        self._stream: TextIO | None = sys.stderr if sys.stderr.isatty() else None
        if self._stream is None and sys.stdout.isatty():
            # A launcher joins ranks to pipes, so they look for the terminal itself.
            try:
                self._stream = open("/dev/tty", "w")
            except OSError:
                self._stream = None

    def show(self, step: int) -> None:
        if self._stream is None:
            return
        done = step / self._steps
        bar = "━" * round(32 * done)
        seconds = time.monotonic() - self._began
        left = f"{seconds / done - seconds:4.0f} s left" if 0 < done < 1 else ""
        self._stream.write(f"\r{bar:<32} {100 * done:3.0f} %  step {step}/{self._steps} {left:12}")
        self._stream.flush()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.write("\n")
            self._stream.flush()


def closing_table(
    options: argparse.Namespace, tallies: list[Tally], store: Store, analysis: Analysis
) -> str:
    """What the run did, and what it spent inside the library."""
    simulating = [tally for tally in tallies if tally.objects]
    seconds = max(tally.seconds for tally in tallies)
    updates = options.size**2 * options.steps / seconds / 1e6
    objects, nbytes = (sum(getattr(t, n) for t in simulating) for n in ("objects", "nbytes"))
    doors = [
        f"   through the door {door:<9} {n:>7} objects {megabytes(size)}, {1e6 * spent / n:.0f} us each"
        for door, (n, size, spent) in sorted(store.metrics.doors.items())
    ]
    worst = max(simulating, key=lambda tally: tally.share("empty", "proxy"))
    return "\n".join(
        [
            f"pattern {options.pattern} (F {options.feed:g}, k {options.kill:g}), {options.size} x "
            f"{options.size} cells, {options.steps} steps on {len(simulating)} ranks",
            f"   time                       {seconds:>7.1f} s, {options.steps / seconds:.0f} steps "
            f"a second, {updates:.0f} million cells a second",
            f"   frames                     {analysis.frames:>7} in {options.out}/, the last one "
            "also as final.png",
            f"   stored                     {objects:>7} objects {megabytes(nbytes)}",
            *doors,
            "inside the library, share of the run",
            f"   simulating, worst rank     {worst.share('empty', 'proxy'):>7.2f} % "
            f"(empty {worst.share('empty'):.2f}, proxy {worst.share('proxy'):.2f})",
            f"   analysing                  {tallies[0].share('resolve', 'evict'):>7.2f} % "
            f"(resolve {tallies[0].share('resolve'):.2f}, evict {tallies[0].share('evict'):.2f})",
            "waiting for the analysis      "
            f"{max(t.share('waiting for the analysis') for t in simulating):>7.2f} %",
        ]
    )


def megabytes(nbytes: int) -> str:
    return f"{nbytes / 2**20:>9.1f} MiB"


if __name__ == "__main__":
    sys.exit(main())
