"""What producers tell consumers: that there is an object, or no more.

`event_to_bytes` and `bytes_to_event` are inverse to each other. A broker passes the bytes on as
they are; only a consumer looks into them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from proxystore_hpc.key import Key
from proxystore_hpc.store.config import StoreConfig
from proxystore_hpc.utils.imports import get_object_path, import_from_path

__all__ = [
    "EndOfStreamEvent",
    "Event",
    "EventBatch",
    "NewObjectEvent",
    "NewObjectKeyEvent",
    "bytes_to_event",
    "dict_to_event",
    "event_to_bytes",
    "event_to_dict",
]

KEY_PATH = get_object_path(Key)


@dataclasses.dataclass
class EndOfStreamEvent:
    """A producer sends nothing more to the topic."""

    topic: str


@dataclasses.dataclass
class NewObjectEvent:
    """An object that travels with the event.

    Attributes:
        topic: Its topic.
        obj: The object.
        metadata: What the producer says of it.
    """

    topic: str
    obj: Any
    metadata: dict[str, Any]


@dataclasses.dataclass
class NewObjectKeyEvent:
    """An object that lies in a store.

    Attributes:
        topic: Its topic.
        key_type: Dotted path of the key's type.
        raw_key: Arguments that make the key.
        evict: Evict it once it was consumed.
        metadata: What the producer says of it.
        store_config: Its store. Of a store with memory of its own only the name travels: its
            owner tells the rest.
    """

    topic: str
    key_type: str
    raw_key: list[Any]
    evict: bool
    metadata: dict[str, Any]
    store_config: StoreConfig

    @classmethod
    def from_key(
        cls,
        key: Any,
        *,
        evict: bool,
        metadata: dict[str, Any],
        store_config: StoreConfig,
        topic: str,
    ) -> NewObjectKeyEvent:
        """The event of a key: a `Key`, or the tuple that is a connector's key."""
        if isinstance(key, Key):
            path, raw = KEY_PATH, [key.packed]
        else:
            path, raw = get_object_path(type(key)), list(key)
        return cls(topic, path, raw, evict, metadata, store_config)

    def get_key(self) -> Any:
        """The key.

        Raises:
            ImportError: Its type cannot be imported here.
        """
        if self.key_type == KEY_PATH:
            return Key(*self.raw_key)
        return import_from_path(self.key_type)(*self.raw_key)


Event = EndOfStreamEvent | NewObjectEvent | NewObjectKeyEvent


@dataclasses.dataclass
class EventBatch:
    """Events of one topic, in order.

    Attributes:
        topic: The topic.
        events: The events.
        redelivered: Another consumer may have worked them off already.
    """

    topic: str
    events: list[Event]
    redelivered: bool = dataclasses.field(default=False, compare=False)


_NAMES: dict[type[Any], str] = {
    EndOfStreamEvent: "END_OF_STREAM",
    EventBatch: "EVENT_BATCH",
    NewObjectEvent: "NEW_OBJECT",
    NewObjectKeyEvent: "NEW_OBJECT_KEY",
}
_TYPES = {name: cls for cls, name in _NAMES.items()}


def event_to_dict(event: Event | EventBatch) -> dict[str, Any]:
    """The fields of an event, and its `event_type`."""
    fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
    if isinstance(event, EventBatch):
        del fields["redelivered"]
        fields["events"] = [event_to_dict(each) for each in event.events]
    return {**fields, "event_type": _NAMES[type(event)]}


def dict_to_event(data: dict[str, Any]) -> Event | EventBatch:
    """The event that `event_to_dict` was given."""
    fields = dict(data)
    cls = _TYPES[fields.pop("event_type")]
    if cls is EventBatch:
        fields["events"] = [dict_to_event(each) for each in fields["events"]]
    event: Event | EventBatch = cls(**fields)
    return event


def event_to_bytes(event: Event | EventBatch) -> bytes:
    """The message of an event or of a batch.

    Raises:
        InvalidArgumentError: Events of one batch are of several topics.
        SerializationError: Object or metadata cannot be serialized.
    """
    from proxystore_hpc.stream.codec import encode

    return encode(event)


def bytes_to_event(s: bytes | bytearray | memoryview) -> Event | EventBatch:
    """What `event_to_bytes` was given. Metadata and objects are unpickled here.

    Raises:
        SerializationError: The bytes are no event, or one that was cut short or garbled.
    """
    from proxystore_hpc.stream.codec import decode

    return decode(s)
