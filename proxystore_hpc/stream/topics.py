"""The log of a topic, and how far each group of consumers has come. No threads, no messages.

An item is *settled* once every group has acknowledged it. What is settled is history: kept for
replay as far as there is room for it, and not counted against the topic's limits. The first group
to come begins with the oldest item, so nothing is lost that was sent before it.
"""

from __future__ import annotations

import dataclasses
import heapq
from typing import Literal

from proxystore_hpc.exceptions import OffsetGoneError

Start = int | Literal["earliest", "latest"]


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a topic may hold.

    Attributes:
        items: Most items that are not settled.
        nbytes: Most bytes of their messages.
        history: Most bytes of messages of settled items.
    """

    items: int
    nbytes: int
    history: int


class Group:
    """Consumers that share a topic: each item goes to one of them.

    Args:
        start: Offset to begin at.
        lasting: Keep it for a while when its last member has left.
    """

    def __init__(self, start: int, *, lasting: bool) -> None:
        self.lasting = lasting
        self.members: set[bytes] = set()
        self.idle_since: float | None = None
        self.begin(start)

    def begin(self, offset: int) -> None:
        """Goes on from an offset, whatever was handed out or acknowledged."""
        self.next = self.floor = offset  # below `floor`, all is acknowledged
        self.pending: dict[int, bytes] = {}  # who works on it
        self.returned: list[int] = []  # a heap
        self.again: set[int] = set()  # was handed out before, and may have been worked off
        self._done: set[int] = set()

    def available(self, end: int) -> bool:
        """Whether there is something to hand out."""
        return bool(self.returned) or self.next < end

    def take(self, end: int, session: bytes) -> int:
        """The offset of an item for a consumer; only if one is available."""
        if self.returned:
            offset = heapq.heappop(self.returned)
        else:
            offset = self.next
            self.next += 1
        self.pending[offset] = session
        return offset

    def give_back(self, offset: int, session: bytes, *, seen: bool = True) -> bool:
        """Has an item handed out anew, unless that or an acknowledgement came before."""
        if self.pending.get(offset) != session:
            return False
        del self.pending[offset]
        heapq.heappush(self.returned, offset)
        if seen:
            self.again.add(offset)
        return True

    def acknowledge(self, offset: int, session: bytes) -> bool:
        """Notes that an item was worked off; whether `floor` rose.

        Who was too slow is believed as long as nobody else works on it.
        """
        if self.pending.get(offset) == session:
            del self.pending[offset]
        elif offset in self.returned:
            self.returned.remove(offset)
            heapq.heapify(self.returned)
        else:
            return False
        self.again.discard(offset)
        self._done.add(offset)
        before = self.floor
        while self.floor in self._done:
            self._done.discard(self.floor)
            self.floor += 1
        return self.floor > before

    def finished(self, end: int, session: bytes) -> bool:
        """Whether nothing can come any more for a consumer: what others hold may come back."""
        if self.available(end):
            return False
        return not self.pending or all(holder == session for holder in self.pending.values())


class Topic:
    """The log of one topic.

    Args:
        name: Its name.
        limits: What it may hold.
    """

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.base = self.settled = self.end = 0
        self.live_bytes = self.history_bytes = 0
        self.closed = False
        self.groups: dict[str, Group] = {}
        self.open_producers: set[bytes] = set()
        self.finished_producers = 0
        self.expected_producers: float = 1
        self._messages: dict[int, bytes] = {}

    @property
    def live_items(self) -> int:
        """Items that are not settled."""
        return self.end - self.settled

    def has_room(self, items: int, nbytes: int) -> bool:
        """Whether so many more may be appended now."""
        return (
            self.live_items + items <= self.limits.items
            and self.live_bytes + nbytes <= self.limits.nbytes
        )

    def append(self, messages: list[bytes]) -> int:
        """Adds items; the offset of the first."""
        first = self.end
        for message in messages:
            self._messages[self.end] = message
            self.end += 1
            self.live_bytes += len(message)
        return first

    def message(self, offset: int) -> bytes:
        """The message of an item that it holds."""
        return self._messages[offset]

    def group(self, name: str, start: Start, *, lasting: bool) -> Group:
        """A group, begun at `start` if there was none.

        Raises:
            OffsetGoneError: It would begin with an item that is not there.
        """
        group = self.groups.get(name)
        if group is None:
            group = Group(self.offset_of(start), lasting=lasting)
            self.groups[name] = group
            self.settle()
        return group

    def seek(self, name: str, start: Start) -> None:
        """Moves a group.

        Raises:
            OffsetGoneError: There is no such item.
        """
        self.groups[name].begin(self.offset_of(start))
        self.settle()

    def offset_of(self, start: Start) -> int:
        """The offset that is meant.

        Raises:
            OffsetGoneError: There is no such item.
        """
        if start == "earliest":
            # History is for those who ask for it.
            return self.settled
        if start == "latest":
            return self.end
        if not self.base <= start <= self.end:
            raise OffsetGoneError(
                f"the topic {self.name!r} holds the offsets {self.base} to {self.end}, not "
                f"{start}; give its broker more history= to replay from further back",
                topic=self.name,
                oldest=self.base,
                end=self.end,
            )
        return start

    def settle(self) -> bool:
        """Finds out what is settled, after groups have moved; whether that made room."""
        if not self.groups:
            return False
        before = self.settled
        settled = min(group.floor for group in self.groups.values())
        self._move(settled)
        while self.base < self.settled and self.history_bytes > self.limits.history:
            self.history_bytes -= len(self._messages.pop(self.base))
            self.base += 1
        return self.settled > before

    def _move(self, settled: int) -> None:
        low, high = sorted((self.settled, settled))
        moved = sum(len(self._messages[offset]) for offset in range(low, high))
        if settled < self.settled:
            moved = -moved
        self.live_bytes -= moved
        self.history_bytes += moved
        self.settled = settled

    def leave(self, name: str, session: bytes, now: float) -> None:
        """A consumer leaves its group."""
        group = self.groups.get(name)
        if group is None:
            return
        group.members.discard(session)
        if not group.members:
            group.idle_since = now
            if not group.lasting:
                self.forget(name)

    def forget(self, name: str) -> None:
        """Drops a group; it does not hold items back any more."""
        group = self.groups.pop(name, None)
        if group is not None and self.groups:
            self.settle()

    def produce(self, session: bytes, expected: float) -> None:
        """A producer begins; `expected` of them have to end before the topic does."""
        self.open_producers.add(session)
        self.expected_producers = max(self.expected_producers, expected)

    def finish(self, session: bytes, *, ends: bool) -> bool:
        """A producer ends; whether that closes the topic.

        Args:
            session: The producer.
            ends: It closes the topic whoever else produces.
        """
        if session not in self.open_producers:
            return False
        self.open_producers.discard(session)
        self.finished_producers += 1
        enough = self.finished_producers >= self.expected_producers
        if ends or (enough and not self.open_producers):
            self.closed = True
        return self.closed
