"""Streams through ZeroMQ, without a broker: subscribers connect to the publisher."""

from __future__ import annotations

import threading
from typing import Any

from proxystore_hpc.utils.optional import import_optional

__all__ = ["ZeroMQPublisher", "ZeroMQSubscriber"]


def _zmq() -> Any:
    return import_optional("zmq", extra="zmq", purpose="a shim over ZeroMQ")


class ZeroMQPublisher:
    """Publishes to all who are connected at that moment. Thread-safe.

    ZeroMQ drops messages to subscribers that are slower than their queue of `SNDHWM` messages.

    Args:
        address: Address to bind to, `"127.0.0.1"` or one of this machine's.
        port: Port to bind to; 0 for any that is free, see `port`.
    """

    def __init__(self, address: str, port: int) -> None:
        zmq = _zmq()
        self._lock = threading.Lock()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        try:
            if port:
                self._socket.bind(f"tcp://{address}:{port}")
                self.port = port
            else:
                self.port = self._socket.bind_to_random_port(f"tcp://{address}")
        except BaseException:
            self._context.destroy()
            raise

    def close(self) -> None:
        """Ends it, when what was published is on its way; at most after a second."""
        with self._lock:
            self._context.destroy(linger=1000)

    def send_message(self, topic: str, message: bytes) -> None:
        """Publishes a message.

        Raises:
            zmq.ZMQError: As the library.
        """
        with self._lock:
            self._socket.send_multipart((topic.encode(), message))


class ZeroMQSubscriber:
    """Listens to a publisher, from the moment on when the connection stands. Thread-safe.

    Args:
        address: Address of the publisher.
        port: Its port.
        topic: Beginning of the topics to hear of; all by default.
    """

    def __init__(self, address: str, port: int, *, topic: str = "") -> None:
        zmq = _zmq()
        self._lock = threading.Lock()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        # Before it connects, or the first messages pass by.
        self._socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
        self._socket.connect(f"tcp://{address}:{port}")

    def __iter__(self) -> ZeroMQSubscriber:
        return self

    def __next__(self) -> bytes:
        return self.next_message()

    def next_message(self) -> bytes:
        """The next message; waits for it without the GIL.

        Raises:
            zmq.ZMQError: As the library.
        """
        with self._lock:
            _, message = self._socket.recv_multipart()
        data: bytes = message
        return data

    def close(self) -> None:
        """Ends it; no thread may be waiting for a message."""
        self._context.destroy(linger=0)
