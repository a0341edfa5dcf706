"""What is said of servers that cannot be reached."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxystore_hpc.exceptions import DoorUnavailableError, OwnerGoneError, OwnerUnreachedError
from proxystore_hpc.tcp.endpoints import MAP_VARIABLE, TcpEndpoint, rewrite
from proxystore_hpc.tcp.pool import UnreachableError

FAR = TcpEndpoint("node17", 8443)
HERE = TcpEndpoint("127.0.0.1", 8443)


def said_of(*endpoints, error=ConnectionRefusedError):
    return UnreachableError(endpoints, [error("told")] * len(endpoints)).final()


def test_a_refusal_where_the_owner_was():
    said = said_of(FAR, replace(FAR, port=1))
    assert type(said) is OwnerUnreachedError
    assert "node17:8443: told" in str(said)


@pytest.mark.parametrize(
    "endpoint",
    [
        HERE,
        replace(HERE, host="localhost"),
        replace(HERE, host="::1", pin=bytes(16)),
        replace(FAR, gateway=True),
        replace(FAR, mapped=True),
        replace(FAR, name="login1"),
    ],
)
def test_a_refusal_that_says_nothing_of_the_owner(endpoint):
    for endpoints in ([endpoint], [FAR, endpoint], [endpoint, FAR]):
        said = said_of(*endpoints)
        assert isinstance(said, DoorUnavailableError)
        assert not isinstance(said, OwnerGoneError)
    assert ("ssh -L" in str(said_of(endpoint))) == endpoint.on_loopback


def test_other_failures_say_nothing_of_the_owner():
    assert isinstance(said_of(FAR, error=TimeoutError), DoorUnavailableError)


def test_a_tunnel_that_is_down_on_the_same_host():
    environment = {MAP_VARIABLE: "node17:8443=node17:9000"}
    assert isinstance(said_of(*rewrite([FAR], environment)), DoorUnavailableError)
