"""What is said to a keeper before frames: one line of JSON each way."""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any

from proxystore_hpc.exceptions import AccessDeniedError, KeeperError, ProtocolError

VERSION = 1
"""Of the lines and of the frames that follow them."""

_LONGEST_LINE = 1 << 20
_CREDENTIALS = struct.Struct("3i")


def check_user(connection: socket.socket, who: str) -> int:
    """The process at the other end, if it is this user's.

    Raises:
        AccessDeniedError: It is somebody else's.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    if uid != os.geteuid():
        raise AccessDeniedError(
            f"{who} belongs to user {uid}, not {os.geteuid()}; name another one by "
            "PROXYSTORE_HPC_KEEPER"
        )
    return int(pid)


def connect(name: bytes, timeout: float) -> socket.socket:
    """A connection to the keeper.

    Raises:
        ConnectionRefusedError: There is none.
        AccessDeniedError: Somebody else holds its name.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(name)
        check_user(connection, "the process at the keeper's name")
    except BaseException:
        connection.close()
        raise
    return connection


def send_line(connection: socket.socket, said: dict[str, Any]) -> None:
    """Says something.

    Raises:
        OSError: The connection is broken.
    """
    connection.sendall(json.dumps({"version": VERSION, **said}).encode() + b"\n")


def receive_line(connection: socket.socket) -> dict[str, Any]:
    """What the other side says; one line, and nothing behind it.

    Raises:
        EOFError: It said nothing and left.
        ProtocolError: It says something else.
        OSError: The connection is broken, or its timeout is over.
    """
    line = b""
    while not line.endswith(b"\n"):
        piece = connection.recv(65536)
        if not piece:
            raise EOFError("the other side left")
        line += piece
        if len(line) > _LONGEST_LINE:
            raise ProtocolError("a line to or from the keeper is too long")
    return parse_line(line)


def parse_line(line: bytes) -> dict[str, Any]:
    """What a line says.

    Raises:
        ProtocolError: It is none, or of another version.
    """
    try:
        said = json.loads(line)
    except ValueError as error:
        raise ProtocolError("a line to or from the keeper is garbled") from error
    if not isinstance(said, dict) or said.get("version") != VERSION:
        raise ProtocolError(
            "the keeper of this node is of another version of proxystore_hpc: end it with "
            "'proxystore-hpc keep --stop' of that version"
        )
    return said


def ask(name: bytes, question: str, timeout: float = 10.0) -> dict[str, Any] | None:
    """The keeper's answer to a question; `None` if there is no keeper.

    Args:
        name: Its socket.
        question: `"status"` or `"stop"`.
        timeout: Seconds that it may take.

    Raises:
        KeeperError: It does not answer.
        AccessDeniedError: Somebody else holds its name.
    """
    try:
        with connect(name, timeout) as connection:
            send_line(connection, {"ask": question})
            return receive_line(connection)
    except ConnectionRefusedError:
        return None
    except (OSError, EOFError) as error:
        raise KeeperError(f"the keeper of this node does not answer: {error}") from error
