"""Seeing from outside of MPI whether the other ranks still run."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path

_ADDRESS = struct.Struct("<16sIHB")
_UNIX_SOCKETS = Path("/proc/net/unix")
_CONNECT_S = 1.0
_INTERVAL_S = 1.0


class Peers:
    """The ranks of a job, watched through the sockets on which their stores listen.

    Args:
        addresses: `Store.address` of every rank, all of them open now.
    """

    def __init__(self, addresses: Sequence[bytes]) -> None:
        listening = _abstract_sockets()
        names = {_node_socket(address): address for address in addresses}
        self._near = {name for name in names if name in listening}
        self._far = [
            contact
            for name, address in names.items()
            if name not in self._near and (contact := _contact(address)) is not None
        ]
        self._ended: float | None = None
        self._next_look = 0.0

    def one_ended(self) -> float | None:
        """When some rank was first seen not to serve any more: it died, or all have left.

        Looks once a second. Of the ranks on other nodes, one at a time is tried.

        Returns:
            A time of the monotonic clock, `None` while all seem to live.
        """
        now = time.monotonic()
        if self._ended is None and now >= self._next_look:
            self._next_look = now + _INTERVAL_S
            near = self._near <= _abstract_sockets()
            if not near or (self._far and not _answers(random.choice(self._far))):
                self._ended = now
        return self._ended


def _abstract_sockets() -> set[str]:
    try:
        lines = _UNIX_SOCKETS.read_text("utf-8", "replace").splitlines()
    except OSError:
        return set()
    return {line.rsplit(maxsplit=1)[-1] for line in lines if "@proxystore-hpc/" in line}


def _node_socket(address: bytes) -> str:
    owner, uid, _, _ = _ADDRESS.unpack_from(address)
    return f"@proxystore-hpc/{uid}/{owner.hex()}"


def _contact(address: bytes) -> tuple[str, int] | None:
    _, _, port, length = _ADDRESS.unpack_from(address)
    host = address[_ADDRESS.size : _ADDRESS.size + length].decode("ascii", "replace")
    return (host, port) if host else None


def _answers(contact: tuple[str, int]) -> bool:
    try:
        socket.create_connection(contact, timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True
