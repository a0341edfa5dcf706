"""Checking what `from_mpi` is given."""

from __future__ import annotations

import sys
from typing import Any

from proxystore_hpc.exceptions import ConfigError, InvalidArgumentError

LINGER = 30.0
"""Seconds that a rank which ends waits for others that may never close."""


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
