"""Two ranks with a store over MPI alone: rank 0 puts, rank 1 on the other node gets."""

from __future__ import annotations

import sys
import time
from typing import Any

from proxystore_hpc.bench.data import pattern
from proxystore_hpc.bench.peers.job import connect
from proxystore_hpc.bench.peers.sides import looked_at

__all__ = ["Rank"]

DOZE = 1e-3
REQUEST, ANSWER = 1, 2


def _received(comm: Any, source: int, tag: int) -> Any:
    # Asleep: the store's own thread makes MPI progress, and the processor is the other rank's.
    while not comm.Iprobe(source, tag):
        time.sleep(DOZE)
    return comm.recv(source=source, tag=tag)


def _opened(comm: Any, capacity: int) -> Any:
    from proxystore_hpc import Store

    return Store.from_mpi(comm, "sc23", doors=("mpi",), capacity=capacity, cache_size=0)


class Rank:
    """Role, of rank 0."""

    def __init__(self, capacity: int) -> None:
        from mpi4py import MPI

        self.comm = MPI.COMM_WORLD
        self.comm.send(capacity, 1, REQUEST)
        self.store = _opened(self.comm, capacity)

    def exchange(self, nbytes: int, times: int) -> tuple[float, float, str]:
        """Seconds of a put here and of the get there, and what was wrong with the bytes."""
        data = pattern(nbytes)
        began = time.perf_counter()
        keys = [self.store.put(data) for _ in range(times)]
        put_s = (time.perf_counter() - began) / times
        self.comm.send((nbytes, keys), 1, REQUEST)
        get_s, complaint = _received(self.comm, 1, ANSWER)
        for key in keys:
            self.store.evict(key)
        return put_s, get_s, complaint

    def close(self) -> None:
        """Ends both ranks."""
        self.comm.send(None, 1, REQUEST)
        self.store.close()


def attend(comm: Any) -> None:
    """What rank 1 does."""
    with _opened(comm, _received(comm, 0, REQUEST)) as store:
        while (request := _received(comm, 0, REQUEST)) is not None:
            nbytes, keys = request
            seconds, complaint = 0.0, ""
            for key in keys:
                began = time.perf_counter()
                found = store.get_or_raise(key)
                seconds += time.perf_counter() - began
                complaint = complaint or looked_at(found, nbytes)
                del found
            if set(store.metrics.doors) != {"mpi"}:
                complaint = f"the doors {sorted(store.metrics.doors)} were used, not mpi"
            comm.send((seconds / len(keys), complaint), 0, ANSWER)


def main(path: str, role: str) -> None:
    """A rank of the job."""
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == 0:
        connect(path, role)
    else:
        attend(MPI.COMM_WORLD)


if __name__ == "__main__":
    main(*sys.argv[1:])
