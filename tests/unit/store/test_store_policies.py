from __future__ import annotations

import time

import numpy as np
import pytest
from support.procfs import wait_until

from proxystore_hpc import Pinned, TimeToLive
from proxystore_hpc.exceptions import InvalidArgumentError, ObjectEvictedError, ObjectPinnedError


def test_an_object_ends_with_its_time(store):
    key = store.put(np.zeros(10), policy=TimeToLive(0.2))
    began = time.monotonic()
    assert store.exists(key)
    wait_until(lambda: not store.exists(key), "the time to live ends")
    assert time.monotonic() - began > 0.1
    with pytest.raises(ObjectEvictedError):
        store.get_or_raise(key)
    wait_until(lambda: store.stats()["objects"] == 0, "its memory is given back")


def test_a_view_outlives_the_time(store):
    key = store.put(np.full(10_000, 7.0), policy=TimeToLive(0.05))
    view = store.get(key)
    wait_until(lambda: store.stats()["objects"] == 0, "it is evicted")
    store.put(np.full(10_000, 8.0))
    assert (view == 7).all()


def test_pinned_objects_are_not_evicted(store):
    pinned, other = store.put("p", policy=Pinned()), store.put("o")
    with pytest.raises(ObjectPinnedError, match="force=True") as caught:
        store.evict_batch([pinned, other])
    assert caught.value.key is pinned
    assert store.exists_batch([pinned, other]) == [True, False]
    store.evict(pinned, force=True)
    assert not store.exists(pinned)


def test_a_pinned_object_may_have_a_time(store):
    key = store.put("x", policy=Pinned() | TimeToLive(0.05))
    other = store.put("y", policy=[Pinned(), TimeToLive(60)])
    wait_until(lambda: not store.exists(key), "the time to live ends")
    with pytest.raises(ObjectPinnedError):
        store.evict(other)


def test_policies_of_sealed_arrays_batches_and_new_keys(store):
    array = store.empty(10)
    array[:] = 0
    keys = [store.put(array, policy=Pinned()), *store.put_batch([1, 2], policy=Pinned())]
    deferred = store.new_key()
    store.set(deferred, 3, policy=Pinned())
    for key in (*keys, deferred):
        with pytest.raises(ObjectPinnedError):
            store.evict(key)


def test_pinned_objects_end_with_their_store(store):
    store.put("p", policy=Pinned())
    store.close()


@pytest.mark.parametrize("wrong", ["pinned", 5, [1]])
def test_other_things_are_no_policies(store, wrong):
    with pytest.raises(InvalidArgumentError, match="a policy is"):
        store.put(1, policy=wrong)
