"""Who answers on this machine."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from proxystore_hpc.exceptions import AccessDeniedError
from proxystore_hpc.tcp import listener, wire
from proxystore_hpc.tcp.connection import Connection
from proxystore_hpc.tcp.endpoints import TcpEndpoint

pytestmark = pytest.mark.skipif(not listener.KNOWN, reason="this system does not tell")

NOBODY = 65534


@pytest.mark.parametrize(
    ("family", "listen", "connect"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
)
def test_the_user_behind_a_connection(family, listen, connect):
    try:
        server = socket.create_server(
            (listen, 0), family=family, dualstack_ipv6=listen == "::" and socket.has_ipv6
        )
    except OSError as error:
        pytest.skip(f"no such address here: {error}")
    with server, socket.create_connection((connect, server.getsockname()[1]), 10) as client:
        # Nobody's yet, which is not to say root's.
        assert listener.user_behind(client) is None
        accepted, _ = server.accept()
        with accepted:
            assert listener.user_behind(client) == os.geteuid()
        assert listener.user_behind(client) is None


def refused_by(server: socket.socket, endpoint: TcpEndpoint, user: int) -> tuple[object, bytes]:
    """What a client makes of a server of another user, and what that one has heard of it."""
    outcome: list[object] = []

    def connect() -> None:
        try:
            Connection(endpoint, 20.0, 20.0).close()
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    server.settimeout(20)
    os.seteuid(user)
    try:
        accepted, _ = server.accept()
    finally:
        os.seteuid(0)
    with accepted:
        accepted.settimeout(20)
        heard = accepted.recv(wire.HELLO.size, socket.MSG_WAITALL)
        accepted.sendall(wire.encode_hello(0, 0))
        thread.join()
        heard += accepted.recv(1 << 16)
    return outcome[0], heard


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_plain_server_of_another_user_is_told_nothing():
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = TcpEndpoint("127.0.0.1", server.getsockname()[1])
        error, heard = refused_by(server, endpoint, NOBODY)
        assert isinstance(error, AccessDeniedError)
        assert f"user {NOBODY}" in str(error)
        assert len(heard) == wire.HELLO.size
        # A key tells who its owner is.
        owned = TcpEndpoint(endpoint.host, endpoint.port, user=NOBODY)
        assert refused_by(server, owned, NOBODY)[0] is None
        assert refused_by(server, endpoint, 0)[0] is None
