"""A broker for streams: topics in the memory of a process, served by its engine."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import Any

from proxystore_hpc.exceptions import (
    EngineClosedError,
    InvalidArgumentError,
    StreamError,
    TopicClosedError,
    TopicFullError,
)
from proxystore_hpc.rpc import Engine, LaterAnswer, Provider, Request, rpc
from proxystore_hpc.stream import frames
from proxystore_hpc.stream.frames import Mark, pack_given
from proxystore_hpc.stream.sessions import (
    Consumer,
    ParkedFetch,
    ParkedPublish,
    Producer,
    Session,
    Source,
)
from proxystore_hpc.stream.topics import Group, Limits, Start, Topic
from proxystore_hpc.utils.sizes import parse_size

__all__ = ["Broker"]

logger = logging.getLogger(__name__)

TICK = 0.1
"""Seconds between looks for deadlines that have passed and peers that are gone."""

Turn = list[Callable[[], object]]


class Broker(Provider, service="proxystore_hpc.stream"):
    """Passes the items of streams from producers to groups of consumers.

    It serves `BrokerPublisher` and `BrokerSubscriber` of any process that its engine can be reached
    from. Items are bytes that it does not look into. A topic holds what not every group has
    acknowledged, within `max_items` and `max_bytes`; while it is full, its producers wait. With
    that the memory of a topic is bounded: `max_bytes`, `history`, and for each producer that waits
    one batch. Topics live as long as the broker.

    No thread waits for an item or for room: requests that cannot be answered yet are kept. One
    thread of its own looks for deadlines and for processes that have ended.

    Args:
        engine: Engine that serves it; the broker closes with it.
        max_items: Most items of a topic that are not settled.
        max_bytes: Most bytes of their messages, also as `"1GiB"`.
        history: Most bytes of settled messages that a topic keeps for replay.
        group_timeout: Seconds that a named group is kept without members. After that it does not
            hold items back any more.
        max_topics: Most topics.
        provider_id: Which of the engine's brokers this is.

    Raises:
        InvalidArgumentError: A limit cannot be meant, or the engine has such a broker.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_items: int = 65_536,
        max_bytes: int | str = "256MiB",
        history: int | str = 0,
        group_timeout: float = 300.0,
        max_topics: int = 4096,
        provider_id: int = 0,
    ) -> None:
        self._limits = Limits(max_items, parse_size(max_bytes), parse_size(history))
        if self._limits.items < 1 or self._limits.nbytes < 1 or max_topics < 1:
            raise InvalidArgumentError("a broker needs room for an item at least")
        self._group_timeout = group_timeout
        self._max_topics = max_topics
        self._engine = engine
        self._provider_id = provider_id
        self._lock = threading.Lock()
        self._topics: dict[str, Topic] = {}
        self._blocked: dict[str, deque[ParkedPublish]] = {}
        self._waiting: dict[Group, dict[bytes, Consumer]] = {}
        self._producers: dict[bytes, Producer] = {}
        self._consumers: dict[bytes, Consumer] = {}
        self._closed = threading.Event()
        engine.register_provider(self, provider_id)
        engine.on_finalize(self.close)
        self._thread = threading.Thread(target=self._watch, name="stream-broker", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Address of its engine."""
        return self._engine.address

    def close(self) -> None:
        """Ends the broker, not its engine: who waits for it is told, items are gone. Idempotent."""
        if self._closed.is_set():
            return
        self._closed.set()
        error = EngineClosedError("the broker was closed")
        with self._turn() as turn:
            parked = [consumer.parked for consumer in self._consumers.values() if consumer.parked]
            turn += [partial(fetch.answer.fail, error) for fetch in parked]
            for blocked in self._blocked.values():
                turn += [partial(publish.answer.fail, error) for publish in blocked]
            for session in (*self._producers.values(), *self._consumers.values()):
                if session.attendance is not None:
                    turn.append(partial(session.attendance.fail, error))
            for known in (self._topics, self._blocked, self._waiting):
                known.clear()
            self._producers.clear()
            self._consumers.clear()
        if not self._engine.closed:
            self._engine.deregister_provider(self, self._provider_id)
        if self._thread is not threading.current_thread():
            self._thread.join()

    # What all sessions call.

    @rpc
    def attend(self, request: Request, session: bytes) -> LaterAnswer:
        """Is answered when the session leaves; its caller's end is the session's."""
        with self._turn():
            found = self._session(session)
            found.attendance = request.later()
            return found.attendance

    @rpc
    def leave(self, session: bytes, done: list[Mark]) -> None:
        """Ends a session, after noting what it has worked off; nothing if it ended before."""
        with self._turn() as turn:
            consumer = self._consumers.get(session)
            if consumer is not None:
                self._acknowledge(consumer, done, turn)
            self._drop(session, turn)

    @rpc
    def describe(self) -> dict[str, Any]:
        """The topics by name, with their groups; for people and tests."""
        with self._lock:
            return {name: self._facts(topic) for name, topic in self._topics.items()}

    # What producers call.

    @rpc
    def produce(self, session: bytes, name: str, expected: float) -> tuple[int, int, int]:
        """Begins to send to a topic; its number, and the most items and bytes in one message."""
        now = monotonic()
        with self._turn():
            topic = self._topic(name)
            if topic.closed:
                raise _closed(topic)
            producer = self._producers.get(session)
            if producer is None:
                producer = self._producers[session] = Producer(session, now)
            topic.produce(session, expected)
            producer.topics.append(topic)
            return len(producer.topics) - 1, self._limits.items, self._limits.nbytes

    @rpc(codec="raw")
    def publish(self, request: Request, data: bytes | memoryview) -> bytes | LaterAnswer:
        """Appends messages, all at once; is answered when there was room."""
        session, number, timeout, messages = frames.unpack_publish(data)
        nbytes = sum(map(len, messages))
        with self._turn() as turn:
            producer = self._producers.get(session)
            if producer is None or number >= len(producer.topics):
                raise _unknown()
            topic = producer.topics[number]
            if topic.closed or session not in topic.open_producers:
                raise _closed(topic)
            if len(messages) > self._limits.items or nbytes > self._limits.nbytes:
                raise InvalidArgumentError(
                    f"{len(messages)} messages of {nbytes} bytes never fit into {topic.name!r}: "
                    "give its broker more max_bytes=, or send what is large through a store"
                )
            blocked = self._blocked[topic.name]
            if not blocked and topic.has_room(len(messages), nbytes):
                topic.append(messages)
                self._hand_out(topic, turn)
                return b""
            if timeout <= 0:
                raise _full(topic, timeout)
            deadline = monotonic() + timeout
            answer = request.later()
            blocked.append(ParkedPublish(answer, session, messages, nbytes, timeout, deadline))
            return answer

    @rpc
    def finish(self, session: bytes, name: str, ends: bool) -> None:
        """A producer sends nothing more to a topic.

        Args:
            session: The producer.
            name: The topic.
            ends: Closes it at once, whoever else produces.
        """
        with self._turn() as turn:
            topic = self._topics.get(name)
            if topic is not None:
                self._finish(topic, session, ends, turn)

    # What consumers call.

    @rpc
    def subscribe(
        self,
        session: bytes,
        names: tuple[str, ...],
        group: str | None,
        start: Start,
        ack_timeout: float,
    ) -> None:
        """Begins to consume topics; without a name for the group, in one of the session's own."""
        with self._turn():
            consumer = Consumer(session, monotonic(), group or session.hex(), ack_timeout)
            try:
                for name in names:
                    topic = self._topic(name)
                    joined = topic.group(consumer.group, start, lasting=group is not None)
                    joined.members.add(session)
                    joined.idle_since = None
                    self._waiting.setdefault(joined, {})
                    consumer.sources.append(Source(topic, joined))
            except BaseException:
                for topic, _ in consumer.sources:
                    topic.leave(consumer.group, session, monotonic())
                raise
            self._consumers[session] = consumer

    @rpc(codec="raw")
    def fetch(self, request: Request, data: bytes | memoryview) -> bytes | LaterAnswer:
        """Notes what was worked off and hands out items; is answered when there are some."""
        ask = frames.unpack_fetch(data)
        now = monotonic()
        with self._turn() as turn:
            consumer = self._consumers.get(ask.session)
            if consumer is None:
                raise _unknown()
            self._return(consumer, consumer.unreceived(ask.batch), turn, seen=False)
            self._acknowledge(consumer, ask.done, turn)
            items = consumer.take(ask.items, ask.nbytes, now)
            if items:
                return pack_given(consumer.batch, frames.ITEMS, items)
            if consumer.ended():
                return pack_given(consumer.batch, frames.END, [])
            if ask.wait <= 0:
                return pack_given(consumer.batch, frames.NOTHING, [])
            consumer.parked = ParkedFetch(request.later(), ask, now + ask.wait)
            for source in consumer.sources:
                self._waiting[source.group][consumer.name] = consumer
            return consumer.parked.answer

    @rpc(codec="raw", one_way=True)
    def acknowledge(self, data: bytes | memoryview) -> None:
        """Notes what was worked off; a fetch without an answer."""
        ask = frames.unpack_fetch(data)
        with self._turn() as turn:
            consumer = self._consumers.get(ask.session)
            if consumer is not None:
                self._acknowledge(consumer, ask.done, turn)

    @rpc
    def release(self, session: bytes, marks: list[Mark], done: list[Mark]) -> None:
        """Gives items back, to be handed out anew at once; before that, notes what was done."""
        with self._turn() as turn:
            consumer = self._consumers.get(session)
            if consumer is not None:
                self._acknowledge(consumer, done, turn)
                self._return(consumer, [m for m in marks if m in consumer.pending], turn)

    @rpc
    def seek(self, session: bytes, name: str, start: Start) -> None:
        """Moves the session's group in a topic; what its members hold is handed out anew."""
        with self._turn() as turn:
            consumer = self._consumers.get(session)
            if consumer is None:
                raise _unknown()
            for topic, group in consumer.sources:
                if topic.name == name:
                    topic.seek(consumer.group, start)
                    self._forget_marks(topic, group)
                    self._admit(topic, turn)
                    self._hand_out(topic, turn)
                    return
            raise InvalidArgumentError(f"the topic {name!r} is not of this subscription")

    # Inside; the lock is held.

    @contextmanager
    def _turn(self) -> Iterator[Turn]:
        """Holds the lock; answers to others are sent when it is free again."""
        turn: Turn = []
        try:
            with self._lock:
                yield turn
        finally:
            for answer in turn:
                answer()

    def _session(self, name: bytes) -> Session:
        found = self._producers.get(name) or self._consumers.get(name)
        if found is None:
            raise _unknown()
        return found

    def _topic(self, name: str) -> Topic:
        topic = self._topics.get(name)
        if topic is None:
            if self._closed.is_set():
                raise EngineClosedError("the broker was closed")
            if len(self._topics) >= self._max_topics:
                raise StreamError(
                    f"the broker has {self._max_topics} topics, and no more: give it more by "
                    "max_topics=, or use topics again",
                    topic=name,
                )
            topic = self._topics[name] = Topic(name, self._limits)
            self._blocked[name] = deque()
        return topic

    def _hand_out(self, topic: Topic, turn: Turn) -> None:
        """Answers consumers that wait for what has come, or for the end."""
        now = monotonic()
        for group in topic.groups.values():
            waiting = self._waiting[group]
            while waiting and group.available(topic.end):
                consumer = waiting.pop(next(iter(waiting)))
                parked = consumer.parked
                if parked is None:
                    continue  # was answered by another topic
                consumer.parked = None
                if parked.answer.cancelled:
                    continue
                items = consumer.take(parked.ask.items, parked.ask.nbytes, now)
                given = pack_given(consumer.batch, frames.ITEMS, items)
                turn.append(partial(parked.answer.reply, given))
            if topic.closed and waiting:
                for consumer in list(waiting.values()):
                    if consumer.parked is not None and consumer.ended():
                        given = pack_given(consumer.batch, frames.END, [])
                        turn.append(partial(consumer.parked.answer.reply, given))
                        consumer.parked = None
                        del waiting[consumer.name]

    def _acknowledge(self, consumer: Consumer, done: list[Mark], turn: Turn) -> None:
        moved: dict[str, Topic] = {}
        for mark in done:
            consumer.pending.pop(mark, None)
            source, offset = mark
            topic, group = consumer.sources[source]
            if group.acknowledge(offset, consumer.name) or topic.closed:
                moved[topic.name] = topic
        for topic in moved.values():
            if topic.settle():
                self._admit(topic, turn)
            if topic.closed:
                self._hand_out(topic, turn)

    def _return(
        self, consumer: Consumer, marks: list[Mark], turn: Turn, *, seen: bool = True
    ) -> None:
        topics: dict[str, Topic] = {}
        for mark in marks:
            del consumer.pending[mark]
            source, offset = mark
            topic, group = consumer.sources[source]
            if group.give_back(offset, consumer.name, seen=seen):
                topics[topic.name] = topic
        for topic in topics.values():
            self._hand_out(topic, turn)

    def _admit(self, topic: Topic, turn: Turn) -> None:
        """Lets messages in that waited for room."""
        blocked = self._blocked[topic.name]
        came = False
        while blocked:
            first = blocked[0]
            if first.answer.cancelled:
                blocked.popleft()
                continue
            if not topic.has_room(len(first.messages), first.nbytes):
                break
            blocked.popleft()
            topic.append(first.messages)
            came = True
            turn.append(partial(first.answer.reply, b""))
        if came:
            self._hand_out(topic, turn)

    def _finish(self, topic: Topic, session: bytes, ends: bool, turn: Turn) -> None:
        blocked = self._blocked[topic.name]
        for publish in [each for each in blocked if each.session == session]:
            blocked.remove(publish)
        if topic.finish(session, ends=ends):
            turn += [partial(publish.answer.fail, _closed(topic)) for publish in blocked]
            blocked.clear()
            self._hand_out(topic, turn)
        else:
            self._admit(topic, turn)

    def _drop(self, session: bytes, turn: Turn) -> None:
        """Ends a session: what it holds goes to others, its topics may close."""
        producer = self._producers.pop(session, None)
        if producer is not None:
            for topic in producer.topics:
                self._finish(topic, session, False, turn)
        consumer = self._consumers.pop(session, None)
        if consumer is not None:
            if consumer.parked is not None:
                given = pack_given(consumer.batch, frames.NOTHING, [])
                turn.append(partial(consumer.parked.answer.reply, given))
                consumer.parked = None
            for _, group in consumer.sources:
                self._waiting[group].pop(session, None)
            self._return(consumer, list(consumer.pending), turn)
            for topic, group in consumer.sources:
                topic.leave(consumer.group, session, monotonic())
                self._after_leaving(topic, consumer.group, group, turn)
        for ended in (producer, consumer):
            if ended is not None and ended.attendance is not None:
                turn.append(ended.attendance.reply)

    def _after_leaving(self, topic: Topic, name: str, group: Group, turn: Turn) -> None:
        if topic.groups.get(name) is not group:
            self._waiting.pop(group, None)
            self._admit(topic, turn)
        self._hand_out(topic, turn)

    def _forget_marks(self, topic: Topic, group: Group) -> None:
        for consumer in self._consumers.values():
            for source, (_, its_group) in enumerate(consumer.sources):
                if its_group is group:
                    for mark in [mark for mark in consumer.pending if mark[0] == source]:
                        del consumer.pending[mark]

    def _facts(self, topic: Topic) -> dict[str, Any]:
        return {
            "items": topic.live_items,
            "bytes": topic.live_bytes,
            "history_bytes": topic.history_bytes,
            "oldest": topic.base,
            "end": topic.end,
            "closed": topic.closed,
            "producers": len(topic.open_producers),
            "blocked": len(self._blocked[topic.name]),
            "groups": {
                name: {
                    "members": len(group.members),
                    "waiting": len(self._waiting[group]),
                    "pending": len(group.pending),
                    "behind": topic.end - group.floor,
                }
                for name, group in topic.groups.items()
            },
        }

    # Deadlines.

    def _watch(self) -> None:
        while not self._closed.wait(TICK):
            try:
                with self._turn() as turn:
                    self._look(monotonic(), turn)
            except Exception:
                logger.exception("a broker could not look after its sessions")

    def _look(self, now: float, turn: Turn) -> None:
        sessions: list[Session] = [*self._producers.values(), *self._consumers.values()]
        for session in sessions:
            if session.lost(now):
                logger.info("a session of the broker was lost, or never attended")
                self._drop(session.name, turn)
        for consumer in list(self._consumers.values()):
            self._return(consumer, consumer.overdue(now), turn)
            parked = consumer.parked
            if parked is not None and parked.deadline <= now:
                consumer.parked = None
                given = pack_given(consumer.batch, frames.NOTHING, [])
                turn.append(partial(parked.answer.reply, given))
        for name, blocked in self._blocked.items():
            topic = self._topics[name]
            for publish in [each for each in blocked if each.deadline <= now]:
                blocked.remove(publish)
                turn.append(partial(publish.answer.fail, _full(topic, publish.timeout)))
                self._admit(topic, turn)
        for topic in self._topics.values():
            for group_name, group in list(topic.groups.items()):
                idle = math.inf if group.idle_since is None else group.idle_since
                if now > idle + self._group_timeout:
                    topic.forget(group_name)
                    self._after_leaving(topic, group_name, group, turn)


def _unknown() -> StreamError:
    return StreamError(
        "the broker knows of no such session: it was closed, or given up because its connection "
        "was lost; make a new publisher or subscriber"
    )


def _closed(topic: Topic) -> TopicClosedError:
    return TopicClosedError(
        f"the topic {topic.name!r} is closed: all of its producers have ended. Use another name, "
        "or producers= to wait for more of them",
        topic=topic.name,
    )


def _full(topic: Topic, timeout: float) -> TopicFullError:
    return TopicFullError(
        f"the topic {topic.name!r} is full ({topic.live_items} items, {topic.live_bytes} bytes), "
        f"and no consumer made room within {timeout} s. Nothing was lost: send again, or add "
        "consumers, wait longer (timeout=), or give the broker more max_items= and max_bytes=",
        topic=topic.name,
        items=topic.live_items,
        nbytes=topic.live_bytes,
        timeout=timeout,
    )
