"""A store where the native core cannot be loaded: it reads over TCP, and says what it cannot do."""

from __future__ import annotations

import sys

import pytest

import proxystore_hpc
from proxystore_hpc import Store, get_store
from proxystore_hpc.exceptions import DoorUnavailableError, StoreClosedError


@pytest.fixture
def key():
    with Store("owner", capacity="16MiB") as owner:
        yield owner.put(b"x" * 100)


@pytest.fixture
def store(monkeypatch, key):
    monkeypatch.setitem(sys.modules, "proxystore_hpc._core", None)
    monkeypatch.delattr(proxystore_hpc, "_core", raising=False)
    with Store("bare") as store:
        yield store


@pytest.mark.parametrize(
    "action",
    [
        lambda store: store.put(1),
        lambda store: store.put(1, to=b"address"),
        lambda store: store.proxy([1]),
        lambda store: store.new_key(),
        lambda store: store.empty(10),
        lambda store: store.register(bytearray(10)),
        lambda store: store.address,
    ],
    ids=["put", "put-to", "proxy", "new-key", "empty", "register", "address"],
)
def test_what_would_need_the_core_says_so(store, action):
    with pytest.raises(DoorUnavailableError, match=r"native core cannot be loaded.*C\+\+ compiler"):
        action(store)


@pytest.mark.parametrize(
    "action",
    [
        lambda store, key: store.get(key),
        lambda store, key: store.get(key, offset=1, length=2),
        lambda store, key: store.get_into(key, bytearray(10)),
        lambda store, key: store.get_batch([key]),
        lambda store, key: store.exists(key),
        lambda store, key: store.evict(key),
        lambda store, key: store.wait_for(key),
        lambda store, key: store.adopt(key),
    ],
    ids=["get", "part", "into", "batch", "exists", "evict", "wait", "adopt"],
)
def test_keys_that_name_no_server_lead_nowhere(store, key, action):
    assert key.outside == b""
    with pytest.raises(DoorUnavailableError, match="native core cannot be loaded"):
        action(store, key)


def test_it_is_a_store_in_all_else(store):
    assert store.stats() == {}
    assert "bare" in repr(store)
    assert store.metrics.doors == {}
    assert get_store("bare") is None
    store.close()
    store.close()
    with pytest.raises(StoreClosedError):
        store.put(1)


def test_tcp_may_be_named(store):
    with Store("named", doors=("tcp",)) as other, pytest.raises(DoorUnavailableError):
        other.put(1)
