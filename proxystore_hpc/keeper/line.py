"""What one living owner has handed over so far."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from typing import Any

from proxystore_hpc.exceptions import ProtocolError

_HEADER = struct.Struct("<IIHHIQ")
_MAGIC = 0x43505350
_MOST_BODY = 4 << 20
_MOST_FDS = 16

_IDENTITY, _SEGMENT, _PIN_TABLE, _LEFT, _CONFIG, _OUTSIDE = range(1, 7)


class Line:
    """Takes frames apart; see `csrc/objects/handover.h`.

    Args:
        connection: The connection to an owner, non-blocking.
        facts: What the owner's store said of itself.

    Attributes:
        facts: As given.
    """

    def __init__(self, connection: socket.socket, facts: dict[str, Any]) -> None:
        self.facts = facts
        self._connection = connection
        self._received = bytearray()
        self._fds: deque[int] = deque()
        self._identity = b""
        self._config = ""
        self._outside = b""
        self._tables: list[int] = []
        self._listeners: list[int] = []
        self._segments: list[tuple[int, int]] = []
        self._pin_tables: dict[int, list[int]] = {}

    def read(self) -> bool:
        """Takes what has arrived; false once the owner has ended.

        Raises:
            ProtocolError: It says something else than an owner does.
        """
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(
                    self._connection, 65536, _MOST_FDS, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return True
            except ConnectionError:
                return False
            self._fds.extend(fds)
            if not data:
                return False
            self._received += data
            self._cut()

    def _cut(self) -> None:
        while len(self._received) >= _HEADER.size:
            magic, size, kind, fds, _, _ = _HEADER.unpack_from(self._received)
            if magic != _MAGIC or size > _MOST_BODY or fds > _MOST_FDS:
                raise ProtocolError("an owner sent garbage to the keeper")
            if len(self._received) < _HEADER.size + size:
                return
            if fds > len(self._fds):
                raise ProtocolError("descriptors were lost on their way to the keeper")
            body = bytes(self._received[_HEADER.size : _HEADER.size + size])
            del self._received[: _HEADER.size + size]
            self._take(kind, body, [self._fds.popleft() for _ in range(fds)])

    def _take(self, kind: int, body: bytes, fds: list[int]) -> None:
        if kind == _IDENTITY:
            self._identity, self._tables, self._listeners = body, fds[:2], fds[2:]
        elif kind == _SEGMENT:
            self._segments.append((int.from_bytes(body, "little"), fds[0]))
        elif kind == _PIN_TABLE:
            self._pin_tables.setdefault(int.from_bytes(body, "little"), []).extend(fds)
        elif kind == _LEFT:
            for fd in self._pin_tables.pop(int.from_bytes(body, "little"), []):
                os.close(fd)
        elif kind == _CONFIG:
            self._config = body.decode()
        elif kind == _OUTSIDE:
            self._outside = body
        else:
            raise ProtocolError("an owner is of another version than the keeper")

    @property
    def complete(self) -> bool:
        """Whether there is something to take over."""
        return bool(self._identity and self._listeners)

    def take_estate(self) -> dict[str, Any]:
        """What `_core.Instance.adopt` needs; the descriptors are the caller's then."""
        tables = self._tables or [-1, -1]
        estate = {
            "identity": self._identity,
            "config": self._config,
            "outside": self._outside,
            "table": tables[0],
            "claims": tables[1],
            "listeners": self._listeners,
            "segments": self._segments,
            "pin_tables": [fd for fds in self._pin_tables.values() for fd in fds],
        }
        self._tables, self._listeners, self._segments, self._pin_tables = [], [], [], {}
        return estate

    def close(self) -> None:
        """Ends the connection, and gives up what was not taken."""
        self._connection.close()
        estate = self.take_estate()
        kept = [estate["table"], estate["claims"], *estate["listeners"], *estate["pin_tables"]]
        kept += self._fds
        for fd in kept + [fd for _, fd in estate["segments"]]:
            if fd >= 0:
                os.close(fd)
        self._fds.clear()
