from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxystore_hpc import Store
from proxystore_hpc.exceptions import InvalidKeyError
from proxystore_hpc.key import Key
from proxystore_hpc.store.factory import StoreFactory


@pytest.fixture(scope="module")
def store():
    with Store("keys", capacity="16MiB") as store:
        yield store


@pytest.fixture(scope="module")
def key(store):
    return store.put(b"x" * 1000)


def packed_with_host(host: bytes, fingerprint: bytes = b"") -> bytes:
    from proxystore_hpc.key import _HEAD

    head = _HEAD.pack(1, 0, 3, 7, 8, 4096, 1000, b"c" * 16, b"o" * 16, 0, 1234, len(host))
    return head + host + bytes([len(fingerprint)]) + fingerprint


def test_what_it_says(key):
    assert key.nbytes >= 1000
    assert not key.deferred
    assert not key.live
    assert key.contact is None
    assert len(key.owner_id) == 16
    assert key.owner == key.owner_id[:4].hex()
    assert f"object {key.object_id}" in repr(key)
    assert key.owner in repr(key)


def test_kinds(store):
    import numpy as np

    assert store.new_key().deferred
    assert store.new_key().nbytes == 0
    with store.register(np.zeros(10)) as live:
        assert live.key.live


def test_it_travels_as_bytes_and_as_pickle(key):
    again = Key.parse(bytes(key))
    assert again == key
    assert hash(again) == hash(key)
    assert bytes(again) == bytes(key)
    assert pickle.loads(pickle.dumps(key)) == key
    assert len({key, again}) == 1


def test_different_objects_have_different_keys(store, key):
    other = store.put(b"x" * 1000)
    assert other != key
    assert len({key, other}) == 2
    assert key != "key"
    with Store("others") as another:
        assert another.put(1).owner_id != key.owner_id


def test_a_key_made_before_its_object_equals_the_one_made_after(store):
    before = store.new_key()
    store.set(before, 1)
    located = Key(store._instance.wait_for(before.packed, 1.0))
    assert not located.deferred
    assert located == before
    assert hash(located) == hash(before)


def test_it_is_small():
    packed = packed_with_host(b"h" * 64, b"f" * 16)
    key = Key.parse(packed)
    assert key.contact == ("h" * 64, 1234)
    assert len(pickle.dumps(key)) <= 300
    factory = StoreFactory(key, "simulation")
    assert len(pickle.dumps(factory)) <= 300


def test_a_pickled_proxy_is_small(store):
    from proxystore_hpc import Proxy

    proxy = Proxy(StoreFactory(Key(packed_with_host(b"h" * 64, b"f" * 16)), "simulation"))
    assert len(pickle.dumps(proxy)) <= 300
    assert len(pickle.dumps(store.proxy([1, 2, 3]))) <= 300


@pytest.mark.parametrize("wrong", [None, 5, "key", bytearray(80), ["a"]])
def test_only_bytes_are_keys(wrong):
    with pytest.raises(InvalidKeyError, match=type(wrong).__name__):
        Key.parse(wrong)


def test_every_cut_is_noticed(key):
    packed = bytes(key)
    for length in range(len(packed)):
        with pytest.raises(InvalidKeyError, match="cut short or garbled"):
            Key.parse(packed[:length])
    with pytest.raises(InvalidKeyError):
        Key.parse(packed + b"\0")


def test_an_unreadable_key_can_be_printed():
    assert repr(Key(b"abc")) == "<Key that cannot be read, 3 bytes>"
    with pytest.raises(InvalidKeyError) as caught:
        _ = Key(b"abc").object_id
    assert caught.value.key == b"abc"


def test_lengths_beyond_any_address_space_are_refused(store, key):
    packed = bytearray(bytes(key))
    for position in (20, 28):  # offset, length
        garbled = bytearray(packed)
        garbled[position + 6] = 1
        with pytest.raises(InvalidKeyError):
            store.get(Key(bytes(garbled)))


@given(st.binary(max_size=200))
def test_noise_is_no_key(packed):
    try:
        found = Key.parse(packed)
    except InvalidKeyError:
        return
    assert bytes(found) == packed
    assert found.identity == (found.object_id, found.owner_id)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_the_core_reads_the_same_keys(store, key, data):
    """What `Key` refuses the core refuses as well; what both read has the same identity."""
    packed = bytearray(bytes(key))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    garbled = Key(bytes(packed))
    if garbled.packed[52:68] != key.owner_id:
        return  # of an owner that is nowhere
    try:
        garbled._decode()
    except InvalidKeyError:
        with pytest.raises(InvalidKeyError):
            store.get(garbled)
