"""Getting objects out of streams."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar, cast

from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    ObjectMissingError,
    PeerError,
    SerializationError,
)
from proxystore_hpc.key import Key
from proxystore_hpc.proxy import Proxy
from proxystore_hpc.store.factory import StoreFactory
from proxystore_hpc.store.registry import get_or_create_store, unregister_store
from proxystore_hpc.stream.events import (
    EndOfStreamEvent,
    EventBatch,
    NewObjectEvent,
    NewObjectKeyEvent,
    bytes_to_event,
)
from proxystore_hpc.stream.filters import NullFilter
from proxystore_hpc.stream.protocols import (
    EventSubscriber,
    Filter,
    MessageSubscriber,
    Subscriber,
)

T = TypeVar("T")
SelfT = TypeVar("SelfT", bound="StreamConsumer[Any]")

_ABSENT = object()
_MOST_KEYS = 32
_MOST_BYTES = 1 << 18
"""Evictions are sent when there are so many of them, or they free so many bytes."""

Item = NewObjectEvent | NewObjectKeyEvent


class _Came(NamedTuple):
    event: Item
    redelivered: bool


class StreamConsumer(Generic[T]):
    """An iterator over the objects of a stream, until it ends. Thread-safe as its subscriber is.

    `next` and iterating give proxies, which get their objects when they are used; the others give
    the objects. What a producer sent without a store is no proxy.

    An object that is to be evicted is given up when its consumer asks for the next one, several at
    once, so that it is still there if a broker has to hand it out again. A proxy's object is
    evicted when the proxy resolves.

    Args:
        subscriber: Where events come from.
        filter_: Of what metadata objects are not handed out, but evicted if that is due.

    Raises:
        InvalidArgumentError: `subscriber` is no subscriber.
    """

    def __init__(self, subscriber: Subscriber, *, filter_: Filter | None = None) -> None:
        self.subscriber = subscriber
        if not isinstance(subscriber, (EventSubscriber, MessageSubscriber)):
            raise InvalidArgumentError(
                f"subscriber: a {type(subscriber).__name__} has neither next_events nor "
                "next_message"
            )
        self._events = isinstance(subscriber, EventSubscriber)
        self._filter = NullFilter() if filter_ is None else filter_
        self._lock = threading.Lock()
        self._batch: deque[Any] = deque()
        self._redelivered = False
        self._stores: dict[str, Any] = {}
        self._own = threading.local()  # `used`: store and key of what the thread was given last
        self._used: dict[str, list[Any]] = {}
        self._used_bytes = 0

    def __iter__(self: SelfT) -> SelfT:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self) -> Proxy[T] | T:
        """A proxy of the next object, or the object if it came with its event.

        Raises:
            StopIteration: The stream has ended.
            SerializationError: What came is no event.
            PeerError: The producer that holds the object is gone.
        """
        return self.next_with_metadata()[1]

    def next_with_metadata(self) -> tuple[dict[str, Any], Proxy[T] | T]:
        """As `next`, with what the producer says of it."""
        event = self._next().event
        if isinstance(event, NewObjectEvent):
            return event.metadata, cast(T, event.obj)
        store = self._store(event)
        return event.metadata, store.proxy_from_key(event.get_key(), evict=event.evict)

    def next_object(self) -> T:
        """The next object.

        Raises:
            StopIteration: The stream has ended.
            ObjectMissingError: It is not in its store: it was evicted by somebody else.
            SerializationError: What came is no event, or the object cannot be made here.
            PeerError: The producer that holds the object is gone.
        """
        return self.next_object_with_metadata()[1]

    def next_object_with_metadata(self) -> tuple[dict[str, Any], T]:
        """As `next_object`, with what the producer says of it."""
        while True:
            event, redelivered = self._next()
            if isinstance(event, NewObjectEvent):
                return event.metadata, cast(T, event.obj)
            store, key = self._store(event), event.get_key()
            obj = store.get(key, default=_ABSENT)
            if obj is _ABSENT:
                if redelivered and event.evict:
                    continue  # who had it before has worked it off, and did not live to say so
                raise ObjectMissingError(
                    f"the object of {key!r} is not in the store {store.name!r}: send it with "
                    "evict=False if several consumers get it, or do not evict it yourself",
                    key=key,
                )
            if event.evict:
                self._own.used = store, key
            return event.metadata, cast(T, obj)

    def iter_with_metadata(self) -> Iterator[tuple[dict[str, Any], Proxy[T] | T]]:
        """Iterates as `next_with_metadata`."""
        while True:
            try:
                item = self.next_with_metadata()
            except StopIteration:
                return
            yield item

    def iter_objects(self) -> Iterator[T]:
        """Iterates as `next_object`."""
        for _, obj in self.iter_objects_with_metadata():
            yield obj

    def iter_objects_with_metadata(self) -> Iterator[tuple[dict[str, Any], T]]:
        """Iterates as `next_object_with_metadata`."""
        while True:
            try:
                item = self.next_object_with_metadata()
            except StopIteration:
                return
            yield item

    def close(self, *, stores: bool = False, subscriber: bool = True) -> None:
        """Ends.

        Args:
            stores: Close the stores that objects came from, as far as they are of this process.
            subscriber: Close the subscriber.
        """
        self._give_up()
        self._evict()
        if subscriber:
            self.subscriber.close()
        if stores:
            for store in self._stores.values():
                unregister_store(store)
                store.close()
            self._stores.clear()

    def __enter__(self: SelfT) -> SelfT:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        release = getattr(self.subscriber, "release", None)
        if exc_type is not None and release is not None:
            # It was not worked off; another consumer shall get it, and find its object.
            self._own.used = None
            release()
        self.close()

    def _next(self) -> _Came:
        self._give_up()
        while True:
            with self._lock:
                if not self._batch:
                    if not getattr(self.subscriber, "ready", 0):
                        self._evict()  # it may be long until more comes
                    batch = self._next_batch()
                    self._batch.extend(batch.events)
                    self._redelivered = batch.redelivered
                event = self._batch.popleft()
                redelivered = self._redelivered
            if isinstance(event, EndOfStreamEvent):
                raise StopIteration
            if not self._filter(event.metadata):
                return _Came(event, redelivered)
            if isinstance(event, NewObjectKeyEvent) and event.evict:
                self._own.used = self._store(event), event.get_key()
                self._give_up()

    def _next_batch(self) -> EventBatch:
        subscriber: Any = self.subscriber
        if self._events:
            return cast(EventBatch, next(subscriber))
        event = bytes_to_event(next(subscriber))
        if not isinstance(event, EventBatch):
            raise SerializationError(f"a batch of events should have come, not a single {event!r}")
        return event

    def _store(self, event: NewObjectKeyEvent) -> Any:
        name = event.store_config.name
        store = self._stores.get(name)
        if store is None:
            key = event.get_key()
            if isinstance(key, Key) and event.store_config.connector is None:
                factory: StoreFactory[Any] = StoreFactory(key, name)
                store = factory.get_store()
            else:
                store = get_or_create_store(event.store_config, register=True)
            self._stores[name] = store
        return store

    def _give_up(self) -> None:
        """What this thread was given last is not needed any more."""
        used = getattr(self._own, "used", None)
        if used is None:
            return
        self._own.used = None
        store, key = used
        with self._lock:
            self._used.setdefault(store.name, []).append(key)
            self._used_bytes += getattr(key, "nbytes", 0)
            keys = sum(map(len, self._used.values()))
            if keys >= _MOST_KEYS or self._used_bytes >= _MOST_BYTES:
                self._evict()

    def _evict(self) -> None:
        used, self._used, self._used_bytes = self._used, {}, 0
        for name, keys in used.items():
            store = self._stores[name]
            # A producer that has ended took its objects with it.
            with contextlib.suppress(PeerError):
                store.evict_batch(keys)
