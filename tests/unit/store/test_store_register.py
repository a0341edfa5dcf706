from __future__ import annotations

import threading

import numpy as np
import pytest

from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    ObjectChangedError,
    ObjectEvictedError,
    StoreClosedError,
)


def test_readers_see_what_is_there_now(store):
    array = np.arange(1000.0)
    with store.register(array) as live:
        first = store.get(live.key)
        array[:] = -1
        second = store.get(live.key)
        assert (first == np.arange(1000)).all()
        assert (second == -1).all()
        assert not np.shares_memory(second, array)
        assert not store.is_cached(live.key)


@pytest.mark.parametrize("order", ["C", "F"])
def test_shape_and_order_arrive(store, order):
    array = np.array(np.arange(200).reshape(10, 20), order=order)
    with store.register(array) as live:
        got = store.get(live.key)
        assert got.flags.c_contiguous == array.flags.c_contiguous
        assert (got == array).all()


def test_other_buffers(store):
    cffi = pytest.importorskip("cffi")
    ffi = cffi.FFI()
    doubles = ffi.new("double[100]", list(range(100)))
    for buffer in (bytearray(b"abc" * 100), memoryview(bytearray(b"xyz")), ffi.buffer(doubles)):
        with store.register(buffer) as live:
            assert bytes(store.get(live.key)) == bytes(buffer)


def test_parts_and_reads_into_memory(store):
    array = np.arange(100_000.0)
    with store.register(array) as live:
        array[50_000] = -5
        part = store.get(live.key, offset=400_000, length=8)
        assert np.frombuffer(part)[0] == -5
        target = np.zeros(10)
        store.get_into(live.key, target, offset=400_000)
        assert target.tolist() == [-5, *range(50_001, 50_010)]


def test_closing_evicts(store):
    live = store.register(np.zeros(10))
    key = live.key
    live.close()
    live.close()
    with pytest.raises(ObjectEvictedError):
        store.get_or_raise(key)
    with pytest.raises(StoreClosedError, match="registered buffer"), live.writing():
        pass


def test_the_buffer_is_kept_alive(store):
    live = store.register(np.full(1000, 7.0))
    assert (store.get(live.key) == 7).all()
    live.close()


def test_writing_does_not_nest(store):
    with store.register(np.zeros(10)) as live:
        with (
            live.writing(),
            pytest.raises(InvalidArgumentError, match="does not nest"),
            live.writing(),
        ):
            pass
        assert store.get(live.key).sum() == 0


def test_an_exception_ends_writing(store):
    with store.register(np.zeros(10)) as live:
        with pytest.raises(ZeroDivisionError), live.writing():
            _ = 1 / 0
        assert store.get(live.key).sum() == 0


def test_a_read_inside_writing_gives_up(store):
    with (
        store.register(np.zeros(10)) as live,
        live.writing(),
        pytest.raises(ObjectChangedError, match="writing"),
    ):
        store.get(live.key, timeout=0.05)


def test_another_thread_reads_whole_states(store):
    array = np.zeros(50_000, "i8")
    done = threading.Event()

    def write():
        for number in range(1, 300):
            with live.writing():
                array[:25_000] = number
                array[25_000:] = number
        done.set()

    with store.register(array) as live:
        thread = threading.Thread(target=write)
        thread.start()
        reads = 0
        while not done.is_set() or reads < 5:
            got = store.get(live.key)
            assert (got == got[0]).all()
            reads += 1
        thread.join()


@pytest.mark.parametrize("wrong", [5, "text", None, [1, 2], object()])
def test_only_buffers(store, wrong):
    with pytest.raises(InvalidArgumentError):
        store.register(wrong)


def test_only_contiguous_buffers_of_some_length(store):
    for wrong in (np.zeros((10, 10))[:, ::2], np.zeros(0), np.array([object()]), b""):
        with pytest.raises(InvalidArgumentError):
            store.register(wrong)


def test_a_registered_object_can_be_read_many_times_at_once(store):
    arrays = [np.full(1000, i) for i in range(20)]
    handles = [store.register(array) for array in arrays]
    got = store.get_batch([handle.key for handle in handles])
    assert [int(a[0]) for a in got] == list(range(20))
    for handle in handles:
        handle.close()
    assert store.stats()["objects"] == 0
