"""Garbage and truncated memory give an error of ours, never anything else."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxystore_hpc.exceptions import SerializationError
from proxystore_hpc.serialize import arrays, describe, deserialize, loads, raw_payload, serialize
from proxystore_hpc.serialize.header import COVERED_NBYTES, FIELDS, MAGIC, SEAL, crc32

SAMPLES = [
    serialize(obj)
    for obj in (
        [1, "two", {"three": 3.0}],
        b"bytes" * 50,
        bytearray(300),
        "text" * 50,
        memoryview(bytes(80)).cast("d", (2, 5)),
        np.arange(40.0).reshape(5, 8),
        {"a": np.arange(500.0), "b": np.arange(600)},
        np.ma.masked_equal(np.arange(1000), 3),
        lambda: 5,
    )
]


def seen_before(sample, seen):
    """Headers of arrays that were found good once are known from then on."""
    arrays._loaded.clear()
    if seen:
        loads(sample)


@pytest.mark.parametrize("read", [loads, describe, raw_payload, deserialize])
@given(garbage=st.binary(max_size=400))
def test_garbage(read, garbage):
    with pytest.raises(SerializationError):
        read(garbage)


@pytest.mark.parametrize("read", [loads, raw_payload])
@given(sample=st.sampled_from(SAMPLES), data=st.data())
def test_truncation(read, sample, data):
    seen_before(sample, data.draw(st.booleans()))
    with pytest.raises(SerializationError):
        read(sample[: data.draw(st.integers(0, len(sample) - 1))])


@given(sample=st.sampled_from(SAMPLES), data=st.data(), change=st.integers(1, 255))
@settings(max_examples=300)
def test_a_changed_byte_before_the_buffers_is_noticed(sample, data, change):
    fields = FIELDS.unpack_from(sample, SEAL.size)
    end = SEAL.size + FIELDS.size + fields[2] + 16 * fields[3] + min(fields[4], COVERED_NBYTES)
    place = data.draw(st.integers(0, end - 1))
    damaged = bytearray(sample)
    damaged[place] ^= change
    seen_before(sample, data.draw(st.booleans()))
    with pytest.raises(SerializationError):
        loads(damaged)


@given(
    kind=st.integers(0, 12),
    flags=st.integers(0, 3),
    count=st.integers(0, 3),
    name=st.one_of(st.sampled_from([b"<f8", b"O", b"d", b"V0", b"nobody"]), st.binary(max_size=9)),
    table=st.binary(max_size=48),
    meta=st.one_of(st.binary(max_size=64), st.just((5).to_bytes(8, "little"))),
    length=st.integers(0, 600),
)
@settings(max_examples=500)
def test_a_header_with_a_good_checksum_and_bad_fields(
    kind, flags, count, name, table, meta, length
):
    """Only the fields are wrong here, so everything behind the checksum is reached."""
    if kind <= 1:
        meta = b"."
    fields = FIELDS.pack(kind, flags, len(name), count, len(meta), length)
    rest = fields + table[: 16 * count].ljust(16 * count, b"\1") + name + meta
    data = SEAL.pack(MAGIC, crc32(rest)) + rest + bytes(300)
    for read in (loads, raw_payload, describe):
        with contextlib.suppress(SerializationError):  # Anything else fails the test.
            read(data)


def test_a_stream_damaged_beyond_the_checksum():
    data = bytearray(serialize(["x" * 100] * 3 + [bytes(5000), "y" * 200]))
    data[-100:] = b"\xff" * 100
    with pytest.raises(SerializationError, match="unpickled"):
        loads(data)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"PSH\x09" + bytes(60), "format 9"),
        (b"PK\n" + bytes(60), "pass the matching deserializer"),
        (b"", "truncated"),
    ],
)
def test_the_error_says_what_it_is(data, told):
    with pytest.raises(SerializationError, match=told):
        loads(data)


def test_a_prefix_that_is_too_short():
    data = serialize(np.zeros((2,) * 16))
    with pytest.raises(SerializationError, match="were given"):
        describe(data[:64])


@pytest.mark.parametrize("wrong", ["text", 5, None, [b"x"]])
def test_deserialize_takes_only_bytes(wrong):
    with pytest.raises(SerializationError, match="takes bytes"):
        deserialize(wrong)


def test_a_missing_module_is_named():
    with pytest.raises(SerializationError, match=r"not_here_at_all.*Install"):
        loads(_with_global("not_here_at_all", "x"))


def test_a_type_of_another_script_is_explained():
    with pytest.raises(SerializationError, match="into a module that both"):
        loads(_with_global("__main__", "DefinedElsewhere"))


def _with_global(module: str, name: str) -> bytes:
    stream = b"c" + module.encode() + b"\n" + name.encode() + b"\n."
    rest = FIELDS.pack(0, 0, 0, 0, len(stream), 32 + len(stream)) + stream
    return SEAL.pack(MAGIC, crc32(rest)) + rest
