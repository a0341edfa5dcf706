from __future__ import annotations

import logging

import numpy as np
import pytest
from support import data

from proxystore_hpc import Store
from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    ObjectEvictedError,
    ObjectMissingError,
    SerializationError,
)


@pytest.mark.parametrize("name", data.EXAMPLES)
def test_objects_come_back_as_they_were(store, name):
    key = store.put(data.EXAMPLES[name]())
    assert data.difference(store.get(key), data.EXAMPLES[name]()) is None
    assert store.metrics.doors["self"].operations == 1


@pytest.mark.parametrize("size", data.SIZES)
def test_every_size(store, size):
    expected = data.pattern(size)
    keys = [store.put(kind(expected)) for kind in (bytes, bytearray)]
    keys.append(store.put(np.frombuffer(expected, "u1")))
    assert [bytes(obj) for obj in store.get_batch(keys)] == [expected] * 3
    assert all(key.nbytes >= size for key in keys)


def test_what_is_stored_is_a_value(store):
    array = np.arange(1000.0)
    key = store.put(array)
    array[:] = -1
    got = store.get(key)
    assert (got == np.arange(1000.0)).all()
    with pytest.raises(ValueError, match="read-only"):
        got[0] = 1


def test_a_view_costs_no_copy(store):
    key = store.put(np.arange(100000.0))
    first, second = store.get(key), store.get(key)
    assert np.shares_memory(first, second)
    assert store.stats()["received"] == 0


def test_exists_and_evict(store):
    key, other = store.put("a"), store.put("b")
    assert store.exists(key)
    assert store.exists_batch([key, other]) == [True, True]
    store.evict(key)
    store.evict(key)
    assert store.exists_batch([key, other]) == [False, True]
    assert store.get(key) is None
    assert store.get(key, default=7) == 7
    with pytest.raises(ObjectEvictedError) as caught:
        store.get_or_raise(key)
    assert caught.value.key is key
    assert key.owner in str(caught.value)
    store.evict_batch([other, key])
    assert not store.exists(other)
    assert store.stats()["objects"] == 0


def test_missing_is_not_evicted(store):
    with Store("another") as another:
        unset = another.new_key()
        with pytest.raises(ObjectMissingError, match="not been set"):
            another.get_or_raise(unset)


def test_batches_keep_their_order(store):
    keys = store.put_batch([data.numbered(i, 100) for i in range(50)])
    gone = keys[::7]
    store.evict_batch(gone)
    got = store.get_batch(keys, default="gone")
    for i, obj in enumerate(got):
        if i % 7 == 0:
            assert obj == "gone"
        else:
            assert (obj == i).all()
    assert store.exists_batch(keys) == [i % 7 != 0 for i in range(50)]
    assert store.get_batch([]) == []
    assert store.exists_batch([]) == []
    assert store.put_batch([]) == []


def test_a_failed_batch_leaves_nothing(store):
    class Unpicklable:
        def __reduce__(self):
            raise RuntimeError("never")

    with pytest.raises(SerializationError):
        store.put_batch([1, np.arange(1000), Unpicklable()])
    assert store.stats()["objects"] == 0


def test_writable_results_are_private(store):
    for length in (10, 100_000):
        key = store.put(np.arange(float(length)))
        mine, other = store.get(key, writable=True), store.get(key, writable=True)
        mine[:] = -1
        assert (other == np.arange(length)).all()
        assert (store.get(key) == np.arange(length)).all()
        assert not np.shares_memory(mine, store.get(key))


def test_get_into(store):
    key = store.put(np.arange(1000.0))
    target = np.zeros(1200)
    assert store.get_into(key, target) == 8000
    assert (target[:1000] == np.arange(1000)).all()
    assert (target[1000:] == 0).all()
    short = bytearray(16)
    assert store.get_into(key, short, offset=80) == 16
    assert np.frombuffer(short).tolist() == [10.0, 11.0]
    assert store.get_into(key, target, offset=8000) == 0


def test_parts(store):
    whole = data.pattern(100_000)
    for obj in (whole, bytearray(whole), np.frombuffer(whole, "u1"), memoryview(whole)):
        key = store.put(obj)
        part = store.get(key, offset=777, length=5000)
        assert isinstance(part, memoryview)
        assert part.readonly
        assert part == whole[777:5777]
        assert store.get(key, offset=99_990) == whole[99_990:]
        assert store.get(key, length=3) == whole[:3]
        assert store.get(key, offset=100_000) == b""


def test_parts_outside(store):
    key = store.put(b"0123456789")
    for offset, length in ((0, 11), (11, 0), (5, 6), (-1, 3), (0, -1), (2**63, 1), (0, 2**64)):
        with pytest.raises(InvalidArgumentError, match="outside"):
            store.get(key, offset=offset, length=length)
    with pytest.raises(InvalidArgumentError, match="outside"):
        store.get_into(key, bytearray(4), offset=11)


def test_parts_of_what_has_no_parts(store):
    key = store.put({"a": 1})
    with pytest.raises(SerializationError, match="one buffer"):
        store.get(key, offset=0, length=1)


def test_serializers_of_a_call(store):
    key = store.put([1, 2], serializer=lambda obj: repr(obj).encode())
    assert store.get(key, deserializer=lambda raw: eval(bytes(raw))) == [1, 2]
    with pytest.raises(SerializationError, match="deserializer"):
        store.get(key)


def test_serializers_of_a_store():
    with Store(
        "own", serializer=lambda obj: str(obj).encode(), deserializer=lambda raw: raw.decode()
    ) as store:
        assert store.get(store.put(42)) == "42"


def test_a_deserializer_that_fails(store):
    key = store.put(b"x")
    with pytest.raises(SerializationError, match="ZeroDivisionError"):
        store.get(key, deserializer=lambda raw: 1 / 0)
    assert store.get(key) == b"x"


def test_new_keys_are_set_once(store):
    key = store.new_key()
    assert key.deferred
    assert not store.exists(key)
    assert store.get(key) is None
    store.set(key, np.arange(10))
    assert store.get(key).sum() == 45
    store.wait_for(key, timeout=0)
    with pytest.raises(InvalidArgumentError, match="set or evicted before"):
        store.set(key, 1)
    assert store.get(key).sum() == 45
    store.evict(key)
    with pytest.raises(ObjectEvictedError):
        store.wait_for(key)


def test_a_new_key_that_is_evicted_cannot_be_set(store):
    key = store.new_key()
    store.evict(key)
    with pytest.raises(ObjectEvictedError):
        store.wait_for(key)
    with pytest.raises(InvalidArgumentError):
        store.set(key, 1)


def test_keys_of_another_store_are_set_there(store):
    with Store("another") as another:
        key = another.new_key()
        store.set(key, [1, 2])
        assert another.get(key) == [1, 2]
        for side in (store, another):
            with pytest.raises(InvalidArgumentError, match="set or evicted before"):
                side.set(key, 3)
        assert another.stats()["objects"] == 1


def test_metrics_of_a_key():
    with Store("measured", metrics=True) as store:
        key = store.put(np.arange(1000.0))
        store.get(key)
        store.get(key)
        found = store.metrics.get_metrics(key)
        assert found.times["store.put"].count == 1
        assert found.times["store.get"].count == 2
        assert found.attributes["store.get.door"] == "self"
        assert 8000 <= found.attributes["store.put.object_size"] <= 8512
        doors = store.metrics.doors["self"]
        assert (doors.operations, doors.bytes) == (2, 2 * found.attributes["store.get.object_size"])


def test_large_objects_are_released_with_their_last_view(store):
    key = store.put(np.zeros(1_000_000))
    view = store.get(key)[10:20]
    store.evict(key)
    assert store.stats()["retired_blocks"] == 1
    assert view.sum() == 0
    del view
    store.put(np.zeros(1_000_000))
    assert store.stats()["retired_blocks"] == 0


def test_nothing_is_logged_by_ordinary_use(store, caplog):
    with caplog.at_level(logging.WARNING):
        store.get(store.put(np.arange(10)))
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bytes", lambda b: bytearray(b)),
        ("bytes", lambda b: b[:-1] + b"\0"),
        ("array-c", lambda a: a.astype("f4")),
        ("array-c", lambda a: a.reshape(1000, 10)),
        ("array-c", lambda a: a + (a == 5000)),
        ("array-f", lambda a: np.ascontiguousarray(a)),
        ("array-masked", lambda a: np.ma.masked_array(a.data, mask=False, fill_value=-1)),
        ("array-subclass", lambda a: a.view(np.ndarray)),
        ("array-object", lambda a: np.array([1, "two", [4]], dtype=object)),
        ("nested", lambda d: {**d, "big": d["big"] * 2}),
        ("memoryview", lambda v: v.cast("B")),
    ],
)
def test_a_difference_would_be_noticed(name, change):
    assert data.difference(change(data.EXAMPLES[name]()), data.EXAMPLES[name]()) is not None
