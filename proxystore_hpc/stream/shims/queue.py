"""Streams through Python's queues: between threads, or a process and its children."""

from __future__ import annotations

import multiprocessing.queues
import queue
from collections.abc import Mapping
from typing import Any, Union

from proxystore_hpc.exceptions import InvalidArgumentError, OperationTimeoutError, TopicFullError

__all__ = ["QueuePublisher", "QueueSubscriber"]

AnyQueue = Union["multiprocessing.queues.Queue[bytes]", "queue.Queue[bytes]"]


class QueuePublisher:
    """Puts messages into queues. Thread-safe.

    Args:
        queues: The queue of each topic; each item goes to one of those who read it.
        block: Wait for room in a queue that is full.
        timeout: Seconds to wait, `None`: for ever.
    """

    def __init__(
        self, queues: Mapping[str, AnyQueue], *, block: bool = True, timeout: float | None = None
    ) -> None:
        self._queues = queues
        self._block = block
        self._timeout = timeout

    def close(self) -> None:
        """Puts nothing more into queues between processes; what is in them arrives."""
        for each in self._queues.values():
            if isinstance(each, multiprocessing.queues.Queue):
                each.close()

    def send_message(self, topic: str, message: bytes) -> None:
        """Publishes a message.

        Raises:
            InvalidArgumentError: There is no queue for the topic.
            TopicFullError: There was no room in time.
        """
        target: Any = self._queues.get(topic)
        if target is None:
            raise InvalidArgumentError(
                f"there is no queue for the topic {topic!r}; there are {sorted(self._queues)}"
            )
        try:
            target.put(message, self._block, self._timeout)
        except queue.Full:
            raise TopicFullError(
                f"the queue of {topic!r} is full: consume it, wait longer (timeout=), or make it "
                "larger",
                topic=topic,
                timeout=self._timeout if self._block else 0.0,
            ) from None


class QueueSubscriber:
    """Takes messages from a queue. Thread-safe.

    Args:
        queue: The queue.
        block: Wait for messages.
        timeout: Seconds to wait, `None`: for ever.
    """

    def __init__(
        self, queue: AnyQueue, *, block: bool = True, timeout: float | None = None
    ) -> None:
        self._queue: Any = queue
        self._block = block
        self._timeout = timeout

    def __iter__(self) -> QueueSubscriber:
        return self

    def __next__(self) -> bytes:
        return self.next_message()

    def next_message(self) -> bytes:
        """The next message.

        Raises:
            StopIteration: The queue was closed in this process.
            OperationTimeoutError: None came in time.
        """
        try:
            message: bytes = self._queue.get(self._block, self._timeout)
        except (ValueError, OSError):
            raise StopIteration from None
        except queue.Empty:
            waited = self._timeout if self._block else 0.0
            raise OperationTimeoutError(
                f"no message came within {waited} s", timeout=waited
            ) from None
        return message

    def close(self) -> None:
        """Does nothing: the queue is its maker's."""
