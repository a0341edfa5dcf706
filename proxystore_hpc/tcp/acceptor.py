"""Takes connections, hears their hello, and watches those that are silent.

One thread does so for all of them, so that who connects and says nothing costs a descriptor and no
more. A connection gets a thread of its own while it asks for something.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from proxystore_hpc.exceptions import ProtocolError
from proxystore_hpc.tcp import wire
from proxystore_hpc.tcp.sessions import Service, Session

logger = logging.getLogger(__name__)

_PERIOD = 0.5
_BACKLOG = 1024
_SETTLED = 2.0
"""Seconds after which a client has shown a valid key if it has one."""


@dataclass(eq=False)
class _Guest:
    """A connection that has not said hello."""

    raw: socket.socket
    host: str
    deadline: float
    shaken: bool
    said: bytearray = field(default_factory=bytearray)


class Acceptor:
    """The listening side of a server.

    Args:
        service: What is served.
        listeners: Bound sockets.
        context: For TLS; `None` for plain connections.
    """

    def __init__(
        self,
        service: Service,
        listeners: Sequence[socket.socket],
        context: ssl.SSLContext | None,
    ) -> None:
        self._service = service
        self._limits = service.limits
        self._context = context
        self._selector = selectors.DefaultSelector()
        self._listeners = list(listeners)
        self._guests: collections.OrderedDict[socket.socket, _Guest] = collections.OrderedDict()
        self._guests_of: collections.Counter[str] = collections.Counter()
        self._sessions: set[Session] = set()
        self._parked: dict[Session, None] = {}
        self._returning: collections.deque[Session] = collections.deque()
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._lock = threading.Lock()
        self._stopping = False
        for listener in self._listeners:
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._ear, selectors.EVENT_READ)

    @property
    def connections(self) -> int:
        """Connections that have said hello."""
        return len(self._sessions)

    def run(self) -> None:
        """Serves until `stop`."""
        look = time.monotonic() + _PERIOD
        while not self._stopping:
            for selected, _ in self._selector.select(_PERIOD):
                try:
                    self._handle(selected)
                except Exception:  # one connection must not end all of them
                    logger.exception("a connection failed")
                    self._drop(selected.data)
            self._park_returning()
            now = time.monotonic()
            if now >= look:
                look = now + _PERIOD
                self._end_late_ones(now)
        self._end_all()

    def stop(self) -> None:
        """Ends `run`, and all connections. Any thread."""
        self._stopping = True
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(OSError):
            self._bell.send(b"\0")

    def _handle(self, selected: selectors.SelectorKey) -> None:
        # An event before this one may have ended the connection that this one is about.
        subject = selected.data
        if isinstance(subject, _Guest):
            if subject.raw in self._guests:
                self._hear(subject)
        elif isinstance(subject, Session):
            if subject in self._parked:
                self._unpark(subject)
                self._start(subject)
        elif selected.fileobj is self._ear:
            with contextlib.suppress(OSError):
                self._ear.recv(4096)
        elif isinstance(selected.fileobj, socket.socket):
            self._accept(selected.fileobj)

    def _drop(self, subject: object) -> None:
        if isinstance(subject, _Guest):
            self._dismiss(subject)
        elif isinstance(subject, Session):
            self._unpark(subject)
            subject.close()

    # Guests.

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(64):
            try:
                raw, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Out of descriptors, most likely: those who say nothing give theirs up.
                logger.warning("a connection cannot be taken: %s", error)
                self._drop_oldest_guest(None)
                time.sleep(0.01)
                return
            self._welcome(raw, str(address[0]))

    def _welcome(self, raw: socket.socket, host: str) -> None:
        if self._guests_of[host] >= max(self._limits.greeting // 4, 1):
            self._drop_oldest_guest(host)
        if len(self._guests) >= self._limits.greeting:
            self._drop_oldest_guest(None)
        raw.setblocking(False)
        if self._context is not None:
            try:
                raw = self._context.wrap_socket(
                    raw, server_side=True, do_handshake_on_connect=False
                )
            except (OSError, ValueError):
                raw.close()
                return
        deadline = time.monotonic() + self._limits.hello
        guest = _Guest(raw, host, deadline, self._context is None)
        try:
            self._selector.register(raw, selectors.EVENT_READ, guest)
        except (KeyError, ValueError, OSError):
            logger.exception("a connection from %s cannot be watched", host)
            raw.close()
            return
        self._guests[raw] = guest
        self._guests_of[host] += 1
        # What it has to say is often there by now.
        self._hear(guest)

    def _drop_oldest_guest(self, host: str | None) -> None:
        for guest in self._guests.values():
            if host in (None, guest.host):
                self._dismiss(guest)
                return

    def _forget(self, guest: _Guest) -> None:
        if self._guests.pop(guest.raw, None) is None:
            return
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(guest.raw)
        self._guests_of[guest.host] -= 1
        if not self._guests_of[guest.host]:
            del self._guests_of[guest.host]

    def _dismiss(self, guest: _Guest) -> None:
        self._forget(guest)
        guest.raw.close()

    def _hear(self, guest: _Guest) -> None:
        try:
            if not guest.shaken and isinstance(guest.raw, ssl.SSLSocket):
                guest.raw.do_handshake()
                guest.shaken = True
            piece = guest.raw.recv(wire.HELLO.size - len(guest.said))
            guest.said += piece
            if piece and len(guest.said) < wire.HELLO.size:
                if isinstance(guest.raw, ssl.SSLSocket) and guest.raw.pending():
                    self._hear(guest)
                return
            self._greet(guest, wire.decode_hello(guest.said))
        except (ssl.SSLWantReadError, BlockingIOError):
            self._watch(guest, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._watch(guest, selectors.EVENT_WRITE)
        except (OSError, ProtocolError, ValueError) as error:
            logger.debug("a connection from %s said no hello: %s", guest.host, error)
            self._dismiss(guest)

    def _watch(self, guest: _Guest, events: int) -> None:
        if self._selector.get_key(guest.raw).events != events:
            self._selector.modify(guest.raw, events, guest)

    def _greet(self, guest: _Guest, hello: wire.Hello) -> None:
        features = hello.features & self._service.features
        guest.raw.send(wire.encode_hello(self._service.role, features))
        if hello.version != wire.VERSION:
            raise ProtocolError(f"it speaks version {hello.version}")
        self._forget(guest)
        if not self._has_room(guest.host):
            logger.warning("a connection from %s was refused: too many are in use", guest.host)
            guest.raw.close()
            return
        try:
            session = Session(self._service, guest.raw, guest.host, features, self._ended)
        except OSError:
            guest.raw.close()
            return
        with self._lock:
            self._sessions.add(session)
        self._start(session)

    # Sessions.

    def _has_room(self, host: str) -> bool:
        """Whether a connection can be taken; ends one that is silent, or a stranger's, if need be.

        Strangers of one host may have a quarter of all.
        """
        with self._lock:
            strangers = [s for s in self._sessions if not s.proven and not s.ending]
            full = len(self._sessions) >= self._limits.connections
        neighbours = [s for s in strangers if s.host == host]
        if full:
            if self._end_longest_silent(list(self._parked)):
                return True
            self._end_oldest(strangers)  # there is room once its thread has ended
            return False
        if len(neighbours) >= max(self._limits.connections // 4, 1):
            return self._end_longest_silent(
                [s for s in self._parked if s in neighbours]
            ) or self._end_oldest(neighbours)
        return True

    def _end_oldest(self, sessions: Sequence[Session]) -> bool:
        oldest = max(sessions, key=lambda s: s.age, default=None)
        if oldest is None or oldest.age < _SETTLED:
            return False
        oldest.end()
        return True

    def _end_longest_silent(self, sessions: Sequence[Session]) -> bool:
        """Strangers first."""
        silent = min(sessions, key=lambda s: (s.proven, s.idle_since), default=None)
        if silent is None:
            return False
        self._unpark(silent)
        silent.close()
        return True

    def _start(self, session: Session) -> None:
        try:
            threading.Thread(
                target=self._serve, args=(session,), name="pshpc-session", daemon=True
            ).start()
        except RuntimeError as error:
            logger.warning("a connection was ended: %s", error)
            session.close()

    def _serve(self, session: Session) -> None:
        if session.run():
            self._returning.append(session)
            self._ring()

    def _ended(self, session: Session) -> None:
        with self._lock:
            self._sessions.discard(session)

    def _park_returning(self) -> None:
        while self._returning:
            session = self._returning.popleft()
            try:
                self._selector.register(session.raw, selectors.EVENT_READ, session)
            except (ValueError, KeyError, OSError):
                session.close()
                continue
            self._parked[session] = None

    def _unpark(self, session: Session) -> None:
        self._parked.pop(session, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(session.raw)

    def _end_late_ones(self, now: float) -> None:
        self._service.uploads.tend(now)
        for guest in [g for g in self._guests.values() if g.deadline < now]:
            self._dismiss(guest)
        late = [s for s in self._parked if now - s.idle_since > s.longest_idle]
        for session in late:
            self._unpark(session)
            session.close()

    def _end_all(self) -> None:
        for listener in self._listeners:
            listener.close()
        for guest in list(self._guests.values()):
            self._dismiss(guest)
        for session in [*self._parked, *self._returning]:
            session.close()
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.end()
        self._selector.close()
        self._bell.close()
        self._ear.close()
