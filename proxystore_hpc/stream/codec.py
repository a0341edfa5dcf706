"""Events as bytes.

A head (mark, version, whether it is a batch, topic), a table of stores, then the events, each with
the lengths of its parts before them. Numbers are little-endian. What is empty takes no bytes, and
what the events of a batch share is written once.
"""

from __future__ import annotations

import pickle
import struct
from functools import lru_cache
from typing import Any

from proxystore_hpc.exceptions import (
    ConfigError,
    InvalidArgumentError,
    ProxyStoreHpcError,
    SerializationError,
)
from proxystore_hpc.serialize import deserialize, serialize
from proxystore_hpc.store.config import StoreConfig
from proxystore_hpc.stream.events import (
    KEY_PATH,
    EndOfStreamEvent,
    Event,
    EventBatch,
    NewObjectEvent,
    NewObjectKeyEvent,
)

_HEAD = struct.Struct("<BBBHHI")  # mark, version, whether a batch, length of topic, stores, events
_STORE = struct.Struct("<BI")  # kind, length
_EVENT = struct.Struct("<BBHII")  # kind, flags, store, length of metadata, length of object or key

_MARK = 0xE5
_VERSION = 1
_BY_NAME, _BY_CONFIG = 0, 1
_END, _OBJECT, _KEY, _OTHER_KEY = 0, 1, 2, 3
_EVICT = 1
_MOST_STORES = 0xFFFF
_END_EVENT = _EVENT.pack(_END, 0, 0, 0, 0)


def encode(event: Event | EventBatch) -> bytes:
    """See `event_to_bytes`."""
    batch = isinstance(event, EventBatch)
    events = event.events if isinstance(event, EventBatch) else [event]
    name = event.topic.encode()
    stores: dict[int, int] = {}
    table: list[bytes] = []
    parts: list[bytes] = []
    for each in events:
        if each.topic != event.topic:
            raise InvalidArgumentError(
                f"events: a batch is of one topic, not of {event.topic!r} and {each.topic!r}"
            )
        if isinstance(each, EndOfStreamEvent):
            parts.append(_END_EVENT)
            continue
        metadata = _pickled(each.metadata) if each.metadata else b""
        flags = store = 0
        if isinstance(each, NewObjectEvent):
            kind, body = _OBJECT, serialize(each.obj)
        else:
            known = stores.get(id(each.store_config))
            if known is None:
                known = stores[id(each.store_config)] = len(table)
                table.append(_encode_store(each.store_config))
            store, flags = known, _EVICT if each.evict else 0
            if each.key_type == KEY_PATH:
                kind, body = _KEY, each.raw_key[0]
            else:
                kind, body = _OTHER_KEY, _pickled((each.key_type, each.raw_key))
        parts += (_EVENT.pack(kind, flags, store, len(metadata), len(body)), metadata, body)
    if len(name) > 0xFFFF or len(table) > _MOST_STORES:
        raise InvalidArgumentError("the name of a topic, or the stores of a batch, are too many")
    head = _HEAD.pack(_MARK, _VERSION, batch, len(name), len(table), len(events))
    return b"".join((head, name, *table, *parts))


def decode(data: bytes | bytearray | memoryview) -> Event | EventBatch:
    """See `bytes_to_event`."""
    try:
        return _decode(memoryview(data).cast("B"))
    except SerializationError:
        raise
    except (struct.error, ValueError, IndexError, TypeError, EOFError) as error:
        raise SerializationError(
            f"these {len(data)} bytes are no event of a stream, or one that was cut short or "
            f"garbled ({error}): producers and consumers need the same version of proxystore_hpc"
        ) from error


def _decode(view: memoryview) -> Event | EventBatch:
    mark, version, batch, name_length, stores, count = _HEAD.unpack_from(view)
    if mark != _MARK or version != _VERSION or batch > 1:
        raise ValueError("it does not begin as one")
    at = _HEAD.size
    name, at = _take(view, at, name_length)
    topic = str(name, "utf-8")
    table = []
    for _ in range(stores):
        kind, length = _STORE.unpack_from(view, at)
        text, at = _take(view, at + _STORE.size, length)
        table.append(_decode_store(kind, bytes(text)))
    events: list[Event] = []
    for _ in range(count):
        kind, flags, store, metadata_length, body_length = _EVENT.unpack_from(view, at)
        packed, at = _take(view, at + _EVENT.size, metadata_length)
        body, at = _take(view, at, body_length)
        if kind == _END:
            events.append(EndOfStreamEvent(topic))
            continue
        metadata = _unpickled(packed) if metadata_length else {}
        if not isinstance(metadata, dict):
            raise ValueError("its metadata are no dictionary")
        if kind == _OBJECT:
            # A copy of its own: views of the object would keep the whole message, and not aligned.
            events.append(NewObjectEvent(topic, deserialize(bytes(body)), metadata))
        elif kind == _KEY:
            raw: list[Any] = [bytes(body)]
            events.append(
                NewObjectKeyEvent(topic, KEY_PATH, raw, flags == _EVICT, metadata, table[store])
            )
        elif kind == _OTHER_KEY:
            path, raw = _unpickled(body)
            events.append(
                NewObjectKeyEvent(topic, path, raw, flags == _EVICT, metadata, table[store])
            )
        else:
            raise ValueError(f"there are no events of kind {kind}")
    if at != len(view):
        raise ValueError("something follows it")
    if batch:
        return EventBatch(topic, events)
    (event,) = events
    return event


def _take(view: memoryview, at: int, length: int) -> tuple[memoryview, int]:
    end = at + length
    if end > len(view):
        raise ValueError("it is too short")
    return view[at:end], end


def _encode_store(config: StoreConfig) -> bytes:
    if config.connector is None:
        kind, text = _BY_NAME, config.name.encode()
    else:
        kind, text = _BY_CONFIG, config.to_json().encode()
    return _STORE.pack(kind, len(text)) + text


@lru_cache(maxsize=64)
def _decode_store(kind: int, text: bytes) -> StoreConfig:
    try:
        if kind == _BY_NAME:
            return StoreConfig(text.decode())
        if kind == _BY_CONFIG:
            return StoreConfig.from_json(text.decode())
    except ConfigError as error:
        raise SerializationError(f"the event's store cannot be opened here: {error}") from error
    raise ValueError(f"there are no stores of kind {kind}")


def _pickled(value: Any) -> bytes:
    try:
        return pickle.dumps(value, 5)
    except Exception as error:
        raise SerializationError(
            f"the metadata of an item, or its key, cannot be pickled: {error}"
        ) from error


def _unpickled(data: memoryview) -> Any:
    try:
        return pickle.loads(data)
    except ProxyStoreHpcError:
        raise
    except Exception as error:
        raise SerializationError(
            f"the metadata of an item, or its key, cannot be unpickled here: "
            f"{type(error).__name__}: {error}"
        ) from error
