"""Connections that break, servers that are killed, links that stand still."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from dataclasses import replace

import pytest
from support import procfs, tcp

from proxystore_hpc.exceptions import (
    DoorUnavailableError,
    OperationTimeoutError,
    OwnerGoneError,
    ProxyStoreHpcError,
)
from proxystore_hpc.key import Key
from proxystore_hpc.serialize import loads, plan
from proxystore_hpc.tcp.client import TcpClient

pytestmark = pytest.mark.faults

MIB = 1 << 20
LARGE = 256 * MIB
TOKEN = b"what allows to put"


@pytest.fixture(scope="module", params=["plain", "tls"])
def served(request, make_lasting_peer, tmp_path_factory):
    """An owner with a large object, and where it is served."""
    owner = make_lasting_peer(name="store", capacity="320MiB")
    state = str(tmp_path_factory.mktemp("tls") / "state.json")
    encrypted = request.param == "tls"
    endpoints, _ = owner(lambda here: tcp.serve(here, tls=encrypted, state=state, put_token=TOKEN))
    key = owner(tcp.put_numbers, LARGE)
    (small,) = owner(tcp.put, "x")
    yield owner, endpoints[0], key, small
    owner(tcp.close)


def through(endpoint, way):
    return replace(endpoint, host="127.0.0.1", port=way.port, name="login1")


@pytest.mark.timeout(120)
def test_a_cut_connection_is_resumed_with_the_rest(served):
    _, endpoint, key, _ = served
    with tcp.forwarder(endpoint) as way:
        way.cut_after = [100 * MIB, 50 * MIB]
        with TcpClient(endpoints=[through(endpoint, way)], timeout=100.0, streams=1) as client:
            received = client.get(key)
        assert (loads(received) == tcp.numbers(LARGE)).all()
        assert way.connections == 3
        # Each break costs what was under way in the sockets, not what had arrived.
        assert len(received) <= way.down < len(received) + 24 * MIB


@pytest.mark.timeout(120)
def test_each_of_several_streams_is_resumed(served):
    _, endpoint, key, _ = served
    with tcp.forwarder(endpoint) as way:
        # Early: on a busy machine a stream may carry much less than its quarter.
        way.cut_after = [5 * MIB, 4 * MIB, 3 * MIB, 2 * MIB]
        with TcpClient(endpoints=[through(endpoint, way)], timeout=100.0, streams=4) as client:
            assert (loads(client.get(key)) == tcp.numbers(LARGE)).all()
        assert way.connections == 8


@pytest.mark.timeout(120)
def test_a_link_that_is_down_for_a_while(served):
    _, endpoint, key, _ = served
    with (
        tcp.forwarder(endpoint) as way,
        TcpClient(endpoints=[through(endpoint, way)], timeout=100.0, streams=1) as client,
    ):

        def interrupt():
            procfs.wait_until(lambda: way.down > 30 * MIB, "some of it has arrived", 30.0)
            way.hold()
            time.sleep(3.0)
            way.release()

        thread = threading.Thread(target=interrupt)
        thread.start()
        assert (loads(client.get(key)) == tcp.numbers(LARGE)).all()
        thread.join()


@pytest.mark.timeout(120)
def test_a_path_that_stalls_is_given_up_for_a_new_connection(served):
    _, endpoint, key, _ = served
    with tcp.forwarder(endpoint) as way, tcp.forwarder(endpoint) as other:
        first, second = through(endpoint, way), through(endpoint, other)
        with TcpClient(endpoints=[first, second], timeout=100.0, streams=1, stall=1.0) as client:

            def interrupt():
                procfs.wait_until(lambda: way.down > 30 * MIB, "some of it has arrived", 30.0)
                way.hold()

            thread = threading.Thread(target=interrupt)
            thread.start()
            # Nothing comes through the first one any more, a hello neither.
            assert (loads(client.get(key)) == tcp.numbers(LARGE)).all()
            thread.join()
            assert other.down > LARGE - way.down - 8 * MIB


def test_an_answer_that_never_comes_ends_by_the_timeout(served):
    _, endpoint, _, small = served
    with (
        tcp.forwarder(endpoint) as way,
        TcpClient(endpoints=[through(endpoint, way)]) as client,
    ):
        client.get(small)
        way.hold()
        began = time.monotonic()
        with pytest.raises(OperationTimeoutError):
            client.get(small, timeout=1.0)
        assert time.monotonic() - began < 10.0
        way.release()
        assert loads(client.get(small)) == "x"


def test_nothing_is_written_after_a_timeout(served):
    _, endpoint, key, _ = served
    with (
        tcp.forwarder(endpoint) as way,
        TcpClient(endpoints=[through(endpoint, way)], streams=4) as client,
    ):
        target = bytearray(LARGE)

        def interrupt():
            procfs.wait_until(lambda: way.down > 20 * MIB, "some of it has arrived", 30.0)
            way.hold()

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(OperationTimeoutError):
            client.read_into(key, 0, target, timeout=3.0)
        thread.join()
        before = bytes(target)
        way.release()
        assert loads(client.get_batch([key])[0]).nbytes == LARGE
        assert target == before


@pytest.mark.timeout(120)
def test_a_killed_server_is_started_again_and_a_get_goes_on(make_peer, tmp_path):
    owner = make_peer(name="store", capacity="320MiB")
    state = str(tmp_path / "state.json")
    (endpoint,), pid = owner(lambda here: tcp.serve(here, tls=True, state=state))
    key = owner(tcp.put_numbers, LARGE)
    with TcpClient(endpoints=[endpoint], timeout=100.0, streams=1) as client:
        moved = threading.Event()

        def kill():
            assert moved.wait(30.0)
            os.kill(pid, signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()

        def progress(done, total):
            if done > 20 * MIB:
                moved.set()

        assert (loads(client.get(key, progress=progress)) == tcp.numbers(LARGE)).all()
        thread.join()
        procfs.wait_until(
            lambda: owner(lambda here: here.server.pid) != pid, "there is another server"
        )
        assert client.exists([key]) == [None]
    owner(tcp.close)


def test_a_server_that_is_started_anew_serves_old_keys(make_peer, tmp_path):
    """Its endpoint, and so the pin in the keys, stay the same."""
    owner = make_peer(name="store", capacity="16MiB")
    state = str(tmp_path / "state.json")
    (endpoint,), _ = owner(lambda here: tcp.serve(here, tls=True, state=state))
    (key,) = owner(tcp.put, "x")
    with TcpClient(endpoints=[endpoint]) as client:
        assert loads(client.get(key)) == "x"
        owner(tcp.close)
        with pytest.raises(OwnerGoneError, match="is being started again"):
            client.get(key)
        (again,), _ = owner(
            lambda here: tcp.serve(here, tls=True, state=state, listen=str(endpoint))
        )
        assert again == endpoint
        assert loads(client.get(key)) == "x"
    owner(tcp.close)


def put(client, obj, **options):
    layout = plan(obj)
    return client.put(layout.nbytes, layout.segments(), token=TOKEN, **options)


def test_a_put_that_breaks_goes_on_with_the_rest(served):
    _, endpoint, _, _ = served
    with tcp.forwarder(endpoint) as way:
        way.cut_up_after = [10 * MIB, 15 * MIB]
        with TcpClient(endpoints=[through(endpoint, way)]) as client:
            key = put(client, tcp.numbers(40 * MIB))
        assert way.connections == 3
        # A break costs what was under way in the sockets of both sides of the forwarder.
        assert 40 * MIB < way.up < 60 * MIB
    with TcpClient(endpoints=[endpoint]) as client:
        assert (loads(client.get(key)) == tcp.numbers(40 * MIB)).all()
        assert client.evict([key], force=True) == [None]


def test_a_put_whose_answer_was_lost_is_answered_again(served):
    owner, endpoint, _, _ = served
    (before,) = owner(tcp.put, 1)
    with tcp.forwarder(endpoint) as way:

        def lose(data):
            if way.up > 2 * MIB and way.connections == 1:
                raise OSError("the answer is lost")
            return data

        way.change = lose
        with TcpClient(endpoints=[through(endpoint, way)]) as client:
            key = put(client, tcp.numbers(2 * MIB))
            assert way.connections == 2
            assert way.up < 3 * MIB
            assert (loads(client.get(key)) == tcp.numbers(2 * MIB)).all()
    (after,) = owner(tcp.put, 1)
    numbers = [Key(packed).object_id for packed in (before, key, after)]
    assert numbers == list(range(numbers[0], numbers[0] + 3))


def test_a_put_to_a_server_that_died_meanwhile_is_not_repeated(make_peer):
    owner = make_peer(name="store", capacity="16MiB")
    (endpoint,), pid = owner(lambda here: tcp.serve(here, put_token=TOKEN))
    with TcpClient(endpoints=[endpoint], timeout=60.0) as client:
        owner.stop()

        def interrupt():
            os.kill(pid, signal.SIGKILL)
            owner.resume()

        timer = threading.Timer(0.5, interrupt)

        def progress(done, total):
            if done == total:
                timer.start()

        with pytest.raises(DoorUnavailableError, match="whether it was stored is not known"):
            put(client, b"x" * MIB, progress=progress)
        timer.join()
        assert loads(client.get(put(client, "another"))) == "another"
    owner(tcp.close)


def test_a_killed_owner_is_said_to_be_out_of_reach(make_peer):
    owner = make_peer(name="store", capacity="16MiB")
    (endpoint,), pid = owner(tcp.serve)
    (key,) = owner(tcp.put, "x")
    with TcpClient(endpoints=[endpoint]) as client:
        client.get(key)
        owner.kill()
        procfs.wait_until(lambda: not procfs.exists(pid), "the server has ended")
        with pytest.raises(OwnerGoneError, match="has ended"):
            client.get(key)
    # That nobody listens on this machine says nothing of an owner on another.
    for tag in (b"", bytes(8)):
        with (
            TcpClient(endpoints=[replace(endpoint, loopback=tag)]) as client,
            pytest.raises(DoorUnavailableError, match="nobody listens"),
        ):
            client.get(key)


def test_a_stopped_owner_still_serves_what_was_asked_for_before(make_peer):
    owner = make_peer(name="store", capacity="64MiB")
    (endpoint,), _ = owner(tcp.serve)
    key, unknown = owner(tcp.put, tcp.numbers(16 * MIB), "x")
    with TcpClient(endpoints=[endpoint]) as client:
        client.get(key)
        owner.stop()
        try:
            assert (loads(client.get(key)) == tcp.numbers(16 * MIB)).all()
            with pytest.raises(OperationTimeoutError):
                client.get(unknown, timeout=1.0)
        finally:
            owner.resume()
        assert loads(client.get(unknown)) == "x"
    owner(tcp.close)


def test_garbled_bytes_of_a_plain_connection_are_noticed(make_peer, monkeypatch):
    owner = make_peer(name="store", capacity="64MiB")
    (endpoint,), _ = owner(tcp.serve)
    key = owner(tcp.put_numbers, 16 * MIB)
    # The client asks for checksums off loopback only.
    monkeypatch.setattr("proxystore_hpc.tcp.connection.is_loopback", lambda address: False)
    with tcp.forwarder(endpoint) as way:
        spoilt = []

        def change(data):
            if way.down > 5 * MIB and not spoilt:
                spoilt.append(True)
                return data[:-1] + bytes([data[-1] ^ 1])
            return data

        way.change = change
        with TcpClient(endpoints=[through(endpoint, way)], streams=1) as client:
            assert (loads(client.get(key)) == tcp.numbers(16 * MIB)).all()
        assert spoilt
        assert way.connections == 2
    owner(tcp.close)


def test_a_server_whose_port_is_taken_for_a_while_is_started_again(make_peer):
    owner = make_peer(name="store", capacity="16MiB")
    (endpoint,), pid = owner(tcp.serve)
    (key,) = owner(tcp.put, "x")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        os.kill(pid, signal.SIGKILL)
        procfs.wait_until(lambda: bound(other, endpoint), "the port is taken")
        time.sleep(2.5)

    def served():
        with TcpClient(endpoints=[endpoint], timeout=2.0) as client:
            try:
                return loads(client.get(key)) == "x"
            except ProxyStoreHpcError:
                return False

    procfs.wait_until(served, "it serves again", 20.0)
    owner(tcp.close)


def bound(raw, endpoint):
    try:
        raw.bind((endpoint.host, endpoint.port))
        raw.listen()
    except OSError:
        return False
    return True
