"""Mercury and Margo by py-mochi-margo: calls that echo, between two processes of one node."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from proxystore_hpc.bench.contestant import Burst, Operation
from proxystore_hpc.bench.peers.peer import Peer
from proxystore_hpc.bench.peers.sides import Side, asked

__all__ = ["CONTESTANTS", "MargoSide"]

PROTOCOL = "na+sm"
CALL = "echo"
ADVICE = "py-mochi-margo, by spack (it is not on PyPI)"


class MargoSide(Side):
    """An engine that answers from its progress thread, or one that calls."""

    def __init__(self, nbytes: int, peer: Any) -> None:
        super().__init__(nbytes, peer)
        from pymargo import core

        # Its caller makes progress while it waits.
        mode = core.client if peer else core.server
        self.engine: Any = core.Engine(PROTOCOL, mode=mode, use_progress_thread=not peer)
        if peer:
            remote = self.engine.register(CALL)
            self.call = remote.on(self.engine.lookup(peer))
        else:
            self.engine.register(CALL, lambda handle, data: handle.respond(data))

    def address(self) -> str:
        """Of the engine that answers."""
        return str(self.engine.address)

    def echo(self, data: Any) -> Any:
        """What the call returns."""
        return self.call(data)

    def close(self) -> None:
        """Ends the engine."""
        self.engine.finalize()


def opener(operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
    """Two engines."""
    return asked(f"{__name__}:MargoSide", operation, nbytes)


CONTESTANTS = (
    Peer(
        "margo",
        "Margo's calls by py-mochi-margo over Mercury's shared memory, with a progress thread in "
        "the process that answers; arguments are pickled",
        frozenset({Operation.ECHO}),
        opener,
        {"pymargo": ADVICE},
    ),
)
