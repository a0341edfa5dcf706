from __future__ import annotations

import pickle
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxystore_hpc import Store
from proxystore_hpc.exceptions import (
    AccessDeniedError,
    InvalidArgumentError,
    InvalidKeyError,
)
from proxystore_hpc.key import Key
from proxystore_hpc.store.factory import StoreFactory


@pytest.fixture(scope="module")
def store():
    with Store("keys", capacity="16MiB") as store:
        yield store


@pytest.fixture(scope="module")
def key(store):
    return store.put(b"x" * 1000)


ENDPOINT = b"e" * (4 + 64 + 16)  # as long as one with a long name and a pin


def packed_with_host(host: bytes, outside: bytes = b"", owner: bytes = b"o" * 16) -> bytes:
    from proxystore_hpc.key import _HEAD

    head = _HEAD.pack(2, 0, 3, 7, 8, 4096, 1000, b"c" * 16, owner, 0, 1234, len(host))
    return head + host + struct.pack("<H", len(outside)) + outside


def test_what_it_says(store, key):
    assert key.address == store.address
    assert key.nbytes >= 1000
    assert not key.deferred
    assert not key.live
    assert key.contact is None
    assert key.outside == b""
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
    packed = packed_with_host(b"h" * 64, ENDPOINT)
    key = Key.parse(packed)
    assert key.outside == ENDPOINT
    assert key.address == packed[52:139]
    assert key.inside == packed_with_host(b"h" * 64)
    assert Key(key.inside) == key
    assert key.contact == ("h" * 64, 1234)
    assert len(pickle.dumps(key)) <= 300
    factory = StoreFactory(key, "simulation")
    assert len(pickle.dumps(factory)) <= 300


def test_a_pickled_proxy_is_small(store):
    from proxystore_hpc import Proxy

    proxy = Proxy(StoreFactory(Key(packed_with_host(b"h" * 64, ENDPOINT)), "simulation"))
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


def test_a_key_of_the_first_version_is_refused_with_what_to_do(store, key):
    old = bytes([1]) + packed_with_host(b"node1", b"f" * 16)[1:]
    with pytest.raises(InvalidKeyError, match=r"of version 1.*the same version on both sides"):
        Key.parse(old)
    with pytest.raises(InvalidKeyError, match=r"of version 1.*the same version on both sides"):
        store._instance.get(old, False, 1.0)
    with pytest.raises(InvalidKeyError, match="cut short or garbled"):
        Key.parse(bytes([3]) + bytes(key)[1:])


def test_keys_carry_what_is_outside_from_when_it_is_known():
    import numpy as np

    with Store("outside", capacity="16MiB") as store:
        instance = store._instance
        early = store.put(b"early")
        instance.set_outside(ENDPOINT)
        assert early.outside == b""
        late = store.new_key()
        assert late.outside == ENDPOINT
        store.set(late, 1)
        assert Key(instance.wait_for(late.packed, 1.0)).outside == ENDPOINT
        assert store.put(b"small").outside == ENDPOINT
        assert store.put(np.zeros(100_000)).outside == ENDPOINT
        assert store.put(store.empty(100_000)).outside == ENDPOINT
        assert store.put(b"here", to=store.address).outside == ENDPOINT
        with store.register(np.zeros(10)) as live:
            assert live.key.outside == ENDPOINT
        assert store.get(late) == 1
        with pytest.raises(InvalidArgumentError, match="at most 1024"):
            instance.set_outside(bytes(1025))
        instance.set_outside(bytes(1024))
        assert Key.parse(bytes(store.put(b"longest"))).outside == bytes(1024)
        instance.set_outside(b"")
        assert store.put(b"none").outside == b""


@given(st.binary(max_size=200))
def test_noise_is_no_key(packed):
    try:
        found = Key.parse(packed)
    except InvalidKeyError:
        return
    assert bytes(found) == packed
    assert found.identity == (found.object_id, found.owner_id)


@settings(max_examples=500, deadline=None)
@given(
    outside=st.binary(max_size=40) | st.sampled_from([bytes(1024), bytes(1025)]),
    host=st.sampled_from([b"", b"node1"]),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 3),
)
def test_the_core_reads_the_same_keys(store, outside, host, changes, cut):
    """What `Key` refuses the core refuses as well, and the other way round."""
    owner = store.address[:16]
    packed = bytearray(packed_with_host(host, outside, owner))
    for position, value in changes:
        packed[position % len(packed)] = value
    key = Key(bytes(packed[: len(packed) - cut]))
    if key.packed[52:68] != owner:
        return  # the core would look for a process that is nowhere
    try:
        key._decode()
    except InvalidKeyError:
        with pytest.raises(InvalidKeyError):
            store._instance.exists([key.packed], 0.0)
    else:
        (error,) = store._instance.exists([key.packed], 0.0)
        assert isinstance(error, AccessDeniedError)
