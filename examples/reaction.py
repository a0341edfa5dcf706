"""The equations of Gray and Scott on one tile of a periodic grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

Array = NDArray[np.float64]

DIFFUSION = (2e-5, 1e-5)
CELL = 2.5 / 256
SEED_SPACING = 128
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


def pattern_list() -> str:
    return "\n".join(
        f"  {name:<9} F={feed:.3f} k={kill:.3f}  {what}"
        for name, (feed, kill, what) in PATTERNS.items()
    )


@dataclass(frozen=True)
class Tile:
    """The part of the grid that a rank computes: these rows and columns of the whole."""

    rows: slice
    columns: slice

    @classmethod
    def of(cls, size: int, parts: list[int], coordinates: list[int]) -> Tile:
        """The tile at some coordinates. Tiles differ by one row or column where they must."""
        (rows, columns), (row, column) = parts, coordinates
        return cls(
            slice(size * row // rows, size * (row + 1) // rows),
            slice(size * column // columns, size * (column + 1) // columns),
        )

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def begin(self, now: Array, size: int, seed: int) -> None:
        """Fills u and v of the tile: a calm state with noise, and squares where v is put in.

        What a cell gets depends on its place and the seed alone, not on the tiles.
        """
        for row in range(self.shape[0]):
            random = np.random.default_rng([seed, self.rows.start + row])
            noise = random.random((2, size))[:, self.columns]
            now[0, row], now[1, row] = 1 - 0.02 * noise[0], 0.02 * noise[1]
        random = np.random.default_rng(seed)
        for _ in range(max(1, (size // SEED_SPACING) ** 2)):
            top, left = random.integers(0, size, 2)
            height, width = random.integers(min(6, size), min(14, size + 1), 2)
            square = np.ix_(
                inside(self.rows, top, height, size), inside(self.columns, left, width, size)
            )
            strength = random.uniform(0.95, 1.05)
            now[0][square], now[1][square] = 0.5 * strength, 0.25 * strength


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
                for tag, ((target, _), side) in enumerate(zip(around, self._sides, strict=True))
            ),
        ]

    def send(self, now: Array) -> None:
        """Sends the tile's own outermost cells."""
        outermost = (now[:, 0], now[:, -1], now[:, :, 0], now[:, :, -1])
        for side, cells in zip(self._sides, outermost, strict=True):
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
