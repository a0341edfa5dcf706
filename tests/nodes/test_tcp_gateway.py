"""A gateway on one node, owners on the other, and a reader that reaches the gateway alone."""

from __future__ import annotations

import time

import pytest
from support import procfs, tcp
from support.nodes import two_nodes_up

from proxystore_hpc.exceptions import OperationTimeoutError, OwnerGoneError
from proxystore_hpc.serialize import loads

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(120)]

MIB = 1 << 20


def fetch(here, endpoint, key, timeout=20.0):
    """Gets an object through a gateway alone; its last byte, length and what was pinned."""
    from proxystore_hpc.tcp.client import TcpClient

    with TcpClient(endpoints=[endpoint], timeout=timeout) as client:
        data = loads(client.get(key))
        whole = getattr(data, "nbytes", 0)
        return bool(whole == 0 or (data == tcp.numbers(whole)).all()), whole


@pytest.fixture
def gateway(nodes, tmp_path):
    pytest.importorskip("cryptography")
    listen = ("--listen", f"{nodes[1].address}:0", "--state", str(tmp_path / "state.json"))
    with tcp.gateway(*listen, launcher=nodes[1].launcher) as made:
        yield made


def test_a_relayed_object_arrives_whole(nodes, make_peer, gateway):
    """It is read and sent in pieces, which never lie in the gateway all at once."""
    assert gateway.endpoint.pin is not None
    owner = make_peer(
        launcher=nodes[0].launcher,
        name="store",
        capacity="128MiB",
        interface=nodes[0].address,
        gateway=gateway.told,
    )
    reader = make_peer(launcher=nodes[1].launcher)
    key = owner(tcp.put_numbers, 64 * MIB)
    (small,) = owner(tcp.put, "x")
    assert reader(fetch, gateway.endpoint, key) == (True, 64 * MIB)
    assert reader(fetch, gateway.endpoint, small) == (True, 0)
    owner.kill()
    with pytest.raises(OwnerGoneError):
        reader(fetch, gateway.endpoint, small)


def test_a_link_that_is_down_for_a_while(nodes, make_peer, gateway):
    """Between the owner and the gateway: a get goes on, or ends by its timeout."""
    owner = make_peer(
        launcher=nodes[0].launcher, name="store", capacity="128MiB", interface=nodes[0].address
    )
    reader = make_peer(launcher=nodes[1].launcher)
    key = owner(tcp.put_numbers, 64 * MIB)
    assert reader(fetch, gateway.endpoint, key) == (True, 64 * MIB)
    nodes[0].ip("link", "set", nodes[0].interface, "down")
    try:
        with pytest.raises(OperationTimeoutError):
            reader(fetch, gateway.endpoint, key, 2.0)
    finally:
        nodes[0].ip("link", "set", nodes[0].interface, "up")
    procfs.wait_until(
        lambda: reader(fetch, gateway.endpoint, key) == (True, 64 * MIB), "it is there", 30.0
    )


def test_a_link_that_is_down_for_three_seconds(make_peer, tmp_path):
    """Between owner and reader, in the middle of an object."""
    with two_nodes_up(tmp_path, "1gbit") as nodes:
        listen = f"{nodes[0].address}:0"
        owner = make_peer(launcher=nodes[0].launcher, name="store", capacity="320MiB")
        reader = make_peer(launcher=nodes[1].launcher)
        (endpoint,), _ = owner(lambda here: tcp.serve(here, listen=listen, tls=False))
        key = owner(tcp.put_numbers, 256 * MIB)
        under_way = reader.start(fetch, endpoint, key, 60.0)
        time.sleep(0.7)  # of more than two seconds that it takes
        nodes[0].ip("link", "set", nodes[0].interface, "down")
        time.sleep(3.0)
        nodes[0].ip("link", "set", nodes[0].interface, "up")
        assert under_way.result(60.0) == (True, 256 * MIB)
        owner(tcp.close)
        for peer in (reader, owner):  # before their nodes
            assert peer.end() == 0
