"""Frames: what was encoded is decoded, and any bytes are something or a `ProtocolError`."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxystore_hpc import exceptions
from proxystore_hpc.exceptions import ProtocolError, ProxyStoreHpcError
from proxystore_hpc.tcp import wire

keys = st.binary(min_size=1, max_size=wire.MAX_KEY)
numbers = st.integers(0, (1 << 32) - 1)
sizes = st.integers(0, wire.MAX_OBJECT)
patience = st.integers(1, 10**6).map(lambda n: n / 1e3)


@given(
    st.builds(wire.Get, keys, sizes, sizes | st.just(wire.TO_THE_END), patience),
)
def test_gets(get):
    decoded = wire.decode_get(memoryview(wire.encode_get(get)))
    assert (decoded.key, decoded.offset, decoded.length) == (get.key, get.offset, get.length)
    assert decoded.patience == pytest.approx(get.patience, abs=2e-3)


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=50), st.booleans(), patience)
def test_batches(names, force, seconds):
    decoded = wire.decode_batch(memoryview(wire.encode_batch(wire.Batch(names, force, seconds))))
    assert decoded.keys == names
    assert decoded.force is force


@given(st.lists(keys, max_size=120))
def test_batches_are_split_into_requests_that_fit(names):
    groups = wire.split_batch(names)
    assert [key for group in groups for key in group] == names
    for group in groups:
        body = wire.encode_batch(wire.Batch(group, False, 1.0))
        assert len(body) <= wire.MAX_REQUEST
        assert wire.decode_batch(memoryview(body)).keys == group


@given(
    st.builds(
        wire.Put,
        st.binary(max_size=64),
        st.binary(max_size=300),
        sizes,
        st.integers(0, (1 << 63) - 1),
        numbers,
        patience,
        st.binary(min_size=16, max_size=16),
    )
)
def test_puts(put):
    decoded = wire.decode_put(memoryview(wire.encode_put(put)))
    assert (decoded.token, decoded.address, decoded.length) == (put.token, put.address, put.length)
    assert (decoded.ttl_ns, decoded.flags) == (put.ttl_ns, put.flags)
    assert decoded.upload == put.upload


@given(sizes, sizes, st.booleans())
def test_progress_of_puts(received, length, known):
    body = memoryview(wire.encode_progress(received, known))
    if received <= length:
        assert wire.decode_progress(body, length) == (received, known)
    else:
        with pytest.raises(ProtocolError):
            wire.decode_progress(body, length)
    with pytest.raises(ProtocolError):
        wire.decode_progress(body[:-1], length)


@given(keys, patience)
def test_questions(key, seconds):
    found, left = wire.decode_ask(memoryview(wire.encode_ask(key, seconds)))
    assert found == key
    assert left == pytest.approx(seconds, abs=2e-3)


@given(st.text(max_size=100), st.text(max_size=1000))
def test_descriptions_of_stores(name, config):
    assert wire.decode_stored(memoryview(wire.encode_stored(name, config))) == (name, config)


@given(st.integers(1, 7), numbers, st.binary(max_size=100))
def test_requests(kind, number, body):
    packed = memoryview(wire.encode_request(kind, number, body))
    assert wire.decode_request(packed) == (kind, number, len(body))


@given(st.integers(0, 7), numbers, sizes, sizes, st.integers(0, 1 << 20))
def test_pieces(flags, number, total, offset, length):
    packed = wire.encode_piece(number, flags, total, offset, length, 7)
    head = wire.decode_reply(packed[: wire.HEAD.size])
    assert (head.kind, head.flags, head.number) == (wire.GET, flags, number)
    assert head.size == wire.PIECE.size + length
    assert wire.PIECE.unpack(packed[wire.HEAD.size :]) == (total, offset, 7, 0)


ERRORS = [
    exceptions.ObjectMissingError("m"),
    exceptions.ObjectEvictedError("m"),
    exceptions.OwnerGoneError("m"),
    exceptions.OperationTimeoutError("m"),
    exceptions.StoreFullError("m"),
    exceptions.ObjectPinnedError("m"),
    exceptions.ObjectChangedError("m"),
    exceptions.InvalidKeyError("m"),
    exceptions.InvalidArgumentError("m"),
    exceptions.PeerLostError("m"),
    exceptions.ProtocolError("m"),
    exceptions.StoreClosedError("m"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_errors_arrive_as_what_they_were(error):
    decoded = wire.decode_error(*wire.encode_error(error))
    assert type(decoded) is type(error)
    assert str(decoded) == "m"


def test_an_unavailable_door_keeps_its_reason():
    error = wire.decode_error(*wire.encode_error(exceptions.DoorUnavailableError("ucx", "why")))
    assert isinstance(error, exceptions.DoorUnavailableError)
    assert (error.door, error.reason) == ("tcp", "why")


def test_denials_tell_nothing():
    one = wire.encode_error(exceptions.AccessDeniedError("object 7 exists"))
    assert one == wire.encode_error(exceptions.AccessDeniedError("object 8 does not"))
    assert b"7" not in one[1]


def test_what_was_not_foreseen_tells_nothing():
    number, text = wire.encode_error(RuntimeError("/home/someone/secret"))
    assert b"secret" not in text
    assert type(wire.decode_error(number, text)) is ProxyStoreHpcError


@given(st.lists(st.none() | st.sampled_from(ERRORS), max_size=30))
def test_outcomes(outcomes):
    decoded = wire.decode_outcomes(memoryview(wire.encode_outcomes(outcomes)), len(outcomes))
    assert [type(error) for error in decoded] == [type(error) for error in outcomes]


PARSERS = {
    "request": lambda data: wire.decode_request(data) if len(data) >= wire.HEAD.size else None,
    "reply": lambda data: wire.decode_reply(data) if len(data) >= wire.HEAD.size else None,
    "hello": lambda data: wire.decode_hello(data[: wire.HELLO.size]),
    "get": wire.decode_get,
    "ask": wire.decode_ask,
    "batch": wire.decode_batch,
    "put": wire.decode_put,
    "stored": wire.decode_stored,
    "outcomes": lambda data: wire.decode_outcomes(data, 100),
    "error": lambda data: wire.decode_error(len(data) % 20, data),
}


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=400))
@example(data=b"\xff" * 64)
@example(data=b"\x01\0\0\0" + b"\xff" * 40)
@example(data=b"")
def test_any_bytes_are_something_or_an_error(name, data):
    try:
        PARSERS[name](memoryview(data))
    except ProtocolError:
        pass


@pytest.mark.parametrize("name", PARSERS)
def test_parsers_allocate_little_whatever_a_length_says(name):
    tracemalloc.start()
    try:
        for pattern in (b"\xff" * 64, b"\x02" + b"\xff" * 63, b"\0" * 32 + b"\xff" * 32):
            try:
                PARSERS[name](memoryview(pattern))
            except ProtocolError:
                pass
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_too_large_requests_are_refused_by_their_head():
    head = wire.HEAD.pack(wire.GET, 0, 0, 1, wire.MAX_REQUEST + 1)
    with pytest.raises(ProtocolError):
        wire.decode_request(memoryview(head))
    head = wire.HEAD.pack(wire.REPLY | wire.EXISTS, 0, 0, 1, wire.MAX_REPLY + 1)
    with pytest.raises(ProtocolError):
        wire.decode_reply(head)
