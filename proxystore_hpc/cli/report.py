"""What is known about this machine, as data."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
from dataclasses import dataclass, field

from proxystore_hpc._version import __version__
from proxystore_hpc.cli import native, node
from proxystore_hpc.exceptions import DoorUnavailableError

MODULES = ("_proxy", "_core", "_ucx")


@dataclass
class Software:
    """Versions, `None` for what is not installed."""

    proxystore_hpc: str
    python: str
    executable: str
    kernel: str
    machine: str
    libc: str
    numpy: str | None
    cloudpickle: str | None
    mpi4py: str | None


@dataclass
class Module:
    """One extension module: its file, or why it cannot be used.

    Attributes:
        absent: Whether it was not built at all.
    """

    name: str
    path: str | None = None
    reason: str | None = None
    absent: bool = False


@dataclass
class Finding:
    """Something to know or to do.

    Attributes:
        level: `"error"`: something installed does not work; `"warning"`: something is slower than
            it need be; `"note"`.
        what: What is the case, and what follows from it.
        remedy: What to do, empty if nothing.
    """

    level: str
    what: str
    remedy: str = ""


@dataclass
class Measured:
    """What one door did between two processes.

    Attributes:
        door: Its name.
        how: What carries the bytes.
        latency_us: Median of getting an array of 8 bytes, in microseconds.
        latency_min_us: The fastest.
        bandwidth: Reading 64 MiB into warm memory, median, in bytes per second.
        mapped_us: Time in which an array of 64 MiB is there as a view, where nothing is copied.
        detail: The transports that UCX chose.
        refused: Why there are no figures.
        unexpected: Whether that is an error: the door is there but failed.
    """

    door: str
    how: str
    latency_us: float | None = None
    latency_min_us: float | None = None
    bandwidth: float | None = None
    mapped_us: float | None = None
    detail: str = ""
    refused: str | None = None
    unexpected: bool = False


@dataclass
class Report:
    """Everything that `proxystore-hpc info` prints."""

    software: Software
    modules: list[Module]
    ucx: native.Ucx
    mpi: native.Mpi
    memory: dict[str, int | str]
    node: node.Node
    environment: dict[str, str]
    measured: list[Measured] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def pure(self) -> bool:
        """Whether this installation has no native part, and is meant to have none."""
        return all(self.module(name).absent for name in ("_proxy", "_core"))

    def module(self, name: str) -> Module:
        """The extension module of that name."""
        return next(module for module in self.modules if module.name == name)


def collect() -> Report:
    """Looks at everything but the doors' speed. MPI is not initialised; UCX is loaded."""
    ucx_module = _inspect_ucx_module()
    return Report(
        software=_software(),
        modules=[_inspect_module("_proxy"), _inspect_module("_core"), ucx_module],
        ucx=native.find_ucx(),
        mpi=native.find_mpi(),
        memory=_memory(),
        node=node.look(),
        environment=_environment(),
    )


def version_of(distribution: str) -> str | None:
    """The installed version of a package, without importing it."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _software() -> Software:
    return Software(
        proxystore_hpc=__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        executable=sys.executable,
        kernel=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        libc=" ".join(platform.libc_ver()).strip(),
        numpy=version_of("numpy"),
        cloudpickle=version_of("cloudpickle"),
        mpi4py=version_of("mpi4py"),
    )


def _inspect_module(name: str) -> Module:
    try:
        module = importlib.import_module(f"proxystore_hpc.{name}")
    except ModuleNotFoundError as error:
        absent = error.name == f"proxystore_hpc.{name}"
        return Module(name, reason=f"it was not built: {error}", absent=absent)
    except ImportError as error:
        return Module(name, reason=f"it does not load: {error}")
    return Module(name, path=module.__file__)


def _inspect_ucx_module() -> Module:
    from proxystore_hpc.ucx_runtime import import_ucx_module

    try:
        return Module("_ucx", path=import_ucx_module().__file__)
    except DoorUnavailableError as error:
        return Module("_ucx", reason=error.reason)


def _memory() -> dict[str, int | str]:
    try:
        from proxystore_hpc import _core
    except ImportError:
        return {}
    return {**_core.memory_limits(), "default_capacity": _core.default_capacity(1)}


def _environment() -> dict[str, str]:
    prefixes = ("UCX_", "PSHPC_", "PROXYSTORE_HPC_", "OMPI_MCA_pml", "OMPI_MCA_osc", "MPI4PY_")
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(prefixes)}
