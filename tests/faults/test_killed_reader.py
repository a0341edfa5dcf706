"""A reader is killed at any stage: the owner gets everything back and goes on."""

from __future__ import annotations

import socket
import time

import numpy as np
import pytest
from support import procfs

pytestmark = pytest.mark.faults

MIB = 1 << 20


def connect_only(here, address):
    """Before the hello."""
    here.socket = socket.socket(socket.AF_UNIX)
    here.socket.connect("\0" + procfs.node_socket(address))


def half_a_hello(here, address):
    connect_only(here, address)
    here.socket.send(b"PSPC" + b"\x10\0\0\0" + b"\x02\0")


def after_mapping(here, keys):
    here.store.get(keys[0])


def holding_views(here, keys):
    here.views = [here.store.get(key) for key in keys]


def holding_many_views(here, keys):
    here.views = [here.store.get(keys[0]) for _ in range(6000)]


def holding_a_private_mapping(here, keys):
    here.view = here.store.get(keys[0], writable=True)


def descriptors(owner):
    """How many the owner has when nobody reads and something is stored."""

    def count(here):
        here.store.put(b"")
        return procfs.fd_count()

    return owner(count)


def settled(owner, fds):
    """The owner has no trace of readers, and all that it evicted can be used again."""

    def look(here):
        here.store.put(b"")
        stats = here.store.stats()
        return stats["readers"], stats["retired_bytes"], procfs.fd_count() - fds

    procfs.wait_until(lambda: owner(look) == (0, 0, 0), "no readers, pins and connections")


def serves(make_peer, owner):
    key = owner(lambda here: here.store.put(np.full(1000, 9)))
    other = make_peer(name="store", doors=("shm",))
    assert other(lambda here: int(here.store.get(key).sum())) == 9000


@pytest.mark.parametrize(
    "stage",
    [after_mapping, holding_views, holding_many_views, holding_a_private_mapping],
    ids=lambda stage: stage.__name__,
)
def test_with_pins(make_peer, owner, reader, stage):
    keys = owner(lambda here: here.store.put_batch([np.full(MIB // 8, i) for i in range(10)]))
    fds = descriptors(owner)
    reader(stage, keys)
    owner(lambda here: here.store.evict_batch(keys))
    reader.kill()
    settled(owner, fds)
    serves(make_peer, owner)


@pytest.mark.parametrize("stage", [connect_only, half_a_hello], ids=lambda stage: stage.__name__)
def test_before_the_hello(make_peer, owner, stage):
    fds = descriptors(owner)
    stranger = make_peer()
    stranger(stage, owner.addresses[0])
    procfs.wait_until(
        lambda: owner(lambda here: procfs.fd_count()) > fds, "the connection is accepted"
    )
    stranger.kill()
    settled(owner, fds)
    serves(make_peer, owner)


def test_while_it_waits(make_peer, owner, reader):
    fds = descriptors(owner)
    key = owner(lambda here: here.store.new_key())
    reader.start(lambda here: here.store.wait_for(key))
    procfs.wait_until(
        lambda: owner(lambda here: here.store.stats()["readers"]) == 1, "it is connected"
    )
    time.sleep(0.1)
    reader.kill()
    settled(owner, fds)
    owner(lambda here: here.store.set(key, "nobody waits"))
    serves(make_peer, owner)


def test_while_it_receives(make_peer, owner):
    key = owner(lambda here: here.store.put(b"x" * (30 << 20)))
    fds = descriptors(owner)
    reader = make_peer(name="store", doors=("socket",), cache_size=0)
    reader.start(lambda here: [here.store.get(key) for _ in range(1000)])
    time.sleep(0.5)
    reader.kill()
    owner(lambda here: here.store.evict(key))
    settled(owner, fds)
    serves(make_peer, owner)


def test_a_stopped_reader_keeps_its_pins(owner, reader):
    key = owner(lambda here: here.store.put(np.full(MIB // 8, 3)))

    def hold(here):
        here.view = here.store.get(key)

    reader(hold)
    reader.stop()
    owner(lambda here: here.store.evict(key))
    time.sleep(0.3)
    owner(lambda here: [here.store.put(np.full(MIB // 8, 5)) for _ in range(5)])
    assert owner(lambda here: here.store.stats()["retired_bytes"]) >= MIB
    reader.resume()
    assert reader(lambda here: bool((here.view == 3).all()))


def test_many_readers_come_and_go(make_peer, owner):
    fds = descriptors(owner)
    keys = owner(lambda here: here.store.put_batch([np.full(1000, i) for i in range(3)]))
    stranger = make_peer()

    def open_and_close(here):
        from proxystore_hpc import Store

        before = 0
        for turn in range(20):
            if turn == 1:
                before = procfs.fd_count()  # the first one opens files for good, such as urandom
            with Store("store", doors=("shm",), capacity="16MiB") as store:
                assert [int(a[0]) for a in store.get_batch(keys)] == [0, 1, 2]
        return procfs.fd_count() - before

    assert stranger(open_and_close) == 0
    settled(owner, fds)


def test_a_reader_that_is_replaced(make_peer, owner):
    key = owner(lambda here: here.store.put(np.full(1000, 4)))
    for _ in range(3):
        reader = make_peer(name="store", doors=("shm",))
        assert reader(lambda here: int(here.store.get(key).sum())) == 4000
        reader.kill()
    assert owner(lambda here: int(here.store.get(key).sum())) == 4000
