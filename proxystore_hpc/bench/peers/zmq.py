"""ZeroMQ by pyzmq, over ipc: an array that is asked for, and an echo."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from proxystore_hpc.bench.contestant import Burst, Operation
from proxystore_hpc.bench.data import pattern
from proxystore_hpc.bench.peers.peer import Peer
from proxystore_hpc.bench.peers.sides import Side, asked

__all__ = ["CONTESTANTS", "ZmqSide"]

# From here on it is faster not to copy.
LARGE = 64 << 10
FETCH = b"fetch"


class ZmqSide(Side):
    """A REP socket served by a thread, or the REQ socket that asks it."""

    def __init__(self, nbytes: int, peer: Any, folder: str) -> None:
        super().__init__(nbytes, peer)
        import zmq

        self.context = zmq.Context()
        self.large = nbytes >= LARGE
        url = f"ipc://{folder}/socket"
        self.socket: Any
        if peer:
            self.socket = self.context.socket(zmq.REQ)
            self.socket.setsockopt(zmq.LINGER, 0)
            self.socket.connect(url)
        else:
            self.socket = self.context.socket(zmq.REP)
            self.socket.bind(url)
            self.thread = threading.Thread(target=self._serve, daemon=True)
            self.thread.start()

    def _serve(self) -> None:
        import zmq

        data = pattern(self.nbytes)
        while True:
            try:
                _, *rest = self.socket.recv_multipart(copy=False)
                self.socket.send(rest[0] if rest else data, copy=not self.large)
            except zmq.ContextTerminated:
                self.socket.close(0)
                return

    def fetch(self) -> Any:
        """A view of the message."""
        import numpy as np

        self.socket.send(FETCH)
        return np.frombuffer(self._answer(), "u1")

    def echo(self, data: Any) -> Any:
        """The message, or a view of it."""
        self.socket.send_multipart([b"", data], copy=not self.large)
        return self._answer()

    def _answer(self) -> Any:
        answer = self.socket.recv(copy=not self.large)
        return answer.buffer if self.large else answer

    def close(self) -> None:
        """Ends the sockets."""
        if self.peer:
            self.context.destroy(0)
        else:
            self.context.term()
            self.thread.join()


@contextmanager
def opener(operation: Operation, nbytes: int) -> Iterator[Burst]:
    """A server and a client."""
    with (
        tempfile.TemporaryDirectory() as folder,
        asked(f"{__name__}:ZmqSide", operation, nbytes, folder=folder) as burst,
    ):
        yield burst


CONTESTANTS = (
    Peer(
        "zmq",
        "pyzmq REQ/REP over ipc; an array is sent when asked for, without copies from 64 KiB on",
        frozenset({Operation.EXCHANGE, Operation.ECHO}),
        opener,
        {"zmq": "pyzmq"},
    ),
)
