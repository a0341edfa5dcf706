"""Dask distributed: one client scatters an array to a worker, another one gathers it."""

from __future__ import annotations

import logging
import tempfile
from contextlib import ExitStack
from typing import Any

from proxystore_hpc.bench.contestant import Operation
from proxystore_hpc.bench.peers.kept import Companions, Kept
from proxystore_hpc.bench.peers.peer import Peer
from proxystore_hpc.bench.peers.sides import Side, pair, storing

__all__ = ["CONTESTANTS", "DaskSide"]


class DaskSide(Side):
    """A client; that of the holding process has the cluster."""

    def __init__(self, nbytes: int, peer: Any, folder: str) -> None:
        super().__init__(nbytes, peer)
        import dask.config
        import distributed

        dask.config.set({"temporary-directory": folder})
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        self.distributed: Any = distributed
        self.cluster: Any = None
        if not peer:
            self.cluster = distributed.LocalCluster(
                n_workers=1,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                memory_limit=0,
                local_directory=folder,
            )
        self.client: Any = distributed.Client(
            peer or self.cluster, direct_to_workers=True, set_as_default=False
        )
        self.futures: dict[str, Any] = {}

    def address(self) -> str:
        """Of the scheduler."""
        return str(self.cluster.scheduler_address)

    def put(self, data: Any) -> str:
        """Key of the future."""
        future = self.client.scatter(data, direct=True, hash=False)
        self.futures[future.key] = future
        return str(future.key)

    def get(self, ticket: str) -> Any:
        """The array."""
        # Another client's, so nobody told this one that it is there.
        future = self.distributed.Future(ticket, client=self.client, state="memory")
        return self.client.gather(future, direct=True)

    def drop(self, ticket: str) -> None:
        """Lets it go."""
        del self.futures[ticket]

    def close(self) -> None:
        """Ends client and cluster."""
        self.futures.clear()
        self.client.close()
        if self.cluster is not None:
            self.cluster.close()


def start(stack: ExitStack, most: int) -> Companions:
    """A cluster with one worker, and two clients."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
    return stack.enter_context(pair(f"{__name__}:DaskSide", most, folder=folder))


KEPT = Kept(start, storing)
CONTESTANTS = (
    Peer(
        "dask",
        "Dask distributed: an array scattered to a worker by one client and gathered by another, "
        "directly, over TCP on loopback",
        frozenset({Operation.EXCHANGE, Operation.PUT, Operation.GET}),
        KEPT.open,
        {"distributed": "distributed"},
        kept=KEPT,
        slow=True,
    ),
)
