"""What others offer for the same work, one file each."""

from __future__ import annotations

import importlib

from proxystore_hpc.bench.contestant import Contestant

__all__ = ["MODULES", "peers"]

MODULES = (
    "proxystore",
    "redis",
    "zmq",
    "grpc",
    "shared_memory",
    "mpi",
    "ray",
    "dask",
    "dragon",
    "ucxx",
    "nixl",
    "margo",
)


def peers() -> list[Contestant]:
    """All of them, whether they can take part here or not."""
    found: list[Contestant] = []
    for name in MODULES:
        found += importlib.import_module(f"{__name__}.{name}").CONTESTANTS
    return found
