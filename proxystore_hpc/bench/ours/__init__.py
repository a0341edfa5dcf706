"""What this package does, as contestants."""

from __future__ import annotations

from typing import Any

from proxystore_hpc.bench.contestant import Contestant

__all__ = ["ours"]


def ours(leader: Any = None) -> list[Contestant]:
    """All of them, whether they can take part here or not, and MPI's own operations.

    Args:
        leader: The `ranks.Leader` if this process is rank 0 of a job.
    """
    from proxystore_hpc.bench.ours.crowds import Crowd
    from proxystore_hpc.bench.ours.doors import Door
    from proxystore_hpc.bench.ours.engines import Calls
    from proxystore_hpc.bench.ours.futures import Futures, Streams
    from proxystore_hpc.bench.ours.mpi import mpi
    from proxystore_hpc.bench.ours.processes import Beside, Process
    from proxystore_hpc.bench.ours.proxies import Proxies
    from proxystore_hpc.bench.ours.ranks_starting import Ranks
    from proxystore_hpc.bench.ours.ways import ways

    return [
        *map(Door, ways()),
        *mpi(leader),
        *(Calls(way) for way in ways() if way.name == "shm" or way.door == "ucx"),
        *(Crowd(way, n) for way in ways() if way.name in ("shm", "ucx-tcp") for n in (1, 2, 4)),
        Futures(),
        Streams(stored=True),
        Streams(stored=False),
        *(Proxies(through=through) for through in (True, False)),
        *map(Process, ("python+numpy", "store", "engine")),
        *(Ranks(n, store=store, leader=leader) for n in (2, 4) for store in (False, True)),
        *(Beside(busy=busy) for busy in (True, False)),
    ]
