from __future__ import annotations

import numpy as np
import pytest
from support.procfs import wait_until

from proxystore_hpc import Store
from proxystore_hpc.exceptions import StoreFullError

MIB = 1024**2


def test_what_does_not_fit_is_refused_and_nothing_is_lost():
    with Store("small", capacity="16MiB") as store:
        keys = []
        with pytest.raises(StoreFullError) as caught:
            for number in range(100):
                keys.append(store.put(np.full(MIB // 8, number, "i8")))
        assert 8 <= len(keys) <= 16
        for number, key in enumerate(keys):
            assert (store.get(key) == number).all()
        error = caught.value
        assert error.capacity == 16 * MIB
        assert MIB < error.requested < 1.1 * MIB
        assert error.largest_free < error.requested
        assert len(keys) * MIB <= error.used <= 16 * MIB
        for figure in (error.requested, error.capacity, error.used):
            assert str(figure) in str(error)
        store.evict(keys.pop(3))
        store.put(np.full(MIB // 8, -1, "i8"))
        assert (store.get(keys[3]) == 4).all()


def test_memory_comes_back_when_views_are_dropped():
    with Store("small", capacity="16MiB") as store:
        key = store.put(np.zeros(10 * MIB, "u1"))
        view = store.get(key)
        store.evict(key)
        with pytest.raises(StoreFullError):
            store.put(np.ones(10 * MIB, "u1"))
        assert not view.any()
        del view
        assert store.get(store.put(np.ones(10 * MIB, "u1"))).all()


def test_an_object_larger_than_the_capacity():
    with Store("small", capacity="16MiB") as store:
        with pytest.raises(StoreFullError) as caught:
            store.put(b"x" * (17 * MIB))
        assert caught.value.requested > 17 * MIB
        assert store.stats()["objects"] == 0
        store.put(b"x" * MIB)


@pytest.mark.parametrize("capacity", [1, 100, 4096, "64KiB", "1MiB"])
def test_a_tiny_capacity_is_refused_or_kept(capacity):
    try:
        store = Store("tiny", capacity=capacity)
    except StoreFullError:
        return
    with store:
        stored = 0
        try:
            for _ in range(100_000):
                store.put(b"x" * 1000)
                stored += 1
        except StoreFullError as error:
            assert error.capacity == store.stats()["capacity"]
        assert store.stats()["mapped"] <= store.stats()["capacity"]
        assert stored < 2000


def test_a_full_store_says_so_to_batches_and_new_keys():
    with Store("small", capacity="16MiB") as store:
        deferred = store.new_key()
        for action in (
            lambda: store.put_batch([b"x" * (6 * MIB)] * 3),
            lambda: store.set(deferred, b"x" * (20 * MIB)),
            lambda: store.proxy_batch([b"x" * (6 * MIB)] * 3),
        ):
            with pytest.raises(StoreFullError):
                action()
            assert store.stats()["objects"] == 0
        store.set(deferred, b"small")
        assert store.get(deferred) == b"small"


def test_fragments_are_joined():
    with Store("small", capacity="16MiB") as store:
        for _ in range(5):
            keys = [store.put(b"x" * 100_000) for _ in range(100)]
            store.evict_batch(keys[::2])
            store.evict_batch(keys[1::2])
            store.evict(store.put(b"x" * (12 * MIB)))
        wait_until(lambda: store.stats()["used"] < MIB, "the memory comes back")


def test_the_default_capacity_is_a_share_of_the_machine():
    from proxystore_hpc import _core

    with Store("default") as store:
        limits = _core.memory_limits()
        assert 0 < store.stats()["capacity"] <= limits["machine_total"] / 4 * 1.01
        assert store.stats()["mapped"] < store.stats()["capacity"]
