"""Where the parts go, and that nothing is copied on the way."""

from __future__ import annotations

import gc
import mmap
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc.exceptions import InvalidArgumentError, SerializationError
from proxystore_hpc.serialize import (
    PREFIX_NBYTES,
    describe,
    loads,
    plan,
    plan_array,
    raw_payload,
    serialize,
)
from proxystore_hpc.serialize.layout import align

PAGE = 4096


def _address(buffer):
    return np.frombuffer(buffer, "u1").ctypes.data


@given(
    position=st.integers(0, 2**40),
    nbytes=st.integers(0, 2**40),
    origin=st.sampled_from([0, 64, 128]),
)
def test_alignment(position, nbytes, origin):
    place = align(position, nbytes, origin)
    step = PAGE if nbytes >= 64 * 1024 else 64 if nbytes else 1
    assert position <= place < position + step
    assert (origin + place) % step == 0


@given(sizes=st.lists(st.integers(0, 200_000), max_size=6), origin=st.sampled_from([0, 64]))
def test_segments_are_in_order_and_aligned_in_the_block(sizes, origin):
    layout = plan([np.zeros(size, "u1") for size in sizes], origin)
    end = 0
    for index, (offset, segment) in enumerate(layout.segments()):
        assert offset >= end
        end = offset + len(segment)
        if isinstance(segment, memoryview):
            assert index > 0
            assert (origin + offset) % (PAGE if len(segment) >= 64 * 1024 else 64) == 0
    assert end == layout.nbytes


@pytest.mark.parametrize("size", [1, 1000, 8191, 8192, 100_000])
def test_large_buffers_are_not_copied(size, store):
    array = np.arange(float(size))
    layout = plan(array)
    segment = layout.segments()[1][1]
    assert _address(segment) == array.ctypes.data
    assert layout.segments()[1][0] == layout.data_offset

    view = store(array)
    result = loads(view)
    assert result.ctypes.data == _address(view) + layout.data_offset
    assert result.ctypes.data % (PAGE if array.nbytes >= 64 * 1024 else 64) == 0


def test_buffers_inside_objects_are_not_copied(store):
    arrays = {"a": np.arange(3000.0), "b": np.ones((200, 200), order="F")}
    places = {_address(segment) for _, segment in plan(arrays).segments()[1:]}
    assert places == {array.ctypes.data for array in arrays.values()}
    view = store(arrays)
    low = _address(view)
    for result in loads(view).values():
        assert low < result.ctypes.data < low + len(view)


@pytest.mark.parametrize(
    "make",
    [
        lambda data: data.astype("M8[s]"),
        lambda data: np.ma.array(data, mask=data > 5),
        lambda data: data.view(np.recarray),
        lambda data: data.astype([("x", "f8")]),
    ],
    ids=["datetime", "masked", "subclass", "structured"],
)
def test_arrays_of_every_sort_are_views_of_the_block(make, store):
    view = store([make(np.arange(3000.0))])
    result = np.asarray(loads(view)[0])
    assert _address(view) < result.__array_interface__["data"][0] < _address(view) + len(view)
    assert not result.flags.writeable


def test_small_buffers_stay_in_the_stream():
    assert len(plan([np.zeros(4), np.zeros(4)]).segments()) == 1


def test_a_large_stream_is_a_segment_of_its_own(store):
    value = list(range(100_000))
    layout = plan(value)
    assert [len(segment) for _, segment in layout.segments()] == [32, layout.nbytes - 32]
    assert loads(store(value)) == value
    mixed = [value, np.zeros(5000)]
    assert len(plan(mixed).segments()) == 3
    assert loads(store(mixed))[0] == value


def test_the_result_holds_the_memory_only_if_it_refers_to_it():
    class Lease(bytearray):
        pass

    for value, held in [([1, 2], False), (b"x" * 5000, False), (np.zeros(5000), True)]:
        lease = Lease(serialize(value))
        alive = weakref.ref(lease)
        result = loads(memoryview(lease))
        del lease
        gc.collect()
        assert (alive() is not None) is held
        del result
        gc.collect()
        assert alive() is None


def test_a_slice_holds_the_memory():
    lease = bytearray(serialize(np.arange(5000.0)))
    part = loads(memoryview(lease))[10:12]
    with pytest.raises(BufferError):
        lease.clear()
    assert part.tolist() == [10, 11]
    del part
    lease.clear()


def test_memory_is_read_only_unless_asked_for(store):
    view = store(np.arange(5000.0))
    result = loads(view)
    with pytest.raises(ValueError, match="read-only"):
        result[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        result.flags.writeable = True
    writable = loads(view, writable=True)
    writable[0] = 42
    assert result[0] == 42
    with pytest.raises(InvalidArgumentError, match="writable"):
        loads(view.toreadonly(), writable=True)


def test_the_read_only_flag_of_an_array_in_an_object(store):
    sealed = np.arange(5000.0)
    sealed.flags.writeable = False
    result = loads(store([sealed, np.arange(5000.0)]), writable=True)
    assert not result[0].flags.writeable
    assert result[1].flags.writeable
    assert loads(store(sealed), writable=True).flags.writeable


def test_write_into(store):
    obj = {"a": np.arange(40_000.0), "b": "text"}
    layout = plan(obj)
    target = bytearray(b"\xff") * layout.nbytes
    layout.write_into(memoryview(target))
    np.testing.assert_array_equal(loads(target)["a"], obj["a"])


@pytest.mark.parametrize("gib", [2, 4, 5])
def test_objects_beyond_four_gibibytes(gib):
    """The memory is mapped and never touched, but for the header."""
    nbytes = gib << 30
    try:
        source = mmap.mmap(-1, nbytes + 8, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
        block = mmap.mmap(
            -1, nbytes + 16 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000
        )
    except OSError as error:
        pytest.skip(f"this machine does not map {gib} GiB: {error}")
    array = np.frombuffer(source, "f8")
    layout = plan(array)
    assert layout.nbytes == layout.data_offset + nbytes + 8
    view = memoryview(block)[: layout.nbytes]
    head = layout.segments()[0][1]
    view[: len(head)] = head
    result = loads(view)
    assert result.shape == ((nbytes >> 3) + 1,)
    assert describe(bytes(view[:PREFIX_NBYTES])).nbytes == nbytes + 8
    assert len(raw_payload(view)) == nbytes + 8

    several = plan([array[:1000], array, array[:2000]])
    offsets = [offset for offset, _ in several.segments()]
    assert several.nbytes > nbytes
    assert offsets[-1] > nbytes
    for offset, segment in several.segments():
        if len(segment) < PAGE:
            view[offset : offset + len(segment)] = segment
    first, large, _ = loads(memoryview(block)[: several.nbytes])
    assert (first.size, large.size) == (1000, array.size)


INFO = [
    (b"x" * 100, "bytes", None, None),
    (bytearray(100_000), "bytearray", None, None),
    (memoryview(bytes(80)).cast("d", (2, 5)), "memoryview", "d", (2, 5)),
    (np.zeros((10, 10), "i2"), "ndarray", "<i2", (10, 10)),
    (np.zeros((300, 300)), "ndarray", "<f8", (300, 300)),
    (np.zeros((2,) * 16), "ndarray", "<f8", (2,) * 16),
    (np.array(5.0), "ndarray", "<f8", ()),
    (np.zeros(10, "M8[25us]"), "ndarray", "<M8[25us]", (10,)),
]


@pytest.mark.parametrize(("obj", "kind", "dtype", "shape"), INFO)
def test_the_prefix_tells_where_the_data_are(obj, kind, dtype, shape, store):
    view = store(obj)
    info = describe(view[:PREFIX_NBYTES])
    expected = obj.tobytes() if hasattr(obj, "tobytes") else bytes(obj)
    assert info.is_raw
    assert (info.kind, info.dtype, info.shape, info.order) == (kind, dtype, shape, "C")
    assert (info.nbytes, info.total) == (len(expected), len(view))
    assert bytes(view[info.data_offset : info.data_offset + info.nbytes]) == expected
    assert bytes(raw_payload(view)) == expected


def test_the_prefix_of_a_fortran_array(store):
    assert describe(store(np.zeros((3, 4), order="F"))).order == "F"


@pytest.mark.parametrize("obj", [{"a": np.zeros(9000)}, list(range(1000)), "text", None])
def test_objects_that_cannot_be_read_in_ranges(obj, store):
    view = store(obj)
    info = describe(view[:PREFIX_NBYTES])
    assert not info.is_raw
    assert info.nbytes == info.total == len(view)
    assert raw_payload(view) is None


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("f8", (64, 64)),
        ("f8", 5),
        ("f4", (300, 300)),
        (">i4", ()),
        ([("a", "i4"), ("b", "f8")], (200, 100)),
        (("f8", (3,)), (10,)),
        ("f8", (0, 3)),
        ("f8", (1,) * 20),
        ("M8[s]", (10,)),
    ],
)
def test_an_array_planned_before_it_exists(dtype, shape, order):
    layout = plan_array(dtype, shape, order)
    expected = np.zeros(shape, dtype, order)
    nbytes = expected.nbytes
    assert layout.nbytes == layout.data_offset + nbytes
    assert (64 + layout.data_offset) % (PAGE if nbytes >= 64 * 1024 else 64 if nbytes else 1) == 0
    block = bytearray(layout.nbytes)
    ((start, head),) = layout.segments()
    assert start == 0
    assert len(head) <= layout.data_offset
    block[: len(head)] = head
    block[layout.data_offset :] = b"\x01" * nbytes
    result = loads(block)
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    assert result.flags.f_contiguous is expected.flags.f_contiguous
    assert result.tobytes() == b"\x01" * nbytes


def test_an_array_planned_as_one_that_is_there():
    array = np.zeros((100, 200), "f4")
    planned, there = plan_array("f4", (100, 200)), plan(array)
    assert planned.segments()[0] == there.segments()[0]
    assert (planned.nbytes, planned.data_offset) == (there.nbytes, there.data_offset)


@pytest.mark.parametrize(("dtype", "shape"), [("O", 3), ([("a", "O")], 3), ("f8", (-1, 3))])
def test_arrays_that_cannot_lie_in_shared_memory(dtype, shape):
    with pytest.raises(SerializationError):
        plan_array(dtype, shape)
