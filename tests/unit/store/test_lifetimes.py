from __future__ import annotations

import pickle
import time
from concurrent.futures import Future as PlainFuture
from datetime import datetime, timedelta

import pytest
from support.procfs import wait_until

from proxystore_hpc import Store
from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    LifetimeEndedError,
    ProxyStoreFactoryError,
    ReferenceInvalidError,
    ReferenceNotOwnedError,
)
from proxystore_hpc.proxy import Proxy
from proxystore_hpc.store.lifetimes import (
    ContextLifetime,
    LeaseLifetime,
    Lifetime,
    StaticLifetime,
)
from proxystore_hpc.store.ref import borrow, mut_borrow
from proxystore_hpc.store.scopes import FutureWithCallback, mark_refs_out_of_scope, submit
from proxystore_hpc.store.utils import get_key


@pytest.fixture
def store():
    with Store("lifetimes", capacity="64MiB", register=True) as store:
        yield store


def test_a_context(store):
    with ContextLifetime(store, name="step") as lifetime:
        keys = [store.put(1, lifetime=lifetime), *store.put_batch([2, 3], lifetime=lifetime)]
        keys.append(get_key(store.proxy([4], lifetime=lifetime)))
        proxy = store.proxy([5])
        lifetime.add_proxy(proxy)
        keys.append(get_key(proxy))
        store.evict(keys[0])
        assert all(store.exists_batch(keys[1:]))
        assert not lifetime.done()
    assert lifetime.done()
    assert not any(store.exists_batch(keys))
    assert isinstance(lifetime, Lifetime)
    assert "step" in repr(lifetime)
    lifetime.close()


def test_what_has_ended_takes_nothing_more(store):
    lifetime = ContextLifetime(store)
    lifetime.close()
    for use in (
        lambda: store.put(1, lifetime=lifetime),
        lambda: store.put_batch([1, 2], lifetime=lifetime),
        lambda: store.proxy([1], lifetime=lifetime),
    ):
        with pytest.raises(LifetimeEndedError):
            use()
    assert store.stats()["objects"] == 0


def test_proxies_without_a_store(store):
    lifetime = ContextLifetime(store)
    mine = store.proxy([1])
    with pytest.raises(ProxyStoreFactoryError):
        lifetime.add_proxy(mine, Proxy(list))
    lifetime.close()
    assert store.exists(get_key(mine))


def test_closing_the_stores():
    store = Store("closing", capacity="16MiB", register=True)
    lifetime = ContextLifetime(store)
    store.put(1, lifetime=lifetime)
    lifetime.close(close_stores=True)
    assert store.closed


@pytest.mark.parametrize("patience", [None, 0.3])
def test_a_lease(store, patience):
    lease = LeaseLifetime(store, 0.5, patience=patience)
    key = store.put(1, lifetime=lease)
    kept = store.put(2)
    assert store.exists(key)
    assert not lease.done()
    wait_until(lambda: not store.exists(key), "the lease is over")
    assert lease.done()
    assert store.exists(kept)
    for use in (lambda: lease.extend(1), lambda: lease.add_key(kept)):
        with pytest.raises(LifetimeEndedError):
            use()
    lease.close()


def test_a_lease_that_is_moved(store):
    lease = LeaseLifetime(store, timedelta(seconds=0.2), name="moved")
    key = store.put(1, lifetime=lease)
    lease.extend(100)
    time.sleep(0.4)
    assert store.exists(key)
    lease.extend(datetime.fromtimestamp(time.time() - 1))
    wait_until(lambda: not store.exists(key), "the lease is over")
    assert lease.done()
    other = LeaseLifetime(store, datetime.now() + timedelta(seconds=50))
    key = store.put(1, lifetime=other)
    other.close()
    assert not store.exists(key)
    with pytest.raises(InvalidArgumentError):
        LeaseLifetime(store, 1, patience=0)


def test_single_objects(store):
    key = store.put(1)
    store.extend(key, 0.1)
    wait_until(lambda: not store.exists(key), "its time is over")
    kept = store.put(2)
    store.extend(kept, 0.1)
    store.extend(kept, None)
    time.sleep(0.3)
    assert store.exists(kept)


def test_the_static_one():
    assert StaticLifetime() is StaticLifetime()
    assert isinstance(StaticLifetime(), Lifetime)
    with pytest.raises(InvalidArgumentError):
        StaticLifetime().add_key()


def test_scopes(store):
    owned = store.owned_proxy([1])
    one, other = borrow(owned), borrow(owned)
    mark_refs_out_of_scope(one, other)
    mark_refs_out_of_scope(one)
    with pytest.raises(ReferenceInvalidError):
        len(one)
    reference = mut_borrow(owned)
    moved = pickle.loads(pickle.dumps(reference))
    with pytest.raises(ReferenceNotOwnedError):
        mark_refs_out_of_scope(moved)
    mark_refs_out_of_scope(reference)
    assert store.stats()["references"] == 1


def test_submit(store):
    owned = store.owned_proxy([1])
    future = PlainFuture()
    assert isinstance(future, FutureWithCallback)
    references = [borrow(owned) for _ in range(3)]

    def run(*args, **kwargs):
        assert args == (1, references[0])
        assert kwargs == {"x": references[1]}
        return future

    arguments = {"args": (1, references[0]), "kwargs": {"x": references[1]}}
    assert submit(run, **arguments, register_custom_refs=[references[2], "other"]) is future
    assert store.stats()["references"] == 4
    future.set_result(None)
    assert store.stats()["references"] == 1
