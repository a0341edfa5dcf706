"""Messages between a test and its peers: a length, then a pickle, over pipes."""

from __future__ import annotations

import os
import select
import struct
import time
from typing import Any

import cloudpickle

_LENGTH = struct.Struct("<Q")


class ClosedError(Exception):
    """The other end of the pipe is closed."""


def send(fd: int, data: bytes) -> None:
    """Sends a message that is pickled already."""
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BrokenPipeError as error:
            raise ClosedError from error


def receive(fd: int, timeout: float | None = None) -> Any:
    """The next message.

    Raises:
        TimeoutError: It did not come in time.
        ClosedError: The other end was closed.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    (length,) = _LENGTH.unpack(_read(fd, _LENGTH.size, deadline))
    return cloudpickle.loads(_read(fd, length, deadline))


def _read(fd: int, length: int, deadline: float | None) -> bytes:
    data = bytearray()
    while len(data) < length:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                raise TimeoutError
        piece = os.read(fd, min(length - len(data), 1 << 20))
        if not piece:
            raise ClosedError
        data += piece
    return bytes(data)
