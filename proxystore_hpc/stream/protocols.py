"""What publishers, subscribers and filters of streams have to have; no base class is needed.

Publishers and subscribers come in two kinds. Those of *messages* move bytes, which the stream makes
of its events: enough for most brokers. Those of *events* are handed the events themselves, and may
do better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from proxystore_hpc.stream.events import EventBatch

SelfT = TypeVar("SelfT")

__all__ = [
    "EventPublisher",
    "EventSubscriber",
    "Filter",
    "MessagePublisher",
    "MessageSubscriber",
    "Publisher",
    "Subscriber",
]


@runtime_checkable
class EventPublisher(Protocol):
    """Publishes events."""

    def close(self) -> None:
        """Sends what is under way, then ends."""

    def send_events(self, events: EventBatch) -> None:
        """Publishes events of one topic, all or none of them.

        Args:
            events: The events, in order.
        """


@runtime_checkable
class EventSubscriber(Protocol):
    """An iterator over batches of events, until the stream ends."""

    def __iter__(self: SelfT) -> SelfT: ...

    def __next__(self) -> EventBatch: ...

    def close(self) -> None:
        """Ends the subscription."""

    def next_events(self) -> EventBatch:
        """The next batch; waits for it.

        Raises:
            StopIteration: The stream has ended.
        """


@runtime_checkable
class MessagePublisher(Protocol):
    """Publishes messages."""

    def close(self) -> None:
        """Sends what is under way, then ends."""

    def send_message(self, topic: str, message: bytes) -> None:
        """Publishes a message.

        Args:
            topic: Its topic.
            message: Its bytes.
        """


@runtime_checkable
class MessageSubscriber(Protocol):
    """An iterator over messages, until the stream ends."""

    def __iter__(self: SelfT) -> SelfT: ...

    def __next__(self) -> bytes: ...

    def close(self) -> None:
        """Ends the subscription."""

    def next_message(self) -> bytes:
        """The next message; waits for it.

        Raises:
            StopIteration: The stream has ended.
        """


class Filter(Protocol):
    """Says which items not to send, or not to hand out."""

    def __call__(self, metadata: dict[str, Any]) -> bool:
        """Whether to drop the item of this metadata."""


Publisher = EventPublisher | MessagePublisher
Subscriber = EventSubscriber | MessageSubscriber
