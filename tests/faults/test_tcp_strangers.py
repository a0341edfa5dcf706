"""Strangers at a server's port: garbage, silence, slowness, wrong keys of both kinds."""

from __future__ import annotations

import contextlib
import datetime
import random
import resource
import socket
import ssl
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import procfs, tcp

from proxystore_hpc.exceptions import AccessDeniedError, DoorUnavailableError
from proxystore_hpc.serialize import loads
from proxystore_hpc.tcp import wire
from proxystore_hpc.tcp.client import TcpClient
from proxystore_hpc.tcp.endpoints import TcpEndpoint

pytestmark = pytest.mark.faults

MIB = 1 << 20
HELLO = wire.encode_hello(0, 0)


class Served:
    """A server beside a peer, and a small object that it serves."""

    def __init__(self, owner, **options):
        self.owner = owner
        (self.endpoint,), self.pid = owner(lambda here: tcp.serve(here, **options))
        (self.key,) = owner(tcp.put, "x")
        self.serves()

    def connect(self, greeting=HELLO):
        raw = socket.create_connection((self.endpoint.host, self.endpoint.port), 10)
        raw.sendall(greeting)
        return raw

    def greet(self):
        raw = self.connect()
        receive(raw, wire.HELLO.size)
        return raw

    def serves(self, timeout=10.0):
        with TcpClient(endpoints=[self.endpoint], timeout=timeout) as client:
            assert loads(client.get(self.key)) == "x"

    def sockets(self):
        return sum(target.startswith("socket:") for target in procfs.fd_targets(self.pid))

    def memory(self):
        """Bytes that are its own and resident."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return sum(
            int(line.split()[1]) * 1024
            for line in text.splitlines()
            if line.startswith(("Private_Dirty:", "Private_Clean:"))
        )


def receive(raw, nbytes):
    data = b""
    while len(data) < nbytes:
        piece = raw.recv(nbytes - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def closed_by_server(raw, timeout=10.0):
    """Reads until the server hangs up; what it said."""
    raw.settimeout(timeout)
    said = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := raw.recv(65536):
            said += piece
    return bytes(said)


@pytest.fixture(scope="module")
def served(make_lasting_peer):
    owner = make_lasting_peer(name="store", capacity="96MiB")
    limits = {"hello": 2.0, "request": 2.0, "unproven": 2.0, "stall": 2.0, "greeting": 512}
    yield Served(owner, limits=limits)
    owner(tcp.close)


@pytest.fixture
def check(served):
    """After the test the server serves, and its descriptors and threads are what they were."""
    served.serves()
    fds, threads = procfs.fd_count(served.pid), procfs.thread_count(served.pid)
    yield
    served.serves()
    procfs.wait_until(lambda: procfs.fd_count(served.pid) <= fds + 1, "connections are closed")
    procfs.wait_until(lambda: procfs.thread_count(served.pid) <= threads + 1, "threads ended")


@pytest.mark.usefixtures("check")
@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 5,
        b"\0" * 100,
        b"\x16\x03\x01" + b"\xff" * 200,
        wire.HELLO.pack(b"PSHPCTCX", 1, 0, 0),
    ],
    ids=["http", "zeros", "tls", "magic"],
)
def test_no_hello(served, garbage):
    with served.connect(garbage) as raw:
        assert closed_by_server(raw) == b""


@pytest.mark.usefixtures("check")
def test_another_version_is_told_ours(served):
    with served.connect(wire.HELLO.pack(wire.MAGIC, 9, 0, 0)) as raw:
        assert wire.decode_hello(closed_by_server(raw)).version == wire.VERSION


@pytest.mark.usefixtures("check")
def test_a_cut_hello(served):
    with served.connect(HELLO[:7]) as raw:
        raw.shutdown(socket.SHUT_WR)
        assert closed_by_server(raw) == b""


@pytest.mark.usefixtures("check")
@pytest.mark.parametrize(
    "frame",
    [
        wire.HEAD.pack(99, 0, 0, 1, 0),
        wire.HEAD.pack(wire.GET, 0, 0, 1, wire.MAX_REQUEST + 1),
        wire.HEAD.pack(wire.GET, 0, 0, 1, (1 << 64) - 1),
        wire.HEAD.pack(wire.REPLY | wire.GET, 0, 0, 1, 8) + bytes(8),
        wire.encode_request(wire.GET, 1, b""),
        wire.encode_request(wire.EXISTS, 1, b"\xff" * 40),
        wire.encode_request(wire.PUT, 1, b"\xff" * 40),
    ],
    ids=["kind", "large", "huge", "reply", "empty", "batch", "put"],
)
def test_frames_that_are_none(served, frame):
    with served.greet() as raw:
        raw.sendall(frame)
        closed_by_server(raw)


@pytest.mark.usefixtures("check")
def test_a_replayed_connection_is_answered_like_the_first(served):
    """A capability is what grants access: who can replay a request could have made it."""
    body = wire.encode_get(wire.Get(served.key, 0, wire.TO_THE_END, 5.0))
    session = HELLO + wire.encode_request(wire.GET, 7, body) * 3
    answers = []
    for _ in range(2):
        with served.connect(session) as raw:
            raw.shutdown(socket.SHUT_WR)
            answers.append(closed_by_server(raw))
    assert answers[0] == answers[1]
    assert len(answers[0]) > 3 * wire.FIRST_PIECE.size


def valid_session(key):
    get = wire.encode_get(wire.Get(key, 0, wire.TO_THE_END, 0.05))
    batch = wire.encode_batch(wire.Batch([key, key], False, 0.05))
    return (
        HELLO
        + wire.encode_request(wire.GET, 1, get)
        + wire.encode_request(wire.EXISTS, 2, batch)
        + wire.encode_request(wire.STORE, 3, wire.encode_ask(key, 0.05))
        + wire.encode_request(wire.WAIT, 4, wire.encode_ask(key, 0.05))
    )


def misused(served, data):
    """Sends bytes and hangs up; no answer is waited for."""
    with served.connect(b"") as raw:
        # A reset at once, so that ports do not run out.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            raw.sendall(data)
            if len(data) % 3 == 0:
                raw.settimeout(0.01)
                raw.recv(1000)


mutations = st.lists(
    st.tuples(st.integers(0, 2000), st.sampled_from(["flip", "cut", "grow"]), st.integers(1, 255)),
    min_size=1,
    max_size=4,
)


def mutate(session, steps):
    data = bytearray(session)
    for position, what, value in steps:
        at = position % (len(data) + 1)
        if what == "flip" and at < len(data):
            data[at] ^= value
        elif what == "cut":
            del data[at : at + value]
        else:
            data[at:at] = bytes([value]) * value
    return bytes(data)


@pytest.mark.usefixtures("check")
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=mutations)
def test_sessions_that_were_tampered_with(served, steps):
    misused(served, mutate(valid_session(served.key), steps))


@pytest.mark.usefixtures("check")
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=2000))
def test_random_bytes_after_the_hello(served, garbage):
    misused(served, HELLO + garbage)


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_a_hundred_thousand_garbled_sessions(served):
    """The server is alive afterwards, and its memory flat."""
    rng = random.Random(5)
    session = valid_session(served.key)

    def some(count):
        for _ in range(count):
            steps = [
                (rng.randrange(2000), rng.choice(("flip", "cut", "grow")), rng.randint(1, 255))
                for _ in range(rng.randint(1, 4))
            ]
            misused(served, mutate(session, steps))

    some(5_000)
    before = served.memory()
    some(95_000)
    served.serves()
    procfs.wait_until(lambda: procfs.fd_count(served.pid) < 64, "connections are closed", 30.0)
    assert served.memory() < before + 24 * MIB


def connect_many(served, count, greeting=b""):
    raws = []
    for _ in range(count):
        raws.append(served.connect(greeting))
    return raws


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("check", "many_descriptors")
def test_a_thousand_clients_that_say_nothing(served):
    before = served.memory()
    raws = connect_many(served, 1000)
    try:
        began = time.monotonic()
        served.serves(timeout=5.0)
        assert time.monotonic() - began < 5.0
        # A quarter of those that may be before their hello, as all come from one host.
        assert procfs.fd_count(served.pid) < 300
        assert served.memory() < before + 32 * MIB
        for raw in raws:
            assert closed_by_server(raw) == b""
    finally:
        for raw in raws:
            raw.close()


@pytest.mark.usefixtures("check", "many_descriptors")
def test_many_that_said_hello_and_then_nothing(make_peer):
    """Those without a valid key make room for others, and are ended soon."""
    owner = make_peer(name="store", capacity="96MiB")
    served = Served(owner, limits={"connections": 50, "unproven": 3.0})
    raws = connect_many(served, 200, HELLO)
    served.serves(timeout=10.0)
    procfs.wait_until(lambda: procfs.fd_count(served.pid) < 100, "there is room")
    for raw in raws:
        closed_by_server(raw)
        raw.close()
    owner(tcp.close)


@pytest.mark.usefixtures("check")
def test_a_hello_byte_by_byte_is_not_waited_for(served):
    with served.connect(b"") as raw:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in HELLO[:-1]:
                raw.sendall(bytes([byte]))
                served.serves()
                time.sleep(0.4)
        closed_by_server(raw)
        assert time.monotonic() - began < 15.0


@pytest.mark.usefixtures("check")
def test_a_request_byte_by_byte_is_not_waited_for(served):
    body = wire.encode_get(wire.Get(served.key, 0, wire.TO_THE_END, 5.0))
    request = wire.encode_request(wire.GET, 1, body)
    with served.greet() as raw, pytest.raises(OSError, match=r"reset|pipe"):
        for byte in request[:-1] * 5:
            raw.sendall(bytes([byte]))
            time.sleep(0.2)


@pytest.mark.usefixtures("check")
def test_clients_that_do_not_take_their_answers_are_ended(served):
    large = served.owner(tcp.put_numbers, 48 * MIB)
    body = wire.encode_get(wire.Get(large, 0, wire.TO_THE_END, 5.0))
    before, sockets = served.memory(), served.sockets()
    raws = [served.greet() for _ in range(20)]
    for raw in raws:
        raw.sendall(wire.encode_request(wire.GET, 1, body) * 20)
    served.serves()
    assert served.memory() < before + 32 * MIB
    procfs.wait_until(lambda: served.sockets() <= sockets, "they were ended", 30.0)
    for raw in raws:
        assert len(closed_by_server(raw)) < 48 * MIB
        raw.close()


@pytest.mark.usefixtures("check")
def test_who_tries_keys_is_slowed_down_and_disconnected(served):
    wrong = served.key[:36] + bytes(16) + served.key[52:]
    body = wire.encode_get(wire.Get(wrong, 0, wire.TO_THE_END, 5.0))
    with served.greet() as raw:
        raw.settimeout(30)
        began = time.monotonic()
        raw.sendall(wire.encode_request(wire.GET, 1, body) * 20)
        said = closed_by_server(raw, 30)
        assert time.monotonic() - began > 2.0
    assert said.count(wire.DENIED.encode()) == 8


# Identities.


def test_another_public_key_is_refused_before_a_byte_is_sent(make_peer, tmp_path):
    owner = make_peer(name="store", capacity="96MiB")
    served = Served(owner, tls=True, state=str(tmp_path / "state.json"))
    other = replace(served.endpoint, pin=bytes(16))
    with (
        TcpClient(endpoints=[other]) as client,
        pytest.raises(AccessDeniedError, match="public key"),
    ):
        client.get(served.key)
    # Nor does a plain client learn anything.
    plain = TcpEndpoint(served.endpoint.host, served.endpoint.port)
    with (
        TcpClient(endpoints=[plain]) as client,
        pytest.raises(DoorUnavailableError, match="wants TLS"),
    ):
        client.get(served.key)
    served.serves()
    owner(tcp.close)


def test_what_a_client_sends_to_somebody_else(tmp_path):
    """Nothing but the handshake: neither hello nor key."""
    import threading

    from proxystore_hpc.tcp import tls
    from proxystore_hpc.tcp.identity import load_or_create

    context = tls.server_context(load_or_create(tmp_path / "state.json").pems)
    listener = socket.create_server(("127.0.0.1", 0))
    said = []

    def listen():
        raw, _ = listener.accept()
        with (
            context.wrap_socket(raw, server_side=True) as secured,
            contextlib.suppress(OSError),
        ):
            said.append(secured.recv(1000))

    thread = threading.Thread(target=listen)
    thread.start()
    endpoint = TcpEndpoint("127.0.0.1", listener.getsockname()[1], bytes(16))
    key = bytes([2]) + bytes(76)
    with TcpClient(endpoints=[endpoint]) as client:
        assert isinstance(client.exists([key])[0], AccessDeniedError)
    thread.join()
    listener.close()
    assert said in ([], [b""])


def test_a_rotated_server_is_known_by_old_and_new_keys(make_peer, tmp_path):
    from proxystore_hpc.tcp.identity import rotate

    state = tmp_path / "state.json"
    owner = make_peer(name="store", capacity="96MiB")
    old = Served(owner, tls=True, state=str(state))
    listen = str(old.endpoint)
    owner(tcp.close)
    rotate(state)
    new = Served(owner, tls=True, state=str(state), listen=listen)
    assert new.endpoint.pin != old.endpoint.pin
    old.serves()
    new.serves()
    owner(tcp.close)


def issue(folder, *, expired):
    """An authority, and a certificate of it for 127.0.0.1; paths of three files."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)

    def certificate(name, key, issuer, issuer_key, ends, extension):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 30 * day)
            .not_valid_after(ends)
            .add_extension(extension, critical=True)
            .sign(issuer_key, hashes.SHA256())
        )

    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    constraint = x509.BasicConstraints(ca=True, path_length=None)
    root = certificate("authority", authority_key, None, authority_key, now + day, constraint)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    ends = now - day if expired else now + day
    leaf = certificate("server", key, root.subject, authority_key, ends, names)
    files = {
        "ca.pem": root.public_bytes(serialization.Encoding.PEM),
        "cert.pem": leaf.public_bytes(serialization.Encoding.PEM),
        "key.pem": key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [str(folder / name) for name in files]


@pytest.mark.parametrize("expired", [False, True])
def test_certificates_of_an_authority(make_peer, tmp_path, expired):
    cafile, cert, key = issue(tmp_path, expired=expired)
    owner = make_peer(name="store", capacity="96MiB")
    (endpoint,), _ = owner(lambda here: tcp.serve(here, cert=cert, key=key))
    (packed,) = owner(tcp.put, "x")
    assert endpoint.authority
    assert endpoint.pin is None
    with TcpClient(endpoints=[endpoint], cafile=cafile) as client:
        if expired:
            with pytest.raises(DoorUnavailableError, match="expired"):
                client.get(packed)
        else:
            assert loads(client.get(packed)) == "x"
    with (
        TcpClient(endpoints=[endpoint]) as client,
        pytest.raises(DoorUnavailableError, match=r"does not hold"),
    ):
        client.get(packed)
    owner(tcp.close)


def test_an_expired_certificate_that_is_pinned_serves(make_peer, tmp_path):
    from proxystore_hpc.tcp import tls
    from proxystore_hpc.tcp.identity import Identity, _write

    _, cert, key = issue(tmp_path, expired=True)
    pem = Path(key).read_text() + Path(cert).read_text()
    _write(tmp_path / "state.json", Identity((pem,)), replace=True)
    owner = make_peer(name="store", capacity="96MiB")
    served = Served(owner, tls=True, state=str(tmp_path / "state.json"))
    assert served.endpoint.pin == tls.pin_of(tls.certificate_in(pem))
    owner(tcp.close)


def test_older_tls_is_refused(make_peer, tmp_path):
    owner = make_peer(name="store", capacity="96MiB")
    served = Served(owner, tls=True, state=str(tmp_path / "state.json"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection((served.endpoint.host, served.endpoint.port), 10) as raw,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(raw)
    owner(tcp.close)
