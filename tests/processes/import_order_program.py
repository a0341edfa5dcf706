"""Run by test_import_orders.py on every rank: loads UCX and MPI in the given order and uses both.

Writes what it found to a file in the given directory: launchers mix the output of ranks.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from proxystore_hpc import ucx_runtime


def mpi_is_initialized() -> bool:
    """Asked without mpi4py, whose import would answer the question."""
    try:
        library = ctypes.CDLL("libmpi.so.40", mode=os.RTLD_NOLOAD)
    except OSError:
        return False
    flag = ctypes.c_int(0)
    library.MPI_Initialized(ctypes.byref(flag))
    return bool(flag.value)


def open_ours() -> tuple[str, object]:
    """Opens a door, which makes a UCX context and a worker; returns the library that it runs on."""
    module = ucx_runtime.import_ucx_module()
    return module.library_path(), module.create_door()


def communicate() -> bool:
    """A broadcast, and a one-sided read from the neighbour."""
    import numpy as np
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    data = np.arange(1000.0) if world.rank == 0 else np.zeros(1000)
    world.Bcast(data)
    window = MPI.Win.Allocate(8, comm=world)
    neighbour = (world.rank + 1) % world.size
    np.frombuffer(window, dtype="i8")[:] = world.rank
    world.Barrier()
    received = np.full(1, -1, dtype="i8")
    window.Lock(neighbour, MPI.LOCK_SHARED)
    window.Get(received, neighbour)
    window.Unlock(neighbour)
    world.Barrier()
    window.Free()
    return bool((data == np.arange(1000.0)).all() and received[0] == neighbour)


def main(order: str, answers: str) -> None:
    initialized_by_us = False
    if order == "ours":
        library, door = open_ours()
        initialized_by_us = mpi_is_initialized()
    from mpi4py import MPI

    if order == "mpi":
        library, door = open_ours()
    communicated = communicate()
    del door
    maps = Path("/proc/self/maps").read_text().splitlines()
    answer = {
        **asdict(ucx_runtime.load()),
        "library": library,
        "rank": MPI.COMM_WORLD.rank,
        "copies": sorted({line.split()[-1] for line in maps if "/libucp.so" in line}),
        "communicated": communicated,
        "initialized_by_us": initialized_by_us,
    }
    Path(answers, f"{MPI.COMM_WORLD.rank}.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
