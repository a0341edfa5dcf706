"""Opening a store on all ranks of a communicator at once."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from proxystore_hpc.exceptions import (
    ConfigError,
    InvalidArgumentError,
    ProxyStoreHpcError,
    StoreError,
)
from proxystore_hpc.mpi.contact import addresses_here, choose_contact
from proxystore_hpc.mpi.job import LINGER, MpiJob, settle
from proxystore_hpc.store.config import StoreConfig
from proxystore_hpc.store.opening import load_core
from proxystore_hpc.utils.network import address_of

if TYPE_CHECKING:
    from mpi4py import MPI

    from proxystore_hpc.store.base import Store

T = TypeVar("T")


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
        open_all(private, store, config)
    except BaseException:
        private.Free()
        raise
    addresses = private.allgather(store.address)
    store._job = MpiJob(private, store, addresses, linger)
    return store


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


def parse_options(name: str, options: dict[str, Any]) -> tuple[StoreConfig, float]:
    """The configuration that the arguments of `from_mpi` make, and the time to linger.

    Raises:
        ConfigError: An option is unknown or cannot be meant.
    """
    options = dict(options)
    linger = options.pop("linger", LINGER)
    if isinstance(linger, bool) or not isinstance(linger, (int, float)) or not linger >= 0:
        raise ConfigError(f"linger: a number of seconds is needed, not {linger!r}")
    if "secret" in options:
        raise ConfigError("secret: the ranks of a job get one of their own; leave it out")
    if "register" in options:
        raise ConfigError("register: a store of from_mpi is always registered; leave it out")
    return StoreConfig.from_dict({"name": name, **options, "auto_register": True}), float(linger)


def open_all(comm: MPI.Intracomm, store: Store, config: StoreConfig) -> None:
    """Opens the store on every rank, or on none.

    Raises:
        ProxyStoreHpcError: What went wrong on the lowest rank where something did.
    """
    from mpi4py import MPI

    secret: bytes = comm.bcast(secrets.token_bytes(16) if comm.rank == 0 else None)
    local = comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank)
    on_node, leader = local.size, local.bcast(comm.rank)
    local.Free()
    several_nodes = on_node < comm.size
    host = ""
    if several_nodes:
        told = comm.allgather((leader, addresses_here() if leader == comm.rank else None))
        nodes = {rank: addresses for rank, addresses in told if addresses is not None}
        host = agreed(comm, lambda: contact_host(config, nodes, leader))

    def attempt() -> None:
        capacity = load_core().default_capacity(on_node)
        store._open(config, secret=secret, capacity=capacity, host=host, network=several_nodes)

    try:
        agreed(comm, attempt)
    except BaseException:
        if not getattr(store, "_closed", True):
            store.close()
        raise


def contact_host(config: StoreConfig, nodes: dict[int, list[str]], leader: int) -> str:
    """The address where ranks on other nodes reach this one.

    Args:
        config: Configuration of the store.
        nodes: Addresses of every node, by its lowest rank.
        leader: The lowest rank of this node.

    Raises:
        ConfigError: There is none.
    """
    if config.interface is not None:
        return address_of(config.interface)
    return choose_contact(list(nodes.values()), list(nodes).index(leader))


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
