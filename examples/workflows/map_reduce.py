#!/usr/bin/env python3
"""The covariance of a data set that is cut into pieces: one task for each, then sums by pairs.

    python examples/workflows/map_reduce.py [--executor processes|dask|parsl|colmena]
                                            [--size N] [--full]

Pieces travel to workers, and matrices from one to the next. The same runs with all of that as
pickles through the executor, and as proxies.
"""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from running import Carried, arguments, compare

from proxystore_hpc.utils.sizes import parse_size

FEATURES = 512
ROWS = 4096
PIECE_NBYTES = 8 * FEATURES * ROWS


def products(piece: Any) -> Any:
    """Map: sums of products of features, and of features, over the rows of a piece."""
    piece = np.asarray(piece)
    return np.vstack([piece.T @ piece, piece.sum(axis=0)])


def add(one: Any, other: Any) -> Any:
    """Reduce."""
    return np.asarray(one) + np.asarray(other)


def covariance(executor: Carried, pieces: list[Any]) -> Any:
    """The covariance of the features over all pieces."""
    futures = [executor.submit(products, piece) for piece in pieces]
    partial = deque(future.result() for future in futures)
    for piece, result in zip(pieces, partial, strict=True):
        executor.count(products, (piece,), result)
    while len(partial) > 1:
        pairs = [(partial.popleft(), partial.popleft()) for _ in range(len(partial) // 2)]
        for one, other in pairs:
            executor.count(add, (one, other), one)
        futures = [executor.submit(add, *pair) for pair in pairs]
        partial.extend(future.result() for future in futures)
    total = np.array(partial[0])
    rows = sum(len(piece) for piece in pieces)
    means = total[-1] / rows
    return total[:-1] / rows - np.outer(means, means)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--size", type=parse_size, default=1 << 26, help="of the data in bytes")
    parser.add_argument("--full", action="store_true", help="1 GiB of data")
    options = parser.parse_args()
    count = max(2, (1 << 30 if options.full else options.size) // PIECE_NBYTES)
    generator = np.random.default_rng(0)
    pieces = [generator.standard_normal((ROWS, FEATURES)) + 1 for _ in range(count)]
    print(f"{count} pieces of {PIECE_NBYTES:,} bytes")
    found = compare(
        options,
        2 * count * PIECE_NBYTES + (1 << 26),
        lambda executor: covariance(executor, pieces),
    )
    same = np.allclose(found["pickles"], found["proxies"])
    right = np.allclose(np.diag(found["proxies"]), 1, atol=0.1)
    print("both ways agree" if same and right else "the ways differ")
    return 0 if same and right else 1


if __name__ == "__main__":
    # Parsl finds the tasks in a module, not in a script.
    import map_reduce

    raise SystemExit(map_reduce.main())
