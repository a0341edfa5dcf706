"""The mpi door, made of a communicator and windows of mpi4py."""

from __future__ import annotations

from collections.abc import Mapping

WINDOW_NBYTES: int

def identify(library: str, constants: Mapping[str, int]) -> tuple[str, str]:
    """Family ("Open MPI" or "MPICH") and version of the MPI in use.

    Args:
        library: File of mpi4py's extension module.
        constants: Handles of MPI by name.

    Raises:
        DoorUnavailableError: It is another one, or older than MPI 3.0.
    """

def create_door(
    *,
    library: str,
    constants: Mapping[str, int],
    comm: int,
    messages: int,
    memory: int,
    base: int,
    locked: bytearray,
    rank: int,
    ranks: int,
    job: bytes,
    threads: str,
    idle: float = 2e-3,
) -> object:
    """Makes a door for `Instance.open_door`, as a capsule.

    Args:
        library: File of mpi4py's extension module.
        constants: Handles of MPI by name.
        comm: Handle of a communicator of the door's own.
        messages: Handle of a window of `WINDOW_NBYTES` bytes on every rank, in bytes, locked.
        memory: Handle of a dynamic window.
        base: Address of the window `messages` here.
        locked: A byte for each rank, 1 if it is locked in `memory`; outlives the door.
        rank: Rank in the communicator.
        ranks: Size of the communicator.
        job: 16 bytes, the same on all ranks.
        threads: Who may call MPI: "multiple", "serialized" or "main".
        idle: Longest sleep of the progress thread in seconds.

    Raises:
        DoorUnavailableError: The MPI is unknown.
        ProxyStoreHpcError: MPI refused.
    """

def begin_alone() -> None:
    """From now on one thread at a time calls MPI, doors included: MPI_Finalize has begun.

    Waits, without the GIL, for those that are in MPI.
    """

def enter_alone() -> bool:
    """Waits, without the GIL, until no other thread is in MPI, where that is not allowed.

    Returns:
        Whether it has; `leave_alone` is then to be called by the same thread.
    """

def leave_alone() -> None:
    """Lets other threads call MPI."""
