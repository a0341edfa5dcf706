"""NIXL over its UCX backend: an array copied into registered memory there, read from here.

Transfers are prepared before the clock runs, as its users do.
"""

from __future__ import annotations

import itertools
import os
import threading
from contextlib import AbstractContextManager
from typing import Any

from proxystore_hpc.bench.contestant import Burst, Operation
from proxystore_hpc.bench.peers.peer import Peer
from proxystore_hpc.bench.peers.sides import Side, stored, times_of

__all__ = ["CONTESTANTS", "NixlSide"]

BACKEND = "UCX"


class NixlSide(Side):
    """An agent with registered memory for as many arrays as a burst has."""

    def __init__(self, nbytes: int, peer: Any) -> None:
        super().__init__(nbytes, peer)
        os.environ.setdefault("UCX_WARN_UNUSED_ENV_VARS", "n")
        os.environ.setdefault("NIXL_LOG_LEVEL", "WARN")
        import numpy as np

        # Its package `nixl` only chooses one for the CUDA of the machine.
        from nixl_cu12._api import nixl_agent, nixl_agent_config

        count = times_of(nbytes)
        self.memory = np.zeros((count, nbytes), "u1")
        self.name = f"{'reader' if peer else 'holder'}-{os.getpid()}"
        # Its progress thread would spin while it is the turn of others: the holder makes progress
        # by itself while there is something to be got.
        config = nixl_agent_config(enable_prog_thread=False, backends=[BACKEND])
        self.agent: Any = nixl_agent(self.name, config)
        here = self.memory.ctypes.data
        self.registered = self.agent.register_memory(
            [(here, self.memory.nbytes, 0, "")], "DRAM", backends=[BACKEND]
        )
        self.slots = itertools.cycle(range(count))
        self.transfers: list[Any] = []
        self.asked, self.ended = threading.Event(), False
        if not peer:
            self.thread = threading.Thread(target=self._progress, daemon=True)
            self.thread.start()
        else:
            metadata, there = peer
            holder = self.agent.add_remote_agent(metadata)
            for slot in range(count):
                local, remote = (
                    self.agent.get_xfer_descs([(base + slot * nbytes, nbytes, 0)], "DRAM")
                    for base in (here, there)
                )
                self.transfers.append(self.agent.initialize_xfer("READ", local, remote, holder))

    def address(self) -> tuple[bytes, int]:
        """What an agent must know of this one, and where the memory is."""
        return self.agent.get_agent_metadata(), self.memory.ctypes.data

    def put(self, data: Any) -> int:
        """The number of a slot."""
        slot = next(self.slots)
        self.memory[slot] = data
        return slot

    def _progress(self) -> None:
        while self.asked.wait() and not self.ended:
            self.agent.get_new_notifs()

    def attend(self) -> None:
        """Makes progress from now on."""
        self.asked.set()

    def drop(self, ticket: int) -> None:
        """Ends that."""
        self.asked.clear()

    def get(self, ticket: int) -> Any:
        """The reader's own slot."""
        transfer = self.transfers[ticket]
        state = self.agent.transfer(transfer)
        while state == "PROC":
            state = self.agent.check_xfer_state(transfer)
        if state != "DONE":
            raise RuntimeError(f"the transfer ended as {state}")
        return self.memory[ticket]

    def release(self, ticket: int) -> None:
        """Forgets the bytes, so that the next ones must come."""
        self.memory[ticket] = 0

    def close(self) -> None:
        """Ends the agent."""
        self.ended = True
        self.asked.set()
        if not self.peer:
            self.thread.join()
        for transfer in self.transfers:
            self.agent.release_xfer_handle(transfer)
        self.agent.deregister_memory(self.registered)


def opener(operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
    """Two agents."""
    return stored(f"{__name__}:NixlSide", operation, nbytes)


CONTESTANTS = (
    Peer(
        "nixl",
        "NIXL with its UCX backend: a copy into registered memory there, a prepared READ into warm "
        "registered memory here, polled",
        frozenset({Operation.EXCHANGE, Operation.PUT, Operation.GET}),
        opener,
        {"nixl_cu12": "nixl-cu12"},
    ),
)
