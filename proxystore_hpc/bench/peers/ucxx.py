"""UCXX, the Python binding of UCX by RAPIDS: an array that is asked for, and an echo."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from typing import Any

from proxystore_hpc.bench.contestant import Burst, Operation
from proxystore_hpc.bench.data import pattern
from proxystore_hpc.bench.peers.peer import Peer
from proxystore_hpc.bench.peers.sides import Side, asked
from proxystore_hpc.bench.peers.suspension import Suspension

__all__ = ["CONTESTANTS", "UcxxSide"]

FETCH, ECHO = 1, 2
PATIENCE = 60.0


class UcxxSide(Side):
    """A listener, or an endpoint; asyncio runs in a thread, so that the side is an ordinary one."""

    def __init__(self, nbytes: int, peer: Any) -> None:
        super().__init__(nbytes, peer)
        os.environ.setdefault("UCX_WARN_UNUSED_ENV_VARS", "n")
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self._run(self._connect() if peer else self._listen())

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    async def _listen(self) -> None:
        import ucxx

        self.listener: Any = ucxx.create_listener(self._serve)

    async def _connect(self) -> None:
        import numpy as np
        import ucxx

        self.endpoint: Any = await ucxx.create_endpoint("127.0.0.1", self.peer)
        self.request = np.zeros(1, "u1")

    def address(self) -> int:
        """The listener's port."""
        return int(self.listener.port)

    async def _serve(self, endpoint: Any) -> None:
        import numpy as np
        import ucxx

        data, request = pattern(self.nbytes), np.zeros(1, "u1")
        received = np.empty(self.nbytes, "u1")
        while True:
            try:
                await endpoint.recv(request)
                if request[0] == ECHO:
                    await endpoint.recv(received)
                await endpoint.send(received if request[0] == ECHO else data)
            except ucxx.exceptions.UCXError:  # it has gone
                return

    def fetch(self) -> Any:
        """A new array."""
        return self._run(self._ask(FETCH, None))

    def echo(self, data: Any) -> Any:
        """A new array."""
        return self._run(self._ask(ECHO, data))

    async def _ask(self, what: int, data: Any) -> Any:
        import numpy as np

        self.request[0] = what
        await self.endpoint.send(self.request)
        if data is not None:
            await self.endpoint.send(np.frombuffer(data, "u1"))
        found = np.empty(self.nbytes, "u1")
        await self.endpoint.recv(found)
        return found

    def close(self) -> None:
        """Ends the connection."""
        if self.peer:
            self._run(self.endpoint.close())
        else:
            self.loop.call_soon_threadsafe(self.listener.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


def opener(operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
    """A listener and an endpoint."""
    return asked(f"{__name__}:UcxxSide", operation, nbytes)


CONTESTANTS = (
    Peer(
        "ucxx",
        "UCXX with asyncio, as it is by default: tagged messages over what UCX chooses; an array "
        "is sent when asked for, into one that the receiver makes, knowing its size",
        frozenset({Operation.EXCHANGE, Operation.ECHO}),
        opener,
        {"ucxx": "ucxx-cu12"},
        suspension=Suspension(),
    ),
)
