from __future__ import annotations

import threading
import weakref
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc.store.cache import LRUCache


def test_the_value_unused_for_longest_goes_first():
    cache = LRUCache(2)
    cache.set("a", 1)
    cache.set("b", 2)
    assert cache.get("a") == 1
    cache.set("c", 3)
    assert cache.exists("a")
    assert not cache.exists("b")
    assert cache.get("b") is None
    assert cache.get("b", "default") == "default"
    assert (cache.hits, cache.misses, len(cache)) == (1, 2, 2)


def test_bytes_are_bounded():
    cache = LRUCache(10, max_bytes=100)
    cache.set("a", 1, 60)
    cache.set("b", 2, 30)
    assert cache.nbytes == 90
    cache.set("c", 3, 50)
    assert not cache.exists("a")
    assert cache.nbytes == 80
    cache.set("d", 4, 100)
    assert [cache.exists(key) for key in "abcd"] == [False, False, False, True]


def test_a_value_that_is_too_large_is_not_kept():
    cache = LRUCache(10, max_bytes=100)
    cache.set("a", 1, 50)
    cache.set("b", 2, 101)
    assert cache.exists("a")
    assert not cache.exists("b")
    cache.set("a", 3, 101)
    assert not cache.exists("a")
    assert cache.nbytes == 0


def test_setting_a_key_again_replaces_its_value():
    cache = LRUCache(2)
    for value in range(5):
        cache.set("a", value, 10)
    assert cache.get("a") == 4
    assert (len(cache), cache.nbytes) == (1, 10)
    cache.set("b", 0)
    cache.set("c", 0)
    assert not cache.exists("a")


def test_a_cached_none_is_a_hit():
    cache = LRUCache()
    cache.set("a", None)
    assert cache.get("a", "default") is None
    assert cache.hits == 1


def test_nothing_is_kept_with_size_zero():
    cache = LRUCache(0)
    cache.set("a", 1, 1)
    assert not cache.exists("a")
    assert cache.nbytes == 0


def test_evict_and_clear():
    cache = LRUCache()
    cache.set("a", 1, 5)
    cache.set("b", 1, 5)
    cache.evict("a")
    cache.evict("a")
    assert cache.nbytes == 5
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)


@pytest.mark.parametrize("bounds", [(-1,), (1, -1)])
def test_negative_bounds_are_refused(bounds):
    with pytest.raises(ValueError, match="negative"):
        LRUCache(*bounds)


def test_a_dropped_value_is_freed_at_once():
    class Value:
        pass

    cache = LRUCache(1)
    value = Value()
    alive = weakref.ref(value)
    cache.set("a", value)
    del value
    assert alive() is not None
    cache.set("b", 1)
    assert alive() is None


def test_a_finalizer_may_use_the_cache():
    cache = LRUCache(1)

    class Value:
        def __del__(self):
            cache.evict("b")

    cache.set("a", Value())
    cache.set("b", 1)
    assert not cache.exists("b")


@given(
    maxsize=st.integers(0, 4),
    max_bytes=st.one_of(st.none(), st.integers(0, 20)),
    steps=st.lists(
        st.tuples(st.sampled_from(["get", "set", "evict"]), st.integers(0, 5), st.integers(0, 15))
    ),
)
def test_it_behaves_as_a_list_would(maxsize, max_bytes, steps):
    cache = LRUCache(maxsize, max_bytes)
    model: OrderedDict[int, int] = OrderedDict()
    limit = float("inf") if max_bytes is None else max_bytes
    for step, key, nbytes in steps:
        if step == "get":
            assert cache.get(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
        elif step == "evict":
            cache.evict(key)
            model.pop(key, None)
        else:
            cache.set(key, nbytes, nbytes)
            model.pop(key, None)
            if maxsize and nbytes <= limit:
                model[key] = nbytes
                while len(model) > maxsize or sum(model.values()) > limit:
                    model.popitem(last=False)
        assert len(cache) == len(model)
        assert cache.nbytes == sum(model.values())


def test_threads():
    cache = LRUCache(8, max_bytes=64)
    failures = []

    def work(seed):
        try:
            for i in range(3000):
                key = (seed * i) % 23
                cache.set(key, key, key % 9)
                got = cache.get((key + 1) % 23)
                assert got in (None, (key + 1) % 23)
                if i % 7 == 0:
                    cache.evict(key)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(cache) <= 8
    assert cache.nbytes <= 64
    assert cache.hits + cache.misses == 12_000
