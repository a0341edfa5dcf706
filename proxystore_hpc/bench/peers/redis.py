"""Redis by redis-py: the bytes of an array set by one process, and got by another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from proxystore_hpc.bench.contestant import Burst, Operation
from proxystore_hpc.bench.peers.peer import Peer
from proxystore_hpc.bench.peers.server import ADVICE, redis_server
from proxystore_hpc.bench.peers.sides import Side, stored

__all__ = ["CONTESTANTS", "RedisSide"]


class RedisSide(Side):
    """A client of the server."""

    def __init__(self, nbytes: int, peer: Any, path: str) -> None:
        super().__init__(nbytes, peer)
        import redis

        self.client: Any = redis.Redis(unix_socket_path=path)
        self.client.ping()
        self.numbers = itertools.count()

    def put(self, data: Any) -> str:
        """A key."""
        key = f"array-{next(self.numbers)}"
        self.client.set(key, memoryview(data))
        return key

    def get(self, ticket: str) -> Any:
        """A view of the bytes that came."""
        import numpy as np

        return np.frombuffer(self.client.get(ticket), "u1")

    def drop(self, ticket: str) -> None:
        """Deletes it."""
        self.client.delete(ticket)

    def close(self) -> None:
        """Disconnects."""
        self.client.close()


@contextmanager
def opener(operation: Operation, nbytes: int) -> Iterator[Burst]:
    """A server, and two clients of it."""
    with (
        redis_server() as server,
        stored(f"{__name__}:RedisSide", operation, nbytes, path=server.path) as burst,
    ):
        yield burst


CONTESTANTS = (
    Peer(
        "redis",
        "redis-py and a Redis server, over a Unix socket: bare bytes, SET and GET",
        frozenset({Operation.EXCHANGE, Operation.PUT, Operation.GET}),
        opener,
        {"redis": "redis"},
        {"redis-server": ADVICE},
    ),
)
