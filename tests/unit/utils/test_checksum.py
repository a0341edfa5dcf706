"""Whoever computes it, the checksum is zlib's."""

from __future__ import annotations

import importlib
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc.utils import checksum


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1))
def test_the_sum_is_that_of_zlib(data, start):
    assert checksum.crc32(data, start) == zlib.crc32(data, start)
    assert checksum.crc32(memoryview(data)[1:]) == zlib.crc32(data[1:])


def test_many_bytes_and_parts_of_them():
    data = memoryview(bytes(range(256)) * 4096 + b"odd")
    whole = zlib.crc32(data)
    assert checksum.crc32(data) == whole
    assert checksum.crc32(data[70001:], checksum.crc32(data[:70001])) == whole


def test_without_zlib_ng_it_is_zlib_itself(monkeypatch):
    monkeypatch.setitem(sys.modules, "zlib_ng", None)
    monkeypatch.setitem(sys.modules, "zlib_ng.zlib_ng", None)
    try:
        assert importlib.reload(checksum).crc32 is zlib.crc32
    finally:
        monkeypatch.undo()
        importlib.reload(checksum)


def test_zlib_ng_is_used_where_it_is_installed():
    zlib_ng = pytest.importorskip("zlib_ng.zlib_ng")
    assert checksum.crc32 is zlib_ng.crc32
