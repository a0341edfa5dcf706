"""The owner is killed: readers learn of it at once, and nobody hangs."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
from support import procfs
from support.doors import REMOTE_DOORS, options_for

from proxystore_hpc.exceptions import OwnerGoneError

pytestmark = pytest.mark.faults


def gone_within(pending, seconds=1.0):
    began = time.monotonic()
    with pytest.raises(OwnerGoneError) as caught:
        pending.result(10)
    assert time.monotonic() - began < seconds + 1.0  # the machine may be busy
    return str(caught.value)


ASKING = {
    "get": lambda store, key: store.get(key),
    "get_batch": lambda store, key: store.get_batch([key]),
    "part": lambda store, key: store.get(key, offset=0, length=1),
    "get_into": lambda store, key: store.get_into(key, bytearray(10)),
    "exists": lambda store, key: store.exists(key),
    "evict": lambda store, key: store.evict(key),
    "wait_for": lambda store, key: store.wait_for(key),
}


@pytest.mark.parametrize("door", REMOTE_DOORS)
def test_after_a_contact(make_peer, door):
    options = options_for(door)
    owner, reader = (make_peer(name="store", cache_size=0, **options) for _ in range(2))
    keys = owner(lambda here: here.store.put_batch([b"x" * 1000, b"y" * 1000]))
    reader(lambda here: here.store.get(keys[0]))
    owner.kill()
    for ask in ASKING:
        if door == "shm" and ask in ("get", "get_batch", "part", "get_into"):
            continue
        pending = reader.start(lambda here, ask: ASKING[ask](here.store, keys[1]), ask)
        assert keys[1].owner in gone_within(pending)


@pytest.mark.parametrize("ask", ASKING)
def test_before_a_contact(owner, reader, ask):
    key = owner(lambda here: here.store.put(b"x" * 1000))
    owner.kill()
    message = gone_within(reader.start(lambda here: ASKING[ask](here.store, key)))
    assert "listens on this node" in message


def test_mapped_objects_of_a_dead_owner(owner, reader):
    """What is mapped can still be read, or the owner's end is said; never something else."""
    keys = owner(lambda here: here.store.put_batch([np.full(1000, i) for i in range(2)]))
    reader(lambda here: here.store.get(keys[0]))
    owner.kill()

    def read(here):
        try:
            return int(here.store.get(keys[1]).sum())
        except OwnerGoneError:
            return "gone"

    assert reader(read) in (1000, "gone")
    with pytest.raises(OwnerGoneError):
        reader(lambda here: here.store.exists(keys[1]))


def test_while_somebody_waits(owner, reader):
    key = owner(lambda here: here.store.new_key())
    waiting = reader.start(lambda here: here.store.wait_for(key))
    time.sleep(0.2)
    owner.kill()
    gone_within(waiting)


def test_a_zombie_is_gone(owner, reader):
    """Its parent has not waited for it: the kernel still knows its pid."""
    key = owner(lambda here: here.store.new_key())
    waiting = reader.start(lambda here: here.store.wait_for(key))
    time.sleep(0.2)
    owner.ends_badly = True
    os.kill(owner.pid, signal.SIGKILL)
    gone_within(waiting)
    assert procfs.state(owner.pid) == "Z"


@pytest.mark.parametrize("door", ["socket", "ucx"])
def test_in_the_middle_of_a_transfer(make_peer, door):
    options = {**options_for(door), "capacity": "128MiB"}
    owner, reader = (make_peer(name="store", cache_size=0, **options) for _ in range(2))
    key = owner(lambda here: here.store.put(np.zeros(60 << 20, "u1")))
    reader(lambda here: here.store.get(key, offset=0, length=10))
    pending = reader.start(lambda here: [len(here.store.get(key)) for _ in range(10_000)])
    time.sleep(0.5)
    owner.kill()
    gone_within(pending)
    assert reader(lambda here: here.store.get(here.store.put(1))) == 1


@pytest.mark.parametrize("door", ["shm", "socket"])
def test_while_something_is_stored_at_it(make_peer, door):
    owner = make_peer(name="store", capacity="256MiB")
    writer = make_peer(name="store", doors=(door,))
    address = owner.addresses[0]
    writer(lambda here: here.store.put(1, to=address))

    def put_for_ever(here):
        while True:
            here.store.evict(here.store.put(b"x" * (8 << 20), to=address))

    pending = writer.start(put_for_ever)
    time.sleep(0.3)
    owner.kill()
    gone_within(pending)


def test_others_are_not_affected(make_peer, owner, reader):
    living = make_peer(name="store")
    dead_keys = owner(lambda here: here.store.put_batch([1, 2]))
    keys = living(lambda here: here.store.put_batch([3, 4]))
    reader(lambda here: here.store.exists_batch([*dead_keys, *keys]))
    owner.kill()
    assert reader(lambda here: here.store.get_batch(keys)) == [3, 4]
    with pytest.raises(OwnerGoneError):
        reader(lambda here: here.store.exists_batch([keys[0], dead_keys[0]]))
    with pytest.raises(OwnerGoneError):
        reader(lambda here: here.store.evict_batch([dead_keys[0], keys[0]]))
    assert reader(lambda here: here.store.exists_batch(keys)) == [False, True]


def test_the_readers_descriptors_come_back(make_peer, reader):
    def use(here, key):
        here.store.get(key)
        try:
            here.store.exists(key)
        except OwnerGoneError:
            return procfs.fd_count()
        return None

    counts = []
    for _ in range(4):
        owner = make_peer(name="store", capacity="16MiB")
        key = owner(lambda here: here.store.put(b"x" * 100_000))
        reader(use, key)
        owner.kill()
        try:
            reader(use, key)
        except OwnerGoneError:
            pass
        counts.append(reader(lambda here: procfs.fd_count()))
    assert counts[-1] <= counts[0]
