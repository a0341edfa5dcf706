#!/usr/bin/env python3
"""Gray-Scott reaction-diffusion in two dimensions, drawn while it runs.

    mpirun -n 4 python examples/gray_scott.py --pattern theta --size 512 --steps 5000 --out frames

Two substances react and diffuse on a square with periodic borders:

    du/dt = Du lap(u) - u v^2 + F (1 - u)
    dv/dt = Dv lap(v) + u v^2 - (F + k) v

as in J. E. Pearson, "Complex Patterns in a Simple System", Science 261 (1993) 189: Du = 2e-5,
Dv = 1e-5, cells of 2.5/256, steps of 1, the five-point Laplacian and forward Euler. The Greek
letters of the patterns are his classes; each pair of F and k below lies within the class that it is
named after.

Rank 0 analyses, the others simulate; a single rank does both. Every tile of the simulation lies in
the store's memory from the start (`store.empty`), so handing it over copies nothing: it is sealed,
and rank 0 is sent a proxy of it, some 200 bytes. Rank 0 resolves the proxies of all ranks to views
of their memory, draws, and evicts; the simulation goes on meanwhile, into a fresh array.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import sys
import time
import traceback
from collections import deque
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, cast

import numpy as np
from mpi4py import MPI
from reaction import PATTERNS, Array, Borders, Kernel, Tile, pattern_list
from reporting import Progress, Tally, megabytes

from proxystore_hpc import Store
from proxystore_hpc.key import Key
from proxystore_hpc.proxy import Proxy, get_factory

OUTPUT = 1
"""Tag of the messages that carry proxies."""
MOST_UNSEEN = 4
"""Tiles that a rank keeps for the analysis before it waits for it."""
WAITING = "waiting for the analysis"


def main() -> int:
    world: MPI.Intracomm = MPI.COMM_WORLD
    options = parse_arguments(world)
    analyses = world.rank == 0
    simulates = world.size == 1 or not analyses
    simulating: Any = world.Split(0 if simulates else MPI.UNDEFINED, key=world.rank)
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
        if analysis is not None and tallies is not None:
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
    add("--palette", choices=("lagoon", "ember", "porcelain"), default="lagoon")
    add("--pixels", type=positive, default=1024, help="least width of a frame (%(default)s)")
    add("--save-fields", action="store_true", help="also write u and v of each frame (.npy)")
    add("--capacity", metavar="SIZE", help="memory of a rank for the store, such as 2GiB")
    add("--hand-out", type=Path, metavar="FILE", help="keep proxies of the latest tiles in a file")
    with ExitStack() as quiet:
        # Where the launcher sees one rank fail it ends the others: let rank 0 speak first.
        quiet.callback(world.Barrier)
        if world.rank != 0:
            quiet.enter_context(redirect_stdout(io.StringIO()))
            quiet.enter_context(redirect_stderr(io.StringIO()))
        options = parser.parse_args()
        if complaint := objection(options, world.size):
            parser.error(complaint)
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
    rows, columns = MPI.Compute_dims(max(1, ranks - 1), 2)
    least = 2 * max(rows, columns)
    if options.size < least:
        return (
            f"--size {options.size}: the simulating ranks make {rows} x {columns} tiles, and a "
            f"tile needs 2 x 2 cells at least: take {least} or more"
        )
    for name, value in (("--feed", options.feed), ("--kill", options.kill)):
        if value is not None and not 0 <= value <= 0.1:
            return f"{name} {value}: nothing grows outside of 0 to 0.1"
    try:
        import picture  # noqa: F401
    except ImportError as missing:
        return str(missing)
    return None


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
    handed: deque[Key] = deque()
    messages: list[MPI.Request] = []

    def fresh() -> Array:
        with tally.of("empty"):
            return cast(Array, store.empty((2, *tile.shape)))

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
            with tally.of(WAITING):
                wait_for_analysis(store, handed)
            with tally.of("proxy"):
                proxy = store.proxy(now)
            handed.append(key_of(proxy))
            tally.objects += 1
            tally.nbytes += now.nbytes
            if analysis is not None:
                analysis.frame(step, [tile], [pickle.loads(pickle.dumps(proxy))])
            else:
                messages = [message for message in messages if not message.Test()]
                messages.append(world.isend((step, tile, proxy), dest=0, tag=OUTPUT))
    MPI.Request.Waitall(messages)
    borders.free()
    grid.Free()


def key_of(proxy: Proxy[Array]) -> Key:
    factory: Any = get_factory(proxy)
    return cast(Key, factory.key)


def wait_for_analysis(store: Store, handed: deque[Key]) -> None:
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
            steps, tiles, proxies = zip(*arrived, strict=True)
            if len(set(steps)) > 1:
                raise RuntimeError(f"tiles of different steps came together: {steps}")
            step = steps[0]
            self.frame(step, list(tiles), list(proxies))

    def frame(self, step: int, tiles: list[Tile], proxies: list[Proxy[Array]]) -> None:
        """Draws one step and evicts its tiles."""
        with self._tally.of("resolve"):
            self._store.resolve(proxies)
        for tile, proxy in zip(tiles, proxies, strict=True):
            if proxy.shape != (2, *tile.shape):
                raise RuntimeError(f"a tile of step {step} has the shape {proxy.shape}")
            self._field[tile.rows, tile.columns] = proxy[1]
        self._write(step, tiles, proxies)
        keys = [key_of(proxy) for proxy in proxies]
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
            for tile, proxy in zip(tiles, proxies, strict=True):
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


def closing_table(
    options: argparse.Namespace, tallies: list[Tally], store: Store, analysis: Analysis
) -> str:
    """What the run did, and what it spent inside the library."""
    simulating = [tally for tally in tallies if tally.objects]
    seconds = max(tally.seconds for tally in tallies)
    pace = options.steps / seconds
    cells = f"{options.size} x {options.size} cells"
    objects = sum(tally.objects for tally in simulating)
    nbytes = sum(tally.nbytes for tally in simulating)
    analyst = tallies[0]
    worst = max(simulating, key=lambda tally: tally.share("empty", "proxy"))
    waited = max(tally.share(WAITING) for tally in simulating)
    rows = [
        ("time", f"{seconds:8.1f} s, {pace:.0f} steps a second"),
        ("pace", f"{pace * options.size**2 / 1e6:8.1f} million cells a second"),
        ("frames", f"{analysis.frames:8} in {options.out}, the last one also as final.png"),
        ("stored", f"{objects:8} objects {megabytes(nbytes)}"),
    ]
    for door, (count, size, spent) in sorted(store.metrics.doors.items()):
        each = f"{1e6 * spent / count:.0f} us each"
        rows.append((f"through the door {door}", f"{count:8} objects {megabytes(size)}, {each}"))
    rows += [
        ("inside the library", "   share of the run"),
        ("  simulating, worst rank", f"{worst.share('empty', 'proxy'):8.2f} %"),
        ("    empty", f"{worst.share('empty'):8.2f} %"),
        ("    proxy", f"{worst.share('proxy'):8.2f} %"),
        ("  analysing", f"{analyst.share('resolve', 'evict'):8.2f} %"),
        ("    resolve", f"{analyst.share('resolve'):8.2f} %"),
        ("    evict", f"{analyst.share('evict'):8.2f} %"),
        (WAITING, f"{waited:8.2f} %"),
    ]
    title = (
        f"pattern {options.pattern} (F {options.feed:g}, k {options.kill:g}), {cells}, "
        f"{options.steps} steps on {len(simulating)} of {len(tallies)} ranks"
    )
    return "\n".join([title, *(f"   {name:<26}{value}" for name, value in rows)])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:
        # The other ranks would wait in MPI for this one, for ever.
        traceback.print_exc()
        MPI.COMM_WORLD.Abort(1)
