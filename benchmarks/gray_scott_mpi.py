"""The Gray-Scott example over mpi alone, and the same exchange written by hand with mpi4py.

Both use the example's equations, tiles, borders and drawing. What is compared is the time spent on
handing tiles over: in the library `empty` and `proxy` where it is simulated, `resolve` and `evict`
where it is analysed; by hand `Isend` and `Test`, and `Irecv` and `Waitall`. The small message that
announces a tile goes over MPI in both and counts in neither, and neither does waiting for an
analysis that is behind. What MPI does for a send by hand within the exchange of borders is not
seen.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
import numpy as np
from mpi4py import MPI
from targets import Verdict

from proxystore_hpc import Store

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import gray_scott
import picture  # noqa: F401 (says what is missing)
from reaction import PATTERNS, Borders, Kernel, Tile
from reporting import Tally

if TYPE_CHECKING:
    from mpi_job import Job

TILE = 7
SIMULATING, ANALYSING = ("empty", "proxy"), ("resolve", "evict")
SENDING, RECEIVING = "send", "receive"
LIMIT = 1.5


def options_of(cells: int, steps: int, every: int, out: str) -> Namespace:
    """As the example's arguments have them."""
    feed, kill, _ = PATTERNS["theta"]
    return Namespace(
        size=cells,
        steps=steps,
        every=every,
        feed=feed,
        kill=kill,
        seed=1993,
        out=Path(out),
        palette="lagoon",
        pixels=cells,
        save_fields=True,
        hand_out=None,
    )


def run_example(world: MPI.Intracomm, store: Store, options: Namespace) -> Tally:
    """The example's own functions, with a store over mpi alone."""
    simulating: Any = world.Split(0 if world.rank else MPI.UNDEFINED, key=world.rank)
    tally = Tally()
    if world.rank == 0:
        analysis = gray_scott.Analysis(options, store, tally, world)
        world.Barrier()
        analysis.follow()
        analysis.finish()
    else:
        world.Barrier()
        gray_scott.simulate(options, store, tally, simulating, world, None)
        simulating.Free()
    return tally


def run_by_hand(world: MPI.Intracomm, options: Namespace) -> Tally:
    """The same without a store."""
    simulating: Any = world.Split(0 if world.rank else MPI.UNDEFINED, key=world.rank)
    tally = Tally()
    if world.rank == 0:
        receiver = Receiver(options, tally, world)
        world.Barrier()
        receiver.follow()
        receiver.finish()
    else:
        world.Barrier()
        simulate(options, tally, simulating, world)
        simulating.Free()
    return tally


class Receiver(gray_scott.Analysis):
    """Draws what arrives in buffers of its own."""

    def __init__(self, options: Namespace, tally: Tally, world: MPI.Intracomm) -> None:
        super().__init__(options, None, tally, world)  # type: ignore[arg-type]
        self._buffers: dict[int, Any] = {}

    def frame(self, step: int, tiles: list[Tile], proxies: list[Any]) -> None:
        for rank, tile in enumerate(tiles, 1):
            if rank not in self._buffers:
                self._buffers[rank] = np.empty((2, *tile.shape))
        with self._tally.of(RECEIVING):
            MPI.Request.Waitall(
                [self._world.Irecv(into, rank, TILE) for rank, into in self._buffers.items()]
            )
        for rank, tile in enumerate(tiles, 1):
            self._field[tile.rows, tile.columns] = self._buffers[rank][1]
        self._write(step, tiles, list(self._buffers.values()))
        self.frames += 1


def simulate(
    options: Namespace, tally: Tally, simulating: MPI.Intracomm, world: MPI.Intracomm
) -> None:
    """Computes a tile, and sends it from where it lies every so many steps."""
    parts = MPI.Compute_dims(simulating.size, 2)
    grid = simulating.Create_cart(parts, periods=[True, True])
    tile = Tile.of(options.size, parts, grid.coords)
    borders = Borders(grid, tile.shape)
    kernel = Kernel(options.feed, options.kill, tile.shape)
    # As many as the example keeps for the analysis, and two to compute with.
    buffers = Buffers([np.empty((2, *tile.shape)) for _ in range(gray_scott.MOST_UNSEEN + 2)])
    told: list[MPI.Request] = []
    now, new = buffers.take(tally), buffers.take(tally)
    tile.begin(now, options.size, options.seed)
    for step in range(options.steps + 1):
        if step > 0:
            borders.send(now)
            kernel.react(now)
            borders.receive()
            kernel.diffuse(now, borders, new)
            # What is being sent is not written.
            now, new = new, buffers.take(tally) if buffers.sending(now) else now
        if step % options.every == 0 or step == options.steps:
            told = [message for message in told if not message.Test()]
            told.append(world.isend((step, tile, None), dest=0, tag=gray_scott.OUTPUT))
            with tally.of(SENDING):
                buffers.sent.append((world.Isend(now, 0, TILE), now))
            tally.objects += 1
    MPI.Request.Waitall([*(request for request, _ in buffers.sent), *told])
    borders.free()
    grid.Free()


class Buffers:
    """Tiles that may be computed, and those that are being sent."""

    def __init__(self, free: list[Any]) -> None:
        self.free = free
        self.sent: list[tuple[MPI.Request, Any]] = []

    def sending(self, buffer: Any) -> bool:
        return any(buffer is other for _, other in self.sent)

    def take(self, tally: Tally) -> Any:
        """One that may be written; waits for the analysis if there is none."""
        with tally.of(SENDING):
            still = [(request, buffer) for request, buffer in self.sent if not request.Test()]
            gone = [b for _, b in self.sent if not any(b is other for _, other in still)]
            self.sent, self.free = still, self.free + gone
        if not self.free:
            request, buffer = self.sent.pop(0)
            with tally.of(gray_scott.WAITING):
                request.Wait()
            return buffer
        return self.free.pop()


def compare(job: Job, cells: int, steps: int, every: int, rounds: int) -> Iterator[Verdict]:
    """Both by turns, on all ranks of the job."""
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch, job.store():
        folders = {by_hand: f"{scratch}/{int(by_hand)}" for by_hand in (False, True)}
        for number in range(rounds + 1):
            for by_hand, found in ((False, ours), (True, theirs)):
                options = options_of(cells, steps, every, folders[by_hand])
                tallies = job.together("gray_scott", by_hand, options)
                if number > 0:  # the first one warms up
                    found.append(spent(tallies, by_hand))
        last = [np.load(f"{folder}/{steps:06d}.npy") for folder in folders.values()]
        assert np.array_equal(*last), "the two came to different results"
        assert job.side.store is not None
        assert set(job.side.store.metrics.doors) == {"mpi"}
    frames = steps // every + 1
    for what, limit in (("in all", LIMIT), ("analysing", None), ("simulating", None)):
        pairs = [(a[what], b[what]) for a, b in zip(ours, theirs, strict=True)]
        times = statistics.median(mine / hand for mine, hand in pairs)
        mine, hand = (harness.Stats(tuple(p[i] / frames for p in pairs)) for i in (0, 1))
        yield Verdict(
            f"Gray-Scott, time inside of the library, {what}, of by hand",
            f"<= {limit:g}x" if limit else "",
            f"{times:.2f}x",
            times <= limit if limit else None,
            f"{mine.minimum / hand.minimum:.2f}x of the best; a frame takes "
            f"{harness.duration(mine.median)}, by hand {harness.duration(hand.median)}",
            {"library": mine.as_dict(), "by hand": hand.as_dict()},
        )


def spent(tallies: list[Tally], by_hand: bool) -> dict[str, float]:
    """Seconds of the analysis, and of the simulating rank that spent most."""
    there, here = ((SENDING,), (RECEIVING,)) if by_hand else (SIMULATING, ANALYSING)
    simulating = max(sum(t.inside.get(call, 0.0) for call in there) for t in tallies[1:])
    analysing = sum(tallies[0].inside.get(call, 0.0) for call in here)
    return {"simulating": simulating, "analysing": analysing, "in all": simulating + analysing}
