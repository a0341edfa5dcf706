"""Sending objects into streams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

from proxystore_hpc.exceptions import InvalidArgumentError, TopicClosedError
from proxystore_hpc.store.registry import unregister_store
from proxystore_hpc.stream.events import (
    EndOfStreamEvent,
    Event,
    EventBatch,
    NewObjectEvent,
    NewObjectKeyEvent,
    event_to_bytes,
)
from proxystore_hpc.stream.filters import NullFilter
from proxystore_hpc.stream.protocols import (
    EventPublisher,
    Filter,
    MessagePublisher,
    Publisher,
)

T = TypeVar("T")
SelfT = TypeVar("SelfT", bound="StreamProducer[Any]")


class _Item(NamedTuple):
    obj: Any
    evict: bool
    metadata: dict[str, Any]


class _Buffer:
    """Objects of a topic that are to be sent."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # held while they are sent, so that their order is kept
        self.items: list[_Item] = []
        self.closed = False
        self.end_sent = False


class StreamProducer(Generic[T]):
    """Sends objects into topics: through a store, while a broker carries only events about them.

    Without a store an object travels in its event. Thread-safe as far as its publisher is; topics
    do not wait for each other.

    Args:
        publisher: Publishes the events.
        aggregator: Makes one object of those of a batch. Its metadata are those of all, of which
            later ones win.
        batch_size: Objects that are sent at once.
        default_store: Store of the topics that are not in `stores`.
        filter_: Of what metadata objects are not sent; asked before anything else is done.
        stores: Stores by topic, `None` for objects to travel in their events.

    Raises:
        InvalidArgumentError: `publisher` is no publisher, or `batch_size` less than 1.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        aggregator: Callable[[list[T]], T] | None = None,
        batch_size: int = 1,
        default_store: Any = None,
        filter_: Filter | None = None,
        stores: Mapping[str, Any] | None = None,
    ) -> None:
        self.publisher = publisher
        if isinstance(publisher, EventPublisher):
            self._publish = publisher.send_events
        elif isinstance(publisher, MessagePublisher):
            self._publish = self._send_message
        else:
            raise InvalidArgumentError(
                f"publisher: a {type(publisher).__name__} has neither send_events nor send_message"
            )
        if batch_size < 1:
            raise InvalidArgumentError(f"batch_size: one object at least, not {batch_size}")
        self._aggregator = aggregator
        self._batch_size = batch_size
        self._default_store = default_store
        self._filter = NullFilter() if filter_ is None else filter_
        self._stores = dict(stores or {})
        self._lock = threading.Lock()
        self._buffers: dict[str, _Buffer] = {}

    def send(
        self,
        topic: str,
        obj: T,
        *,
        evict: bool = True,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Sends an object, once a batch is complete.

        If it raises, this object was not sent and those that wait for a batch wait on, except that
        what the publisher raises may be about an earlier one, see there.

        Args:
            topic: Where to.
            obj: The object; it should not change before it was sent.
            evict: Evict it from the store once it was consumed. False where several consume it:
                then it is for you to evict.
            metadata: What consumers are told of it, before they get it.

        Raises:
            TopicClosedError: `close_topics` was called for this topic.
            StoreFullError: The store has no room for the batch.
            SerializationError: The object or its metadata cannot be serialized.
        """
        metadata = {} if metadata is None else metadata
        buffer = self._buffer(topic)
        with buffer.lock:
            if buffer.closed:
                raise TopicClosedError(
                    f"this producer has closed the topic {topic!r}: open another one to go on",
                    topic=topic,
                )
            if self._filter(metadata):
                return
            item = _Item(obj, evict, metadata)
            buffer.items.append(item)
            if len(buffer.items) >= self._batch_size:
                try:
                    self._flush(topic, buffer)
                except BaseException:
                    buffer.items = [other for other in buffer.items if other is not item]
                    raise

    def flush(self) -> None:
        """Sends what waits for a batch to become complete, in all topics."""
        for topic in list(self._buffers):
            self.flush_topic(topic)

    def flush_topic(self, topic: str) -> None:
        """Sends what waits in a topic. If it raises, that waits on. See `send`."""
        buffer = self._buffer(topic)
        with buffer.lock:
            self._flush(topic, buffer)

    def close_topics(self, *topics: str) -> None:
        """Sends what waits in topics, then their end: consumers stop when they come to it."""
        for topic in topics:
            buffer = self._buffer(topic)
            with buffer.lock:
                buffer.closed = True
                self._flush(topic, buffer)

    def close(
        self, *, topics: Iterable[str] = (), publisher: bool = True, stores: bool = False
    ) -> None:
        """Sends what waits, and ends.

        Args:
            topics: Topics to close.
            publisher: Close the publisher.
            stores: Close the stores, and with them what was not consumed.
        """
        self.flush()
        self.close_topics(*topics)
        if publisher:
            self.publisher.close()
        if stores:
            known = {id(s): s for s in (self._default_store, *self._stores.values())}
            for store in known.values():
                if store is not None:
                    unregister_store(store)
                    store.close()

    def __enter__(self: SelfT) -> SelfT:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _buffer(self, topic: str) -> _Buffer:
        buffer = self._buffers.get(topic)
        if buffer is None:
            with self._lock:
                buffer = self._buffers.setdefault(topic, _Buffer())
        return buffer

    def _flush(self, topic: str, buffer: _Buffer) -> None:
        items = buffer.items
        if items and self._aggregator is not None:
            metadata: dict[str, Any] = {}
            for item in items:
                metadata.update(item.metadata)
            together = self._aggregator([item.obj for item in items])
            items = [_Item(together, any(item.evict for item in items), metadata)]
        store = self._stores.get(topic, self._default_store)
        events: list[Event]
        keys: list[Any] = []
        if store is None:
            events = [NewObjectEvent(topic, item.obj, item.metadata) for item in items]
        elif not items:
            events = []
        else:
            config = store.config()
            if len(items) == 1:
                keys = [store.put(items[0].obj)]
            else:
                keys = store.put_batch([item.obj for item in items])
            events = [
                NewObjectKeyEvent.from_key(
                    key, evict=item.evict, metadata=item.metadata, store_config=config, topic=topic
                )
                for key, item in zip(keys, items, strict=True)
            ]
        ends = buffer.closed and not buffer.end_sent
        if ends:
            events.append(EndOfStreamEvent(topic))
        if not events:
            return
        try:
            self._publish(EventBatch(topic, events))
        except BaseException:
            if keys:
                store.evict_batch(keys)
            raise
        buffer.items = []
        buffer.end_sent = buffer.closed

    def _send_message(self, events: EventBatch) -> None:
        publisher: Any = self.publisher
        publisher.send_message(events.topic, event_to_bytes(events))
