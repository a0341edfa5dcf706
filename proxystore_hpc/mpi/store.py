"""Opening a store on all ranks of a communicator at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.mpi.arguments import check_communicator, parse_linger
from proxystore_hpc.mpi.introductions import introduce, introduction
from proxystore_hpc.mpi.job import MpiJob, end_with, settle
from proxystore_hpc.mpi.meeting import Introduction, Meeting, gathered, meet
from proxystore_hpc.mpi.windows import Windows, open_windows, warn_of_thread_level, withdraw_offer
from proxystore_hpc.store.config import StoreConfig
from proxystore_hpc.store.opening import load_core

if TYPE_CHECKING:
    from mpi4py import MPI

    from proxystore_hpc.store.base import Store

# Doors that need no network.
_NEAR_DOORS = {"self", "shm", "mpi"}


def open_on(cls: type[Store], comm: Any, name: str, options: dict[str, Any]) -> Store:
    """A store on every rank of a communicator; see `Store.from_mpi`. Collective.

    Only the calling thread uses MPI, so any thread level will do.

    Args:
        cls: The class of the store.
        comm: An intracommunicator of mpi4py.
        name: Name of the store, the same on all ranks.
        options: Arguments of the store; `linger` are the seconds that a rank which is about to end
            waits for the others to close.

    Raises:
        InvalidArgumentError: `comm` is no intracommunicator, or MPI does not run.
        ConfigError: An option cannot be meant, or the ranks do not agree on the name.
        ProxyStoreHpcError: The store could not be opened on some rank; then it is on none.
    """
    check_communicator(comm)
    settle()
    private: MPI.Intracomm = comm.Dup()
    try:
        (config, linger), meeting = meet(private, lambda: prepare(private, name, options))
        if meeting.wants_mpi:
            warn_of_thread_level(f"the store {name!r}")
        store = cls.__new__(cls)
        addresses, windows = open_all(private, meeting, store, config)
    except BaseException:
        withdraw_offer(private)
        private.Free()
        raise
    if windows is not None:
        introduce(store._instance, meeting, addresses)
    store._job = job = MpiJob(private, store, addresses, linger, windows)
    end_with(comm, job)
    return store


def prepare(
    comm: MPI.Intracomm, name: str, options: dict[str, Any]
) -> tuple[tuple[StoreConfig, float], Introduction]:
    """What the arguments of `from_mpi` mean, and what the other ranks have to know.

    Raises:
        ConfigError: An option is unknown or cannot be meant.
        DoorUnavailableError: The mpi door cannot be had.
    """
    config, linger = parse_options(name, options)
    doors = set(config.doors or ())
    wanted = "mpi" in doors
    return (config, linger), introduction(comm, name, wanted, alone=wanted and doors <= _NEAR_DOORS)


def parse_options(name: str, options: dict[str, Any]) -> tuple[StoreConfig, float]:
    """The configuration that the arguments of `from_mpi` make, and the time to linger.

    Raises:
        ConfigError: An option is unknown or cannot be meant.
    """
    options = dict(options)
    linger = parse_linger(options)
    if "secret" in options:
        raise ConfigError("secret: the ranks of a job get one of their own; leave it out")
    if "register" in options:
        raise ConfigError("register: a store of from_mpi is always registered; leave it out")
    return StoreConfig.from_dict({"name": name, **options, "auto_register": True}), linger


def open_all(
    comm: MPI.Intracomm, meeting: Meeting, store: Store, config: StoreConfig
) -> tuple[list[bytes], Windows | None]:
    """Opens the store on every rank, or on none.

    Returns:
        Its address on every rank, and the windows of the mpi door if that is open.

    Raises:
        ProxyStoreHpcError: What went wrong on the lowest rank where something did.
    """
    windows = open_windows(comm, meeting) if meeting.wants_mpi else None

    def attempt() -> bytes:
        host = meeting.contact_host(config.interface)
        store._open(
            config,
            secret=meeting.secret,
            capacity=load_core().default_capacity(meeting.on_node),
            host=host,
            network=bool(host),
            mpi_door=None if windows is None else lambda: windows.door(meeting.number),
        )
        return store.address

    try:
        return gathered(comm, attempt), windows
    except BaseException:
        if not getattr(store, "_closed", True):
            store.close()
        if windows is not None:
            windows.retire()
        raise
