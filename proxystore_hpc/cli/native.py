"""The UCX and the MPI that this Python finds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from proxystore_hpc.exceptions import DoorUnavailableError, ProxyStoreHpcError
from proxystore_hpc.ucx_runtime import import_ucx_module, load

_PROBE_LIMIT = 30.0
_FAST = ("rc", "ud", "dc", "srd", "gga", "ugni")


@dataclass
class Transport:
    """One transport of UCX on one device."""

    name: str
    device: str


@dataclass
class Ucx:
    """The UCX that a process gets.

    Attributes:
        version: Its version, `None` if there is none.
        path: File of its `libucp.so.0`.
        origin: The rule that chose it, see `proxystore_hpc.ucx_runtime`.
        has_verbs: Whether it was built with InfiniBand and RoCE.
        transports: What it offers on this machine; needs the module `_ucx`.
        trouble: Why it could not be asked for its transports.
        reason: Why there is none.
    """

    version: str | None = None
    path: str | None = None
    origin: str | None = None
    has_verbs: bool = False
    transports: list[Transport] = field(default_factory=list)
    trouble: str | None = None
    reason: str | None = None

    @property
    def offers_fast_network(self) -> bool:
        """Whether a transport of an RDMA network can be used here and now."""
        return any(t.name.split("_")[0] in _FAST for t in self.transports)


@dataclass
class Mpi:
    """The MPI that mpi4py would use.

    Attributes:
        library: What it calls itself.
        path: File of its library.
        launcher: The first `mpirun` or `mpiexec` of PATH.
        launcher_version: What it calls itself.
        ucx: The UCX that a process gets which uses this MPI.
        reason: Why there is no MPI.
    """

    library: str | None = None
    path: str | None = None
    launcher: str | None = None
    launcher_version: str | None = None
    ucx: Ucx | None = None
    reason: str | None = None


def find_ucx() -> Ucx:
    """The UCX of this process, loading it if need be."""
    try:
        runtime = load()
    except DoorUnavailableError as error:
        return Ucx(reason=error.reason)
    found = Ucx(
        version=".".join(map(str, runtime.version)),
        path=runtime.path,
        origin=runtime.origin,
        has_verbs=runtime.has_verbs,
    )
    try:
        module = import_ucx_module()
    except DoorUnavailableError:
        return found
    try:
        rows = module.transports()
    except ProxyStoreHpcError as error:
        found.trouble = str(error)
        return found
    found.transports = [Transport(row["transport"], row["device"]) for row in rows]
    return found


def find_mpi() -> Mpi:
    """Asks a process of its own, since an MPI library that was opened stays in the process."""
    found = _open_mpi_library()
    found.launcher = shutil.which("mpirun") or shutil.which("mpiexec")
    if found.launcher is not None:
        found.launcher_version = _version_of_launcher(found.launcher)
    return found


def _open_mpi_library() -> Mpi:
    command = [sys.executable, "-m", "proxystore_hpc.cli.mpi_probe"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROBE_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return Mpi(reason=f"opening it took more than {_PROBE_LIMIT:.0f} s")
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return Mpi(reason=f"opening it failed: {lines[-1]}")
    # MPI libraries may print on their own: the answer is the last line.
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    ucx = answer.pop("ucx", None)
    return Mpi(**answer, ucx=None if ucx is None else Ucx(**ucx))


def _version_of_launcher(path: str) -> str | None:
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_PROBE_LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # "mpirun (Open MPI) 5.0.11"; or, in several lines, "HYDRA build details: ... Version: 4.2.0".
    text = done.stdout
    if match := re.search(r"\(Open MPI\) (\S+)", text):
        return f"Open MPI {match[1]}"
    if match := re.search(r"HYDRA build details:.*?Version:\s*(\S+)", text, re.DOTALL):
        return f"Hydra {match[1]}"
    lines = text.strip().splitlines()
    return lines[0].strip() if lines else None
