"""What the kernel says of processes, descriptors and sockets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 10.0) -> None:
    """Looks every few milliseconds until `condition` holds; fails naming `what` if it does not."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.005)


def state(pid: int) -> str:
    """One letter: R, S, D, T (stopped), Z; X if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def exists(pid: int) -> bool:
    return state(pid) not in "XZ"


def fd_count(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def fd_targets(pid: int | str = "self") -> list[str]:
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(fd))
        except FileNotFoundError:
            continue  # the one that lists
    return sorted(found)


def mapped(pid: int | str = "self", name: str = "pshpc") -> list[str]:
    """Mappings whose file's name contains `name`."""
    return [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if name in line]


def thread_count(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def node_socket(address: bytes) -> str:
    """Abstract name of the socket at which the store of this address listens."""
    return f"proxystore-hpc/{int.from_bytes(address[16:20], 'little')}/{address[:16].hex()}"


def open_node_sockets(addresses: Iterable[bytes]) -> list[str]:
    """Those of these stores' sockets that the kernel still has, listening or connected."""
    names = {node_socket(address) for address in addresses}
    rows = Path("/proc/net/unix").read_text().splitlines()[1:]
    return sorted({row.split()[-1] for row in rows} & {f"@{name}" for name in names})


def available_memory() -> int:
    """Bytes that may be used without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("/proc/meminfo tells no MemAvailable")


def children(pid: int) -> list[int]:
    """Process ids of the children of all its threads."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (thread / "children").read_text().split())
    return sorted(found)
