"""Garbage sent to a node socket: it is dropped, the server goes on serving."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import procfs

pytestmark = pytest.mark.faults

HEADER = struct.Struct("<4sIHHIQ")
HELLO, REQUEST, REPLY = 2, 3, 4
KINDS = range(20)
METHODS = range(1, 18)
LOCATE, SEGMENT, FETCH, WAIT = 1, 4, 10, 11


def connect(owner):
    """A connection that has received the server's challenge."""
    raw = socket.socket(socket.AF_UNIX)
    raw.settimeout(5)
    raw.connect("\0" + procfs.node_socket(owner.addresses[0]))
    return raw


def frame(kind, body=b"", *, magic=b"PSPC", size=None, fds=0, number=1):
    return HEADER.pack(magic, len(body) if size is None else size, kind, fds, 0, number) + body


def request(method, body=b"", *, flags=0, provider=0, number=1):
    """A call of one of the library's own methods, or of any other."""
    head = struct.pack("<BBHIQQ", 1, flags, provider, 0, number, method)
    return frame(REQUEST, head + body, number=number)


def receive_frame(raw):
    head = b""
    while len(head) < HEADER.size:
        piece = raw.recv(HEADER.size - len(head))
        if not piece:
            return None
        head += piece
    _, size, kind, _, _, number = HEADER.unpack(head)
    body = b""
    while len(body) < size:
        body += raw.recv(size - len(body))
    return kind, number, body


def closed_by_peer(raw):
    """Reads until the server hangs up."""
    with contextlib.suppress(ConnectionError):
        while raw.recv(65536):
            pass


def hello(pin_table=False, offers=()):
    """A hello without proof, which suffices on the node; offers are a door and its descriptors."""
    version, no_proof, no_ticket = struct.pack("<I", 6), b"\0", b"\0" * 8
    tag = b"c" * 16
    address = tag + struct.pack("<IHB", 0, 0, 0)
    told = bytes([len(offers)])
    for door, attached in offers:
        told += struct.pack("<I", len(door)) + door + struct.pack("<IQB", 0, 1, attached)
    return version + address + no_proof + no_ticket + tag + bytes([pin_table]) + told


def greet(raw):
    kind, _, _ = receive_frame(raw)
    assert kind == 1
    raw.sendall(frame(HELLO, hello()))
    return receive_frame(raw)


@pytest.fixture(scope="module")
def server(make_lasting_peer):
    return make_lasting_peer(name="store", capacity="64MiB")


@pytest.fixture(scope="module")
def client(make_lasting_peer):
    return make_lasting_peer(name="store", doors=("shm",))


@pytest.fixture
def check(server, client):
    """After the test the server serves a client, has no more descriptors, and is idle."""
    keys = server(lambda here: here.store.put_batch([np.arange(100), "x"]))
    client(lambda here: here.store.get(keys[0]))
    before = server(lambda here: procfs.fd_count())
    yield
    assert client(lambda here: int(here.store.get(keys[0]).sum())) == 4950
    assert client(lambda here: here.store.exists_batch(keys)) == [True, True]
    procfs.wait_until(
        lambda: server(lambda here: procfs.fd_count()) <= before, "connections are closed"
    )

    def cpu(here):
        return time.process_time()

    used = server(cpu)
    time.sleep(0.3)
    assert server(cpu) - used < 0.2


@pytest.mark.usefixtures("check")
@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\0" * 100,
        b"GET / HTTP/1.1\r\n\r\n" * 5,
        frame(2, magic=b"XXXX"),
        frame(2, size=0xFFFFFFFF),
        frame(2, size=(4 << 20) + 1),
        frame(2, fds=3),
        frame(2, b""),
        frame(2, b"\xff" * 1000),
        frame(REPLY, b"a reply nobody waits for"),
        request(LOCATE, b"before the hello"),
        frame(999),
    ],
    ids=lambda g: f"{g[:12]!r}-{len(g)}",
)
def test_before_the_hello(server, garbage):
    with connect(server) as raw:
        raw.sendall(garbage)
        raw.shutdown(socket.SHUT_WR)
        closed_by_peer(raw)


@pytest.mark.usefixtures("check")
def test_half_a_frame_and_then_nothing(server):
    with connect(server) as raw:
        raw.sendall(frame(2, b"x" * 1000)[:500])
        time.sleep(0.2)


@pytest.mark.usefixtures("check")
def test_a_frame_byte_by_byte(server):
    with connect(server) as raw:
        receive_frame(raw)
        for byte in frame(HELLO, hello()):
            raw.send(bytes([byte]))
        assert receive_frame(raw)[0] == REPLY


@pytest.mark.usefixtures("check")
@pytest.mark.parametrize("kind", KINDS)
def test_frames_that_are_cut_short(server, kind):
    with connect(server) as raw:
        assert greet(raw)[0] == REPLY
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for body in (b"", b"\0", b"\xff" * 7, b"\xff" * 300):
                raw.sendall(frame(kind, body))
        raw.shutdown(socket.SHUT_WR)
        closed_by_peer(raw)


@pytest.mark.usefixtures("check")
@pytest.mark.parametrize("method", METHODS)
def test_requests_that_are_cut_short(server, method):
    with connect(server) as raw:
        assert greet(raw)[0] == REPLY
        for body in (b"", b"\0", b"\xff" * 7, b"\xff" * 300):
            raw.sendall(request(method, body))
            assert receive_frame(raw)[0] == REPLY
        raw.shutdown(socket.SHUT_WR)
        closed_by_peer(raw)


@pytest.mark.usefixtures("check")
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    requests=st.lists(
        st.one_of(
            st.builds(frame, st.sampled_from(KINDS), st.binary(max_size=200)),
            st.builds(
                request,
                st.one_of(st.sampled_from(METHODS), st.integers(0, 2**64 - 1)),
                st.binary(max_size=200),
                flags=st.integers(0, 255),
                provider=st.integers(0, 65535),
            ),
        ),
        min_size=1,
        max_size=20,
    ),
    tail=st.binary(max_size=50),
)
def test_requests_of_noise(server, requests, tail):
    with connect(server) as raw:
        assert greet(raw)[0] == REPLY
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            raw.sendall(b"".join(requests) + tail)
            raw.shutdown(socket.SHUT_WR)
        closed_by_peer(raw)


@pytest.mark.usefixtures("check")
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(noise=st.binary(min_size=1, max_size=300))
def test_noise(server, noise):
    with connect(server) as raw:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            raw.sendall(noise)
            raw.shutdown(socket.SHUT_WR)
        closed_by_peer(raw)


@pytest.mark.usefixtures("check")
@pytest.mark.parametrize("what", ["/dev/zero", "/proc/self/exe", "pipe"])
@pytest.mark.parametrize("announced", [0, 1])
def test_descriptors_that_nobody_asked_for(server, what, announced):
    fds = list(os.pipe()) if what == "pipe" else [os.open(what, os.O_RDONLY)]
    try:
        with connect(server) as raw:
            receive_frame(raw)
            body = hello(pin_table=True)
            passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds[:1]))]
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for _ in range(70):
                    raw.sendmsg([frame(HELLO, body, fds=announced)], passed)
            closed_by_peer(raw)
    finally:
        for fd in fds:
            os.close(fd)


def no_rings(kind):
    """Two descriptors that are no pair of rings with a bell."""
    if kind == "files":
        return [os.open("/dev/zero", os.O_RDWR), os.open("/dev/null", os.O_RDWR)]
    bell, other = socket.socketpair()
    other.close()
    memory = os.memfd_create("rings", os.MFD_ALLOW_SEALING)
    if kind != "empty":
        os.ftruncate(memory, 4096 + 2 * 256 * 1024)
    if kind != "unsealed":
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return [memory, bell.detach()]


@pytest.mark.usefixtures("check")
@pytest.mark.parametrize("kind", ["files", "empty", "unsealed", "holes"])
def test_offers_of_rings_that_are_none(server, kind):
    """They are declined; what was said hello to goes on."""
    fds = no_rings(kind)
    try:
        with connect(server) as raw:
            receive_frame(raw)
            body = hello(offers=[(b"ring", 2)])
            socket.send_fds(raw, [frame(HELLO, body, fds=2)], fds)
            reply, _, welcome = receive_frame(raw)
            assert reply == REPLY
            assert b"ring" not in welcome
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.usefixtures("check")
@pytest.mark.parametrize("attached", [0, 1, 3, 255])
def test_offers_with_other_descriptors_than_announced(server, attached):
    fds = no_rings("holes")
    try:
        with connect(server) as raw:
            receive_frame(raw)
            body = hello(offers=[(b"ring", attached), (b"nowhere", 0)])
            socket.send_fds(raw, [frame(HELLO, body, fds=2)], fds)
            closed_by_peer(raw)
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.usefixtures("check")
def test_a_client_that_does_not_read(server, client):
    """Its answers pile up; it is dropped, or waits, but the others are served."""
    key = server(lambda here: here.store.put(b"x" * (2 << 20)))
    packed = bytes(key)
    fetch = packed[4:12] + packed[36:52] + struct.pack("<QQ", 0, 1 << 20)
    with connect(server) as raw:
        assert greet(raw)[0] == REPLY
        raw.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for number in range(500):
                raw.sendall(request(FETCH, fetch, number=number))
        assert client(lambda here: len(here.store.get(key))) == 2 << 20


@pytest.mark.usefixtures("check")
def test_a_thousand_connections(server):
    for _ in range(10):
        held = [connect(server) for _ in range(100)]
        for raw in held:
            raw.close()


@pytest.mark.usefixtures("check")
def test_requests_for_the_objects_of_others(server):
    """Every request that names an object has to show its capability."""
    key = server(lambda here: here.store.put(b"secret" * 100))
    packed = bytes(key)
    reference = packed[4:12] + b"\0" * 16
    with connect(server) as raw:
        assert greet(raw)[0] == REPLY
        for method, body in (
            (LOCATE, reference),
            (FETCH, reference + struct.pack("<QQ", 0, 100)),
            (SEGMENT, reference + struct.pack("<HB", 0, 0)),
            (WAIT, reference + struct.pack("<q", 10**9)),
        ):
            raw.sendall(request(method, body))
            _, _, answer = receive_frame(raw)
            assert b"secretsecret" not in answer
            assert b"not issued" in answer
    assert server(lambda here: here.store.exists(key))
