"""Who is at the other end of a connection that stays on this machine. Linux only."""

from __future__ import annotations

import ipaddress
import socket
import sys
from pathlib import Path

KNOWN = sys.platform == "linux"
"""Whether this system tells."""

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_ESTABLISHED = "01"


def _address(text: str) -> tuple[str, int]:
    """Address and port of such a table: words of 32 bits in hexadecimal digits, then the port."""
    digits, port = text.split(":")
    packed = b"".join(
        int(digits[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(digits), 8)
    )
    return _plain(packed), int(port, 16)


def _plain(address: str | bytes) -> str:
    """An address in one notation; IPv4 in IPv6 as IPv4."""
    found = ipaddress.ip_address(address)
    return str(getattr(found, "ipv4_mapped", None) or found)


def user_behind(raw: socket.socket) -> int | None:
    """The user whose process accepted a connection on this machine.

    Args:
        raw: The client's end. A byte must have come from the other one: before a process has
            accepted it, a connection belongs to nobody.

    Returns:
        The user's id; `None` if the system does not say.
    """
    ours, theirs = raw.getsockname(), raw.getpeername()
    wanted = (_plain(theirs[0]), theirs[1]), (_plain(ours[0]), ours[1])
    ports = f":{theirs[1]:04X}", f":{ours[1]:04X}"
    for table in _TABLES:
        try:
            lines = Path(table).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, remote, state, *_, uid, _, inode = line.split()[:10]
            if not (local.endswith(ports[0]) and remote.endswith(ports[1])):
                continue
            # What nobody holds is listed as root's.
            accepted = state == _ESTABLISHED and inode != "0"
            if accepted and (_address(local), _address(remote)) == wanted:
                return int(uid)
    return None
