"""The machine: what its kernel permits and which networks it has."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.utils.network import address_of

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")
_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
_SECRET = 0x5EA1ED
_PEEK_LIMIT = 20.0

# A process shows a number in its memory; a sibling reads it.
_SHOWING = """
import ctypes, sys
number = ctypes.c_uint64(int(sys.argv[1]))
print(ctypes.addressof(number), flush=True)
sys.stdin.read()
"""
_PEEKING = """
import ctypes, os, sys
class Span(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
libc = ctypes.CDLL(None, use_errno=True)
number = ctypes.c_uint64()
here = Span(ctypes.addressof(number), 8)
there = Span(int(sys.argv[2]), 8)
read = libc.process_vm_readv
spans = [ctypes.c_void_p, ctypes.c_ulong]
read.argtypes = [ctypes.c_int, *spans, *spans, ctypes.c_ulong]
read.restype = ctypes.c_ssize_t
got = read(int(sys.argv[1]), ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
print(os.strerror(ctypes.get_errno()) if got != 8 else number.value)
"""


@dataclass
class RdmaDevice:
    """A port of an InfiniBand or RoCE device, as the kernel sees it."""

    name: str
    state: str
    layer: str
    rate: str


@dataclass
class Interface:
    """A network interface with an IPv4 address; the speed is in Mbit/s, `None` if unknown."""

    name: str
    address: str
    speed: int | None


@dataclass
class Node:
    """What is the same for all processes of a user on this machine.

    Attributes:
        process_vm_readv: Why a process cannot read the memory of a sibling; `None` if it can.
        ptrace_scope: Yama's setting, `None` where the kernel has no Yama.
        shmem_huge_pages: Whether shared memory may have huge pages.
        shm_free: Bytes free in `/dev/shm`, which MPI and UCX need (this package does not).
    """

    hostname: str
    cpu: str
    cores: int
    cores_usable: int
    load: float
    process_vm_readv: str | None
    ptrace_scope: int | None
    huge_pages: str | None
    shmem_huge_pages: str | None
    shm_size: int | None
    shm_free: int | None
    open_files: int
    rdma: list[RdmaDevice] = field(default_factory=list)
    interfaces: list[Interface] = field(default_factory=list)


def look() -> Node:
    """Looks at the machine; takes two short-lived processes."""
    shm = shutil.disk_usage("/dev/shm") if Path("/dev/shm").is_dir() else None
    scope = _read(_YAMA)
    return Node(
        hostname=socket.gethostname(),
        cpu=cpu_model(),
        cores=os.cpu_count() or 1,
        cores_usable=usable_cores(),
        load=os.getloadavg()[0],
        process_vm_readv=why_no_process_vm_readv(),
        ptrace_scope=None if scope is None else int(scope),
        huge_pages=_chosen(_read(_HUGE_PAGES / "enabled")),
        shmem_huge_pages=_chosen(_read(_HUGE_PAGES / "shmem_enabled")),
        shm_size=None if shm is None else shm.total,
        shm_free=None if shm is None else shm.free,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        rdma=rdma_devices(),
        interfaces=interfaces(),
    )


def usable_cores() -> int:
    """Cores that this process may run on; all of them where that cannot be asked (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def why_no_process_vm_readv() -> str | None:
    """Tries it between two children of this process; `None` if it works."""
    if sys.platform != "linux":
        return f"{sys.platform} has no such call"
    python = [sys.executable, "-I", "-S", "-c"]
    with subprocess.Popen(
        [*python, _SHOWING, str(_SECRET)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as showing:
        try:
            assert showing.stdout is not None
            address = showing.stdout.readline().strip()
            peeking = subprocess.run(
                [*python, _PEEKING, str(showing.pid), address],
                capture_output=True,
                text=True,
                timeout=_PEEK_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {_PEEK_LIMIT:.0f} s"
        finally:
            showing.kill()
    answer = peeking.stdout.strip()
    return None if answer == str(_SECRET) else answer or f"exit status {peeking.returncode}"


def rdma_devices(root: Path = Path("/sys/class/infiniband")) -> list[RdmaDevice]:
    """Ports of InfiniBand and RoCE devices."""
    return [
        RdmaDevice(
            name=f"{port.parent.parent.name}:{port.name}",
            state=(_read(port / "state") or "?").split(":")[-1].strip(),
            layer=_read(port / "link_layer") or "?",
            rate=_read(port / "rate") or "?",
        )
        for port in sorted(root.glob("*/ports/*"))
    ]


def interfaces() -> list[Interface]:
    """Network interfaces with an IPv4 address."""
    found = []
    for _, name in socket.if_nameindex():
        try:
            address = address_of(name)
        except ConfigError:
            continue
        speed = _read(Path("/sys/class/net", name, "speed"))
        known = speed is not None and speed.isdigit()
        found.append(Interface(name, address, int(speed) if known and speed else None))
    return found


def cpu_model() -> str:
    """Name of the processor."""
    match = re.search(r"^model name\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")) or "", re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _chosen(setting: str | None) -> str | None:
    # "always [madvise] never"
    match = re.search(r"\[(\w+)\]", setting or "")
    return match[1] if match else setting
