"""Objects that are stored compressed, or with a checksum."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc import Store
from proxystore_hpc.exceptions import InvalidArgumentError, SerializationError
from proxystore_hpc.serialize import Checked, Compressed, describe, deserialize, plan, plan_with

OBJECTS: dict[str, Any] = {
    "zeros": np.zeros(200_000),
    "noise": np.random.default_rng(0).integers(0, 256, 160_000, "u1"),
    "strided": np.arange(40_000)[::2],
    "nested": {"a": np.arange(30_000.0), "b": b"x" * 5000, "c": ["d", None, 7]},
    "bytes": b"abc" * 10_000,
    "empty": b"",
    "number": 12,
}


def needs(codec: str) -> None:
    pytest.importorskip({"zstd": "zstandard", "lz4": "lz4.frame"}[codec])


@pytest.fixture(params=["crc32", "zstd", "lz4", "zstd+checksum", "lz4+checksum", "zstd+threads"])
def serializer(request: pytest.FixtureRequest) -> Any:
    codec, _, extra = request.param.partition("+")
    if codec == "crc32":
        return Checked()
    needs(codec)
    return Compressed(codec, checksum=extra == "checksum", threads=2 if extra == "threads" else 0)


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_come_back(serializer: Any, name: str) -> None:
    obj = OBJECTS[name]
    np.testing.assert_equal(deserialize(serializer(obj)), obj)
    assert type(deserialize(serializer(obj))) is type(obj)


def test_what_compresses_well_is_small(serializer: Any) -> None:
    nbytes = len(serializer(OBJECTS["zeros"]))
    if isinstance(serializer, Compressed):
        assert nbytes < 0.01 * OBJECTS["zeros"].nbytes
    noise = OBJECTS["noise"].nbytes
    assert noise < len(serializer(OBJECTS["noise"])) < 1.05 * noise


def test_serializers_travel(serializer: Any) -> None:
    again = pickle.loads(pickle.dumps(serializer))
    assert repr(again) == repr(serializer)
    assert again(OBJECTS["zeros"]) == serializer(OBJECTS["zeros"])


def test_a_store_needs_no_deserializer(serializer: Any) -> None:
    with Store("wrapped", capacity="64MiB", serializer=serializer) as store:
        for obj in OBJECTS.values():
            key = store.put(obj)
            np.testing.assert_equal(store.get(key), obj)
        array = store.get(store.put(OBJECTS["noise"]))
        assert not array.flags.writeable
        key = store.put(OBJECTS["zeros"])
        mine = store.get(key, writable=True)
        mine[:] = 1
        assert store.get(key).sum() == 0
        fresh = store.empty(1000)
        fresh[:] = 3
        assert (store.get(store.put(fresh)) == 3).all()


def test_a_checksum_leaves_data_where_they_are() -> None:
    array = OBJECTS["zeros"]
    plain, checked = plan(array), plan_with(Checked(), array)
    assert [len(segment) for _, segment in checked.segments()][1:] == [
        len(segment) for _, segment in plain.segments()
    ]
    offset, data = checked.segments()[-1]
    assert (offset + 64) % 4096 == 0
    assert np.shares_memory(np.frombuffer(data), array)
    block = checked.to_bytes()
    assert np.shares_memory(deserialize(block), np.frombuffer(block, "u1"))
    assert describe(block).kind == "wrapped"


@given(st.data())
def test_damage_is_found(data: st.DataObject) -> None:
    obj = {"a": np.arange(700.0), "b": "text"}
    whole = bytearray(Checked()(obj))
    layout = plan_with(Checked(), obj)
    meant = [offset + i for offset, segment in layout.segments() for i in range(0, len(segment), 7)]
    where = data.draw(st.sampled_from(meant))
    whole[where] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SerializationError):
        deserialize(whole)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@given(data=st.data())
def test_damage_of_compressed_data_is_found(codec: str, data: st.DataObject) -> None:
    needs(codec)
    whole = bytearray(Compressed(codec, checksum=True)(np.arange(2000)))
    start = describe(whole).total - 200
    where = data.draw(st.integers(start, len(whole) - 1))
    whole[where] ^= data.draw(st.integers(1, 255))
    try:
        np.testing.assert_array_equal(deserialize(whole), np.arange(2000))
    except SerializationError:
        pass


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_cut_data_are_refused(codec: str) -> None:
    needs(codec)
    whole = Compressed(codec)(np.arange(20_000))
    for nbytes in range(0, len(whole), 997):
        with pytest.raises(SerializationError):
            deserialize(whole[:nbytes])


def test_unknown_codecs_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="zstd, lz4"):
        Compressed("zip")
