"""Streams through Redis: published to all who listen, or queued for one of them.

Arguments that are not named go to `redis.Redis`: `password=`, `ssl=True`, `unix_socket_path=`.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

from proxystore_hpc.exceptions import OperationTimeoutError
from proxystore_hpc.utils.optional import import_optional

__all__ = ["RedisPublisher", "RedisQueuePublisher", "RedisQueueSubscriber", "RedisSubscriber"]

_WAIT = 1.0
"""Seconds of one request; the next follows, so that signals and `close` are seen."""


def _client(hostname: str, port: int, options: dict[str, Any]) -> Any:
    return import_optional("redis", extra="redis", purpose="a shim over Redis").Redis(
        host=hostname, port=port, **options
    )


class RedisPublisher:
    """Publishes to all who listen at that moment; who comes later gets nothing. Thread-safe.

    Args:
        hostname: Host of the server.
        port: Its port.
        kwargs: As for `redis.Redis`.
    """

    def __init__(self, hostname: str, port: int, **kwargs: Any) -> None:
        self._client = _client(hostname, port, kwargs)

    def close(self) -> None:
        """Ends its connections."""
        self._client.close()

    def send_message(self, topic: str, message: bytes) -> None:
        """Publishes a message.

        Raises:
            redis.RedisError: As the library.
        """
        self._client.publish(topic, message)


class RedisSubscriber:
    """Listens to all that is published from now on. For one thread at a time.

    Args:
        hostname: Host of the server.
        port: Its port.
        topic: A topic, or several.
        kwargs: As for `redis.Redis`.
    """

    def __init__(self, hostname: str, port: int, topic: str | Sequence[str], **kwargs: Any) -> None:
        self._client = _client(hostname, port, kwargs)
        self._channel = self._client.pubsub(ignore_subscribe_messages=True)
        self._channel.subscribe(*([topic] if isinstance(topic, str) else topic))
        # Confirmed, so that what is published after the constructor is not missed.
        self._channel.get_message(timeout=10.0)

    def __iter__(self) -> RedisSubscriber:
        return self

    def __next__(self) -> bytes:
        return self.next_message()

    def next_message(self) -> bytes:
        """The next message.

        Raises:
            StopIteration: It was closed.
            redis.RedisError: As the library.
        """
        while self._channel.subscribed:
            message = self._channel.get_message(timeout=_WAIT)
            if message is not None and message["type"] in ("message", "pmessage"):
                data: bytes = message["data"]
                return data
        raise StopIteration

    def close(self) -> None:
        """Ends the subscription."""
        self._channel.unsubscribe()
        self._channel.close()
        self._client.close()


class RedisQueuePublisher(RedisPublisher):
    """Appends to a list for each topic, where messages wait for a consumer. Thread-safe.

    Args:
        hostname: Host of the server.
        port: Its port.
        kwargs: As for `redis.Redis`.
    """

    def send_message(self, topic: str, message: bytes) -> None:
        """Appends a message.

        Raises:
            redis.RedisError: As the library.
        """
        self._client.rpush(topic, message)


class RedisQueueSubscriber:
    """Takes messages from the list of a topic; each goes to one who asks. Thread-safe.

    Args:
        hostname: Host of the server.
        port: Its port.
        topic: The topic.
        timeout: Seconds to wait for a message, `None`: for ever.
        kwargs: As for `redis.Redis`.
    """

    def __init__(
        self, hostname: str, port: int, topic: str, *, timeout: float | None = None, **kwargs: Any
    ) -> None:
        self._client = _client(hostname, port, kwargs)
        self._topic = topic
        self._timeout = timeout

    def __iter__(self) -> RedisQueueSubscriber:
        return self

    def __next__(self) -> bytes:
        return self.next_message()

    def next_message(self) -> bytes:
        """The next message.

        Raises:
            OperationTimeoutError: None came in time.
            redis.RedisError: As the library.
        """
        deadline = None if self._timeout is None else monotonic() + self._timeout
        while True:
            left = _WAIT if deadline is None else min(_WAIT, deadline - monotonic())
            if left <= 0:
                raise OperationTimeoutError(
                    f"no message came in {self._topic!r} within {self._timeout} s",
                    timeout=self._timeout,
                )
            found = self._client.blpop([self._topic], timeout=left)
            if found is not None:
                message: bytes = found[1]
                return message

    def close(self) -> None:
        """Ends its connections."""
        self._client.close()
