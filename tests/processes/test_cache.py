"""What came over a transport is kept; what is mapped is not."""

from __future__ import annotations

import numpy as np
import pytest

from proxystore_hpc.exceptions import ObjectEvictedError


@pytest.fixture
def remote(make_peer):
    """A reader that has to transfer, and remembers two objects or 100 kB."""
    return make_peer(
        name="store", doors=("socket",), cache_size=2, cache_bytes=100_000, metrics=True
    )


def test_a_second_read_transfers_nothing(owner, remote):
    key = owner(lambda here: here.store.put(np.arange(1000)))

    def read(here):
        first, second = here.store.get(key), here.store.get(key)
        return first is second, np.shares_memory(first, second), here.doors

    same, shared, doors = remote(read)
    assert (same, shared, doors) == (False, True, {"socket": 1})
    counters = remote(lambda here: here.store.metrics.get_metrics(key).counters)
    assert counters == {"store.get.cache_hits": 1}
    assert remote(lambda here: here.store.is_cached(key))


def test_writable_results_are_never_shared(owner, remote):
    key = owner(lambda here: here.store.put(np.arange(1000)))

    def read(here):
        here.store.get(key)
        mine = here.store.get(key, writable=True)
        mine[:] = -1
        return int(here.store.get(key).sum()), here.doors

    assert remote(read) == (499_500, {"socket": 2})


def test_it_is_bounded(owner, remote):
    keys = owner(
        lambda here: here.store.put_batch(
            [np.zeros(10), np.ones(10), np.ones(10), np.zeros(20_000, "f8")]
        )
    )

    def read(here):
        for key in keys:
            here.store.get(key)
        return [here.store.is_cached(key) for key in keys]

    assert remote(read) == [False, True, True, False]
    assert remote(lambda here: here.store.cache.nbytes) < 100_000


def test_an_evict_here_forgets(owner, remote):
    key = owner(lambda here: here.store.put(np.zeros(10)))
    remote(lambda here: here.store.get(key))
    remote(lambda here: here.store.evict(key))
    assert not remote(lambda here: here.store.is_cached(key))
    with pytest.raises(ObjectEvictedError):
        remote(lambda here: here.store.get_or_raise(key))


def test_batches_use_it(owner, remote):
    keys = owner(lambda here: here.store.put_batch([np.zeros(10), np.ones(10)]))

    def read(here):
        here.store.get_batch(keys)
        return [float(a.sum()) for a in here.store.get_batch(keys)], here.doors

    assert remote(read) == ([0, 10], {"socket": 2})


def test_mapped_objects_are_not_cached(owner, reader):
    key = owner(lambda here: here.store.put(np.zeros(10)))
    assert reader(lambda here: (here.store.get(key)[0], here.store.is_cached(key))) == (0, False)


def test_live_memory_is_not_cached(owner, remote):
    def register(here):
        here.array = np.zeros(10)
        here.live = here.store.register(here.array)
        return here.live.key

    key = owner(register)
    assert remote(lambda here: here.store.get(key)[0]) == 0
    owner(lambda here: here.array.fill(3))
    assert remote(lambda here: here.store.get(key)[0]) == 3
