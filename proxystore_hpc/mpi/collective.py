"""What ranks do together before they open a store or an engine."""

from __future__ import annotations

import hashlib
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from proxystore_hpc.exceptions import (
    ConfigError,
    InvalidArgumentError,
    ProxyStoreHpcError,
    StoreError,
)
from proxystore_hpc.mpi.contact import addresses_here, choose_contact
from proxystore_hpc.utils.network import address_of

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")

LINGER = 30.0
"""Seconds that a rank which ends waits for others that may never close."""


@dataclass(frozen=True)
class Place:
    """Where a rank is among the others.

    Attributes:
        secret: 16 bytes that the ranks share.
        on_node: Ranks on this node.
        host: Address where ranks on other nodes reach this one, empty if all are on one node.
    """

    secret: bytes
    on_node: int
    host: str

    @property
    def door_job(self) -> bytes:
        """What tells the mpi doors of these ranks from others; told to peers, unlike the secret."""
        return hashlib.blake2b(self.secret, digest_size=16, person=b"mpi door").digest()


def find_place(comm: MPI.Intracomm, interface: str | None) -> Place:
    """Where this rank is. Collective.

    Args:
        comm: The ranks.
        interface: Network interface or address that other nodes shall use, `None` to find one.

    Raises:
        ConfigError: No network leads to the other nodes.
    """
    from mpi4py import MPI

    secret: bytes = comm.bcast(secrets.token_bytes(16) if comm.rank == 0 else None)
    local = comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank)
    on_node, leader = local.size, local.bcast(comm.rank)
    local.Free()
    if on_node == comm.size:
        return Place(secret, on_node, "")
    told = comm.allgather((leader, addresses_here() if leader == comm.rank else None))
    nodes = {rank: addresses for rank, addresses in told if addresses is not None}

    def contact_host() -> str:
        if interface is not None:
            return address_of(interface)
        return choose_contact(list(nodes.values()), list(nodes).index(leader))

    return Place(secret, on_node, agreed(comm, contact_host))


def parse_linger(options: dict[str, Any]) -> float:
    """Takes `linger` out of the arguments of `from_mpi`.

    Raises:
        ConfigError: It is no time.
    """
    linger = options.pop("linger", LINGER)
    if isinstance(linger, bool) or not isinstance(linger, (int, float)) or not linger >= 0:
        raise ConfigError(f"linger: a number of seconds is needed, not {linger!r}")
    return float(linger)


def check_communicator(comm: Any) -> None:
    """Says what is wrong before anything collective begins.

    Raises:
        InvalidArgumentError: `comm` is no intracommunicator, or MPI does not run.
    """
    # Were it not imported, there could be no communicator; importing it here would start MPI.
    mpi: Any = sys.modules.get("mpi4py.MPI")
    if mpi is None or not isinstance(comm, mpi.Comm):
        raise InvalidArgumentError(
            "comm: a communicator of mpi4py is needed, such as MPI.COMM_WORLD, not "
            f"{type(comm).__name__}"
        )
    if not mpi.Is_initialized():
        raise InvalidArgumentError(
            "comm: MPI is not initialized: call MPI.Init() first, or leave "
            "mpi4py.rc.initialize as it is"
        )
    if mpi.Is_finalized():
        raise InvalidArgumentError("comm: MPI was finalized already; no store can be opened on it")
    if comm == mpi.COMM_NULL:
        raise InvalidArgumentError(
            "comm: this is MPI.COMM_NULL; call from_mpi on the ranks that are in the communicator"
        )
    if comm.Is_inter():
        raise InvalidArgumentError(
            "comm: this is an intercommunicator; merge it first: comm.Merge()"
        )


def agreed(comm: MPI.Intracomm, attempt: Callable[[], T]) -> T:
    """What `attempt` returns, once it succeeded on every rank. Collective.

    Raises:
        ProxyStoreHpcError: The error of the lowest rank where it failed, naming the rank. A rank
            that failed with an exception of another kind raises that one.
    """
    error: BaseException | None = None
    try:
        result = attempt()
    except Exception as caught:
        error = caught
    failures = comm.allgather(_portable(error))
    for rank, failure in enumerate(failures):
        if failure is not None:
            if error is not None and not isinstance(error, ProxyStoreHpcError):
                raise error
            raise _of_rank(failure, rank, comm.size) from error
    return result


def _portable(error: BaseException | None) -> ProxyStoreHpcError | None:
    if error is None or isinstance(error, ProxyStoreHpcError):
        return error
    return StoreError(f"{type(error).__name__}: {error}")


def _of_rank(failure: ProxyStoreHpcError, rank: int, size: int) -> ProxyStoreHpcError:
    text = failure.args[0] if failure.args else type(failure).__name__
    failure.args = (f"{text} (on rank {rank} of {size})", *failure.args[1:])
    return failure
