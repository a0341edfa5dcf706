"""Sockets, plain or TLS, whose calls end in time."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_PLAIN_SLICE = 4 << 20
_TLS_SLICE = 256 << 10
_JOINED = 16 << 10
_TOGETHER = 256 << 10
_MORE = getattr(socket, "MSG_MORE", 0)
_UNHEARD = 30_000
"""Milliseconds after which a connection is lost whose other end confirms nothing."""
_SAME = 1e-3
"""Seconds by which timeouts may differ from what they should be."""

_TIMEVAL = struct.Struct("@ll")
# Elsewhere the layout of this option's value differs.
_KERNEL_TIMEOUTS = sys.platform in {"linux", "darwin"}


class Stream:
    """A connected socket. One thread at a time uses it; after `share` one reads while one writes.

    OpenSSL does not allow the latter: with TLS the socket does not block then, its calls exclude
    each other, and what is waited for is waited for outside of them. That takes more system calls.

    Attributes:
        patience: Seconds after which a call that receives nothing raises `TimeoutError`.

    Args:
        raw: The socket. It is closed with the stream.
        receive: Seconds after which a call that receives nothing raises `TimeoutError`.
        send: The same for sending; as for receiving by default.
    """

    def __init__(self, raw: socket.socket, receive: float, send: float | None = None) -> None:
        self.raw = raw
        self._tls = isinstance(raw, ssl.SSLSocket)
        # One system call for each operation, where Python's own timeouts take two.
        self._by_kernel = _KERNEL_TIMEOUTS and not self._tls
        self._timeouts = (-1.0, -1.0)
        self.patience = 0.0
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNHEARD)
        self._turn = threading.Lock()
        self._shared = False
        if self._by_kernel:
            raw.settimeout(None)
        self.set_timeouts(receive, receive if send is None else send)
        # Without what `receive` and `send` make of exceptions, in fewer calls.
        self.receive_now: Callable[[Any], int] = self._receive_tls if self._tls else raw.recv_into
        self.send_now: Callable[[Any], int] = self._send_tls if self._tls else raw.send

    def set_timeouts(self, receive: float, send: float) -> None:
        """Changes the timeouts of calls that begin from now on, unless they are the same nearly."""
        old_receive, old_send = self._timeouts
        # What is left of a timeout is a little less for each call: not worth its system calls.
        if abs(receive - old_receive) < _SAME and abs(send - old_send) < _SAME:
            return
        self._timeouts = (receive, send)
        self.patience = receive
        if not self._by_kernel:
            if not self._shared:
                self.raw.settimeout(max(min(receive, send) if self._tls else receive, 1e-3))
            return
        for option, seconds in ((socket.SO_RCVTIMEO, receive), (socket.SO_SNDTIMEO, send)):
            whole, part = divmod(max(seconds, 1e-3), 1)
            packed = _TIMEVAL.pack(int(whole), int(part * 1e6))
            self.raw.setsockopt(socket.SOL_SOCKET, option, packed)

    def share(self) -> None:
        """Lets one thread read while another writes, from now on."""
        if self._tls and not self._shared:
            self._shared = True
            self.raw.settimeout(0.0)

    def _receive_tls(self, target: Any) -> int:
        secured: Any = self.raw
        if not self._shared:
            try:
                return secured.read(len(target), target)  # type: ignore[no-any-return]
            except TimeoutError:
                return self._once_more(
                    lambda: int(secured.read(len(target), target)), self._timeouts[0]
                )
            except ValueError as error:
                raise ConnectionAbortedError("the connection was closed") from error
        return self._in_turn(lambda: int(secured.read(len(target), target)), self._timeouts[0])

    def _send_tls(self, data: memoryview | bytes) -> int:
        secured: Any = self.raw
        # Not `send`, which sends in the clear what comes after the end of TLS.
        if not self._shared:
            try:
                return secured.write(data)  # type: ignore[no-any-return]
            except TimeoutError:
                return self._once_more(lambda: int(secured.write(data)), self._timeouts[1])
            except ValueError as error:
                raise ConnectionAbortedError("the connection was closed") from error
        return self._in_turn(lambda: int(secured.write(data)), self._timeouts[1])

    def _once_more(self, call: Callable[[], int], timeout: float) -> int:
        """Goes on with what took the time of the socket, the shorter one of the two timeouts."""
        deadline = time.monotonic() + timeout - min(self._timeouts)
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                return call()
        raise TimeoutError("nothing came, or went, in time")

    def _in_turn(self, call: Callable[[], int], timeout: float) -> int:
        deadline = 0.0
        while True:
            try:
                with self._turn:
                    return call()
            except ssl.SSLWantReadError:
                events = select.POLLIN
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            except ValueError as error:
                raise ConnectionAbortedError("the connection was closed") from error
            now = time.monotonic()
            deadline = deadline or now + max(timeout, 1e-3)
            if now >= deadline:
                raise TimeoutError("nothing came, or went, in time")
            poller = select.poll()
            try:
                poller.register(self.raw, events)
            except ValueError as error:
                raise ConnectionAbortedError("the connection was closed") from error
            poller.poll(max((deadline - now) * 1e3, 1.0))

    def receive(self, target: memoryview) -> int:
        """Receives what is there, one byte at least; 0 at the end.

        Raises:
            TimeoutError: Nothing came in time.
            OSError: The connection broke.
        """
        try:
            return self.receive_now(target)
        except BlockingIOError:
            raise TimeoutError("nothing came in time") from None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return 0

    def receive_all(
        self, target: memoryview, moved: Callable[[int], None], deadline: float | None = None
    ) -> None:
        """Fills `target`.

        Args:
            target: Memory.
            moved: Told of every few bytes that have arrived, in their order.
            deadline: On the clock of `time.monotonic`.

        Raises:
            TimeoutError: Nothing came in time, or the deadline passed.
            OSError: The connection broke.
        """
        done, end = 0, len(target)
        while done < end:
            if self._tls:
                got = self.receive(target[done:])
            else:
                piece = target[done : done + _PLAIN_SLICE]
                try:
                    got = self.raw.recv_into(piece, len(piece), socket.MSG_WAITALL)
                except BlockingIOError:
                    raise TimeoutError("nothing came in time") from None
            if got == 0:
                raise ConnectionResetError("the connection ended in the middle of a reply")
            done += got
            moved(got)
            if deadline is not None and done < end and time.monotonic() > deadline:
                raise TimeoutError("the deadline passed")

    def send(
        self, head: bytes, payload: memoryview | None = None, pace: Pace | None = None
    ) -> None:
        """Sends all of it.

        Args:
            head: Some bytes.
            payload: More of them; they are not copied, or little.
            pace: Who says how fast, and how slow, the payload may go.

        Raises:
            TimeoutError: The other side takes it too slowly.
            OSError: The connection broke.
        """
        if self._by_kernel or self._tls:
            self._send(head, payload, pace or _UNPACED)
            return
        receive, send = self._timeouts
        self.raw.settimeout(send)
        try:
            self._send(head, payload, pace or _UNPACED)
        finally:
            self.raw.settimeout(receive)

    def _send(self, head: bytes, payload: memoryview | None, pace: Pace) -> None:
        if payload is None:
            self._send_plainly(memoryview(head))
            return
        if self._tls and len(payload) <= _JOINED:
            pace.before(len(payload))
            self._send_plainly(memoryview(head + payload), pace=pace)
            return
        if not self._tls and len(payload) <= min(_TOGETHER, pace.quantum):
            pace.before(len(payload))
            self.send_together(head, payload, pace)
            return
        self._send_plainly(memoryview(head), 0 if self._tls else _MORE)
        done, end = 0, len(payload)
        slice_ = min(_TLS_SLICE if self._tls else _PLAIN_SLICE, pace.quantum)
        while done < end:
            piece = payload[done : done + slice_]
            pace.before(len(piece))
            while piece:
                sent = self._send_some(piece)
                pace.after(sent)
                done += sent
                piece = piece[sent:]

    def _send_plainly(self, data: memoryview, flags: int = 0, pace: Pace | None = None) -> None:
        while data:
            sent = self._send_some(data, flags)
            data = data[sent:]
            if pace is not None:
                pace.after(sent)

    def _send_some(self, data: memoryview | bytes, flags: int = 0) -> int:
        if self._tls:
            return self._send_tls(data)
        try:
            return self.raw.send(data, flags) if flags else self.raw.send(data)
        except BlockingIOError:
            raise TimeoutError("the other side takes nothing") from None

    def send_some(self, data: bytes | bytearray) -> None:
        """Sends a few bytes; quicker than `send`. Raises as that."""
        try:
            sent = self.send_now(data)
        except BlockingIOError:
            raise TimeoutError("the other side takes nothing") from None
        if sent < len(data):
            self._send_plainly(memoryview(data)[sent:])

    def exchange(self, request: bytes, target: memoryview) -> int:
        """Sends a few bytes, then receives; quicker than both. Raises as they do."""
        try:
            sent = self.send_now(request)
            if sent < len(request):
                self._send_plainly(memoryview(request)[sent:])
            return self.receive_now(target)
        except BlockingIOError:
            raise TimeoutError("nothing came, or went, in time") from None

    def send_together(self, head: bytes, payload: memoryview, pace: Pace | None = None) -> None:
        """Sends both, in one system call if they fit. Raises as `send`."""
        if self._tls:
            if len(payload) <= _JOINED:
                self.send_some(b"".join((head, payload)))
            else:
                self.send(head, payload)
            return
        try:
            sent = self.raw.sendmsg((head, payload))
        except BlockingIOError:
            raise TimeoutError("the other side takes nothing") from None
        if pace is not None:
            pace.after(sent)
        rest = sent - len(head)
        if rest < len(payload):
            if rest < 0:
                self._send_plainly(memoryview(head)[sent:])
            self._send_plainly(payload[max(rest, 0) :], pace=pace)

    def pending(self) -> bool:
        """Whether there is data that the kernel does not know of."""
        if not isinstance(self.raw, ssl.SSLSocket):
            return False
        with self._turn:
            return self.raw.pending() > 0

    def end(self) -> None:
        """Makes calls of other threads return."""
        # That of TLS would let another thread go on in the clear.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.raw, socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the socket."""
        with self._turn, contextlib.suppress(OSError):
            self.raw.close()


class Pace:
    """How fast a payload is sent. This one sets no bound."""

    quantum = 1 << 62
    """Bytes that are sent between two calls of `before`, at most."""

    def before(self, nbytes: int) -> None:
        """Waits until so many bytes may go."""

    def after(self, nbytes: int) -> None:
        """Hears that so many bytes went.

        Raises:
            TimeoutError: They went too slowly.
        """


_UNPACED = Pace()
