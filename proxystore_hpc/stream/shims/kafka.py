"""Streams through Kafka, by the library confluent-kafka."""

from __future__ import annotations

from typing import Any

from proxystore_hpc.exceptions import OperationTimeoutError
from proxystore_hpc.utils.optional import import_optional

__all__ = ["KafkaPublisher", "KafkaSubscriber"]

_WAIT = 1.0
FLUSH_TIMEOUT = 60.0


class KafkaPublisher:
    """Publishes to Kafka. Thread-safe.

    Args:
        client: A `confluent_kafka.Producer`.
        flush: Wait for the delivery of each message. Otherwise `close` does, and a failed delivery
            is raised by the next `send_message` or by `close`.
    """

    def __init__(self, client: Any, *, flush: bool = True) -> None:
        self._kafka = import_optional("confluent_kafka", extra="kafka", purpose="a shim over Kafka")
        self.client = client
        self._flush = flush
        self._failed: list[Any] = []

    def close(self) -> None:
        """Delivers what is under way; raises as `send_message`."""
        self._deliver()

    def send_message(self, topic: str, message: bytes) -> None:
        """Publishes a message.

        Raises:
            confluent_kafka.KafkaException: It, or one before it, could not be delivered.
            BufferError: The library's queue is full.
            OperationTimeoutError: It was not delivered within a minute; it stays in the queue.
        """
        self._raise()
        self.client.produce(topic, message, on_delivery=self._delivered)
        if self._flush:
            self._deliver()
        else:
            self.client.poll(0)

    def _deliver(self) -> None:
        left = self.client.flush(FLUSH_TIMEOUT)
        self._raise()
        if left:
            raise OperationTimeoutError(
                f"Kafka did not take {left} messages within {FLUSH_TIMEOUT} s; is its broker up?",
                timeout=FLUSH_TIMEOUT,
            )

    def _delivered(self, error: Any, _: Any) -> None:
        if error is not None:
            self._failed.append(error)

    def _raise(self) -> None:
        if self._failed:
            failed, self._failed = self._failed, []
            raise self._kafka.KafkaException(failed[0])


class KafkaSubscriber:
    """Takes messages from Kafka.

    Args:
        client: A `confluent_kafka.Consumer` that has subscribed to its topics.
    """

    def __init__(self, client: Any) -> None:
        self._kafka = import_optional("confluent_kafka", extra="kafka", purpose="a shim over Kafka")
        self.client = client

    def __iter__(self) -> KafkaSubscriber:
        return self

    def __next__(self) -> bytes:
        return self.next_message()

    def next_message(self) -> bytes:
        """The next message; waits for it.

        Raises:
            confluent_kafka.KafkaException: As the library.
        """
        while True:
            message = self.client.poll(_WAIT)
            if message is None:
                continue
            if message.error() is not None:
                raise self._kafka.KafkaException(message.error())
            data: bytes = message.value()
            return data

    def close(self) -> None:
        """Leaves the consumer group."""
        self.client.close()
