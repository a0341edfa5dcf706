"""What figures depend on: the machine, its load, and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import socket
import time
from pathlib import Path
from typing import Any

__all__ = [
    "available_memory",
    "cpu_model",
    "describe_machine",
    "environment_that_matters",
    "version_of",
]

_PREFIXES = ("UCX_", "OMPI_MCA_", "PRTE_MCA_", "MPICH_", "MPIR_", "FI_", "PROXYSTORE_HPC_", "OMP_")
_SECRETS = ("TOKEN", "SECRET", "PASSWORD")
_CGROUP = Path("/sys/fs/cgroup")


def version_of(distribution: str) -> str | None:
    """The version of an installed package, None if it is not there."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    """The processor's name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else platform.machine()


def describe_machine() -> dict[str, Any]:
    """What figures depend on."""
    from proxystore_hpc import __version__

    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "pinning": _ranges(sorted(os.sched_getaffinity(0))),
        "memory": _meminfo("MemTotal"),
        "node": socket.gethostname(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "proxystore_hpc": __version__,
        "numpy": version_of("numpy"),
        "load": os.getloadavg()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def available_memory() -> int:
    """Bytes that processes here can still get: of the machine, and of the cgroup."""
    found = [_meminfo("MemAvailable")]
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            found.append(int(limit) - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no cgroup of version 2, or no limit
    return max(0, min(found))


def environment_that_matters() -> dict[str, str]:
    """Variables that change how messages travel, without secrets."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_PREFIXES) and not any(secret in name for secret in _SECRETS)
    }


def _meminfo(name: str) -> int:
    """Bytes of a line of /proc/meminfo; a guess where there is none."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return 8 << 30
    match = re.search(rf"^{name}:\s*(\d+) kB$", text, re.MULTILINE)
    return int(match[1]) << 10 if match else 8 << 30


def _ranges(numbers: list[int]) -> str:
    """Such as `0-3,8`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)
