"""Streams of objects: a broker carries events, stores carry the objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxystore_hpc.stream._consumer import StreamConsumer
from proxystore_hpc.stream._producer import StreamProducer
from proxystore_hpc.stream.exceptions import (
    OffsetGoneError,
    StreamError,
    TopicClosedError,
    TopicFullError,
)

if TYPE_CHECKING:
    from proxystore_hpc.stream.broker import Broker as Broker
    from proxystore_hpc.stream.publisher import BrokerPublisher as BrokerPublisher
    from proxystore_hpc.stream.subscriber import BrokerSubscriber as BrokerSubscriber
    from proxystore_hpc.stream.subscriber import Position as Position

# They need the RPC layer, which streams over other brokers do without.
_HOMES = {
    "Broker": "broker",
    "BrokerPublisher": "publisher",
    "BrokerSubscriber": "subscriber",
    "Position": "subscriber",
}

__all__ = [
    "Broker",
    "BrokerPublisher",
    "BrokerSubscriber",
    "OffsetGoneError",
    "Position",
    "StreamConsumer",
    "StreamError",
    "StreamProducer",
    "TopicClosedError",
    "TopicFullError",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
