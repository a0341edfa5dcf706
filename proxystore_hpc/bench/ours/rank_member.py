"""What a rank does in a crowd that reads through the mpi door."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from proxystore_hpc.bench.companion import CompanionError
from proxystore_hpc.bench.ours.crowds import Reading
from proxystore_hpc.bench.ours.ways import Way, capacity_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpi4py import MPI

__all__ = ["RankMember"]

_PATIENCE = 30.0
# Short against a burst, but the processor is another's meanwhile.
_DOZE = 50e-6


class RankMember(Reading):
    """Owns an array, and reads those of other ranks. Collective over the members.

    Args:
        name: Of the store.
        comm: The ranks of the job; those that are no members need not take part.
        members: Ranks.
        readers: Those of them that read at once.
        nbytes: Of an array.
    """

    def __init__(
        self,
        name: str,
        comm: MPI.Intracomm,
        members: Sequence[int],
        readers: Sequence[int],
        nbytes: int,
    ) -> None:
        from mpi4py import MPI

        from proxystore_hpc.store import Store

        self._members = comm.Create_group(comm.group.Incl(members))
        self._readers: MPI.Comm = MPI.COMM_NULL
        if comm.rank in readers:
            self._readers = comm.Create_group(comm.group.Incl(readers))
        store = Store.from_mpi(
            self._members,
            name,
            doors=("mpi",),
            cache_size=0,
            capacity=capacity_for(nbytes),
        )
        super().__init__(store, Way("mpi", "mpi", "", {}), nbytes)

    def read_together(self) -> float:
        """As `read`, with all readers at once.

        Raises:
            CompanionError: A reader does not come.
        """
        _meet(self._readers)
        return self.read()

    def close(self) -> None:
        """Closes the store. Collective."""
        _meet(self._members)
        super().close()
        _meet(self._members)
        if self._readers:
            self._readers.Free()
        self._members.Free()


def _meet(comm: MPI.Comm) -> None:
    everybody, end = comm.Ibarrier(), time.monotonic() + _PATIENCE
    while not everybody.Test():
        if time.monotonic() > end:
            raise CompanionError(f"{comm.size} ranks did not meet within {_PATIENCE:.0f} s")
        time.sleep(_DOZE)
