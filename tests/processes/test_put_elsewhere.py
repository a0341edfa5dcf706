"""Storing in another process's memory."""

from __future__ import annotations

import time

import numpy as np
import pytest
from support.procfs import wait_until

from proxystore_hpc import Store
from proxystore_hpc.exceptions import OwnerGoneError, StoreFullError


def test_the_object_is_the_others(owner, reader):
    address = owner.addresses[0]
    key = reader(lambda here: here.store.put(np.arange(100_000), to=address))
    assert reader(lambda here: here.store.stats()["objects"]) == 0
    assert owner(lambda here: here.store.stats()["objects"]) == 1
    assert owner(lambda here: int(here.store.get(key).sum())) == 4_999_950_000
    assert owner(lambda here: here.doors) == {"self": 1}
    reader.end()
    assert owner(lambda here: here.store.exists(key))


def test_to_oneself(owner):
    key = owner(lambda here: here.store.put("x", to=here.store.address))
    assert owner(lambda here: here.store.get(key)) == "x"


def test_batches_and_proxies(owner, reader):
    address = owner.addresses[0]
    keys = reader(lambda here: here.store.put_batch([1, "two", [3]], to=address))
    assert owner(lambda here: here.store.get_batch(keys)) == [1, "two", [3]]
    proxy = reader(lambda here: here.store.proxy([4], to=address))
    assert owner(lambda here: list(proxy)) == [4]


def test_a_third_process_reads_it(make_peer, owner, reader):
    address = owner.addresses[0]
    key = reader(lambda here: here.store.put(np.arange(1000), to=address))
    third = make_peer(name="store", doors=("shm",))
    assert third(lambda here: int(here.store.get(key).sum())) == 499_500


def test_the_others_capacity_counts(make_peer, reader):
    small = make_peer(name="store", capacity="16MiB")
    address = small.addresses[0]
    with pytest.raises(StoreFullError, match="capacity"):
        reader(lambda here: here.store.put(b"x" * (20 << 20), to=address))
    assert small(lambda here: here.store.stats()["objects"]) == 0
    key = reader(lambda here: here.store.put(b"x" * 1000, to=address))
    assert small(lambda here: here.store.get(key)) == b"x" * 1000


def test_a_failed_batch_leaves_nothing_there(make_peer, reader):
    small = make_peer(name="store", capacity="16MiB")
    address = small.addresses[0]
    with pytest.raises(StoreFullError):
        reader(lambda here: here.store.put_batch([b"x" * (6 << 20)] * 4, to=address))
    assert small(lambda here: here.store.stats()["objects"]) == 0


def test_many_at_once(make_peer, owner):
    address = owner.addresses[0]
    writers = [make_peer(name="store", doors=(door,)) for door in ("shm", "socket")]
    pending = [
        w.start(lambda here, n: here.store.put_batch([np.full(500, n)] * 100, to=address), n)
        for n, w in enumerate(writers)
    ]
    for number, keys in enumerate([p.result() for p in pending]):
        assert owner(lambda here, k: {int(a.sum()) for a in here.store.get_batch(k)}, keys) == {
            500 * number
        }


def test_a_writer_that_dies_gives_its_reservation_back(owner, make_peer):
    """Killed between reserving and publishing: stopped in the middle of sending its bytes."""
    address = owner.addresses[0]
    writer = make_peer(name="store", doors=("socket",), capacity="64MiB")
    used = owner(lambda here: here.store.stats()["used"])
    writer(lambda here: here.store.put(b"warm", to=address))
    writer.start(
        lambda here: [here.store.put(b"x" * (30 << 20), to=address, timeout=60) for _ in range(50)]
    )
    wait_until(
        lambda: owner(lambda here: here.store.stats()["used"]) > used + (20 << 20),
        "a block is reserved",
    )
    writer.kill()

    def settled():
        stats = owner(lambda here: here.store.stats())
        return stats["retired_blocks"] == 0 and stats["readers"] == 0

    wait_until(settled, "the connection is gone and the block is given back")
    stats = owner(lambda here: here.store.stats())
    published = stats["objects"] - 1
    assert stats["used"] - used <= published * (31 << 20) + (1 << 20)


def test_the_other_is_gone(owner, reader):
    address = owner.addresses[0]
    reader(lambda here: here.store.put(1, to=address))
    owner.kill()
    began = time.monotonic()
    with pytest.raises(OwnerGoneError, match="put to owner"):
        reader(lambda here: here.store.put(1, to=address))
    assert time.monotonic() - began < 5


def test_two_stores_in_one_process(owner):
    address = owner.addresses[0]
    with Store("store", doors=("shm",)) as mine:
        key = mine.put(np.arange(10), to=address)
        assert mine.get(key).sum() == 45
        assert mine.metrics.doors["shm"].operations == 1
