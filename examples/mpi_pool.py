#!/usr/bin/env python3
"""Finds the spots of a noisy picture, and how wide they are, with a pool of MPI workers.

    mpirun -n 4 python -m mpi4py.futures examples/mpi_pool.py
    mpirun -n 4 python -m mpi4py.futures examples/mpi_pool.py --door mpi
    mpirun -n 1 python examples/mpi_pool.py --workers 3

The picture is blurred to several scales, each in a task of its own; where two neighbouring scales
differ most, there is a spot of that width (T. Lindeberg, "Feature Detection with Automatic Scale
Selection", 1998). Arguments and results of tasks travel through the master as pickles. Here they
are proxies: the picture goes from the master's memory to each worker, and a blurred picture from
the worker that made it to those that compare it. With --arrays the tasks are the same, but get and
return the arrays themselves.

In the first two forms the workers are ranks of the job and open the store together with the master;
in the last one MPI spawns them, and every process opens a store of its own.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpi4py import MPI
from mpi4py.futures import MPIPoolExecutor, get_comm_workers
from numpy.typing import NDArray

from proxystore_hpc import Store
from proxystore_hpc.store import get_or_create_store, get_store
from proxystore_hpc.store.config import StoreConfig

Array = NDArray[np.float64]

NAME = "pool"
RATIO = 1.25
"""Of neighbouring scales."""
NARROWEST, SCALES = 3.0, 9
NOISE, FAINTEST = 0.1, 0.08


def open_store(door: str) -> Store:
    """The store of this process. The master and all workers call this at the same time."""
    if in_job():
        return Store.from_mpi(MPI.COMM_WORLD, NAME, doors=(door,))
    return get_or_create_store(StoreConfig(NAME, doors=(door,)))


def in_job() -> bool:
    """Whether master and workers are ranks of one communicator."""
    spawned = MPI.Comm.Get_parent() != MPI.COMM_NULL
    return MPI.COMM_WORLD.size > 1 and not spawned


def blur(picture: Array, scale: float, by_proxy: bool) -> Array:
    """A periodic picture, blurred by a Gaussian."""
    rows, columns = picture.shape
    frequencies = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :])
    spectrum = np.fft.rfft2(picture) * np.exp(-2 * (np.pi * scale * frequencies) ** 2)
    store: Any = get_store(NAME)
    blurred: Array = store.empty(picture.shape) if by_proxy else np.empty(picture.shape)
    blurred[...] = np.fft.irfft2(spectrum, s=picture.shape)
    return store.proxy(blurred) if by_proxy else blurred


def find_peaks(fine: Array, coarse: Array, scale: float) -> list[tuple[float, float, int, int]]:
    """Where two scales differ most: difference, width of the spot, row and column."""
    difference = fine - coarse
    highest = difference > FAINTEST
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for sign in (1, -1):
            around = np.roll(difference, (sign * shift[0], sign * shift[1]), (0, 1))
            highest &= difference >= around
    width = scale * RATIO**0.5
    return [(float(difference[r, c]), width, int(r), int(c)) for r, c in np.argwhere(highest)]


def count_transfers() -> list[dict[str, int]]:
    """Bytes that each worker got, by door. Collective: one such task for each worker."""
    store: Any = get_store(NAME)
    mine = {door: stats.bytes for door, stats in store.metrics.doors.items()}
    return get_comm_workers().allgather(mine)


class Pickles:
    """Counts what mpi4py pickles and unpickles in this process."""

    def __init__(self) -> None:
        self.nbytes = 0
        MPI.pickle.__init__(self.dumps, self.loads)  # replaces its functions

    def dumps(self, obj: Any, protocol: int | None = None) -> bytes:
        data = pickle.dumps(obj, protocol)
        self.nbytes += len(data)
        return data

    def loads(self, data: Any) -> Any:
        self.nbytes += len(data)
        return pickle.loads(data)


@dataclass(frozen=True)
class Spots:
    """Spots of known places and widths, rows of (row, column, width)."""

    size: int
    places: Array

    @classmethod
    def scatter(cls, size: int, number: int, seed: int) -> Spots:
        """Spots that do not overlap, on a grid of cells that each hold one at most."""
        random = np.random.default_rng(seed)
        side = int(np.ceil(number**0.5))
        cell = size / side
        chosen = random.permutation(side * side)[:number]
        corners = np.stack(np.divmod(chosen, side), axis=1) * cell
        centres = corners + cell * random.uniform(0.4, 0.6, (number, 2))
        widths = random.uniform(1.3 * NARROWEST, min(12.0, cell / 9), (number, 1))
        return cls(size, np.hstack([centres, widths]))

    def draw(self, picture: Array, seed: int) -> None:
        """Fills a picture with the spots and noise."""
        picture[...] = np.random.default_rng(seed).normal(0, NOISE, picture.shape)
        for row, column, width in self.places:
            rows = np.arange(int(row - 5 * width), int(row + 5 * width) + 1)
            columns = np.arange(int(column - 5 * width), int(column + 5 * width) + 1)
            across = np.exp(-(((rows - row) / width) ** 2) / 2)
            along = np.exp(-(((columns - column) / width) ** 2) / 2)
            picture[np.ix_(rows % self.size, columns % self.size)] += np.outer(across, along)

    def compare(self, found: Array) -> tuple[int, float]:
        """How many of the spots were found, and the mean relative error of their widths."""
        errors = []
        for row, column, width in self.places:
            near = np.hypot(found[:, 0] - row, found[:, 1] - column) < width
            errors += [abs(w / width - 1) for w in found[near, 2][:1]]
        return len(errors), float(np.mean(errors)) if errors else 0.0


def strongest(peaks: list[tuple[float, float, int, int]]) -> Array:
    """One peak for each spot, rows of (row, column, width): it shows in several scales."""
    kept: list[tuple[float, float, float]] = []
    for _, width, row, column in sorted(peaks, reverse=True):
        if all(np.hypot(row - r, column - c) > 2 * max(width, w) for r, c, w in kept):
            kept.append((row, column, width))
    return np.array(kept).reshape(-1, 3)


def search(pool: MPIPoolExecutor, picture: Any, by_proxy: bool) -> Array:
    """The spots of a picture: an array, or a proxy of one."""
    scales = [NARROWEST * RATIO**i for i in range(SCALES)]
    blurred = [pool.submit(blur, picture, scale, by_proxy) for scale in scales]
    pairs = [
        pool.submit(find_peaks, fine.result(), coarse.result(), scale)
        for fine, coarse, scale in zip(blurred, blurred[1:], scales, strict=False)
    ]
    return strongest([peak for pair in pairs for peak in pair.result()])


def main() -> int:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--size", type=int, default=1024, help="pixels a side (%(default)s)")
    add("--spots", type=int, default=40, help="number of spots (%(default)s)")
    add("--seed", type=int, default=7, help="of places, widths and noise (%(default)s)")
    add("--door", choices=("shm", "mpi"), default="shm", help="way of the objects (%(default)s)")
    add("--workers", type=int, help="how many to spawn, where the job has none")
    add("--arrays", action="store_true", help="hand over arrays instead of proxies")
    options = parser.parse_args()
    # Or every rank would be a master.
    if MPI.COMM_WORLD.size > 1 and "mpi4py.run" not in sys.modules:
        parser.error("start this with: mpirun -n N python -m mpi4py.futures ...")
    if options.door == "mpi" and not in_job():
        parser.error("--door mpi: spawned workers are in no communicator with the master")
    if options.size < 45 * options.spots**0.5:
        parser.error(f"--size {options.size}: too small for {options.spots} spots side by side")

    spots = Spots.scatter(options.size, options.spots, options.seed)
    with MPIPoolExecutor(options.workers, initializer=open_store, initargs=(options.door,)) as pool:
        pool.bootup(wait=False)  # the workers open their stores now, together with this process
        with open_store(options.door) as store:
            picture: Any = store.empty((options.size, options.size))
            spots.draw(picture, options.seed)
            pickles = Pickles()
            began = time.perf_counter()
            argument = picture if options.arrays else store.proxy(picture)
            found = search(pool, argument, by_proxy=not options.arrays)
            seconds = time.perf_counter() - began
            pickled = pickles.nbytes
            tasks = [pool.submit(count_transfers) for _ in range(pool.num_workers)]
            counts = tasks[0].result()
    right, error = spots.compare(found)
    print(f"{len(found)} spots found, {right} of {options.spots} known ones", end="")
    print(f", widths {100 * error:.0f} % off on average")
    print(f"   {'time':<28}{seconds:14.2f} s with {len(counts)} workers")
    print(f"   {'through MPI as pickles':<28}{pickled:>14,} bytes")
    for door in sorted({door for count in counts for door in count}):
        nbytes = sum(count.get(door, 0) for count in counts)
        print(f"   {'through the door ' + door:<28}{nbytes:>14,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
