"""A companion that a launcher starts, such as `mpirun`, and that connects back by a Unix socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from proxystore_hpc.bench.companion import Companion, CompanionError, serve

__all__ = ["Job", "connect", "program"]

READY_S = 60.0
# What launchers tell processes of the job that this one is itself part of.
INHERITED = ("PMI_", "PMIX_", "PRTE_MCA_", "PRRTE_", "OMPI_COMM_WORLD_", "OMPI_UNIVERSE_", "HYDI_")


class Job(Companion):
    """Programs started together, of which one serves calls as a `Companion` does.

    Args:
        command: The launcher with its options.
        module: Started by it with the path of a socket as its last argument; it calls `connect`
            in the process that is to serve.
        role: What that serves.
        environment: Variables besides ours.
        folder: Where a folder for the socket is made; it must be seen from where it serves.
        arguments: For the role's constructor.

    Raises:
        CompanionError: It ended, or did not connect in time.
    """

    def __init__(
        self,
        command: Sequence[str],
        module: str,
        role: str,
        *,
        environment: Mapping[str, str] | None = None,
        folder: str | None = None,
        **arguments: Any,
    ) -> None:
        self.role = role
        with (
            tempfile.TemporaryDirectory(dir=folder) as scratch,
            socket.socket(socket.AF_UNIX) as listener,
            Path(scratch, "log").open("w+b") as log,
        ):
            path = str(Path(scratch, "job"))
            listener.bind(path)
            listener.listen(1)
            listener.settimeout(0.2)
            self.process = subprocess.Popen(
                [*command, *program(module), path, role],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**_environment(), **(environment or {})},
            )
            try:
                connection = self._accept(listener, Path(scratch, "log"))
            except BaseException:
                self.process.terminate()
                self.process.wait()
                raise
        self._pipe = Connection(connection.detach())
        self.start("__init__", **arguments)
        self.result()

    def _accept(self, listener: socket.socket, log: Path) -> socket.socket:
        end = time.monotonic() + READY_S
        while True:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if self.process.poll() is None and time.monotonic() < end:
                    continue
                said = [
                    line
                    for line in log.read_text(errors="replace").splitlines()
                    if line.strip("- ")
                ]
                raise CompanionError(
                    f"{self.role} did not start: {' / '.join(said[-3:])}"
                ) from None
            connection.setblocking(True)
            return connection

    def close(self) -> None:
        """Ends the job, by force if need be."""
        self._pipe.close()
        for end in (None, self.process.terminate, self.process.kill):
            if end is not None:
                end()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                continue
            break


def program(module: str) -> list[str]:
    """The command line of a module."""
    return [sys.executable, "-m", module]


def connect(path: str, role: str) -> None:
    """Serves calls until the other end goes away."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        serve(connection.detach(), role)


def _environment() -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(INHERITED)}
    kept["PYTHONPATH"] = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    return kept
