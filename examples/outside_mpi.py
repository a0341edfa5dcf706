#!/usr/bin/env python3
"""Looks into a running simulation from a process that is no part of its MPI job.

    mpirun -n 4 python examples/gray_scott.py --hand-out tiles.proxies &
    python examples/outside_mpi.py tiles.proxies

The simulation keeps pickled proxies of its latest tiles in a file of some hundred bytes. This
program unpickles them and uses them as arrays: they are views of the ranks' own memory, read-only,
nothing is copied, and the simulation neither waits nor takes part. It needs neither MPI nor UCX.
"""

from __future__ import annotations

import argparse
import pickle
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from proxystore_hpc.exceptions import ObjectEvictedError, ObjectMissingError, OwnerGoneError
from proxystore_hpc.store import get_store

INK = " .:-=+*#%@"


def main() -> int:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="what the simulation writes with --hand-out")
    parser.add_argument("--wait", type=float, default=60, help="seconds for the file to appear")
    parser.add_argument("--frames", type=int, default=0, help="end after so many (0: with the job)")
    parser.add_argument("--picture", action="store_true", help="draw v in the terminal")
    options = parser.parse_args()

    deadline = time.monotonic() + options.wait
    while not options.file.exists():
        if time.monotonic() > deadline:
            parser.exit(1, f"{options.file} did not appear within {options.wait:g} s\n")
        time.sleep(0.05)

    seen, shown = -1, 0
    while not options.frames or shown < options.frames:
        try:
            step, places, proxies = pickle.loads(options.file.read_bytes())
            if step != seen:
                look(step, places, proxies, options.picture)
                seen, shown = step, shown + 1
        except FileNotFoundError:
            break  # the simulation has ended
        except OwnerGoneError as gone:
            if not options.file.exists():
                break
            print(f"the simulation has ended before its time: {gone}", file=sys.stderr)
            return 1
        except (ObjectEvictedError, ObjectMissingError):
            pass  # it went on between our reading of the file and of the tiles: read it again
        time.sleep(0.02)
    return 0 if shown else 1


def look(step: int, places: list[Any], proxies: list[Any], picture: bool) -> None:
    """Prints what the tiles of one step hold, and the door through which they came."""
    store: Any = get_store(proxies[0])
    store.resolve(proxies)
    size = places[-1][0].stop
    v = np.empty((size, size))
    for (rows, columns), tile in zip(places, proxies, strict=True):
        v[rows, columns] = tile[1]
    doors = ", ".join(f"{n.operations} by {door}" for door, n in store.metrics.doors.items())
    print(f"step {step}: {len(proxies)} tiles, mean v {v.mean():.6f}, tiles so far: {doors}")
    if picture:
        print(in_letters(v))
    sys.stdout.flush()


def in_letters(v: np.ndarray[Any, Any]) -> str:
    """A field as text, as wide as the terminal; letters are twice as high as wide."""
    width = min(shutil.get_terminal_size().columns - 1, 2 * len(v))
    rows = np.arange(width // 2) * len(v) // (width // 2)
    columns = np.arange(width) * len(v) // width
    ink = np.clip(v[np.ix_(rows, columns)] / 0.4 * len(INK), 0, len(INK) - 1).astype(int)
    return "\n".join("".join(INK[i] for i in line) for line in ink)


if __name__ == "__main__":
    sys.exit(main())
