"""Making an engine on all ranks of a communicator at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.mpi.arguments import check_communicator, parse_linger
from proxystore_hpc.mpi.introductions import introduce, introduction
from proxystore_hpc.mpi.job import MpiJob, end_with, settle
from proxystore_hpc.mpi.meeting import Introduction, gathered, meet
from proxystore_hpc.mpi.windows import open_windows, warn_of_thread_level, withdraw_offer

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

    def prepare() -> tuple[tuple[dict[str, Any], float], Introduction]:
        wants_mpi = transport == "mpi"
        return parse_options(transport, options), introduction(
            private, "", wants_mpi, alone=wants_mpi
        )

    try:
        (given, linger), meeting = meet(private, prepare)
        interface = given.pop("interface", None)
        if meeting.wants_mpi:
            warn_of_thread_level("the engine")
            windows = open_windows(private, meeting)

        def attempt() -> tuple[str, bytes]:
            host = meeting.contact_host(interface)
            if windows is not None:
                given["_mpi_door"] = lambda: windows.door(meeting.number)
            listen = f"{host}:0" if host else None
            engine = cls(transport, listen=listen, secret=meeting.secret, **given)
            made.append(engine)
            return engine.address, engine._instance.address

        told = gathered(private, attempt)
    except BaseException:
        for engine in made:
            engine.close()
        if windows is not None:
            windows.retire()
        withdraw_offer(private)
        private.Free()
        raise
    (engine,) = made
    addresses = [packed for _, packed in told]
    if windows is not None:
        introduce(engine._instance, meeting, addresses)
    engine._ranks = tuple(text for text, _ in told)
    engine._job = job = MpiJob(private, engine, addresses, linger, windows)
    end_with(comm, job)
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
