"""Owner and reader on two nodes that no native door leads between."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from proxystore_hpc.exceptions import DoorUnavailableError, OwnerUnreachedError, PeerError
from proxystore_hpc.tcp.endpoints import unpack

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(90)]


@pytest.fixture
def owner(nodes, make_peer, tmp_path):
    """A store on the first node that other nodes reach by TCP only, encrypted."""
    pytest.importorskip("cryptography")
    return make_peer(
        launcher=nodes[0].launcher,
        name="store",
        capacity="64MiB",
        tcp={"listen": f"{nodes[0].address}:0", "state": str(tmp_path / "identity.pem")},
    )


def test_a_proxy_resolves_over_tcp(nodes, make_peer, owner):
    packed = owner(lambda here: pickle.dumps(here.store.proxy(np.arange(1_000_000.0))))
    stranger = make_peer(launcher=nodes[1].launcher)

    def use(here):
        from proxystore_hpc import get_store

        proxy = pickle.loads(packed)
        total = float(proxy.sum())
        here.store = get_store(proxy)
        return total, here.doors

    assert stranger(use) == (499_999_500_000.0, {"tcp": 1})


def test_on_its_own_node_the_native_door_is_taken(nodes, make_peer, owner):
    key = owner(lambda here: here.store.put(np.arange(1000)))
    (endpoint,) = unpack(key.outside)
    assert endpoint.host == nodes[0].address
    assert endpoint.pin is not None
    near = make_peer(launcher=nodes[0].launcher, name="store", capacity="16MiB")
    far = make_peer(launcher=nodes[1].launcher, name="store", capacity="16MiB")
    for reader, door in ((near, "shm"), (far, "tcp")):
        assert reader(lambda here: int(here.store.get(key).sum())) == 499_500
        assert reader(lambda here: here.doors) == {door: 1}


def test_without_a_server_it_stays_out_of_reach(nodes, make_peer):
    owner = make_peer(launcher=nodes[0].launcher, name="store", capacity="16MiB")
    key = owner(lambda here: here.store.put(1))
    far = make_peer(launcher=nodes[1].launcher, name="store", capacity="16MiB")
    with pytest.raises(PeerError) as caught:
        far(lambda here: here.store.get(key))
    assert not isinstance(caught.value, OwnerUnreachedError)  # nothing else was tried


def test_a_wire_that_is_cut(nodes, make_peer, owner):
    """A native contact behind it costs little time, and TCP says that nobody answers."""
    key = owner(lambda here: here.store.put(1))
    far = make_peer(launcher=nodes[1].launcher, name="store", capacity="16MiB", timeout=10)
    nodes[1].ip("link", "set", nodes[1].interface, "down")
    with pytest.raises(DoorUnavailableError, match="nobody answers"):
        far(lambda here: here.store.get(key))
    nodes[1].ip("link", "set", nodes[1].interface, "up")
    assert far(lambda here: here.store.get(key)) == 1
