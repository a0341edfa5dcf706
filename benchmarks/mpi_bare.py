"""What a program of mpi4py does by itself: one-sided operations on windows of its own.

The window that is compared with the door's is of the same flavour: dynamic, with the very memory
attached that the door reads. The other is of `MPI_Win_allocate`, which most MPIs put into shared
memory on one node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from mpi4py import MPI

# In the allocated window, in words of 8 bytes before its memory: what the target looks at, and what
# messages by hand use.
TURN, TICKET, FLAG, SLOT = 0, 1, 2, 8
HEAD = 512
RECORD = 64
"""Bytes of a message by hand: what the door's records of an empty call have."""


class BareWindows:
    """A dynamic and an allocated window on all ranks, locked for all. Collective.

    Args:
        comm: The ranks; duplicated.
        nbytes: Memory of the allocated window.
    """

    def __init__(self, comm: MPI.Intracomm, nbytes: int) -> None:
        self.comm = comm.Dup()
        self.dynamic = MPI.Win.Create_dynamic(comm=self.comm)
        self.allocated = MPI.Win.Allocate(HEAD + nbytes, 1, comm=self.comm)
        self._memory = np.frombuffer(self.allocated.tomemory(), "u1")
        self._memory[:HEAD] = 0
        self._words = self._memory[:HEAD].view("u8")
        self._attached: Any = None
        for window in (self.dynamic, self.allocated):
            window.Lock_all(MPI.MODE_NOCHECK)
        self._one = np.ones(1, "u8")
        self._result = np.zeros(1, "u8")
        self._record = np.ones(RECORD, "u1")
        self.comm.Barrier()

    def free(self) -> None:
        """Collective."""
        del self._memory, self._words
        for window in (self.dynamic, self.allocated):
            window.Unlock_all()
            window.Free()
        self.comm.Free()

    # The memory of this rank.

    def attach(self, array: Any) -> int:
        """Where peers find an array in the dynamic window."""
        self.dynamic.Attach(array)
        self._attached = array
        return int(MPI.Get_address(array))

    def detach(self) -> None:
        if self._attached is not None:
            self.dynamic.Detach(self._attached)
            self._attached = None

    def fill(self, data: Any) -> None:
        """Puts bytes into the memory of the allocated window."""
        self._memory[HEAD : HEAD + data.nbytes] = data

    def holds(self, expected: Any) -> bool:
        """Whether the array that is attached has these bytes."""
        return bool(np.array_equal(self._attached[: expected.nbytes], expected))

    def word(self) -> int:
        """What was told last, by a plain load."""
        return int(self._words[TURN])

    def tell(self, rank: int, number: int) -> None:
        """Writes the word of another rank."""
        value = [np.array([number], "u8"), 1, MPI.UINT64_T]
        self.allocated.Accumulate(value, rank, (8 * TURN, 1, MPI.UINT64_T), op=MPI.REPLACE)
        self.allocated.Flush(rank)

    # Operations on the memory of another rank, as functions that do them once.

    def get(self, rank: int, address: int, into: Any) -> Callable[[], None]:
        """`MPI_Get` and flush in the dynamic window."""
        return self._moved(self.dynamic, self.dynamic.Get, rank, address, into)

    def get_allocated(self, rank: int, into: Any) -> Callable[[], None]:
        """`MPI_Get` and flush in the allocated window."""
        return self._moved(self.allocated, self.allocated.Get, rank, HEAD, into)

    def put(self, rank: int, address: int, data: Any) -> Callable[[], None]:
        """`MPI_Put` and flush in the dynamic window."""
        return self._moved(self.dynamic, self.dynamic.Put, rank, address, data)

    def gets(self, rank: int, address: int, into: Any, count: int) -> Callable[[], None]:
        """As many `MPI_Get` side by side, and one flush."""
        size = into.nbytes // count
        pieces = [
            ([into[i * size : (i + 1) * size], size, MPI.BYTE], (address + i * size, size))
            for i in range(count)
        ]
        window = self.dynamic

        def run() -> None:
            for here, (place, length) in pieces:
                window.Get(here, rank, (place, length, MPI.BYTE))
            window.Flush(rank)

        return run

    @staticmethod
    def _moved(window: MPI.Win, move: Any, rank: int, place: int, array: Any) -> Any:
        here, there = [array, array.nbytes, MPI.BYTE], (place, array.nbytes, MPI.BYTE)
        flush = window.Flush

        def run() -> None:
            move(here, rank, there)
            flush(rank)

        return run

    def message(self, rank: int) -> None:
        """A message by hand in the allocated window, without anybody who takes it.

        A ticket, the record, and a flag, each there before the next begins.
        """
        window, one = self.allocated, [self._one, 1, MPI.UINT64_T]
        window.Fetch_and_op(one, [self._result, 1, MPI.UINT64_T], rank, 8 * TICKET, MPI.SUM)
        window.Flush(rank)
        window.Put([self._record, RECORD, MPI.BYTE], rank, (8 * SLOT, RECORD, MPI.BYTE))
        window.Flush(rank)
        window.Accumulate(one, rank, (8 * FLAG, 1, MPI.UINT64_T))
        window.Flush(rank)
