from __future__ import annotations

import gc
import logging

import numpy as np
import pytest
from support import data

from proxystore_hpc import Store
from proxystore_hpc.exceptions import InvalidArgumentError, StoreFullError


def address_of(array) -> int:
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f8", "i1", ">c16", [("a", "i4"), ("b", "f8")], "M8[s]", "U7"])
def test_arrays_as_asked_for(store, dtype, order):
    array = store.empty((30, 40), dtype, order)
    expected = np.empty((30, 40), dtype, order)
    assert (array.dtype, array.shape, array.strides) == (dtype, expected.shape, expected.strides)
    assert array.flags.writeable
    array[...] = np.zeros(1, dtype)[0]
    array[3:7, 5] = np.ones(1, dtype)[0]
    before = array.copy(order)
    key = store.put(array)
    assert data.difference(store.get(key), before) is None


@pytest.mark.parametrize("shape", [(), 0, (0, 5), 1, (2, 3, 4), 100_000])
def test_shapes(store, shape):
    array = store.empty(shape, "f4")
    array[...] = 3
    key = store.put(array)
    assert data.difference(store.get(key), np.full(shape, 3, "f4")) is None


def test_storing_copies_nothing_and_seals(store):
    array = store.empty(100_000)
    array[:] = 1
    where = address_of(array)
    used = store.stats()["used"]
    key = store.put(array)
    assert store.stats()["used"] == used
    assert address_of(store.get(key)) == where
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 2
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


def test_a_second_put_gives_the_same_key(store):
    array = store.empty(1000)
    array[:] = 1
    key = store.put(array)
    assert store.put(array) is key
    assert store.stats()["objects"] == 1


def test_a_second_put_after_an_evict_stores_anew(store):
    array = store.empty(1000)
    array[:] = 5
    key = store.put(array)
    store.evict(key)
    again = store.put(array)
    assert again != key
    assert (store.get(again) == 5).all()
    assert not store.exists(key)


def test_other_views_force_a_copy_which_is_said_once(store, caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            array = store.empty(1000)
            array[:] = 1
            view = array[10:]
            key = store.put(array)
            view[0] = 99
            assert array[10] == 99
            assert (store.get(key) == 1).all()
    assert len([r for r in caplog.records if "copied" in r.message]) == 1


def test_a_dropped_view_does_not_force_a_copy(store, caplog):
    array = store.empty(1000)
    array[:500] = 1
    array[500:] = 2
    np.sqrt(array, out=array)
    with caplog.at_level(logging.WARNING):
        store.put(array)
    assert not caplog.records
    assert not array.flags.writeable


def test_a_part_is_stored_as_a_copy(store):
    array = store.empty((10, 100))
    array[:] = np.arange(10)[:, None]
    part = array[3]
    key = store.put(part)
    part[:] = -1
    assert (store.get(key) == 3).all()
    assert array.flags.writeable


def test_a_reshaped_array_keeps_its_new_shape(store):
    array = store.empty((10, 100))
    array[:] = 1
    key = store.put(array.reshape(100, 10))
    assert store.get(key).shape == (100, 10)


def test_inside_another_object_it_is_copied(store):
    array = store.empty(100_000)
    array[:] = 1
    key = store.put({"a": array})
    array[:] = 2
    assert (store.get(key)["a"] == 1).all()


def test_a_dropped_array_gives_its_memory_back(store):
    before = store.stats()["used"]
    for _ in range(20):
        store.empty(1_000_000)
    gc.collect()
    store._instance.warm(0)
    store.put(np.zeros(100_000))  # what was dropped is taken back when memory is asked for
    assert store.stats()["used"] - before < 2 * 8_000_000


def test_memory_is_warm_after_an_evict(store):
    array = store.empty((500, 1000))
    array[:] = 1
    where = address_of(array)
    key = store.put(array)
    del array
    store.evict(key)
    mapped = store.stats()["mapped"]
    again = store.empty((500, 1000))
    assert address_of(again) == where
    assert store.stats()["mapped"] == mapped


def test_the_writers_array_keeps_its_block(store):
    array = store.empty(100_000)
    array[:] = 7
    store.evict(store.put(array))
    other = store.empty(100_000)
    other[:] = 8
    assert (array == 7).all()


def test_arrays_live_longer_than_their_store():
    with Store("short", capacity="16MiB") as store:
        array = store.empty(100_000)
        array[:] = 3
        stored = store.empty(100_000)
        stored[:] = 4
        store.put(stored)
    array[:] = 5
    assert (array == 5).all()
    assert (stored == 4).all()


@pytest.mark.parametrize(
    ("shape", "dtype"), [(-1, "f8"), ((2, -3), "f8"), (10, object), ("a", "f8"), (10, "no type")]
)
def test_what_cannot_be_made(store, shape, dtype):
    with pytest.raises((InvalidArgumentError, TypeError, ValueError)):
        store.empty(shape, dtype)


def test_too_large(store):
    with pytest.raises(StoreFullError) as caught:
        store.empty(2**40)
    assert caught.value.requested >= 2**43
    assert caught.value.capacity == 64 * 1024**2
