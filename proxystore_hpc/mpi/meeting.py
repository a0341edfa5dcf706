"""What the ranks tell each other, in one gathering, before they open a store or an engine."""

from __future__ import annotations

import hashlib
import platform
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from proxystore_hpc.exceptions import ConfigError, ProxyStoreHpcError, StoreError
from proxystore_hpc.mpi.contact import addresses_here, choose_contact
from proxystore_hpc.utils.network import address_of

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NETWORK = Path("/proc/self/ns/net")


@dataclass(frozen=True)
class Introduction:
    """What one rank tells.

    Attributes:
        name: Of the store or engine.
        wants_mpi: It shall have the mpi door.
        mpi_alone: No other door shall lead off the node.
        serves_mpi: A thread of its own may call MPI.
        windows: Numbers of the windows that it has left over, of these ranks.
        failure: Why it cannot go on.
    """

    name: str = ""
    wants_mpi: bool = False
    mpi_alone: bool = False
    serves_mpi: bool = False
    windows: tuple[bytes, ...] = ()
    failure: ProxyStoreHpcError | None = None
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    machine: str = field(default_factory=lambda: machine_id())
    network: str = field(default_factory=lambda: network_id())
    addresses: tuple[str, ...] = field(default_factory=lambda: tuple(addresses_here()))


class Meeting:
    """What all ranks have told.

    Args:
        told: By rank.
        rank: This one.
    """

    def __init__(self, told: Sequence[Introduction], rank: int) -> None:
        self._told = told
        self._mine = told[rank]

    @property
    def secret(self) -> bytes:
        """16 bytes that these ranks share."""
        return self._told[0].secret

    @property
    def number(self) -> bytes:
        """16 bytes that tell this meeting from others; told to peers, unlike the secret."""
        return hashlib.blake2b(self.secret, digest_size=16, person=b"mpi door").digest()

    @property
    def wants_mpi(self) -> bool:
        """Whether the ranks shall have the mpi door."""
        return self._mine.wants_mpi

    @property
    def on_node(self) -> int:
        """Ranks on this machine, which share its memory."""
        return sum(told.machine == self._mine.machine for told in self._told)

    def far(self) -> list[int]:
        """Ranks that no socket of the node leads to."""
        return [rank for rank, told in enumerate(self._told) if _node(told) != _node(self._mine)]

    def windows(self) -> bytes | None:
        """The number of windows that every rank has left over."""
        return min(set.intersection(*(set(told.windows) for told in self._told)), default=None)

    def check(self) -> None:
        """Says where the ranks do not agree, the same on all of them.

        Raises:
            ConfigError: They do not.
        """
        names = [told.name for told in self._told]
        if len(set(names)) > 1:
            other = next(rank for rank, name in enumerate(names) if name != names[0])
            raise ConfigError(
                f"name: the ranks gave different names: {names[0]!r} on rank 0 and "
                f"{names[other]!r} on rank {other}"
            )
        wanted = [told.wants_mpi for told in self._told]
        if len(set(wanted)) > 1:
            raise ConfigError(
                f"rank {wanted.index(True)} wants the mpi door and rank {wanted.index(False)} "
                "does not; its windows are made by all ranks together"
            )

    def contact_host(self, interface: str | None) -> str:
        """Address where ranks on other nodes reach this one; empty if none needs it.

        Args:
            interface: Network interface or address that they shall use, `None` to find one.

        Raises:
            ConfigError: No network leads to the other nodes.
        """
        if len({_node(told) for told in self._told}) == 1:
            return ""
        if interface is not None:
            return address_of(interface)
        if all(told.mpi_alone and told.serves_mpi for told in self._told):
            return ""
        nodes = {_node(told): told.addresses for told in reversed(self._told)}
        return choose_contact(list(nodes.values()), list(nodes).index(_node(self._mine)))


def meet(comm: MPI.Intracomm, prepare: Callable[[], tuple[T, Introduction]]) -> tuple[T, Meeting]:
    """Tells the other ranks of this one, and hears from them. Collective.

    Args:
        comm: The ranks.
        prepare: Returns something for the caller, and what to tell.

    Raises:
        ConfigError: The ranks do not agree.
        ProxyStoreHpcError: What `prepare` raised on the lowest rank where it did. A rank where it
            raised an exception of another kind raises that one.
    """
    error: BaseException | None = None
    prepared: Any = None
    try:
        prepared, mine = prepare()
    except Exception as caught:
        error = caught
        mine = Introduction(failure=portable(error))
    told = comm.allgather(mine)
    raise_first([other.failure for other in told], error)
    meeting = Meeting(told, comm.rank)
    meeting.check()
    return prepared, meeting


def gathered(comm: MPI.Intracomm, attempt: Callable[[], T]) -> list[T]:
    """What `attempt` returned on every rank, once it succeeded on all. Collective.

    Raises:
        ProxyStoreHpcError: The error of the lowest rank where it failed, naming the rank. A rank
            that failed with an exception of another kind raises that one.
    """
    error: BaseException | None = None
    result: Any = None
    try:
        result = attempt()
    except Exception as caught:
        error = caught
    told = comm.allgather((result, portable(error)))
    raise_first([failure for _, failure in told], error)
    return [result for result, _ in told]


def portable(error: BaseException | None) -> ProxyStoreHpcError | None:
    """An error as other ranks can be told of it."""
    if error is None or isinstance(error, ProxyStoreHpcError):
        return error
    return StoreError(f"{type(error).__name__}: {error}")


def raise_first(failures: Sequence[ProxyStoreHpcError | None], mine: BaseException | None) -> None:
    """Raises the failure of the lowest rank, if there is one.

    Args:
        failures: By rank.
        mine: This rank's, as it was caught.
    """
    for rank, failure in enumerate(failures):
        if failure is None:
            continue
        if mine is not None and not isinstance(mine, ProxyStoreHpcError):
            raise mine
        text = failure.args[0] if failure.args else type(failure).__name__
        failure.args = (f"{text} (on rank {rank} of {len(failures)})", *failure.args[1:])
        raise failure from mine


def machine_id() -> str:
    """The same for all processes of a machine that runs."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return platform.node()


def network_id() -> str:
    """The same for processes of a machine whose sockets on the node meet."""
    try:
        return str(_NETWORK.readlink())
    except OSError:
        return ""


def _node(told: Introduction) -> tuple[str, str]:
    return told.machine, told.network
