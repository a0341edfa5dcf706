from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest

from proxystore_hpc import Proxy, Store, extract, get_factory, get_store, is_resolved
from proxystore_hpc.exceptions import (
    NonProxiableTypeError,
    ObjectEvictedError,
    ProxyResolveError,
    ProxyResolveMissingKeyError,
    ProxyStoreFactoryError,
    StoreExistsError,
)
from proxystore_hpc.proxy import ProxyLocker
from proxystore_hpc.store import StoreFactory, get_key


@pytest.fixture
def store():
    with Store("proxies", capacity="32MiB", register=True) as store:
        yield store


def unresolved(proxy):
    return pickle.loads(pickle.dumps(proxy))


def test_a_proxy_keeps_its_object_or_not(store):
    array = np.arange(10.0)
    assert is_resolved(store.proxy(array))
    assert extract(store.proxy(array)) is array
    proxy = store.proxy(array, populate_target=False)
    assert not is_resolved(proxy)
    assert proxy.sum() == 45
    assert isinstance(proxy, np.ndarray)


def test_a_pickled_proxy_resolves(store):
    proxy = unresolved(store.proxy({"a": np.arange(1000)}))
    assert issubclass(type(proxy), Proxy)
    assert not is_resolved(proxy)
    assert proxy["a"].sum() == 499_500
    assert get_store(proxy) is store
    assert get_key(proxy) == get_factory(proxy).key


def test_evicting_proxies(store):
    proxy = store.proxy([1, 2], evict=True, populate_target=False)
    key = get_key(proxy)
    assert store.exists(key)
    assert proxy == [1, 2]
    assert not store.exists(key)
    with pytest.raises(ProxyResolveError) as caught:
        _ = unresolved(proxy)[0]
    assert isinstance(caught.value.cause, ProxyResolveMissingKeyError)


def test_two_threads_resolve_an_evicting_proxy_once(store):
    for _ in range(20):
        proxy = store.proxy(np.arange(1000), evict=True, populate_target=False)
        start = threading.Barrier(4)
        found = []

        def resolve(proxy=proxy, start=start, found=found):
            start.wait()
            found.append(int(proxy.sum()))

        threads = [threading.Thread(target=resolve) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [499_500] * 4


def test_a_missing_object_is_named(store):
    proxy = unresolved(store.proxy("x"))
    store.evict(get_key(proxy))
    with pytest.raises(ProxyResolveError) as caught:
        str(proxy)
    error = caught.value.cause
    assert isinstance(error, ProxyResolveMissingKeyError)
    assert error.key == get_key(proxy)
    assert error.store_name == "proxies"
    assert error.owner == get_key(proxy).owner
    for part in (repr(error.key), "'proxies'", error.owner):
        assert part in str(error)
        assert part in str(caught.value)
    assert isinstance(error.__cause__, ObjectEvictedError)


def test_another_failure_keeps_its_cause(store):
    proxy = store.proxy(b"x", populate_target=False, deserializer=lambda raw: 1 / 0)
    with pytest.raises(ProxyResolveError) as caught:
        len(proxy)
    assert "ZeroDivisionError" in str(caught.value.cause)


def test_batches(store):
    proxies = store.proxy_batch([1, "two", [3]], populate_target=False)
    assert [str(p) for p in proxies] == ["1", "two", "[3]"]
    assert store.proxy_batch([]) == []


def test_a_failed_batch_leaves_nothing(store):
    with pytest.raises(NonProxiableTypeError):
        store.proxy_batch([1, "two", [3], np.zeros(4), None])
    assert store.stats()["objects"] == 0


@pytest.mark.parametrize("obj", [None, True, False])
def test_singletons_are_not_proxied(store, obj):
    with pytest.raises(NonProxiableTypeError, match="skip_nonproxiable"):
        store.proxy(obj)
    assert store.proxy(obj, skip_nonproxiable=True) is obj
    assert store.proxy_batch([obj, 1], skip_nonproxiable=True)[0] is obj
    assert store.locked_proxy(obj) is obj


def test_proxies_of_keys(store):
    key = store.put([1, 2])
    assert store.proxy_from_key(key) == [1, 2]
    late = store.new_key()
    proxy = store.proxy_from_key(late)
    store.set(late, "there")
    assert proxy == "there"


def test_locked_proxies(store):
    locked = store.locked_proxy([1, 2], populate_target=False)
    assert isinstance(locked, ProxyLocker)
    proxy = locked.unlock()
    assert not is_resolved(proxy)
    assert proxy == [1, 2]


def test_resolving_many_at_once(store):
    objs = [np.full(1000, i) for i in range(20)]
    proxies = [unresolved(p) for p in store.proxy_batch(objs)]
    once = unresolved(store.proxy("once", evict=True))
    store.resolve([*proxies, once, "no proxy"])
    assert all(is_resolved(p) for p in proxies)
    assert [int(p[0]) for p in proxies] == list(range(20))
    assert once == "once"
    assert not store.exists(get_key(once))
    store.resolve(proxies)
    store.resolve([])


def test_resolving_many_of_which_one_is_missing(store):
    proxies = [unresolved(p) for p in store.proxy_batch([1, 2, 3])]
    store.evict(get_key(proxies[1]))
    with pytest.raises(ObjectEvictedError) as caught:
        store.resolve(proxies)
    assert caught.value.key == get_key(proxies[1])
    assert [is_resolved(p) for p in proxies] == [True, False, True]


def test_evict_and_lifetime_exclude_each_other(store):
    class Lifetime:
        def __init__(self):
            self.keys = []

        def add_key(self, *keys, store=None):
            self.keys += keys

    lifetime = Lifetime()
    proxy = store.proxy("x", lifetime=lifetime)
    assert lifetime.keys == [get_key(proxy)]
    store.proxy_from_key(get_key(proxy), lifetime=lifetime)
    keys = store.put_batch([1, 2], lifetime=lifetime)
    assert lifetime.keys[2:] == keys
    for make in (store.proxy, store.proxy_from_key):
        with pytest.raises(ValueError, match="exclude"):
            make(keys[0] if make == store.proxy_from_key else 1, evict=True, lifetime=lifetime)


def test_factories_compare_and_travel(store):
    key = store.put(1)
    factory = StoreFactory(key, "proxies")
    again = pickle.loads(pickle.dumps(factory))
    assert again == factory
    assert hash(again) == hash(factory)
    assert again != StoreFactory(key, "proxies", evict=True)
    assert pickle.loads(pickle.dumps(StoreFactory(key, "proxies", evict=True))).evict


def test_the_key_of_something_else(store):
    with pytest.raises(ProxyStoreFactoryError, match="function"):
        get_key(Proxy(lambda: 1))


def test_a_name_is_taken_once(store):
    with pytest.raises(StoreExistsError, match="'proxies'"):
        Store("proxies", register=True)
    assert get_store("proxies") is store
    with Store("proxies"):
        assert get_store("proxies") is store


def test_a_closed_store_is_not_registered(store):
    store.close()
    assert get_store("proxies") is None
