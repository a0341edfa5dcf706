"""What the machine allows: bare copies, sockets, UCX's and MPI's own operations."""

from __future__ import annotations

from proxystore_hpc.bench.contestant import Contestant

__all__ = ["limits"]


def limits() -> list[Contestant]:
    """All of them, whether they can be measured here or not."""
    from proxystore_hpc.bench.limits.memory import Memcpy, Readv
    from proxystore_hpc.bench.limits.perftest import Perftest
    from proxystore_hpc.bench.limits.sockets import Socket

    return [
        Memcpy(),
        Readv(),
        *map(Socket, ("unix", "tcp", "tls")),
        Perftest("shm", "posix,sysv,cma"),
        Perftest("tcp", "tcp", "lo"),
        Perftest("rdma", "ib"),
    ]
