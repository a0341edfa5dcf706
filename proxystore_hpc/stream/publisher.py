"""Producers' side of our broker."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from typing import Any

from proxystore_hpc.exceptions import InvalidArgumentError, StreamError, TopicClosedError
from proxystore_hpc.rpc import Endpoint
from proxystore_hpc.stream.codec import encode
from proxystore_hpc.stream.connecting import Connection
from proxystore_hpc.stream.events import EndOfStreamEvent, EventBatch
from proxystore_hpc.stream.frames import pack_publish
from proxystore_hpc.utils.sizes import parse_size

__all__ = ["BrokerPublisher"]

logger = logging.getLogger(__name__)

TIMEOUT = 60.0
_MOST_ITEMS = 1024
_SLACK = 10.0
"""Seconds that a call may take beyond the time that the broker waits for room."""


class BrokerPublisher:
    """Publishes to a `Broker`. Thread-safe.

    Sending returns when the message is in the buffer. One batch of a topic is under way at a time,
    and what is sent meanwhile makes up the next, so that batches grow with the load and nothing
    waits while there is none. A message that could not be delivered stays in the buffer; the next
    `send`, `flush` or `close` raises the reason and tries again.

    A topic ends when it has had `producers` publishers and none of them sends to it any more: they
    have closed the topic, or were closed or killed.

    Args:
        broker: The broker's engine, as `Engine.lookup` gives it; or its address, for an engine that
            is made for this publisher alone.
        producers: How many publishers a topic has at the least, before it can end. `None`: it ends
            when one of them closes it, and not by their leaving.
        timeout: Seconds to wait for room in a topic that is full.
        window: Most bytes in a topic's buffer, also as `"1MiB"`, besides one message. 0: each send
            waits until the broker has the message.
        provider_id: Which broker of the engine.

    Raises:
        PeerError: The broker cannot be reached.
    """

    def __init__(
        self,
        broker: Endpoint | str,
        *,
        producers: int | None = 1,
        timeout: float = TIMEOUT,
        window: int | str = "1MiB",
        provider_id: int = 0,
    ) -> None:
        if producers is not None and producers < 1:
            raise InvalidArgumentError(f"producers: a topic has one at least, not {producers}")
        self._window = parse_size(window)
        self._producers = producers
        self._timeout = timeout
        self._lock = threading.Lock()
        self._outboxes: dict[str, _Outbox] = {}
        self._ended: set[str] = set()
        self._closed = False
        self._connection = Connection(broker, provider_id)

    def send_events(self, events: EventBatch) -> None:
        """Publishes events, each as a message of its own, so that consumers can share them.

        An end of the stream among them closes the topic.

        Raises:
            As `send_message`.
        """
        topic = events.topic
        messages = [
            encode(event) for event in events.events if not isinstance(event, EndOfStreamEvent)
        ]
        if messages:
            self._outbox(topic).send(messages)
        if len(messages) < len(events.events):
            self.close_topics(topic)

    def send_message(self, topic: str, message: bytes) -> None:
        """Publishes a message.

        Raises:
            TopicFullError: Of this one or an earlier one: there was no room in the topic in time.
            TopicClosedError: The topic has ended.
            InvalidArgumentError: The message is larger than what a topic of the broker may hold.
            PeerError: The broker is gone.
        """
        self._outbox(topic).send([message])

    def flush(self) -> None:
        """Waits until the broker has all messages; raises as `send_message`."""
        for outbox in list(self._outboxes.values()):
            outbox.flush()

    def close_topics(self, *topics: str) -> None:
        """Sends what is left to topics, and nothing more; raises as `send_message`."""
        for topic in topics:
            if topic in self._ended:
                continue
            self._outbox(topic).flush()
            ends = self._producers is None
            self._connection.calls.finish(self._connection.session, topic, ends)
            self._ended.add(topic)

    def close(self) -> None:
        """Sends what is left, then ends. Idempotent.

        Raises:
            As `send_message`; what was left then is lost.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        try:
            self.flush()
        finally:
            self._connection.leave()

    def __enter__(self) -> BrokerPublisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _outbox(self, topic: str) -> _Outbox:
        outbox = self._outboxes.get(topic)
        if outbox is not None and topic not in self._ended:
            return outbox
        if topic in self._ended:
            raise TopicClosedError(
                f"this publisher has closed the topic {topic!r} and sends no more to it",
                topic=topic,
            )
        with self._lock:
            if self._closed:
                raise StreamError("the publisher is closed", topic=topic)
            outbox = self._outboxes.get(topic)
            if outbox is None:
                outbox = _Outbox(
                    self._connection, topic, self._producers, self._window, self._timeout
                )
                self._outboxes[topic] = outbox
            return outbox


class _Outbox:
    """The messages of one topic that are not with the broker yet."""

    def __init__(
        self,
        connection: Connection,
        topic: str,
        producers: int | None,
        window: int,
        timeout: float,
    ) -> None:
        calls, session = connection.calls, connection.session
        expected = math.inf if producers is None else producers
        number, items, nbytes = calls.produce(session, topic, expected)
        connection.attend()
        self._publish = calls.publish
        self._session = session
        self._number: int = number
        self._most_items = min(_MOST_ITEMS, items)
        self._limit_bytes: int = nbytes
        # A batch that fits into a topic that is half full gets in sooner.
        self._batch_bytes = max(1, min(max(window, 1), nbytes // 2))
        self._topic = topic
        self._window = window
        self._timeout = timeout
        self._changed = threading.Condition()
        self._buffer: deque[bytes] = deque()
        self._nbytes = 0
        self._flying: Any = None
        self._flying_items = self._flying_bytes = 0
        self._watched = False
        self._error: BaseException | None = None

    def send(self, messages: list[bytes]) -> None:
        """Takes messages, all or none; waits while the buffer is full."""
        largest = max(map(len, messages))
        if largest > self._limit_bytes:
            raise InvalidArgumentError(
                f"a message of {largest} bytes never fits into {self._topic!r}: give its broker "
                "more max_bytes=, or send what is large through a store"
            )
        with self._changed:
            self._go_on()
            while self._flying is not None and self._full():
                self._wait()
            self._buffer.extend(messages)
            self._nbytes += sum(map(len, messages))
            try:
                self._go_on()
            except BaseException:
                # An earlier message failed just now, so this one is not taken either.
                for message in messages:
                    self._buffer.pop()
                    self._nbytes -= len(message)
                raise
            if not self._window:
                try:
                    self._drain()
                except BaseException:
                    self._take_back(messages)
                    raise

    def _take_back(self, messages: list[bytes]) -> None:
        """Forgets messages that were refused, unless another thread sends them again by now."""
        if self._flying is None:
            refused = set(map(id, messages))
            kept = [message for message in self._buffer if id(message) not in refused]
            self._buffer = deque(kept)
            self._nbytes = sum(map(len, kept))

    def flush(self) -> None:
        """Waits until all is with the broker."""
        with self._changed:
            self._drain()

    def _full(self) -> bool:
        return self._nbytes > self._window or len(self._buffer) > 2 * _MOST_ITEMS

    def _drain(self) -> None:
        self._go_on()
        while self._buffer:
            self._wait()
            self._go_on()

    def _wait(self) -> None:
        """Until the batch under way has arrived; raises why it did not."""
        flying = self._flying
        if self._watched:
            self._changed.wait_for(lambda: self._flying is not flying)
        else:
            # This thread waits for the answer itself, which is quicker than to be told of it.
            self._changed.release()
            try:
                flying.exception()
            finally:
                self._changed.acquire()
            self._settle(flying)
        self._raise()

    def _go_on(self) -> None:
        """Takes the outcome of what is under way, if there is one, and sends the next batch."""
        flying = self._flying
        if flying is not None:
            if flying.done():
                self._settle(flying)
            else:
                self._watch()
        self._raise()
        if self._flying is None:
            self._start()

    def _watch(self) -> None:
        """Has a thread send on, if something waits for the end of what is under way."""
        flying = self._flying
        waits = len(self._buffer) > self._flying_items
        if flying is not None and waits and not self._watched:
            self._watched = True
            flying.add_done_callback(self._arrived)

    def _start(self) -> None:
        if not self._buffer:
            return
        batch: list[bytes] = []
        nbytes = 0
        for message in self._buffer:
            if batch and nbytes + len(message) > self._batch_bytes:
                break
            batch.append(message)
            nbytes += len(message)
            if len(batch) >= self._most_items:
                break
        data = pack_publish(self._session, self._number, self._timeout, batch)
        self._flying = self._publish.submit(data, timeout=self._timeout + _SLACK)
        self._flying_items, self._flying_bytes = len(batch), nbytes
        self._watched = False

    def _settle(self, flying: Any) -> None:
        if self._flying is not flying:
            return  # another thread was first
        self._flying = None
        self._error = flying.exception()
        if self._error is None:
            for _ in range(self._flying_items):
                self._buffer.popleft()
            self._nbytes -= self._flying_bytes
        self._changed.notify_all()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _arrived(self, flying: Any) -> None:
        """A thread of the engine's: sends what came meanwhile, though nobody asks any more."""
        with self._changed:
            self._settle(flying)
            if self._error is None and self._flying is None:
                try:
                    self._start()
                    self._watch()
                except BaseException as error:
                    self._error = error
                    self._changed.notify_all()
