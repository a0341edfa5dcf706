"""The client's side of one connection. One thread uses it at a time."""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections.abc import Callable

from proxystore_hpc.exceptions import (
    AccessDeniedError,
    DoorUnavailableError,
    ProtocolError,
    ProxyStoreHpcError,
)
from proxystore_hpc.tcp import listener, tls, wire
from proxystore_hpc.tcp.endpoints import TcpEndpoint, is_loopback
from proxystore_hpc.tcp.stream import Stream
from proxystore_hpc.utils.checksum import crc32

_BUFFER = 128 << 10

_GET_REQUEST = wire.GET_REQUEST.pack
_GET = wire.GET
_TO_THE_END = wire.TO_THE_END
_GET_REPLY = wire.GET | wire.REPLY
_RANGE = wire.GET_REQUEST.size - wire.HEAD.size
_FIRST_PIECE = wire.FIRST_PIECE.unpack_from
_WHOLE = wire.FIRST_PIECE.size
_PIECE = wire.PIECE.size

Place = Callable[[int, bool], memoryview]
"""Gives the memory for an object, of whose length in bytes and liveness it is told."""


class Connection:
    """A connection that has said hello.

    Args:
        endpoint: Where to.
        timeout: Seconds for all of it.
        stall: Seconds without a byte after which a connection counts as broken.
        cafile: Certificates of authorities that are trusted instead of the machine's.

    Raises:
        DoorUnavailableError: What answers there cannot be used.
        AccessDeniedError: It is not who it should be.
        OSError: Nobody answers.
    """

    def __init__(
        self, endpoint: TcpEndpoint, timeout: float, stall: float, cafile: str | None = None
    ) -> None:
        self.endpoint = endpoint
        self.process = os.getpid()
        deadline = time.monotonic() + timeout
        try:
            raw = socket.create_connection((endpoint.host, endpoint.port), max(timeout, 1e-3))
        except UnicodeError as error:
            raise _no_host(endpoint) from error
        if endpoint.tls:
            try:
                raw = tls.secure(raw, endpoint, cafile)
            except ValueError as error:
                raise _no_host(endpoint) from error
        self._stall = stall
        self._stream = Stream(raw, min(max(deadline - time.monotonic(), 1e-3), stall))
        self._buffer = memoryview(bytearray(_BUFFER))
        self._start = self._end = 0
        self._number = 0
        self._owed = 0
        try:
            plain_here = not endpoint.tls and is_loopback(str(raw.getpeername()[0]))
            wants_checksums = not endpoint.tls and not plain_here
            self._wanted = wire.PUTS | (wire.CHECKSUMS if wants_checksums else 0)
            began = time.monotonic()
            hello = self._greet()
            self.round_trip = time.monotonic() - began
            if plain_here:
                _check_user(raw, endpoint)
        except BaseException:
            self.close()
            raise
        self.role = hello.flags
        self.takes_puts = bool(hello.features & wire.PUTS)

    def _greet(self) -> wire.Hello:
        self._stream.send(wire.encode_hello(0, self._wanted))
        try:
            self._fill(wire.HELLO.size)
            hello = wire.decode_hello(self._buffer[: wire.HELLO.size])
        except ConnectionError as error:
            if not self.endpoint.tls and tls.is_spoken_at(self.endpoint):
                raise _encrypts(self.endpoint) from error
            raise ConnectionResetError("it hung up at the hello") from error
        except (ProtocolError, ssl.SSLError) as error:
            if not self.endpoint.tls and tls.is_spoken_at(self.endpoint):
                raise _encrypts(self.endpoint) from error
            raise DoorUnavailableError(
                "tcp", f"what answers at {self.endpoint} is no server of proxystore_hpc"
            ) from error
        self._start += wire.HELLO.size
        if hello.version != wire.VERSION:
            raise DoorUnavailableError(
                "tcp",
                f"the server at {self.endpoint} speaks version {hello.version} of the protocol and "
                f"this is version {wire.VERSION}: install the same proxystore_hpc on both sides",
            )
        return hello

    def close(self) -> None:
        """Closes it."""
        self._stream.close()

    @property
    def settled(self) -> bool:
        """Whether every request has had its whole reply, so that another one can follow."""
        return not self._owed

    def end(self) -> None:
        """Makes a call of another thread fail."""
        self._stream.end()

    def usable(self) -> bool:
        """Whether a connection that was left alone can be used again, as far as can be seen."""
        raw = self._stream.raw
        try:
            readable, _, _ = select.select([raw], [], [], 0.0)
        except (OSError, ValueError):
            return False
        # A server says nothing unasked; what is there is its end.
        return not readable and self._start == self._end

    # Requests.

    def send(self, kind: int, body: bytes, timeout: float) -> int:
        """Sends a request; returns its number. Several may be sent before the first reply.

        Raises:
            OSError: The connection broke.
        """
        self._number = (self._number + 1) & 0xFFFFFFFF
        self._owed += 1
        self._stream.set_timeouts(timeout, self._stall)
        self._stream.send(wire.encode_request(kind, self._number, body))
        return self._number

    def get_small(self, key: bytes, nbytes: int, timeout: float) -> bytes | bytearray:
        """A whole object of a few bytes. Errors as of `receive_object`."""
        number = self._number = (self._number + 1) & 0xFFFFFFFF
        self._owed += 1
        stream = self._stream
        if timeout != stream.patience:
            stream.set_timeouts(timeout, self._stall)
        patience = min(int(timeout * 1e3) or 1, 0xFFFFFFFF)
        request = _GET_REQUEST(_GET, 0, 0, number, _RANGE + len(key), patience, 0, _TO_THE_END)
        buffer = self._buffer
        # Nothing is left of an earlier reply, or the connection would not have been kept.
        end = stream.exchange(request + key, buffer)
        if end == _WHOLE + nbytes:
            kind, flags, status, same, size, total, at, _, _ = _FIRST_PIECE(buffer)
            whole = total == nbytes and size == _PIECE + nbytes and not (flags or status or at)
            if whole and same == number and kind == _GET_REPLY:
                self._start = self._end = end
                self._owed -= 1
                return bytes(buffer[_WHOLE:end])
        self._start, self._end = 0, end
        memory = bytearray(nbytes)

        def place(total: int, _: bool) -> memoryview:
            if total != nbytes:
                raise ProtocolError(f"an object of {nbytes} bytes was sent as one of {total}")
            return memoryview(memory)

        self.receive_object(number, 0, place, _ignore, time.monotonic() + timeout)
        return memory

    def send_object(self, parts: list[memoryview], timeout: float) -> None:
        """Sends the bytes of a put that the server agreed to.

        Raises:
            OSError: The connection broke.
        """
        self._stream.set_timeouts(timeout, self._stall)
        for part in parts:
            self._stream.send(b"", part)

    def receive(self, kind: int, number: int) -> tuple[int, memoryview]:
        """Flags and body of a reply; the latter is valid until the next call.

        Raises:
            ProxyStoreHpcError: What the server says went wrong.
            TimeoutError: No reply came in time.
            OSError: The connection broke.
        """
        head = self._head(kind, number)
        body = self._body(head.size)
        if head.status or not head.flags & wire.MORE:
            self._owed -= 1
        if head.status:
            raise wire.decode_error(head.status, body)
        return head.flags, body

    def receive_object(
        self, number: int, offset: int, place: Place, moved: Callable[[int], None], deadline: float
    ) -> None:
        """Receives the bytes of an object into memory that `place` gives.

        Args:
            number: The request's.
            offset: Which byte of the object is to come first.
            place: Gives the memory for what was asked for; it is called before anything is written.
            moved: Told of how many bytes have arrived and can be relied on.
            deadline: On the clock of `time.monotonic`.

        Raises:
            ProxyStoreHpcError: What the server says went wrong.
            TimeoutError: No reply came in time.
            OSError: The connection broke.
        """
        target: memoryview | None = None
        done = 0
        while True:
            head = self._head(wire.GET, number)
            if head.status:
                text = self._body(head.size)
                self._owed -= 1
                raise wire.decode_error(head.status, text)
            self._fill(wire.PIECE.size)
            total, at, checksum, _ = wire.PIECE.unpack_from(self._buffer, self._start)
            self._start += wire.PIECE.size
            if target is None:
                target = place(total, bool(head.flags & wire.LIVE))
            length = head.size - wire.PIECE.size
            piece = target[done : done + length]
            if at != offset + done or len(piece) != length:
                raise ProtocolError(f"{self.endpoint} sent other bytes than were asked for")
            if head.flags & wire.CHECKED:
                self._take(piece, _ignore, deadline)
                if crc32(piece) != checksum:
                    raise ConnectionResetError("bytes were garbled on the way")
                moved(length)
            else:
                self._take(piece, moved, deadline)
            done += length
            if not head.flags & wire.MORE:
                break
        if done != len(target):
            raise ProtocolError(f"{self.endpoint} sent fewer bytes than were asked for")
        self._owed -= 1

    def _head(self, kind: int, number: int) -> wire.ReplyHead:
        self._fill(wire.HEAD.size)
        head = wire.decode_reply(self._buffer[self._start : self._end])
        self._start += wire.HEAD.size
        if head.number != number or head.kind != kind:
            raise ProtocolError(f"{self.endpoint} answered what it was not asked")
        return head

    def _body(self, size: int) -> memoryview:
        if size > len(self._buffer):
            body = memoryview(bytearray(size))
            self._take(body, _ignore, None)
            return body
        self._fill(size)
        self._start += size
        return self._buffer[self._start - size : self._start]

    def _fill(self, need: int) -> None:
        """Receives until `need` bytes are in the buffer."""
        while self._end - self._start < need:
            if self._start == self._end:
                self._start = self._end = 0
            elif len(self._buffer) - self._start < need:
                held = self._end - self._start
                self._buffer[:held] = bytes(self._buffer[self._start : self._end])
                self._start, self._end = 0, held
            got = self._stream.receive(self._buffer[self._end :])
            if got == 0:
                raise ConnectionResetError("the connection was closed by the other side")
            self._end += got

    def _take(
        self, target: memoryview, moved: Callable[[int], None], deadline: float | None
    ) -> None:
        there = min(self._end - self._start, len(target))
        if there:
            target[:there] = self._buffer[self._start : self._start + there]
            self._start += there
            moved(there)
        if there < len(target):
            if deadline is not None:
                left = max(deadline - time.monotonic(), 1e-3)
                self._stream.set_timeouts(min(left, self._stall), self._stall)
            self._stream.receive_all(target[there:], moved, deadline)


def _check_user(raw: socket.socket, endpoint: TcpEndpoint) -> None:
    """Nothing but its user tells a plain server from who took the port after it ended."""
    if not listener.KNOWN:
        return
    user = listener.user_behind(raw)
    if user is None:  # it hung up, or was missed in a table that changes while it is read
        raise ConnectionResetError("the system does not tell whose process answers there")
    if user not in {0, os.geteuid(), endpoint.user}:
        raise AccessDeniedError(
            f"who answers at {endpoint} on this machine is user {user}, neither you nor root nor "
            "the object's owner, and the connection is plain: the key was not sent. Another "
            "program took the port, or the key is of another machine; the package cryptography "
            "beside the server makes keys name its public key",
            peer=str(endpoint),
        )


def _ignore(_: int) -> None:
    pass


def _no_host(endpoint: TcpEndpoint) -> DoorUnavailableError:
    return DoorUnavailableError("tcp", f"{endpoint.host!r} is no name of a host")


def _encrypts(endpoint: TcpEndpoint) -> DoorUnavailableError:
    made = "gateway" if endpoint.gateway else "server"
    if endpoint.gateway:
        cure = (
            f"create the store with gateway={{'address': '{endpoint}', 'pin': '...'}} as the "
            "gateway printed it when it started ('plain': False instead of the pin if an authority "
            "gave its certificate), or start it with --plain"
        )
    else:
        cure = f"say TcpEndpoint({endpoint.host!r}, {endpoint.port}, pin=...)"
    return DoorUnavailableError(
        "tcp", f"the {made} at {endpoint} wants TLS, and the key says that it does not: {cure}"
    )


def is_broken(error: BaseException) -> bool:
    """Whether an exception means that the connection, not the request, is at fault."""
    return isinstance(error, OSError) and not isinstance(error, ProxyStoreHpcError)
