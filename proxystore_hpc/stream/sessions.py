"""What a broker knows of each producer and consumer."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from proxystore_hpc.rpc import LaterAnswer
from proxystore_hpc.stream.frames import Fetch, Item, Mark
from proxystore_hpc.stream.topics import Group, Topic

FIRST_SIGN = 10.0
"""Seconds in which a new session has to attend."""


class Session:
    """A producer or consumer.

    It *attends*: a call that is not answered before it leaves tells, by its end, that it is gone.
    """

    def __init__(self, name: bytes, now: float) -> None:
        self.name = name
        self.attendance: LaterAnswer | None = None
        self.since = now

    def lost(self, now: float) -> bool:
        """Whether its process has ended, as far as one can know."""
        if self.attendance is None:
            return now > self.since + FIRST_SIGN
        return self.attendance.cancelled


class Producer(Session):
    """A producer, with the topics that it sends to, in the order of their numbers."""

    def __init__(self, name: bytes, now: float) -> None:
        super().__init__(name, now)
        self.topics: list[Topic] = []


@dataclasses.dataclass
class ParkedPublish:
    """Messages that wait for room."""

    answer: LaterAnswer
    session: bytes
    messages: list[bytes]
    nbytes: int
    timeout: float
    deadline: float


@dataclasses.dataclass
class ParkedFetch:
    """A consumer that waits for items."""

    answer: LaterAnswer
    ask: Fetch
    deadline: float


class Source(NamedTuple):
    """A topic of a subscription, and the group there."""

    topic: Topic
    group: Group


class Consumer(Session):
    """A consumer.

    Args:
        name: Its session.
        now: The time.
        group: Name of its group in all of its topics.
        ack_timeout: Seconds in which it has to acknowledge an item.
    """

    def __init__(self, name: bytes, now: float, group: str, ack_timeout: float) -> None:
        super().__init__(name, now)
        self.group = group
        self.ack_timeout = ack_timeout
        self.sources: list[Source] = []
        self.parked: ParkedFetch | None = None
        self.batch = 0
        # Deadlines in the order in which items were handed out, which is that of the deadlines.
        self.pending: dict[Mark, float] = {}
        self._last: list[Mark] = []
        self._turn = 0

    def take(self, items: int, nbytes: int, now: float) -> list[Item]:
        """Hands out what is there: at most so many items and, but for the first, bytes."""
        taken: list[Item] = []
        room = nbytes
        count = len(self.sources)
        # Another topic begins each time, so that a busy one does not starve the others.
        self._turn += 1
        for number in range(count):
            source = (self._turn + number) % count
            topic, group = self.sources[source]
            while len(taken) < items and group.available(topic.end):
                offset = group.take(topic.end, self.name)
                message = topic.message(offset)
                if taken and len(message) > room:
                    group.give_back(offset, self.name, seen=False)
                    break
                room -= len(message)
                taken.append(Item(source, offset, offset in group.again, message))
        if taken:
            self.batch += 1
            self._last = [(item.source, item.offset) for item in taken]
            for mark in self._last:
                self.pending[mark] = now + self.ack_timeout
        return taken

    def unreceived(self, batch: int) -> list[Mark]:
        """What it was sent and did not get, if `batch` was the last that came there."""
        if batch >= self.batch:
            return []
        return [mark for mark in self._last if mark in self.pending]

    def overdue(self, now: float) -> list[Mark]:
        """What it had too long."""
        found = []
        for mark, deadline in self.pending.items():
            if deadline > now:
                break
            found.append(mark)
        return found

    def ended(self) -> bool:
        """Whether nothing can come any more."""
        return all(
            topic.closed and group.finished(topic.end, self.name) for topic, group in self.sources
        )
