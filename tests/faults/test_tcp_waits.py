"""How many threads of a server may wait for objects."""

from __future__ import annotations

import socket

import pytest
from support import procfs, tcp

from proxystore_hpc.key import Key
from proxystore_hpc.tcp import wire

pytestmark = pytest.mark.faults

FULL = 8
TIMED_OUT = 7
OF_ONE, OF_ALL = 4, 6


def awaited(here):
    """Packed key of an object that is not there yet."""
    return bytes(here.store.new_key())


class Asker:
    """A client that has one connection, and waits."""

    def __init__(self, endpoint):
        self.raw = socket.create_connection((endpoint.host, endpoint.port), 20)
        self.raw.sendall(wire.encode_hello(0, 0))
        self.take(wire.HELLO.size)
        self.number = 0

    def take(self, nbytes):
        data = b""
        while len(data) < nbytes:
            piece = self.raw.recv(nbytes - len(data))
            assert piece, "the server hung up"
            data += piece
        return data

    def ask(self, key, patience=30.0):
        self.number += 1
        body = wire.encode_ask(key, patience)
        self.raw.sendall(wire.encode_request(wire.WAIT, self.number, body))

    def answer(self):
        """Number and status of the next answer."""
        head = wire.decode_reply(self.take(wire.HEAD.size))
        self.take(head.size)
        return head.number, head.status


def test_waits_are_bounded_for_one_and_for_all(make_peer):
    owner = make_peer(name="store", capacity="16MiB")
    limits = {"waits": OF_ONE, "waiting": OF_ALL}
    (endpoint,), pid = owner(lambda here: tcp.serve(here, limits=limits))
    threads = procfs.thread_count(pid)
    key = owner(awaited)
    one, other = Asker(endpoint), Asker(endpoint)
    for _ in range(OF_ONE + 1):
        one.ask(key)
    assert one.answer() == (OF_ONE + 1, FULL)
    for _ in range(OF_ALL - OF_ONE + 1):
        other.ask(key)
    assert other.answer() == (OF_ALL - OF_ONE + 1, FULL)
    # A thread for each of them, one for each connection, and those of the owner's connection.
    assert procfs.thread_count(pid) <= threads + OF_ALL + 2 + 2
    # Who hangs up gives back what it took.
    one.raw.close()

    def another():
        other.ask(key, 0.01)
        return other.answer()[1] == TIMED_OUT

    procfs.wait_until(another, "there is room again", 20.0)
    owner(lambda here: here.store.set(Key(key), "it"))
    assert sorted(other.answer() for _ in range(OF_ALL - OF_ONE)) == [
        (number + 1, 0) for number in range(OF_ALL - OF_ONE)
    ]
    for _ in range(OF_ALL):
        other.ask(key)
    assert {other.answer()[1] for _ in range(OF_ALL)} <= {0, FULL}
    other.ask(key)
    assert other.answer()[1] == 0
    other.raw.close()
    owner(tcp.close)


@pytest.mark.full
def test_who_showed_no_valid_key_waits_for_less(make_peer):
    """While the owner cannot say whether a key is valid."""
    owner = make_peer(name="store", capacity="16MiB")
    (endpoint,), _ = owner(tcp.serve)
    key = owner(awaited)
    stranger = Asker(endpoint)
    owner.stop()
    try:
        for _ in range(5):
            stranger.ask(key)
        assert stranger.answer() == (5, FULL)
    finally:
        owner.resume()
    owner(lambda here: here.store.set(Key(key), "it"))
    assert sorted(stranger.answer() for _ in range(4)) == [(n, 0) for n in range(1, 5)]
    stranger.raw.close()
    owner(tcp.close)
