from __future__ import annotations

import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxystore_hpc.exceptions import InvalidArgumentError, ProtocolError, SerializationError
from proxystore_hpc.key import Key
from proxystore_hpc.store.config import ConnectorConfig, StoreConfig
from proxystore_hpc.stream import frames
from proxystore_hpc.stream.events import (
    EndOfStreamEvent,
    EventBatch,
    NewObjectEvent,
    NewObjectKeyEvent,
    bytes_to_event,
    dict_to_event,
    event_to_bytes,
    event_to_dict,
)

TOPIC = "τopic"
NATIVE = StoreConfig("native")
CONNECTED = StoreConfig(
    "other", ConnectorConfig("some.module.Connector", {"port": 7}), cache_size=3
)


class OtherKey(NamedTuple):
    name: str
    number: int


values = st.none() | st.integers() | st.text(max_size=20) | st.binary(max_size=20) | st.floats()
metadata = st.dictionaries(st.text(max_size=8), values, max_size=3)
objects = st.builds(NewObjectEvent, st.just(TOPIC), values | st.lists(values), metadata)
keys = st.builds(
    lambda packed, evict, meta: NewObjectKeyEvent.from_key(
        Key(packed), evict=evict, metadata=meta, store_config=NATIVE, topic=TOPIC
    ),
    st.binary(min_size=1, max_size=200),
    st.booleans(),
    metadata,
)
other_keys = st.builds(
    lambda name, number, meta: NewObjectKeyEvent.from_key(
        OtherKey(name, number), evict=True, metadata=meta, store_config=CONNECTED, topic=TOPIC
    ),
    st.text(max_size=10),
    st.integers(),
    metadata,
)
events = st.just(EndOfStreamEvent(TOPIC)) | objects | keys | other_keys
batches = st.builds(EventBatch, st.just(TOPIC), st.lists(events, max_size=6))


def same(a: Any, b: Any) -> bool:
    # NaN is no equal of its own.
    return repr(a) == repr(b)


@given(events | batches)
def test_events_survive(event: Any) -> None:
    assert same(bytes_to_event(event_to_bytes(event)), event)
    assert same(dict_to_event(event_to_dict(event)), event)


@settings(max_examples=50)
@given(events | batches, st.data())
def test_what_was_cut_short_or_lengthened_is_refused(event: Any, data: st.DataObject) -> None:
    whole = event_to_bytes(event)
    end = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(SerializationError):
        bytes_to_event(whole[:end])
    with pytest.raises(SerializationError):
        bytes_to_event(whole + b"\0")


@given(st.binary(max_size=60))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SerializationError):
        bytes_to_event(data)


@given(st.binary(max_size=60))
def test_other_bytes_behind_the_mark_are_refused(data: bytes) -> None:
    try:
        bytes_to_event(b"\xe5\x01" + data)
    except SerializationError:
        pass


def test_an_event_of_a_key_is_small() -> None:
    key = Key(b"k" * 71)
    event = NewObjectKeyEvent.from_key(key, evict=True, metadata={}, store_config=NATIVE, topic="t")
    assert len(event_to_bytes(event)) <= 71 + 40
    assert event.get_key() == key


def test_a_batch_names_its_store_once() -> None:
    made = [
        NewObjectKeyEvent.from_key(
            OtherKey("a", i), evict=False, metadata={}, store_config=CONNECTED, topic="t"
        )
        for i in range(2)
    ]
    one = len(event_to_bytes(EventBatch("t", made[:1])))
    assert len(event_to_bytes(EventBatch("t", made))) - one < len(CONNECTED.to_json())
    decoded = bytes_to_event(event_to_bytes(EventBatch("t", made)))
    assert isinstance(decoded, EventBatch)
    assert [event.get_key() for event in decoded.events] == [OtherKey("a", 0), OtherKey("a", 1)]
    assert decoded.events[1].store_config == CONNECTED


def test_arrays_travel_in_events() -> None:
    array = np.arange(1000.0)
    event = bytes_to_event(event_to_bytes(NewObjectEvent("t", array, {"step": 3})))
    assert isinstance(event, NewObjectEvent)
    np.testing.assert_array_equal(event.obj, array)
    assert event.metadata == {"step": 3}


def test_a_batch_is_of_one_topic() -> None:
    with pytest.raises(InvalidArgumentError, match="'u'"):
        event_to_bytes(EventBatch("t", [EndOfStreamEvent("u")]))


def test_metadata_that_cannot_be_pickled_are_refused() -> None:
    with pytest.raises(SerializationError, match="metadata"):
        event_to_bytes(NewObjectEvent("t", 1, {"f": lambda: 0}))


class Bomb:
    went_off = False

    def __reduce__(self) -> Any:
        return setattr, (Bomb, "went_off", True)


def test_messages_of_a_broker_are_not_unpickled() -> None:
    message = event_to_bytes(NewObjectEvent("t", pickle.dumps(Bomb()), {"bomb": Bomb()}))
    data = frames.pack_publish(b"s" * 16, 0, 1.0, [message])
    assert frames.unpack_publish(data).messages == [message]
    items = [frames.Item(0, 5, True, message)]
    assert frames.unpack_given(frames.pack_given(1, frames.ITEMS, items)) == (1, 0, items)
    assert not Bomb.went_off


sessions = st.binary(min_size=16, max_size=16)
messages = st.lists(st.binary(max_size=30), min_size=1, max_size=5)
marks = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)), max_size=5)
items = st.lists(
    st.builds(
        frames.Item,
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**64 - 1),
        st.booleans(),
        st.binary(max_size=30),
    ),
    max_size=5,
)


@given(sessions, st.integers(0, 2**32 - 1), st.floats(0, 1e9), messages)
def test_publications_survive(
    session: bytes, topic: int, timeout: float, texts: list[bytes]
) -> None:
    data = frames.pack_publish(session, topic, timeout, texts)
    assert frames.unpack_publish(memoryview(data)) == (session, topic, timeout, texts)
    for end in range(len(data)):
        with pytest.raises(ProtocolError):
            frames.unpack_publish(data[:end])


@given(sessions, st.integers(0, 2**64 - 1), st.integers(1, 2**32 - 1), marks)
def test_requests_survive(session: bytes, batch: int, count: int, done: list[Any]) -> None:
    fetch = frames.Fetch(session, batch, count, 9, 0.5, done)
    data = frames.pack_fetch(fetch)
    assert frames.unpack_fetch(data) == fetch
    for end in range(len(data)):
        with pytest.raises(ProtocolError):
            frames.unpack_fetch(data[:end])


@given(st.integers(0, 2**64 - 1), st.integers(0, 2), items)
def test_answers_survive(batch: int, state: int, given_items: list[frames.Item]) -> None:
    data = frames.pack_given(batch, state, given_items)
    assert frames.unpack_given(memoryview(data)) == (batch, state, given_items)
    for end in range(len(data)):
        with pytest.raises(ProtocolError):
            frames.unpack_given(data[:end])


@given(st.binary(max_size=80))
def test_other_bytes_are_no_messages(data: bytes) -> None:
    for unpack in (frames.unpack_publish, frames.unpack_fetch, frames.unpack_given):
        try:
            unpack(data)
        except ProtocolError:
            pass
