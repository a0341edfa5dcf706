"""What the mpi door wants the ranks to know of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxystore_hpc.mpi.meeting import Introduction, Meeting
from proxystore_hpc.mpi.windows import check_mpi, offer_left_over, thread_level

if TYPE_CHECKING:
    from mpi4py import MPI

    from proxystore_hpc._core import Instance


def introduction(comm: MPI.Intracomm, name: str, wants_mpi: bool, *, alone: bool) -> Introduction:
    """What this rank tells the others.

    Args:
        comm: The ranks.
        name: Of the store or engine.
        wants_mpi: It shall have the mpi door.
        alone: No other door shall lead off the node.

    Raises:
        DoorUnavailableError: The mpi door is wanted and cannot be had.
    """
    if not wants_mpi:
        return Introduction(name)
    check_mpi()
    return Introduction(
        name,
        wants_mpi=True,
        mpi_alone=alone,
        serves_mpi=thread_level() == "multiple",
        windows=offer_left_over(comm),
    )


def introduce(instance: Instance, meeting: Meeting, addresses: Sequence[bytes]) -> None:
    """Lets the mpi door carry the hello to ranks that no socket of the node leads to.

    Args:
        instance: Of this rank, with the door open.
        meeting: What the ranks have told.
        addresses: Of the instances of all ranks.
    """
    instance.introduce("mpi", {rank: addresses[rank] for rank in meeting.far()})
