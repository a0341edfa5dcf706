"""Consumers' side of our broker."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Literal, NamedTuple

from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    OperationTimeoutError,
    SerializationError,
    StreamError,
)
from proxystore_hpc.rpc import Endpoint
from proxystore_hpc.stream import frames
from proxystore_hpc.stream.codec import decode
from proxystore_hpc.stream.connecting import Connection
from proxystore_hpc.stream.events import EventBatch
from proxystore_hpc.stream.frames import Fetch, Item, Mark, pack_fetch, unpack_given
from proxystore_hpc.stream.topics import Start
from proxystore_hpc.utils.sizes import parse_size

__all__ = ["BrokerSubscriber", "Position"]

ACK_TIMEOUT = 60.0
_WAIT = 20.0
"""Seconds that one request waits at the broker."""
_SLACK = 10.0
_TELL_AFTER = 0.05
"""Seconds after which an acknowledgement does not wait for the next request."""
_MOST_MARKS = 1024
_MOST_BYTES = 0xFFFFFFFF


class Position(NamedTuple):
    """Where an item lies: its topic, and its offset there."""

    topic: str
    offset: int


class BrokerSubscriber:
    """Takes items from a `Broker`: an iterator over batches of one event. Thread-safe.

    Each item goes to one subscriber of a group, and to all groups. A thread that asks for the next
    item has worked off the one before it: that is acknowledged. What is not acknowledged within
    `ack_timeout`, or by a process that ended, is handed out again, so an item can come twice, but
    is never lost. `next_events` waits without the GIL, the request being kept at the broker.

    Args:
        broker: The broker's engine, as `Engine.lookup` gives it; or its address, for an engine that
            is made for this subscriber alone.
        topics: A topic, or several. The stream ends when all have ended.
        group: Name of the group; `None` for one of its own, which sees all items and ends with it.
        start: Where a group begins that does not exist yet: `"earliest"` item that not every group
            has settled, `"latest"` for what comes from now on, or an offset, for replay.
        prefetch: Most items that are fetched at once. Of those, others get none: 1 for items that
            take long to work off.
        prefetch_bytes: Most bytes of them, but for one item.
        acknowledge: `"auto"`, or `"manual"`: what was worked off is told by `acknowledge`.
        ack_timeout: Seconds to work off what was fetched.
        timeout: Seconds that `next_events` waits, `None`: for ever.
        provider_id: Which broker of the engine.

    Raises:
        OffsetGoneError: The broker has no item of the offset `start`.
        PeerError: The broker cannot be reached.
    """

    def __init__(
        self,
        broker: Endpoint | str,
        topics: str | Sequence[str],
        *,
        group: str | None = None,
        start: Start = "earliest",
        prefetch: int = 32,
        prefetch_bytes: int | str = "1MiB",
        acknowledge: Literal["auto", "manual"] = "auto",
        ack_timeout: float = ACK_TIMEOUT,
        timeout: float | None = None,
        provider_id: int = 0,
    ) -> None:
        self._topics = (topics,) if isinstance(topics, str) else tuple(topics)
        if not self._topics or len(set(self._topics)) < len(self._topics):
            raise InvalidArgumentError(f"topics: different ones are needed, not {topics!r}")
        if prefetch < 1:
            raise InvalidArgumentError(f"prefetch: one item at least, not {prefetch}")
        if ack_timeout <= 0:
            raise InvalidArgumentError(f"ack_timeout: more than 0 seconds, not {ack_timeout}")
        if acknowledge not in ("auto", "manual"):
            raise InvalidArgumentError(f"acknowledge: 'auto' or 'manual', not {acknowledge!r}")
        self._automatic = acknowledge == "auto"
        self._prefetch = prefetch
        self._prefetch_bytes = min(parse_size(prefetch_bytes), _MOST_BYTES)
        self._ack_timeout = ack_timeout
        self._timeout = timeout
        self._lock = threading.Lock()  # of the fields
        self._fetching = threading.Lock()  # one request at a time
        self._items: deque[Item] = deque()
        self._fresh_until = 0.0
        self._own = threading.local()  # `mark`: what the thread has taken last
        self._taken: dict[Mark, None] = {}
        self._done: list[Mark] = []
        self._told = monotonic()
        self._batch = 0
        self._closed = False
        self._connection = Connection(broker, provider_id)
        calls = self._connection.calls
        self._fetch = calls.fetch
        self._tell = calls.acknowledge
        try:
            calls.subscribe(self._connection.session, self._topics, group, start, ack_timeout)
            self._connection.attend()
        except BaseException:
            self._connection.leave()
            raise

    def __iter__(self) -> BrokerSubscriber:
        return self

    def __next__(self) -> EventBatch:
        return self.next_events()

    def next_events(self) -> EventBatch:
        """The next item, as a batch of one event.

        Raises:
            StopIteration: The topics have ended and the group has worked off all that there was.
            OperationTimeoutError: None came within `timeout`.
            SerializationError: It is not from a `StreamProducer`; see `next_message`.
            PeerError: The broker is gone.
        """
        item = self._next()
        event = decode(item.message)
        if isinstance(event, EventBatch):
            raise SerializationError(
                f"the item {item.offset} of {self._topics[item.source]!r} is a batch by itself: "
                "send it by BrokerPublisher.send_events"
            )
        return EventBatch(event.topic, [event], item.redelivered)

    def next_message(self) -> bytes:
        """The next item as it was sent; raises as `next_events`."""
        return self._next().message

    @property
    def ready(self) -> int:
        """Items that were fetched and not taken."""
        return len(self._items)

    @property
    def position(self) -> Position:
        """Where the item lies that this thread has taken last.

        Raises:
            StreamError: It has taken none.
        """
        mark: Mark | None = getattr(self._own, "mark", None)
        if mark is None:
            raise StreamError("this thread has taken no item yet")
        return Position(self._topics[mark[0]], mark[1])

    def acknowledge(self, position: Position | None = None) -> None:
        """Tells that an item was worked off; from any thread.

        Args:
            position: Its position; that of the item that this thread has taken last by default.
        """
        topic, offset = self.position if position is None else position
        if topic not in self._topics:
            raise InvalidArgumentError(f"the topic {topic!r} is not of this subscription")
        with self._lock:
            self._finish((self._topics.index(topic), offset))
            data = pack_fetch(self._ask(0.0))
        self._tell.notify(data)

    def release(self) -> None:
        """Gives back what was taken and not acknowledged: others get it at once."""
        with self._lock:
            marks = [*self._taken, *((item.source, item.offset) for item in self._items)]
            done, self._done = self._done, []
            self._items.clear()
            self._taken.clear()
        self._connection.calls.release(self._connection.session, marks, done)

    def seek(self, start: Start, topic: str | None = None) -> None:
        """Has the whole group go on from elsewhere, whatever it has acknowledged.

        What members have taken before comes again. A member that waits meanwhile may be handed one
        more item of the old place.

        Args:
            start: As for the subscriber.
            topic: The topic, if there are several.

        Raises:
            OffsetGoneError: The broker does not hold that item.
        """
        if topic is None:
            (topic,) = self._topics
        source = self._topics.index(topic)
        self._connection.calls.seek(self._connection.session, topic, start)
        with self._lock:
            self._items = deque(item for item in self._items if item.source != source)
            self._taken = {mark: None for mark in self._taken if mark[0] != source}
            self._done = [mark for mark in self._done if mark[0] != source]

    def close(self) -> None:
        """Ends the subscription. Idempotent.

        What this thread has taken last counts as worked off, if that is automatic: call `release`
        before where it is not. What else was not acknowledged is handed out anew.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._automatic:
                self._finish_own()
            done, self._done = self._done, []
        self._connection.leave(done)

    def __enter__(self) -> BrokerSubscriber:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if exc_type is not None and not self._closed:
            self.release()
        self.close()

    def _next(self) -> Item:
        if self._automatic:
            with self._lock:
                self._finish_own()
        deadline = None if self._timeout is None else monotonic() + self._timeout
        while True:
            with self._lock:
                item = self._pop()
                data = self._due() if item is not None else None
            if item is not None:
                if data is not None:
                    self._tell.notify(data)
                return item
            with self._fetching:
                if not self._items:
                    self._fill(deadline)

    def _pop(self) -> Item | None:
        if self._closed:
            raise StreamError("the subscriber is closed")
        if self._items and monotonic() > self._fresh_until:
            self._items.clear()  # too late to work them off: others get them
        if not self._items:
            return None
        item = self._items.popleft()
        self._own.mark = mark = (item.source, item.offset)
        self._taken[mark] = None
        return item

    def _finish_own(self) -> None:
        mark = getattr(self._own, "mark", None)
        if mark is not None:
            self._own.mark = None
            self._finish(mark)

    def _fill(self, deadline: float | None) -> None:
        left = _WAIT if deadline is None else min(_WAIT, deadline - monotonic())
        if left <= 0:
            raise OperationTimeoutError(
                f"no item came within {self._timeout} s", timeout=self._timeout
            )
        with self._lock:
            ask = self._ask(left)
        try:
            given = self._fetch(pack_fetch(ask), timeout=left + _SLACK)
        except BaseException:
            with self._lock:
                self._done = ask.done + self._done
            raise
        batch, state, items = unpack_given(given)
        with self._lock:
            self._batch = batch
            self._fresh_until = monotonic() + 0.9 * self._ack_timeout
            self._items.extend(items)
        if state == frames.END:
            raise StopIteration

    def _ask(self, wait: float) -> Fetch:
        done, self._done = self._done, []
        self._told = monotonic()
        return Fetch(
            self._connection.session,
            self._batch,
            self._prefetch,
            self._prefetch_bytes,
            wait,
            done,
        )

    def _finish(self, mark: Mark) -> None:
        if self._taken.pop(mark, False) is None:
            self._done.append(mark)

    def _due(self) -> bytes | None:
        """Acknowledgements that should not wait any longer."""
        if not self._done:
            return None
        if len(self._done) < _MOST_MARKS and monotonic() < self._told + _TELL_AFTER:
            return None
        return pack_fetch(self._ask(0.0))
