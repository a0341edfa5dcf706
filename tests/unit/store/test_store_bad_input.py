from __future__ import annotations

import math
import pickle
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import proxystore_hpc
from proxystore_hpc import Store
from proxystore_hpc.exceptions import (
    ConfigError,
    DoorUnavailableError,
    InvalidArgumentError,
    InvalidKeyError,
    ObjectMissingError,
    OwnerGoneError,
    ProxyStoreHpcError,
    SerializationError,
    StoreClosedError,
)
from proxystore_hpc.key import Key

USES = {
    "put": lambda store, key: store.put(1),
    "put_batch": lambda store, key: store.put_batch([1]),
    "get": lambda store, key: store.get(key),
    "get_or_raise": lambda store, key: store.get_or_raise(key),
    "get part": lambda store, key: store.get(key, offset=0, length=1),
    "get_batch": lambda store, key: store.get_batch([key]),
    "get_into": lambda store, key: store.get_into(key, bytearray(1)),
    "exists": lambda store, key: store.exists(key),
    "exists_batch": lambda store, key: store.exists_batch([key]),
    "evict": lambda store, key: store.evict(key),
    "evict_batch": lambda store, key: store.evict_batch([key]),
    "wait_for": lambda store, key: store.wait_for(key),
    "set": lambda store, key: store.set(key, 1),
    "new_key": lambda store, key: store.new_key(),
    "empty": lambda store, key: store.empty(3),
    "register": lambda store, key: store.register(bytearray(3)),
    "proxy": lambda store, key: store.proxy(1),
    "proxy_batch": lambda store, key: store.proxy_batch([1]),
    "locked_proxy": lambda store, key: store.locked_proxy(1),
}
TAKE_KEYS = [name for name in USES if name.startswith(("get", "exists", "evict", "wait", "set"))]


@pytest.mark.parametrize("use", USES)
def test_a_closed_store_says_so(use):
    store = Store("closed", capacity="16MiB")
    key = store.put(1)
    store.close()
    store.close()
    with pytest.raises(StoreClosedError, match="'closed'"):
        USES[use](store, key)


def test_what_a_closed_store_still_answers():
    store = Store("closed", capacity="16MiB")
    address = store.address
    store.close()
    assert store.address == address
    assert store.name == store.config().name == "closed"
    assert "closed" in repr(store)
    assert store.stats()["objects"] == 0


def test_a_put_that_failed_for_a_closed_store_keeps_nothing():
    store = Store("closed", capacity="16MiB")
    array = store.empty(10)
    array[:] = 1
    store.close()
    with pytest.raises(StoreClosedError):
        store.put(array)
    assert array.flags.writeable


@pytest.mark.parametrize("wrong", [None, 5, "key", b"key", ("a", "b")], ids=repr)
@pytest.mark.parametrize("use", TAKE_KEYS)
def test_wrong_types_of_keys(store, use, wrong):
    with pytest.raises(InvalidKeyError, match=type(wrong).__name__):
        USES[use](store, wrong)


@pytest.mark.parametrize("use", TAKE_KEYS)
def test_truncated_keys(store, use):
    whole = bytes(store.put(1))
    for packed in (b"", whole[:1], whole[:40], whole[:-1], whole + b"\0", b"\xff" * len(whole)):
        with pytest.raises(InvalidKeyError, match="no key"):
            USES[use](store, Key(packed))


@pytest.mark.parametrize("use", TAKE_KEYS)
def test_keys_of_a_store_that_is_gone(store, use):
    with Store("gone") as other:
        key = other.new_key() if use == "set" else other.put(np.arange(10))
    with pytest.raises(OwnerGoneError) as caught:
        USES[use](store, key)
    assert key.owner in str(caught.value)


def test_a_proxy_of_a_store_that_is_gone():
    with Store("gone") as other:
        packed = pickle.dumps(other.proxy([1]))
    with pytest.raises(ProxyStoreHpcError, match="listens on this node"):
        len(pickle.loads(packed))


def test_a_key_that_never_existed(store):
    packed = bytearray(bytes(store.put(1)))
    with Store("other") as other:
        packed[36:52] = bytes(other.put(1))[36:52]  # another object's capability
    forged = Key(bytes(packed))
    with pytest.raises(ProxyStoreHpcError, match="not issued"):
        store.get(forged)
    with pytest.raises(ProxyStoreHpcError, match="not issued"):
        store.evict(forged)


def test_an_unset_key_is_missing(store):
    with pytest.raises(ObjectMissingError):
        store.get_or_raise(store.new_key())


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_garbled_keys_never_crash(store, data):
    """Of own objects, stored and live: an error of ours, or the object itself."""
    array = np.arange(100.0)
    with store.register(array) as live:
        key = data.draw(st.sampled_from([store.put(array), store.put(b"tiny"), live.key]))
        packed = bytearray(bytes(key))
        position = data.draw(st.integers(0, len(packed) - 1))
        value = data.draw(st.binary(min_size=1, max_size=8))
        packed[position : position + len(value)] = value
        garbled = Key(bytes(packed))
        use = data.draw(st.sampled_from([name for name in TAKE_KEYS if name != "set"]))
        try:
            got = USES[use](store, garbled)
        except ProxyStoreHpcError:
            return
        if use in ("get", "get_or_raise"):
            assert got is None or bytes(got) == bytes(store.get(key))


def test_what_cannot_be_serialized(store):
    class Stubborn:
        def __reduce__(self):
            raise RuntimeError("never")

    with pytest.raises(SerializationError, match="never"):
        store.put(Stubborn())
    with pytest.raises(SerializationError):
        store.put(x for x in ())
    assert store.stats()["objects"] == 0


def test_targets_that_cannot_be_filled(store):
    key = store.put(b"0123456789")
    for wrong in (b"readonly", 5, "text", np.zeros((4, 4), "u1")[:, ::2]):
        with pytest.raises((TypeError, ValueError, BufferError)):
            store.get_into(key, wrong)
    assert store.get(key) == b"0123456789"


@pytest.mark.parametrize("to", [3, b"", b"too short", b"\0" * 200, "rank", 1.5])
def test_addresses_that_lead_nowhere(store, to):
    with pytest.raises((InvalidArgumentError, TypeError)):
        store.put(1, to=to)


def test_an_address_of_nobody(store):
    with Store("gone") as other:
        address = other.address
    with pytest.raises(OwnerGoneError, match="put to owner"):
        store.put(1, to=address)


@pytest.mark.parametrize("timeout", [0, -1, 1e-9, math.inf, 1e300])
def test_unusual_timeouts(store, timeout):
    key = store.put(1)
    assert store.get(key, timeout=timeout) == 1
    assert store.exists(key, timeout=timeout)


@pytest.mark.parametrize("timeout", ["soon", [], math.nan])
def test_timeouts_that_are_none(store, timeout):
    unset = store.new_key()
    began = time.monotonic()
    with pytest.raises((InvalidArgumentError, TypeError, TimeoutError)):
        store.wait_for(unset, timeout=timeout)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"doors": ("telepathy",)}, "there is no door 'telepathy'"),
        ({"doors": ()}, "at least one"),
        ({"doors": "shm"}, "several names"),
        ({"capacity": "much"}, "capacity"),
        ({"capacity": -1}, "capacity"),
        ({"capacity": 1.5}, "capacity"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "long"}, "timeout"),
        ({"timeout": math.nan}, "timeout"),
        ({"grace": -1}, "grace"),
        ({"cache_size": -1}, "cache_size"),
        ({"cache_size": "many"}, "cache_size"),
        ({"cache_bytes": "all"}, "cache_bytes"),
        ({"progress": "fast"}, "progress"),
        ({"serializer": 5}, "serializer"),
        ({"serializer": "no.such.path"}, "serializer"),
        ({"options": 5}, "options"),
        ({"interface": 5}, "interface"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_meant(options, message):
    with pytest.raises(ConfigError, match=message):
        Store("wrong", **options)


@pytest.mark.parametrize("name", ["", 5, None])
def test_names_that_are_none(name):
    with pytest.raises(ConfigError, match="name"):
        Store(name)


@pytest.mark.parametrize("options", [{"doors": ("shm",)}, {"doors": ("tcp", "shm")}, {"tcp": True}])
def test_what_needs_the_core_where_it_is_missing(monkeypatch, options):
    """What was asked for and cannot be had is an error which says how to get it."""
    monkeypatch.setitem(sys.modules, "proxystore_hpc._core", None)
    monkeypatch.delattr(proxystore_hpc, "_core", raising=False)
    with pytest.raises(DoorUnavailableError, match="cannot be used") as caught:
        Store("wrong", **options)
    assert caught.value.door == "shm"
    assert caught.value.reason


def test_an_interface_that_is_not_there():
    with pytest.raises((ConfigError, DoorUnavailableError), match="nosuch0"):
        Store("wrong", interface="nosuch0")


@pytest.mark.parametrize("secret", [b"short", b"x" * 17])
def test_secrets_of_another_length(secret):
    with pytest.raises(InvalidArgumentError, match="16 bytes"):
        Store("wrong", secret=secret)


def test_a_store_is_not_pickled(store):
    with pytest.raises(TypeError, match="config"):
        pickle.dumps(store)
