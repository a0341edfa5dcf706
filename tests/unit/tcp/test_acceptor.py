"""What one connection does must not end the others."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from support import procfs

from proxystore_hpc.tcp import wire
from proxystore_hpc.tcp.acceptor import Acceptor
from proxystore_hpc.tcp.limits import Limits, Staging
from proxystore_hpc.tcp.sessions import Service, Session
from proxystore_hpc.tcp.sources import Located, Objects, Owners

HELLO = wire.encode_hello(0, 0)
OWNER = b"owner of nothing" + bytes(7)
STRANGER = bytes([2]) + bytes(51) + b"somebody else..." + bytes(7) + b"\0\0"


class Serving:
    """An acceptor in this process, for an owner that nobody asks."""

    def __init__(self, **limits):
        from proxystore_hpc import _core

        self.instance = _core.Instance("tcp", capacity=1 << 20, pool_capacity=1 << 20)
        staging = Staging(1 << 20)
        self.objects = Objects(self.instance, Owners(OWNER), staging)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.service = Service(self.objects, Limits(**limits), staging)
        self.acceptor = Acceptor(self.service, [self.listener], None)
        self.thread = threading.Thread(target=self.acceptor.run, daemon=True)

    def connect(self):
        return socket.create_connection(self.address, 10)

    def greet(self):
        raw = self.connect()
        raw.sendall(HELLO)
        assert len(raw.recv(wire.HELLO.size, socket.MSG_WAITALL)) == wire.HELLO.size
        return raw

    def close(self):
        self.acceptor.stop()
        if self.thread.ident is not None:
            self.thread.join(10)
        self.objects.close()
        self.instance.close()


@pytest.fixture
def serving():
    made = []

    def make(**limits):
        made.append(Serving(**limits))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_an_event_of_a_connection_that_an_event_before_it_ended(serving, caplog):
    caplog.set_level("DEBUG", logger="proxystore_hpc.tcp")
    here = serving(greeting=16)
    acceptor, select = here.acceptor, here.acceptor._selector.select
    guests = [here.connect() for _ in range(4)]
    procfs.wait_until(lambda: acceptor._accept(here.listener) or len(acceptor._guests) == 4, "four")
    # The oldest has said something, and gives its place to a fifth, in one look at the events.
    guests[0].sendall(HELLO[:1])
    fifth = here.connect()

    def listener_first(timeout=None):
        return sorted(select(timeout), key=lambda event: event[0].data is not None)

    procfs.wait_until(lambda: len(select(0)) == 2, "both events")
    acceptor._selector.select = listener_first
    here.thread.start()
    fifth.sendall(HELLO)
    assert fifth.recv(wire.HELLO.size, socket.MSG_WAITALL)
    with pytest.raises(ConnectionResetError):  # what it said was not heard
        guests[0].recv(1)
    here.thread.join(0.2)
    here.greet().close()
    # Nor was the closed connection listened to.
    assert "said no hello" not in caplog.text
    for raw in (*guests, fifth):
        raw.close()


def test_an_error_in_one_connection_is_logged_and_the_others_go_on(serving, monkeypatch, caplog):
    here = serving()
    monkeypatch.setattr(here.acceptor, "_greet", lambda *_: 1 // 0)
    here.thread.start()
    with here.connect() as raw:
        time.sleep(0.05)  # so that it is watched, and heard later
        raw.sendall(HELLO)
        assert raw.recv(10) == b""
    monkeypatch.undo()
    here.greet().close()
    assert "ZeroDivisionError" in caplog.text


def test_a_wait_that_fails_while_its_connection_is_silent(serving, monkeypatch):
    """Its descriptor is closed by who watches it, or the next one is taken for it."""
    monkeypatch.setattr("proxystore_hpc.tcp.sessions._LINGER", 0.05)
    here = serving()
    here.thread.start()
    raw = here.greet()
    procfs.wait_until(lambda: bool(here.acceptor._parked), "it is watched")
    (session,) = here.acceptor._parked
    spare = [socket.socket() for _ in range(5)]  # so that the server gets the descriptor
    session._denials = 100
    session._waits += 1
    here.service.waiting.acquire()
    session._wait(1, STRANGER, time.monotonic() + 5.0)
    for other in spare:
        other.settimeout(5)
        other.connect(here.address)
        other.sendall(HELLO)
        assert other.recv(wire.HELLO.size, socket.MSG_WAITALL)
    assert here.thread.is_alive()
    assert raw.recv(1000).startswith(wire.HEAD.pack(wire.REPLY | wire.WAIT, 0, 10, 1, 0)[:8])
    assert raw.recv(1000) == b""
    procfs.wait_until(lambda: here.acceptor.connections == 5, "it is closed")
    for other in (*spare, raw):
        other.close()


INVALID = wire.encode_batch(wire.Batch([b"no key"], False, 1.0))
EMPTY = wire.encode_batch(wire.Batch([], False, 1.0))
DENIED = wire.encode_batch(wire.Batch([STRANGER], False, 1.0))


def said_until_the_end(raw):
    raw.settimeout(30)
    said = b""
    try:
        while piece := raw.recv(65536):
            said += piece
    except ConnectionResetError:
        pass
    return said


@pytest.mark.parametrize(
    ("kind", "body"),
    [(wire.PING, b""), (wire.EXISTS, EMPTY), (wire.EXISTS, INVALID), (wire.EXISTS, DENIED)],
    ids=["ping", "empty", "invalid", "denied"],
)
def test_who_shows_no_valid_key_is_ended(serving, monkeypatch, kind, body):
    monkeypatch.setattr("proxystore_hpc.tcp.sessions._PAUSE", 0.0001)
    here = serving()
    here.thread.start()
    with here.greet() as raw:
        raw.sendall(wire.encode_request(kind, 1, body) * 20)
        said = said_until_the_end(raw)
    procfs.wait_until(lambda: here.acceptor.connections == 0, "it is closed")
    head = wire.HEAD.pack(wire.REPLY | kind, 0, 0, 1, 0)[:8]
    assert said.count(head) <= 8
    assert wire.HEAD.pack(wire.REPLY | kind, 0, 11, 1, 0)[:8] not in said


def test_a_stranger_is_ended_in_the_end_and_makes_room_before(serving, monkeypatch):
    monkeypatch.setattr("proxystore_hpc.tcp.sessions._MOST_DENIALS", 1 << 30)
    monkeypatch.setattr("proxystore_hpc.tcp.sessions._PAUSE", 0.0)
    monkeypatch.setattr("proxystore_hpc.tcp.acceptor._SETTLED", 0.1)
    here = serving(connections=4, stranger=1.0)
    here.thread.start()
    ping = wire.encode_request(wire.PING, 1, b"")
    with here.greet() as first:
        first.sendall(ping)
        time.sleep(0.2)
        with here.greet() as second:  # a quarter of four is one
            second.sendall(ping)
            assert second.recv(wire.HEAD.size, socket.MSG_WAITALL)
            assert said_until_the_end(first) in (b"", wire.encode_reply(wire.PING, 1, b""))
            with pytest.raises((ConnectionError, TimeoutError)):
                for _ in range(100):
                    second.sendall(ping)
                    if not second.recv(100):
                        raise ConnectionResetError
                    time.sleep(0.05)


def test_objects_are_looked_after_whatever_happens(serving, monkeypatch, caplog):
    objects = serving().objects
    monkeypatch.setattr("proxystore_hpc.tcp.sources._TEND", 0.01)
    looked = []
    monkeypatch.setattr(objects, "_tend_once", lambda: looked.append(1) or 1 // (len(looked) > 2))
    thread = threading.Thread(target=objects.tend)
    thread.start()
    procfs.wait_until(lambda: len(looked) > 3, "it goes on")
    objects.close()
    thread.join(10)
    assert "ZeroDivisionError" in caplog.text


def test_what_is_known_is_forgotten_by_one_thread_at_a_time(serving):
    objects = serving().objects
    located = Located(STRANGER, 1, False, OWNER[:16])
    with objects._lock:
        thread = threading.Thread(target=objects.forget, args=(located,))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join(10)
    assert not thread.is_alive()


def test_no_thread_waits_for_an_object_whose_key_is_not_valid(serving, monkeypatch):
    monkeypatch.setattr("proxystore_hpc.tcp.sessions._PAUSE", 0.0001)
    here = serving()
    started = []
    wait = Session._wait
    monkeypatch.setattr(Session, "_wait", lambda *a: (started.append(1), wait(*a)))
    here.thread.start()
    with here.greet() as raw:
        raw.sendall(wire.encode_request(wire.WAIT, 1, wire.encode_ask(STRANGER, 5.0)) * 20)
        assert said_until_the_end(raw).count(wire.DENIED.encode()) <= 8
    assert not started


def test_a_small_object_that_has_gone_is_not_taken_for_known_any_longer(serving):
    here = serving()
    here.objects.verified[STRANGER] = Located(STRANGER, 8, False, OWNER[:16])
    here.thread.start()
    get = wire.encode_get(wire.Get(STRANGER, 0, 8, 2.0))
    with here.greet() as raw:
        raw.sendall(wire.encode_request(wire.GET, 1, get))
        head = wire.decode_reply(raw.recv(wire.HEAD.size, socket.MSG_WAITALL))
        assert (head.kind, head.number) == (wire.GET, 1)
        assert head.status
    assert not here.objects.verified
