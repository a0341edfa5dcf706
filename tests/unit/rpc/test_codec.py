"""Arguments and results as bytes, and what garbled ones lead to."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.data import EXAMPLES, difference

from proxystore_hpc.exceptions import ProtocolError, SerializationError
from proxystore_hpc.rpc import codec

LARGE = codec.LARGE


def landed(payload):
    """What a payload arrives as: pooled, writable memory."""
    if payload is None:
        return None
    together = bytearray()
    for buffer in payload if type(payload) is tuple else [payload]:
        together += bytes(-len(together) % codec.ALIGNMENT) + bytes(buffer)
    return memoryview(together)


def sent(*args, **kwargs):
    body, payload = codec.encode_arguments(args, kwargs)
    assert type(body) is bytes
    return codec.decode_arguments(body, landed(payload))


def answered(result):
    body, payload = codec.encode_result(result)
    return codec.decode_result(body, landed(payload))


@pytest.mark.parametrize("name", EXAMPLES)
def test_objects_come_back(name):
    args, kwargs = sent(EXAMPLES[name]())
    assert kwargs is None
    assert difference(args, (EXAMPLES[name](),)) is None
    args, kwargs = sent(1, EXAMPLES[name](), key=EXAMPLES[name]())
    assert difference(args, (1, EXAMPLES[name]())) is None
    assert difference(kwargs, {"key": EXAMPLES[name]()}) is None
    assert difference(answered(EXAMPLES[name]()), EXAMPLES[name]()) is None


def test_nothing_is_empty():
    assert codec.encode_arguments((), {}) == (b"", None)
    assert codec.encode_result(None) == (b"", None)
    assert codec.decode_arguments(b"", None) == ((), None)
    assert codec.decode_result(b"", None) is None


@pytest.mark.parametrize("nbytes", [LARGE - 16, LARGE, LARGE + 16, 1 << 20])
def test_one_large_buffer_is_sent_from_where_it_lies(nbytes):
    array = np.arange(nbytes // 8, dtype="f8")
    for args in ((array,), (array, 1), ([array],)):
        _, payload = codec.encode_arguments(args, None)
        if nbytes < LARGE:
            assert payload is None
        else:
            assert np.shares_memory(np.frombuffer(payload, "u1"), array)
    _, payload = codec.encode_result(array.reshape(2, -1))
    assert (payload is None) == (nbytes < LARGE)


def test_large_bytes_are_sent_from_where_they_lie():
    data = b"x" * LARGE
    assert codec.encode_arguments((data,), None)[1] is data
    assert answered(data) == data
    assert type(answered(data)) is bytes
    assert answered(data[:-1]) == data[:-1]


def test_several_large_buffers_share_a_payload_aligned():
    arrays = [np.full(LARGE + i, i, "u1") for i in range(4)]
    body, payload = codec.encode_arguments(tuple(arrays), None)
    for buffer, array in zip(payload, arrays, strict=True):
        assert np.shares_memory(np.frombuffer(buffer, "u1"), array)  # sent from where it lies
    together = np.frombuffer(landed(payload), "u1")
    assert codec.nbytes_of(body, payload) == len(body) + len(together)
    pool = np.zeros(len(together) + 64, "u1")
    start = -pool.ctypes.data % 64
    pool[start : start + len(together)] = together
    args, _ = codec.decode_arguments(body, memoryview(pool)[start : start + len(together)])
    for got, array in zip(args, arrays, strict=True):
        assert (got == array).all()
        assert got.ctypes.data % 64 == 0
        assert np.shares_memory(got, pool)


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_received_is_a_writable_view_of_its_memory(count):
    array = np.arange(LARGE, dtype="f8").reshape(2, -1)
    body, payload = codec.encode_arguments((array,) * count, None)
    memory = landed(payload)
    args, _ = codec.decode_arguments(body, memory)
    args[0][0, 0] = 77
    assert np.frombuffer(memory, "f8")[0] == 77


def test_a_read_only_array_stays_read_only():
    array = np.zeros(LARGE)
    array.flags.writeable = False
    (one,), _ = sent(array)
    (_, two), _ = sent(1, array)
    assert not one.flags.writeable
    assert not two.flags.writeable


def test_functions_of_the_script_travel():
    factor = 3
    (function,), _ = sent(lambda x: x * factor)
    assert function(2) == 6


def test_what_cannot_be_pickled_is_named():
    with pytest.raises(SerializationError, match="lock"):
        codec.encode_arguments((threading.Lock(),), None)
    with pytest.raises(SerializationError, match="lock"):
        codec.encode_result(threading.Lock())


def test_raw_bytes():
    for size in (0, 1, LARGE - 1, LARGE, 1 << 20):
        for data in (bytes(size), bytearray(size), memoryview(bytes(size)), np.zeros(size, "u1")):
            body, payload = codec.encode_raw(data)
            assert (payload is not None) == (size >= LARGE)
            assert bytes(codec.decode_raw(body, landed(payload))) == bytes(size)
    with pytest.raises(SerializationError):
        codec.encode_raw("text")
    with pytest.raises(SerializationError):
        codec.encode_raw(np.zeros((100, 100))[::2, ::2])


def test_a_result_is_no_argument_list():
    for value in (1, [(), {}, 3], [1, {}], [(), {1: 2}], {"a": 1}):
        with pytest.raises(ProtocolError):
            codec.decode_arguments(pickle.dumps(value, 5), None)


def test_a_missing_module_is_named():
    stream = b"\x80\x05cno_such_module\nname\n."
    with pytest.raises(SerializationError, match="no_such_module"):
        codec.decode_result(stream, None)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
BUFFERS = st.builds(
    lambda kind, size: kind(bytes(size)), st.sampled_from([bytes, bytearray]), st.integers(0, 9000)
)
VALUES = PLAIN | BUFFERS | st.lists(BUFFERS, max_size=3)


@given(args=st.lists(VALUES, max_size=4), kwargs=st.dictionaries(st.text(), VALUES, max_size=3))
def test_whatever_is_sent_comes_back(args, kwargs):
    got, by_name = sent(*args, **kwargs)
    assert got == tuple(args)
    assert (by_name or {}) == kwargs
    for value in args:
        assert answered(value) == value


def decode_all(body, payload):
    for decode in (codec.decode_arguments, codec.decode_result):
        try:
            decode(body, payload)
        except (ProtocolError, SerializationError):
            pass


@given(body=st.binary(max_size=200), payload=st.none() | st.binary(max_size=100))
def test_garbage_is_refused(body, payload):
    # Random pickle streams might call anything: only what precedes them is garbled here.
    if body[:1] == b"\x80":
        body = b"\x80\x05" + b"\xff" + body
    decode_all(body, landed(payload))


@settings(max_examples=300)
@given(
    which=st.integers(0, 3),
    where=st.integers(0, 400),
    bits=st.integers(1, 255),
    cut=st.integers(0, 3),
    room=st.sampled_from([None, 0, 1, LARGE, 9000]),
)
def test_garbled_messages_are_refused(which, where, bits, cut, room):
    values = (np.zeros((4, LARGE // 8)), b"x" * LARGE, b"y", [bytearray(LARGE)] * 2)
    body, payload = codec.encode_arguments((values[which],), None)
    # The head; what follows is a pickle, which is loaded from trusted peers only.
    head = bytearray(body[: len(body) - cut])
    first = len(head) if which != 3 else 5 + 2 * 16
    if head:
        head[where % min(first, len(head))] ^= bits
    if head[:1] == b"\x80":
        return
    memory = landed(payload) if room is None else memoryview(bytearray(room))
    decode_all(bytes(head), memory)
    decode_all(bytes(head), None)
