"""How long all ranks of a job take to open a store together, and MPI for its part of that."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpi4py import MPI

__all__ = ["OPENINGS", "store_opened", "windows_made"]


def store_opened(comm: MPI.Intracomm) -> float:
    """Seconds until a store over mpi alone is open here, after all have met. Collective.

    Its windows are new, as those of a program's first store are.
    """
    from proxystore_hpc.mpi.job import finish
    from proxystore_hpc.store import Store

    # The windows of stores before, or the new one would take them over.
    finish()
    comm.Barrier()
    began = time.perf_counter()
    store = Store.from_mpi(comm, "bench-open", doors=("mpi",), capacity=1 << 26)
    elapsed = time.perf_counter() - began
    comm.Barrier()
    store.close()
    finish()
    return elapsed


def windows_made(comm: MPI.Intracomm) -> float:
    """Seconds for the communicator and the windows that a store needs, made by MPI. Collective."""
    from mpi4py import MPI

    from proxystore_hpc.mpi.windows import load_module

    nbytes = load_module().WINDOW_NBYTES
    comm.Barrier()
    began = time.perf_counter()
    own = comm.Dup()
    messages = MPI.Win.Allocate(nbytes, 1, comm=own)
    memory = MPI.Win.Create_dynamic(comm=own)
    messages.Lock_all(MPI.MODE_NOCHECK)
    elapsed = time.perf_counter() - began
    messages.Unlock_all()
    for window in (messages, memory):
        window.Free()
    own.Free()
    return elapsed


OPENINGS = {"store": store_opened, "windows": windows_made}
"""What `ranks.Leader.open_all` can be asked for."""
