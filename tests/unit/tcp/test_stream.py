"""One connection of TLS that a thread reads while another writes."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

import pytest

pytest.importorskip("cryptography")

from support.tcp import Noting

from proxystore_hpc.serialize import loads
from proxystore_hpc.store import Store
from proxystore_hpc.tcp import tls
from proxystore_hpc.tcp.client import TcpClient
from proxystore_hpc.tcp.identity import load_or_create
from proxystore_hpc.tcp.server import Server, ServerConfig
from proxystore_hpc.tcp.stream import Stream

SECRET = b"the contents of an object" * 10


@pytest.fixture
def pair(tmp_path):
    """A server's socket, and a client's."""
    ours, theirs = socket.socketpair()
    server = tls.server_context(load_or_create(tmp_path / "state.json").pems)
    server.sslsocket_class = Noting
    server.sni_callback = None
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    made = []
    thread = threading.Thread(target=lambda: made.append(server.wrap_socket(ours, True)))
    thread.start()
    other = client.wrap_socket(theirs)
    thread.join()
    Noting.inside = Noting.overlaps = 0
    yield made[0], other
    made[0].close()
    other.close()


def test_a_thread_that_reads_and_others_that_write_take_turns(pair):
    raw, other = pair
    stream = Stream(raw, 10.0)
    stream.share()
    sending, stopped = threading.Lock(), threading.Event()

    def read():
        target = memoryview(bytearray(1000))
        with contextlib.suppress(OSError):
            while stream.receive(target):
                pass

    def write():
        with contextlib.suppress(OSError):
            while not stopped.is_set():
                with sending:
                    stream.send(SECRET)

    threads = [threading.Thread(target=run) for run in (read, write, write)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 0.5
    told = b""
    while time.monotonic() < end:
        other.send(b"ask")
        told += other.recv(len(SECRET))
    stopped.set()
    Stream(other, 10.0).end()
    stream.end()
    for thread in threads:
        thread.join(10)
    assert told == (SECRET * (len(told) // len(SECRET) + 1))[: len(told)]
    assert Noting.overlaps == 0


def test_nothing_is_sent_in_the_clear_while_it_ends(pair, monkeypatch):
    raw, other = pair
    stream = Stream(raw, 10.0)

    def another_thread_sends_first(self, how):
        with contextlib.suppress(OSError):
            stream.send_some(SECRET)
        super(socket.socket, self).shutdown(how)

    monkeypatch.setattr(socket.socket, "shutdown", another_thread_sends_first, raising=False)
    stream.end()
    monkeypatch.undo()
    said = b""
    plain = socket.socket(fileno=other.detach())
    while piece := plain.recv(65536):
        said += piece
    plain.close()
    assert said
    assert SECRET not in said
    with pytest.raises(OSError, match=r"(?i)pipe|reset|eof|closed"):
        stream.send_some(SECRET)


def test_answers_to_waits_take_turns_with_what_is_read(tmp_path):
    """They come from threads of their own, while another one waits for the next request."""
    with Store("test-waits", capacity="16MiB") as store:
        state = str(tmp_path / "state.json")
        server = Server(ServerConfig(owner=store.address.hex(), tls=True, state=state))
        server._acceptor._context.sslsocket_class = Noting
        thread = threading.Thread(target=server.run)
        thread.start()
        Noting.inside = Noting.overlaps = 0
        try:
            with TcpClient(endpoints=[server.endpoint], timeout=20.0) as client:
                for number in range(5):
                    key = store.new_key()
                    timer = threading.Timer(0.1, store.set, (key, number))
                    timer.start()
                    assert loads(client.get(client.wait_for(bytes(key)))) == number
                    timer.join()
        finally:
            server.stop()
            thread.join(10)
        assert Noting.overlaps == 0


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("timeouts", [(0.05, 0.05), (0.05, 0.2), (0.2, 0.05)])
def test_timeouts_and_a_closed_connection(pair, shared, timeouts):
    raw, _ = pair
    stream = Stream(raw, *timeouts)
    if shared:
        stream.share()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        stream.receive(memoryview(bytearray(10)))
    received = time.monotonic()
    assert received - began >= 0.99 * timeouts[0]
    with pytest.raises(TimeoutError):
        stream.send(b"", memoryview(bytearray(64 << 20)))
    assert time.monotonic() - received >= 0.99 * timeouts[1]
    stream.close()
    with pytest.raises(OSError, match="closed"):
        stream.receive(memoryview(bytearray(10)))
