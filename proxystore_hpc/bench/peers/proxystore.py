"""ProxyStore 1.1: its Store over each connector that runs on one node, caches off."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from proxystore_hpc.bench.companion import Companion
from proxystore_hpc.bench.contestant import Burst, Operation
from proxystore_hpc.bench.peers.peer import Peer
from proxystore_hpc.bench.peers.server import ADVICE, free_port, redis_server
from proxystore_hpc.bench.peers.sides import HOST, Side, exchange, part_of, stored, times_of

__all__ = ["CONTESTANTS", "ProxyStoreSide", "connector_of"]

SIDE = f"{__name__}:ProxyStoreSide"
OPERATIONS = frozenset({Operation.EXCHANGE, Operation.PUT, Operation.GET})
PROXYSTORE = {"proxystore": "proxystore==1.1.0"}


def connector_of(kind: str, place: str) -> Any:
    """A connector.

    Args:
        kind: `"local"`, `"file"`, `"redis"`, `"endpoint"` or `"zmq"`.
        place: A folder, of the settings of this node's endpoint for `"endpoint"`; or
            `"host:port"` of the server, of this process's own for `"zmq"`.
    """
    host, _, port = place.rpartition(":")
    if kind == "local":
        from proxystore.connectors.local import LocalConnector

        return LocalConnector()
    if kind == "file":
        from proxystore.connectors.file import FileConnector

        return FileConnector(place, clear=False)
    if kind == "redis":
        from proxystore.connectors.redis import RedisConnector

        return RedisConnector(host, int(port))
    if kind == "endpoint":
        from proxystore.connectors.endpoint import EndpointConnector
        from proxystore.endpoint.config import get_configs

        return EndpointConnector([each.uuid for each in get_configs(place)], place)
    from proxystore_ex.connectors.dim.zmq import ZeroMQConnector

    return ZeroMQConnector(port=int(port), address=host)


class ProxyStoreSide(Side):
    """A store."""

    def __init__(self, nbytes: int, peer: Any, connector: str, place: str) -> None:
        super().__init__(nbytes, peer)
        from proxystore.store import Store

        warnings.simplefilter("ignore")
        self.store: Any = Store(
            f"benchmark-{os.getpid()}",
            connector_of(connector, place),
            cache_size=0,
            populate_target=False,
        )

    def put(self, data: Any) -> Any:
        """A key."""
        return self.store.put(data)

    def get(self, ticket: Any) -> Any:
        """The array."""
        return self.store.get(ticket)

    def drop(self, ticket: Any) -> None:
        """Evicts it."""
        self.store.evict(ticket)

    def close(self) -> None:
        """Closes the store."""
        self.store.close()


@contextmanager
def local(operation: Operation, nbytes: int) -> Iterator[Burst]:
    """One process puts and gets."""
    times = times_of(nbytes)
    with Companion(HOST, side=SIDE, nbytes=nbytes, connector="local", place="") as only:
        yield lambda: part_of(operation, *exchange(only, only, times))


@contextmanager
def folder() -> Iterator[str]:
    """In shared memory where there is such a place."""
    memory = "/dev/shm"
    where = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as made:
        yield made


@contextmanager
def redis() -> Iterator[str]:
    """A server, of which its connector takes the port."""
    with redis_server() as server:
        yield f"{server.host}:{server.port}"


@contextmanager
def port() -> Iterator[str]:
    """Where its own server, started by the first store of a node, will listen."""
    yield f"127.0.0.1:{free_port()}"


@contextmanager
def opener(
    connector: str,
    place: Callable[[], AbstractContextManager[str]],
    operation: Operation,
    nbytes: int,
) -> Iterator[Burst]:
    """Two stores of two processes."""
    with (
        place() as where,
        stored(SIDE, operation, nbytes, connector=connector, place=where) as burst,
    ):
        yield burst


CONTESTANTS = (
    Peer(
        "proxystore-local",
        "ProxyStore with LocalConnector: put and get in ONE process, so nothing is exchanged; "
        "what its Store itself costs",
        OPERATIONS,
        local,
        PROXYSTORE,
    ),
    Peer(
        "proxystore-file",
        "ProxyStore with FileConnector on /dev/shm",
        OPERATIONS,
        partial(opener, "file", folder),
        PROXYSTORE,
    ),
    Peer(
        "proxystore-redis",
        "ProxyStore with RedisConnector, over TCP on loopback",
        OPERATIONS,
        partial(opener, "redis", redis),
        {**PROXYSTORE, "redis": "redis"},
        {"redis-server": ADVICE},
    ),
    Peer(
        "proxystore-zmq",
        "ProxyStore with ZeroMQConnector of proxystore-ex and the server that it starts, over TCP "
        "on loopback",
        OPERATIONS,
        partial(opener, "zmq", port),
        {**PROXYSTORE, "proxystore_ex": "proxystore-ex==0.1.5", "zmq": "pyzmq"},
    ),
)
