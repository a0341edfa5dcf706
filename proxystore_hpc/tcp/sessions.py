"""One connection of a server, after its hello."""

from __future__ import annotations

import hmac
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from proxystore_hpc.exceptions import (
    AccessDeniedError,
    InvalidKeyError,
    ObjectError,
    OperationTimeoutError,
    OwnerGoneError,
    ProtocolError,
    ProxyStoreHpcError,
    StoreFullError,
)
from proxystore_hpc.tcp import wire
from proxystore_hpc.tcp.limits import ClientPace, Limits, Staging, TokenBucket
from proxystore_hpc.tcp.sources import Objects
from proxystore_hpc.tcp.stream import Stream
from proxystore_hpc.tcp.uploads import Upload, Uploads
from proxystore_hpc.utils.checksum import crc32

logger = logging.getLogger(__name__)

_LINGER = 1.0
"""Seconds that a thread stays with a connection that is silent."""

_LONGEST_WAIT = 30.0
_LONGEST_REQUEST = 600.0
_LONGEST_UNPROVEN = 30.0
_WAIT_SLICE = 2.0
_PROOF = 2.0
_PAUSE = 0.02
_MOST_DENIALS = 8
_UNPROVEN_WAITS = 4
_QUICK = 96 << 10
# The flags, which are none, are taken for a part of the kind.
_GET_REQUEST = struct.Struct("<HHIQIQQ").unpack_from
_FIRST_PIECE = wire.FIRST_PIECE.pack_into
_WHOLE = wire.FIRST_PIECE.size
_ASKED = wire.GET_REQUEST.size
_HEAD = wire.HEAD.size
_GET = wire.GET
_TO_THE_END = wire.TO_THE_END
_GET_REPLY = wire.REPLY | wire.GET
_PIECE = wire.PIECE.size


class _DismissedError(Exception):
    """A client asked too often without a valid key. Never sent; ends the connection."""


@dataclass
class Service:
    """What all connections of a server share.

    Attributes:
        objects: What is served.
        limits: What a client may take.
        staging: Memory for objects on their way.
        bucket: Bounds the rate of all.
        put_token: What a client shows that may put; empty if none may.
        role: `wire.OWNER` or `wire.GATEWAY`.
        denials: How many requests were refused.
    """

    objects: Objects
    limits: Limits
    staging: Staging
    bucket: TokenBucket | None = None
    put_token: bytes = b""
    role: int = wire.OWNER
    denials: int = 0
    features: int = field(init=False)
    waiting: threading.Semaphore = field(init=False)
    uploads: Uploads = field(init=False)

    def __post_init__(self) -> None:
        self.waiting = threading.BoundedSemaphore(self.limits.waiting)
        self.uploads = Uploads(self.limits, self.staging)
        self.features = wire.CHECKSUMS | (wire.PUTS if self.put_token else 0)


class Session:
    """Serves the requests of one client, on whatever thread calls `run`.

    Args:
        service: The server's.
        raw: The connection, blocking.
        host: Where it comes from.
        features: What both sides agreed on.
        ended: Told when the connection is closed.
    """

    def __init__(
        self,
        service: Service,
        raw: socket.socket,
        host: str,
        features: int,
        ended: Callable[[Session], None],
    ) -> None:
        self.raw = raw
        self.host = host
        self.proven = False
        self.ending = False
        self.began = self.idle_since = time.monotonic()
        self._service = service
        self._objects = service.objects
        self._checksums = bool(features & wire.CHECKSUMS)
        self._quick = not self._checksums and service.bucket is None
        self._ended = ended
        self._sending = threading.Lock()
        self._waits = 0
        self._denials = 0
        self._closed = False
        self._buffer = memoryview(bytearray(wire.HEAD.size + wire.MAX_REQUEST))
        self._start = self._end = 0
        self._lock = threading.Lock()
        self._stream = Stream(raw, _LINGER, service.limits.stall)

    def run(self) -> bool:
        """Serves until the client is silent for a while, and then returns true.

        Returns:
            Whether the connection is still open. If not, it was closed and that was told.
        """
        try:
            while self._serve_next():
                if not self.proven and self.age > self._service.limits.stranger:
                    raise TimeoutError("it never showed a valid key")
            self.idle_since = time.monotonic()
            return True
        except (OSError, ProtocolError, EOFError, _DismissedError) as error:
            logger.debug("a connection from %s ended: %s", self.host, error)
        except Exception:
            logger.exception("a connection from %s failed", self.host)
        self.close()
        return False

    def end(self) -> None:
        """Ends the connection for both sides. Any thread; who reads it or watches it closes it."""
        self.ending = True
        self._stream.end()

    def close(self) -> None:
        """Ends and closes the connection. Idempotent.

        By the thread that runs it, or watches it: others would close a descriptor that is watched,
        whose number the next connection gets.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._stream.end()
        with self._sending:  # nobody is left who would send to that number either
            self._stream.close()
        self._ended(self)

    @property
    def age(self) -> float:
        """Seconds since its hello."""
        return time.monotonic() - self.began

    @property
    def longest_idle(self) -> float:
        """Seconds that it may be silent."""
        limits = self._service.limits
        return limits.idle if self.proven or self._waits else limits.unproven

    # Receiving.

    def _serve_next(self) -> bool:
        """Serves one request; false if none has begun."""
        if self._start == self._end and self._quick:
            try:
                end = self._stream.receive_now(self._buffer)
            except (TimeoutError, BlockingIOError):
                return False
            if not end:
                raise EOFError("it was closed")
            self._start, self._end = 0, end
        elif not self._fill(wire.HEAD.size, may_idle=True):
            return False
        if self._quick and self._get_quickly(self._start, self._end):
            return True
        self._fill(_HEAD)
        kind, number, size = wire.decode_request(self._buffer[self._start : self._end])
        self._fill(wire.HEAD.size + size)
        begin = self._start + wire.HEAD.size
        self._start = begin + size
        self._serve(kind, number, self._buffer[begin : self._start])
        return True

    def _get_quickly(self, start: int, end: int) -> bool:
        """Answers a get that came whole, of a small object that was asked for before."""
        body = start + _ASKED
        if end <= body:
            return False
        buffer = self._buffer
        kind, status, number, size, patience, offset, length = _GET_REQUEST(buffer, start)
        stop = start + _HEAD + size
        if kind != _GET or status or stop > end:
            return False
        objects = self._objects
        located = objects.verified.get(bytes(buffer[body:stop]))
        if located is None or located.live:
            return False
        total = located.nbytes
        if length == _TO_THE_END and offset <= total:
            length = total - offset
        if length > _QUICK or offset + length > total:
            return False
        self._start = stop
        reply = bytearray(_WHOLE + length)
        _FIRST_PIECE(reply, 0, _GET_REPLY, 0, 0, number, _PIECE + length, total, offset, 0, 0)
        try:
            objects.instance.read_into(
                located.packed, offset, memoryview(reply)[_WHOLE:], patience * 1e-3
            )
        except ProxyStoreHpcError as error:
            objects.forget(located)
            self._fail(wire.GET, number, error)
            return True
        self.proven = True
        with self._sending:
            self._stream.send_some(reply)
        return True

    def _fill(self, need: int, *, may_idle: bool = False) -> bool:
        """Receives until `need` bytes are there."""
        if self._end - self._start >= need:
            return True
        deadline = 0.0
        while True:
            if self._start == self._end:
                self._start = self._end = 0
            elif len(self._buffer) - self._start < need:
                held = self._end - self._start
                self._buffer[:held] = bytes(self._buffer[self._start : self._end])
                self._start, self._end = 0, held
            try:
                got = self._stream.receive(self._buffer[self._end :] if self._end else self._buffer)
            except TimeoutError:
                if may_idle and self._start == self._end and not self._stream.pending():
                    return False
                got = -1
            if got > 0:
                self._end += got
                if self._end - self._start >= need:
                    return True
            elif got == 0:
                raise EOFError("it was closed")
            if deadline == 0.0:
                deadline = time.monotonic() + self._service.limits.request
            elif time.monotonic() > deadline:
                raise TimeoutError("a request did not arrive in time")

    # Serving.

    def _serve(self, kind: int, number: int, body: memoryview) -> None:
        if self._denials >= _MOST_DENIALS:  # by its waits
            raise _DismissedError
        try:
            if kind == wire.GET:
                self._get(number, wire.decode_get(body))
            elif kind == wire.WAIT:
                self._begin_wait(number, *wire.decode_ask(body))
            elif kind == wire.PUT:
                self._put(number, wire.decode_put(body))
            else:
                answer, denied = self._answer(kind, body)
                self._reply(kind, number, answer)
                if denied:
                    self._note_denial()
        except ProxyStoreHpcError as error:
            if isinstance(error, ObjectError):  # who asked has a valid key of it
                self.proven = True
            if isinstance(error, ProtocolError) and error.peer is None:
                self._fail(kind, number, error)
                raise
            self._fail(kind, number, error)

    def _answer(self, kind: int, body: memoryview) -> tuple[bytes, bool]:
        """A reply, and whether it counts as one to a stranger."""
        objects = self._service.objects
        if kind == wire.STORE:
            key, patience = wire.decode_ask(body)
            name, config = objects.store_of(key, self._allowed(patience))
            self.proven = True
            return wire.encode_stored(name, config), False
        if kind in (wire.EXISTS, wire.EVICT):
            batch = wire.decode_batch(body)
            outcomes = objects.ask(
                batch.keys,
                self._allowed(batch.patience),
                evict=kind == wire.EVICT,
                force=batch.force,
            )
            denied = any(isinstance(outcome, AccessDeniedError) for outcome in outcomes)
            if not denied and any(o is None or isinstance(o, ObjectError) for o in outcomes):
                self.proven = True
            return wire.encode_outcomes(outcomes), denied or not self.proven
        return b"", not self.proven

    def _allowed(self, patience: float) -> float:
        """Seconds that a request may take. Strangers cannot keep a thread for long."""
        return min(patience, _LONGEST_REQUEST if self.proven else _LONGEST_UNPROVEN)

    def _get(self, number: int, get: wire.Get) -> None:
        objects = self._service.objects
        patience = self._allowed(get.patience)
        located = objects.locate(get.key, patience)
        self.proven = True
        offset, total = get.offset, located.nbytes
        flags = (wire.LIVE if located.live else 0) | (wire.CHECKED if self._checksums else 0)
        pace = ClientPace(self._service.bucket, self._service.limits)
        for view, more in objects.read(located, offset, get.length, patience):
            sent = 0
            while True:
                most = wire.CHECKED_PIECE if self._checksums else len(view)
                piece = view[sent : sent + most]
                sent += len(piece)
                rest = wire.MORE if more or sent < len(view) else 0
                checksum = crc32(piece) if self._checksums else 0
                head = wire.encode_piece(number, flags | rest, total, offset, len(piece), checksum)
                with self._sending:
                    self._stream.send(head, piece, pace)
                offset += len(piece)
                if sent >= len(view):
                    break

    def _begin_wait(self, number: int, key: bytes, patience: float) -> None:
        service = self._service
        deadline = time.monotonic() + min(patience, _LONGEST_WAIT)
        if not self.proven or not service.objects.reached(key):
            self._prove(key)
        most = service.limits.waits if self.proven else _UNPROVEN_WAITS
        with self._lock:
            if self._waits >= most or not service.waiting.acquire(blocking=False):
                raise StoreFullError("this server waits for too many objects at once; try later")
            self._waits += 1
        # Other requests of this connection do not wait for it.
        self._stream.share()
        thread = threading.Thread(
            target=self._wait, args=(number, key, deadline), name="pshpc-wait", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            self._end_wait()
            raise StoreFullError("this server has no thread left to wait; try later") from error

    def _prove(self, key: bytes) -> None:
        """Asks whether a key is valid before a thread waits for its object."""
        outcome = self._service.objects.ask([key], _PROOF)[0]
        if outcome is None or isinstance(outcome, ObjectError):
            self.proven = True
        elif not isinstance(outcome, OperationTimeoutError):
            raise outcome

    def _end_wait(self) -> None:
        with self._lock:
            self._waits -= 1
        self._service.waiting.release()

    def _wait(self, number: int, key: bytes, deadline: float) -> None:
        try:
            while not self._closed:
                left = deadline - time.monotonic()
                try:
                    found = self._service.objects.wait_for(key, max(min(left, _WAIT_SLICE), 0.01))
                    self.proven = True
                    self._reply(wire.WAIT, number, found)
                    return
                except OperationTimeoutError as error:
                    if left <= _WAIT_SLICE:
                        self._fail(wire.WAIT, number, error)
                        return
                except ProxyStoreHpcError as error:
                    self._fail(wire.WAIT, number, error)
                    return
        except (OSError, ProtocolError, _DismissedError):
            self.end()
        finally:
            self._end_wait()

    def _put(self, number: int, put: wire.Put) -> None:
        service = self._service
        # Both are compared, so that the time tells nothing of the token.
        allowed = hmac.compare_digest(put.token, service.put_token) and bool(service.put_token)
        if not allowed:
            raise AccessDeniedError(wire.DENIED)
        self.proven = True
        service.objects.put_address(put.address)
        if put.length > service.limits.put:
            raise StoreFullError(
                f"this server takes objects of at most {service.limits.put} bytes",
                requested=put.length,
                capacity=service.limits.put,
            )
        upload = service.uploads.begin(put, self.end)
        key = upload.key
        try:
            if key is None:
                progress = wire.encode_progress(upload.received, upload.known)
                self._reply(wire.PUT, number, progress, flags=wire.MORE)
                self._receive_object(upload)
                key = self._objects.put(
                    put.address, upload.memory, put.ttl_ns, put.flags, self._allowed(put.patience)
                )
        except OSError as error:
            if isinstance(error, ProxyStoreHpcError):
                service.uploads.fail(put.upload, upload)
            else:  # the connection broke; the client goes on through another one
                service.uploads.end(put.upload, upload)
            raise
        except BaseException:
            service.uploads.fail(put.upload, upload)
            raise
        service.uploads.end(put.upload, upload, key)
        self._reply(wire.PUT, number, key)

    def _receive_object(self, upload: Upload) -> None:
        there = min(self._end - self._start, len(upload.missing))
        upload.missing[:there] = self._buffer[self._start : self._start + there]
        self._start += there
        upload.note(there)
        limits = self._service.limits
        pace = ClientPace(None, limits)

        def moved(nbytes: int) -> None:
            upload.note(nbytes)
            pace.after(nbytes)

        self._stream.set_timeouts(limits.stall, limits.stall)
        try:
            self._stream.receive_all(upload.missing, moved)
        finally:
            self._stream.set_timeouts(_LINGER, limits.stall)

    # Answering.

    def _reply(self, kind: int, number: int, body: bytes, *, flags: int = 0) -> None:
        with self._sending:
            self._stream.send(wire.encode_reply(kind, number, body, flags=flags))

    def _fail(self, kind: int, number: int, error: ProxyStoreHpcError) -> None:
        status, text = wire.encode_error(error)
        with self._sending:
            self._stream.send(wire.encode_reply(kind, number, text, status=status))
        # Of those that showed a valid key an owner may well have ended.
        suspect = (InvalidKeyError, OwnerGoneError)
        if isinstance(error, AccessDeniedError) or (not self.proven and isinstance(error, suspect)):
            self._note_denial()

    def _note_denial(self) -> None:
        """Slows down who tries keys."""
        self._service.denials += 1
        self._denials += 1
        if self._denials >= _MOST_DENIALS:
            raise _DismissedError("too many requests without a valid key")
        time.sleep(_PAUSE * 2**self._denials)
