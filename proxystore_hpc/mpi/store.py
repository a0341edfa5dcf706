"""Opening a store on all ranks of a communicator at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.mpi.collective import agreed, check_communicator, find_place, parse_linger
from proxystore_hpc.mpi.job import MpiJob, settle
from proxystore_hpc.mpi.windows import Windows, open_windows
from proxystore_hpc.store.config import StoreConfig
from proxystore_hpc.store.opening import load_core

if TYPE_CHECKING:
    from mpi4py import MPI

    from proxystore_hpc.store.base import Store


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
        config, linger = agreed(private, lambda: parse_options(name, options))
        names = private.allgather(name)
        if len(set(names)) > 1:
            raise ConfigError(
                f"name: the ranks gave their store different names: {names[0]!r} on rank 0 and "
                + next(f"{n!r} on rank {i}" for i, n in enumerate(names) if n != names[0])
            )
        store = cls.__new__(cls)
        windows = open_all(private, store, config)
    except BaseException:
        private.Free()
        raise
    addresses = private.allgather(store.address)
    store._job = MpiJob(private, store, addresses, linger, windows)
    return store


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


def open_all(comm: MPI.Intracomm, store: Store, config: StoreConfig) -> Windows | None:
    """Opens the store on every rank, or on none.

    Returns:
        The windows of the mpi door if it is open.

    Raises:
        ProxyStoreHpcError: What went wrong on the lowest rank where something did.
    """
    place = find_place(comm, config.interface)
    wants_mpi = config.doors is not None and "mpi" in config.doors
    windows = open_windows(comm, f"the store {config.name!r}", wants_mpi)

    def attempt() -> None:
        store._open(
            config,
            secret=place.secret,
            capacity=load_core().default_capacity(place.on_node),
            host=place.host,
            network=bool(place.host),
            mpi_door=None if windows is None else lambda: windows.door(place.door_job),
        )

    try:
        agreed(comm, attempt)
    except BaseException:
        if not getattr(store, "_closed", True):
            store.close()
        if windows is not None:
            windows.retire()
        raise
    return windows
