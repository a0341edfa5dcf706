"""`multiprocessing.shared_memory`: a segment made and filled there, attached here.

Its user passes names and sizes, and says when it goes; it knows no types, owners or other nodes.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Any

from proxystore_hpc.bench.contestant import Burst, Operation
from proxystore_hpc.bench.peers.peer import Peer
from proxystore_hpc.bench.peers.sides import Side, stored

__all__ = ["CONTESTANTS", "SharedMemorySide"]


class SharedMemorySide(Side):
    """Segments."""

    def __init__(self, nbytes: int, peer: Any) -> None:
        super().__init__(nbytes, peer)
        self.segments: dict[str, Any] = {}

    def put(self, data: Any) -> str:
        """The segment's name."""
        from multiprocessing.shared_memory import SharedMemory

        import numpy as np

        segment: Any = SharedMemory(create=True, size=data.nbytes)
        np.copyto(np.frombuffer(segment.buf, "u1", data.nbytes), data)
        self.segments[segment.name] = segment
        name: str = segment.name
        return name

    def get(self, ticket: str) -> Any:
        """A view of the segment."""
        import numpy as np

        segment = attached(ticket)
        self.segments[ticket] = segment
        return np.frombuffer(segment.buf, "u1", self.nbytes)

    def release(self, ticket: str) -> None:
        """Unmaps it."""
        self.segments.pop(ticket).close()

    def drop(self, ticket: str) -> None:
        """Unmaps and removes it."""
        segment = self.segments.pop(ticket)
        segment.close()
        segment.unlink()

    def close(self) -> None:
        """Removes what is left."""
        for segment in self.segments.values():
            segment.close()
            if not self.peer:
                segment.unlink()


def attached(name: str) -> Any:
    """A segment of another process, which stays its own."""
    from multiprocessing import resource_tracker
    from multiprocessing.shared_memory import SharedMemory

    if sys.version_info >= (3, 13):
        return SharedMemory(name, track=False)
    segment = SharedMemory(name)
    # Else it is removed when this process ends.
    resource_tracker.unregister(f"/{name}", "shared_memory")
    return segment


def opener(operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
    """Two processes."""
    return stored(f"{__name__}:SharedMemorySide", operation, nbytes)


CONTESTANTS = (
    Peer(
        "shared-memory",
        "multiprocessing.shared_memory: a segment of its own for each array, made there and "
        "attached here; names, sizes and removal are up to its user",
        frozenset({Operation.EXCHANGE, Operation.PUT, Operation.GET}),
        opener,
    ),
)
