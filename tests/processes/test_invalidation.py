"""What one process evicts or changes is not served from the cache of another."""

from __future__ import annotations

import numpy as np
import pytest
from support import procfs

from proxystore_hpc.exceptions import ObjectEvictedError, OwnerGoneError


@pytest.fixture(params=["socket", pytest.param("ucx", marks=pytest.mark.full)])
def remote(request, make_peer):
    """A reader that has to transfer, and keeps what it got."""
    if request.param == "ucx":
        pytest.importorskip("libucx")
    return make_peer(name="store", doors=(request.param,))


@pytest.fixture
def owner(request, make_peer):
    doors = ("shm", "socket", "ucx") if "ucx" in request.node.name else None
    return make_peer(name="store", capacity="64MiB", doors=doors)


def read_twice(here, keys):
    for key in (*keys, *keys):
        here.store.get(key)
    return [here.store.is_cached(key) for key in keys], sum(here.doors.values())


def test_an_evict_elsewhere_is_seen(owner, remote, make_peer):
    keys = owner(lambda here: here.store.put_batch([np.zeros(1000), np.ones(1000)]))
    assert remote(read_twice, keys) == ([True, True], 2)
    make_peer(name="store")(lambda here: here.store.evict(keys[0]))
    with pytest.raises(ObjectEvictedError) as caught:
        remote(lambda here: here.store.get_or_raise(keys[0]))
    assert caught.value.key == keys[0]
    assert remote(lambda here: here.store.get(keys[0], default="gone")) == "gone"
    assert not remote(lambda here: here.store.is_cached(keys[0]))
    assert remote(lambda here: (here.store.get(keys[1])[0], sum(here.doors.values()))) == (1, 2)


def test_batches_see_it_too(owner, remote):
    keys = owner(lambda here: here.store.put_batch([np.full(100, n) for n in range(4)]))
    remote(read_twice, keys)
    owner(lambda here: here.store.evict_batch([keys[1], keys[3]]))

    def read(here):
        return [None if a is None else int(a[0]) for a in here.store.get_batch(keys)]

    assert remote(read) == [0, None, 2, None]


def test_a_time_to_live_ends_what_is_cached(owner, remote):
    def put(here):
        from proxystore_hpc import TimeToLive

        return here.store.put(np.zeros(100), policy=TimeToLive(0.5))

    key = owner(put)
    remote(read_twice, [key])
    procfs.wait_until(
        lambda: remote(lambda here: here.store.get(key, default=None)) is None, "its time is over"
    )


def test_what_a_dead_process_held_is_not_served(make_peer, remote):
    owner = make_peer(name="store", doors=("shm", "socket", "ucx"))
    key = owner(lambda here: here.store.put(np.zeros(100)))
    remote(read_twice, [key])
    owner.kill()
    with pytest.raises(OwnerGoneError):
        remote(lambda here: here.store.get(key))
