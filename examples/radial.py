"""The radial distribution function of particles in a periodic box, and its picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

# Half of the 26 cells around a cell, so that each pair is met once.
_AROUND = [offset for offset in product((-1, 0, 1), repeat=3) if offset > (0, 0, 0)]


def radial_distribution(positions: Array, box: Array, cutoff: float, bins: int) -> Array:
    """g(r) in `bins` equal shells up to `cutoff`.

    Args:
        positions: Of shape (particles, 3); particles may lie outside of the box.
        box: Lengths of the periodic box, each at least three times `cutoff`.
        cutoff: Radius of the last shell.
        bins: Number of shells.

    Raises:
        ValueError: The box is too small.
    """
    if (box < 3 * cutoff).any():
        raise ValueError(f"the box {box} is smaller than three times the cutoff, {cutoff}")
    counts = np.zeros(bins, np.int64)
    # One row for each dimension: whole columns are gathered at once below.
    inside = np.asfortranarray(positions - box * np.floor(positions / box))
    for first, second in candidate_pairs(inside, box, cutoff):
        squares = np.zeros(len(first))
        for along, length in zip(inside.T, box, strict=True):
            apart = along[first] - along[second]
            apart -= length * np.rint(apart / length)
            squares += apart * apart
        near = squares[squares < cutoff**2]
        shell = (np.sqrt(near) * (bins / cutoff)).astype(np.intp)
        counts += np.bincount(np.minimum(shell, bins - 1), minlength=bins)
    edges = np.linspace(0, cutoff, bins + 1)
    volumes = 4 / 3 * np.pi * (edges[1:] ** 3 - edges[:-1] ** 3)
    number = len(positions)
    ideal = volumes / box.prod() * number * (number - 1)
    return np.asarray(2 * counts / ideal)


def candidate_pairs(inside: Array, box: Array, cutoff: float) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of particles in the same or neighbouring cells, each pair once."""
    cells = (box // cutoff).astype(np.intp)
    place = np.minimum((inside / box * cells).astype(np.intp), cells - 1)
    cell = np.ravel_multi_index(tuple(place.T), tuple(cells))
    order = np.argsort(cell, kind="stable")
    members = np.bincount(cell, minlength=int(cells.prod()))
    starts = np.cumsum(members) - members
    place, numbers = place[order], np.arange(len(order))
    for offset in [(0, 0, 0), *_AROUND]:
        other = np.ravel_multi_index(tuple(((place + offset) % cells).T), tuple(cells))
        partners = members[other]
        first = np.repeat(numbers, partners)
        within = np.arange(len(first)) - np.repeat(np.cumsum(partners) - partners, partners)
        second = np.repeat(starts[other], partners) + within
        if offset == (0, 0, 0):
            once = first < second
            first, second = first[once], second[once]
        yield order[first], order[second]


def temperature(velocities: Array) -> float:
    """Of particles of mass 1 whose centre of mass rests; Boltzmann's constant is 1."""
    return float((velocities**2).sum() / (3 * len(velocities) - 3))


def draw(
    path: Path,
    cutoff: float,
    times: Sequence[float],
    curves: Sequence[Array],
    heat: Sequence[float],
) -> None:
    """Writes a picture of g(r), of eight times at most, and of the temperature.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure: Any
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.5), width_ratios=(3, 2))
    # Most happens at the beginning.
    shown = np.unique(np.geomspace(1, len(curves), 8).astype(int)) - 1
    radii = (np.arange(len(curves[0])) + 0.5) * cutoff / len(curves[0])
    colours = pyplot.get_cmap("viridis")(np.linspace(0.1, 0.85, len(shown)))
    for row, (frame, colour) in enumerate(zip(shown, colours, strict=True)):
        ground = 1.6 * (len(shown) - 1 - row)
        # A crystal's peaks are far higher than what becomes of them.
        curve = ground + np.minimum(curves[frame], 5)
        left.fill_between(radii, ground, curve, color="white", zorder=row)
        left.plot(radii, curve, color=colour, linewidth=1.3, zorder=row)
        left.annotate(f"t = {times[frame]:g}", (0.03, ground + 0.2), fontsize=8, color=colour)
    left.set(xlabel="r", yticks=[], title="g(r)", xlim=(0, cutoff), ylim=(0, None))
    right.plot(times, heat, "o-", color="#b8324f", markersize=3)
    right.set(xlabel="t", title="temperature", ylim=(0, None))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    left.spines["left"].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
