"""Making an engine on all ranks of a communicator at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.mpi.collective import agreed, check_communicator, find_place, parse_linger
from proxystore_hpc.mpi.job import MpiJob, settle
from proxystore_hpc.mpi.windows import open_windows

if TYPE_CHECKING:
    from mpi4py import MPI

    from proxystore_hpc.rpc.engine import Engine


def open_on(cls: type[Engine], comm: Any, transport: str, options: dict[str, Any]) -> Engine:
    """An engine on every rank of a communicator; see `Engine.from_mpi`. Collective.

    Args:
        cls: The class of the engine.
        comm: An intracommunicator of mpi4py.
        transport: The engine's first argument, the same on all ranks.
        options: Its other arguments, and `linger`.

    Raises:
        InvalidArgumentError: `comm` is no intracommunicator, or MPI does not run.
        ConfigError: An option cannot be meant.
        ProxyStoreHpcError: The engine could not be made on some rank; then it is on none.
    """
    check_communicator(comm)
    settle()
    private: MPI.Intracomm = comm.Dup()
    made: list[Engine] = []
    windows = None
    try:
        given, linger = agreed(private, lambda: parse_options(transport, options))
        place = find_place(private, given.pop("interface", None))
        windows = open_windows(private, "the engine", transport == "mpi")

        def attempt() -> None:
            if windows is not None:
                given["_mpi_door"] = lambda: windows.door(place.door_job)
            listen = f"{place.host}:0" if place.host else None
            made.append(cls(transport, listen=listen, secret=place.secret, **given))

        agreed(private, attempt)
    except BaseException:
        for engine in made:
            engine.close()
        if windows is not None:
            windows.retire()
        private.Free()
        raise
    (engine,) = made
    addresses = private.allgather((engine.address, engine._instance.address))
    engine._ranks = tuple(text for text, _ in addresses)
    engine._job = MpiJob(private, engine, [packed for _, packed in addresses], linger, windows)
    return engine


def parse_options(transport: str, options: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Arguments for the constructor, and the time to linger.

    Raises:
        ConfigError: An option cannot be meant.
    """
    options = dict(options)
    linger = parse_linger(options)
    for name, why in (
        ("secret", "the ranks of a job get one of their own"),
        ("listen", "the ranks find each other; name the network with interface=..."),
    ):
        if name in options:
            raise ConfigError(f"{name}: {why}; leave it out")
    if "://" in transport:
        raise ConfigError(f"transport: a transport without a place to listen, not {transport!r}")
    return options, linger
