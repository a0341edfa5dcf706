"""Memory: the buffer protocol, numpy, and what sends bytes."""

from __future__ import annotations

import array
import ctypes
import hashlib
import struct
import weakref
import zlib
from typing import Any

import numpy as np
import pytest
from support.proxies import lends_memory

from proxystore_hpc.proxy import Proxy, is_resolved


def of(target: Any) -> Proxy[Any]:
    return Proxy(lambda: target)


@lends_memory
@pytest.mark.parametrize(
    "target",
    [b"bytes", bytearray(b"array"), memoryview(b"view"), array.array("d", [1.0, 2.0]),
     np.arange(6.0).reshape(2, 3), (ctypes.c_int * 3)(1, 2, 3)],
    ids=lambda target: type(target).__name__,
)  # fmt: skip
def test_memoryview_is_the_targets(target: Any) -> None:
    view, expected = memoryview(of(target)), memoryview(target)
    assert view == expected
    assert (view.format, view.shape, view.strides) == (
        expected.format,
        expected.shape,
        expected.strides,
    )
    assert view.readonly == expected.readonly


@lends_memory
def test_view_outlives_the_proxy_and_writes_through() -> None:
    target = bytearray(b"abc")
    proxy = of(target)
    view = memoryview(proxy)
    del proxy
    view[0] = ord("x")
    assert target == b"xbc"
    with pytest.raises(BufferError):
        target.append(1)
    view.release()
    target.append(1)


@lends_memory
def test_consumers_of_buffers() -> None:
    data = b"some bytes"
    assert b"".join([of(b"a"), of(b"b")]) == b"ab"
    assert hashlib.sha256(of(data)).digest() == hashlib.sha256(data).digest()
    assert zlib.crc32(of(data)) == zlib.crc32(data)
    assert struct.unpack("<H", of(b"\x01\x02")) == (513,)


@pytest.mark.parametrize("target", [b"bytes", bytearray(b"array"), np.arange(3.0)])
def test_conversion_to_bytes(target: Any) -> None:
    assert bytes(of(target)) == bytes(target)


def test_consumers_of_bytes() -> None:
    data = b"some bytes"
    assert b"x" + of(b"y") == b"xy"
    assert bytearray(of(data)) == data
    assert int.from_bytes(of(b"\x01\x00"), "little") == 1


@pytest.mark.parametrize("target", [3, "text", [1], None])
def test_target_without_a_buffer(target: Any) -> None:
    with pytest.raises(TypeError, match="bytes-like object is required"):
        memoryview(of(target))


def test_bytes_of_other_targets() -> None:
    assert bytes(of([1, 2])) == b"\x01\x02"
    assert bytes(of(3)) == bytes(3)
    with pytest.raises(TypeError):
        bytes(of("text"))


def test_arrays_share_memory() -> None:
    target = np.arange(4.0)
    proxy = of(target)
    for made in (np.asarray(proxy), np.array(proxy, copy=False)):
        assert np.shares_memory(made, target)
        assert np.array_equal(made, target)


@pytest.mark.parametrize(
    "dtype",
    ["f8", "M8[D]", [("a", "i4"), ("b", "f8")], object],
    ids=str,
)
def test_array_outlives_the_target_of_the_proxy(dtype: Any) -> None:
    proxy: Any = Proxy(lambda: np.ones(1000, dtype))
    made = np.asarray(proxy)
    target = weakref.ref(proxy.__proxy_wrapped__)
    del proxy.__proxy_wrapped__
    assert target() is not None
    assert made.tolist() == np.ones(1000, dtype).tolist()


@lends_memory
def test_arrays_from_a_buffer_share_memory() -> None:
    target = np.arange(4.0)
    assert np.shares_memory(np.frombuffer(of(target)), target)


@pytest.mark.parametrize(
    "target",
    [
        np.array(["2020-01-01"], dtype="M8[D]"),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array(1.5),
        np.array([1, None], dtype=object),
        np.float32(2.5),
    ],
    ids=["datetime", "structured", "fortran", "0-d", "object", "scalar"],
)
def test_kinds_of_arrays(target: Any) -> None:
    made = np.asarray(of(target))
    assert made.dtype == np.asarray(target).dtype
    assert np.array_equal(made, target)


def test_read_only_stays_read_only() -> None:
    target = np.arange(3.0)
    target.flags.writeable = False
    assert not np.asarray(of(target)).flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        of(target)[0] = 1


def test_ufuncs() -> None:
    target = np.arange(3.0)
    proxy = of(target)
    assert np.add(proxy, 1).tolist() == [1, 2, 3]
    assert np.add(1, proxy).tolist() == [1, 2, 3]
    assert np.add(proxy, proxy).tolist() == [0, 2, 4]
    assert np.sin(proxy).tolist() == np.sin(target).tolist()
    assert np.add.reduce(proxy) == 3
    assert np.add.outer(proxy, proxy).shape == (3, 3)
    assert np.add(of([1, 2]), 1).tolist() == [2, 3]
    assert np.add(of(2), np.arange(2)).tolist() == [2, 3]
    assert type(np.add(proxy, 1)) is np.ndarray


def test_ufunc_writes_into_a_proxy() -> None:
    out = np.zeros(3)
    result = np.add(np.ones(3), of(np.ones(3)), out=of(out))
    assert out.tolist() == [2, 2, 2]
    assert result is out
    np.add.at(of(out), [0], 1)
    assert out[0] == 3
    np.multiply(out, 2, out=of(out), where=of(np.array([True, False, False])))
    assert out.tolist() == [6, 2, 2]


def test_array_operators_in_every_order() -> None:
    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    for left, right in ((of(a), b), (a, of(b)), (of(a), of(b))):
        assert (left + right).tolist() == [4, 6]
        assert (left @ right) == 11
        assert (left < right).all()
        assert (left**right).tolist() == [1, 16]
        assert type(left * right) is np.ndarray
    total = a.copy()
    total += of(b)
    assert total.tolist() == [4, 6]
    assert (np.float64(2) * of(a)).tolist() == [2, 4]


def test_target_that_an_array_must_defer_to() -> None:
    class Sparse:
        __array_priority__ = 10.1

        def __rmatmul__(self, other: Any) -> str:
            return "sparse"

        def __radd__(self, other: Any) -> str:
            return "added"

    class Opaque:
        __array_ufunc__ = None

        def __radd__(self, other: Any) -> str:
            return "opaque"

    a = np.ones(2)
    assert a @ of(Sparse()) == "sparse"
    assert a + of(Sparse()) == "added"
    assert a + of(Opaque()) == "opaque"


def test_methods_and_indexing() -> None:
    target = np.arange(12.0).reshape(3, 4)
    proxy = of(target)
    assert proxy.shape == (3, 4)
    assert proxy[1, 2] == 6
    assert proxy[:, 0].tolist() == [0, 4, 8]
    assert proxy[proxy > 10].tolist() == [11]
    assert proxy.mean() == target.mean()
    assert np.mean(proxy) == target.mean()
    assert np.concatenate([proxy, proxy]).shape == (6, 4)
    assert target[of([0, 1])].shape == (2, 4)
    proxy[0, 0] = 9
    assert target[0, 0] == 9
    proxy += 1
    assert target[0, 0] == 10


def test_error_inside_a_ufunc_is_numpys() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        np.add(of(np.ones(2)), np.ones(3))
    with pytest.raises(TypeError):
        np.add(of(np.ones(2)), 1, out=of([0, 0]))


def test_checking_for_arrays_does_not_resolve() -> None:
    proxy = Proxy(np.arange, cache_defaults=True, target=np.arange(1))
    del proxy.__proxy_wrapped__
    assert isinstance(proxy, np.ndarray)
    assert not is_resolved(proxy)
