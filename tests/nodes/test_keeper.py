"""What a keeper serves to another node."""

from __future__ import annotations

import numpy as np
import pytest
from support.doors import require_door

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(120)]

SECRET = bytes(range(16))


def stop_keeper(_):
    from proxystore_hpc.keeper.settings import socket_name
    from proxystore_hpc.keeper.talk import ask

    return ask(socket_name(), "stop") is not None


@pytest.mark.parametrize("door", ["ucx", "socket"])
def test_a_reader_elsewhere_goes_on(nodes, make_peer, monkeypatch, door):
    if door == "ucx":
        require_door("ucx")
    monkeypatch.setenv("PROXYSTORE_HPC_KEEPER", "nodes")
    monkeypatch.setenv("PROXYSTORE_HPC_KEEPER_IDLE", "30")
    both = {"name": "store", "secret": SECRET, "capacity": "64MiB", "doors": ("shm", door)}
    here, there = nodes
    owner = make_peer(launcher=here.launcher, interface=here.address, keep=True, **both)
    reader = make_peer(launcher=there.launcher, interface=there.address, **both)
    keys = owner(lambda here: here.store.put_batch([np.arange(n) for n in (10, 500_000, 70_000)]))
    try:
        assert reader(lambda here: int(here.store.get(keys[0]).sum())) == 45
        owner.kill()
        total = reader(lambda here: int(here.store.get(keys[1]).sum()), timeout=60)
        assert total == 500_000 * 499_999 // 2
        assert reader(lambda here: set(here.doors)) == {door}
        stranger = make_peer(launcher=there.launcher, interface=there.address, **both)
        assert stranger(lambda here: len(here.store.get(keys[2])), timeout=60) == 70_000
        reader(lambda here: here.store.evict(keys[2]))
        assert not stranger(lambda here: here.store.exists(keys[2]))
    finally:
        assert make_peer(launcher=here.launcher)(stop_keeper)
