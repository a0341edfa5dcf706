"""Putting one object through connections that may break."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from proxystore_hpc.exceptions import (
    DoorUnavailableError,
    InvalidArgumentError,
    OperationTimeoutError,
    ProxyStoreHpcError,
)
from proxystore_hpc.tcp import wire
from proxystore_hpc.tcp.connection import Connection
from proxystore_hpc.tcp.download import Progress, Retry

_PIECE = 8 << 20
_PERHAPS = "the whole object was sent, and whether it was stored is not known"
_ZEROS = memoryview(bytes(1 << 16))


class Sending:
    """An object on its way to a server.

    Args:
        request: What is asked.
        segments: Offsets in the object, in their order, and the bytes there.
        progress: Told of the bytes that were sent, and of all.

    Raises:
        InvalidArgumentError: The segments overlap, or lie outside of the object.
    """

    def __init__(
        self,
        request: wire.Put,
        segments: Sequence[tuple[int, Any]],
        progress: Progress | None = None,
    ) -> None:
        self._request = request
        self._parts = _contiguous(request.length, segments)
        self._progress = progress
        self._all_sent = False

    def run(self, connection: Connection, retry: Retry) -> bytes:
        """Sends what the server lacks; returns the object's key.

        Raises:
            DoorUnavailableError: The server knows nothing of an object that it may have stored.
            ProxyStoreHpcError: What the server says went wrong.
            OSError: The connection broke.
        """
        length = self._request.length
        body = wire.encode_put(replace(self._request, patience=retry.left))
        number = connection.send(wire.PUT, body, retry.left)
        flags, answer = connection.receive(wire.PUT, number)
        if not flags & wire.MORE:  # stored through a connection that broke before it said so
            return bytes(answer)
        sent, known = wire.decode_progress(answer, length)
        if self._all_sent and not known:
            raise DoorUnavailableError("tcp", "the server that answers now knows nothing of it")
        if sent:
            retry.progressed()
        for part in _from(self._parts, sent):
            # Of what the server still lacks nothing was stored.
            self._all_sent = sent + len(part) == length
            connection.send_object([part], retry.left)
            sent += len(part)
            if self._progress is not None:
                self._progress(sent, length)
        self._all_sent = True
        return bytes(connection.receive(wire.PUT, number)[1])

    def told(self, error: ProxyStoreHpcError) -> ProxyStoreHpcError | None:
        """What also says that the object may have been stored, if that may be."""
        if self._all_sent and isinstance(error, DoorUnavailableError):
            return DoorUnavailableError(error.door, f"{error.reason}; {_PERHAPS}")
        if self._all_sent and isinstance(error, OperationTimeoutError):
            return OperationTimeoutError(f"{error}; {_PERHAPS}", timeout=error.timeout)
        return None


def _from(parts: Sequence[memoryview], offset: int) -> Iterator[memoryview]:
    """What follows the first `offset` bytes of parts that follow each other."""
    for part in parts:
        if offset < len(part):
            yield part[offset:]
        offset = max(offset - len(part), 0)


def _contiguous(length: int, segments: Sequence[tuple[int, Any]]) -> list[memoryview]:
    """Segments in pieces, with zeros where there is a gap between them."""
    parts: list[memoryview] = []
    at = 0

    def pad(to: int) -> None:
        nonlocal at
        while at < to:
            parts.append(_ZEROS[: min(to - at, len(_ZEROS))])
            at += len(parts[-1])

    for offset, data in segments:
        view = memoryview(data).cast("B")
        if offset < at or offset + len(view) > length:
            raise InvalidArgumentError("segments: they overlap, or lie outside of the object")
        pad(offset)
        for begin in range(0, len(view), _PIECE):
            parts.append(view[begin : begin + (_PIECE)])
        at += len(view)
    pad(length)
    return parts
