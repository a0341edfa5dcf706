"""Producers and consumers over brokers of this process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from proxystore_hpc import Engine, Store
from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    ObjectMissingError,
    OperationTimeoutError,
    StreamError,
    TopicClosedError,
    TopicFullError,
)
from proxystore_hpc.proxy import Proxy, is_resolved
from proxystore_hpc.stream import (
    Broker,
    BrokerPublisher,
    BrokerSubscriber,
    StreamConsumer,
    StreamProducer,
)
from proxystore_hpc.stream.events import EventBatch, bytes_to_event
from proxystore_hpc.stream.filters import NullFilter, SamplingFilter
from proxystore_hpc.stream.protocols import (
    EventPublisher,
    EventSubscriber,
    MessagePublisher,
    MessageSubscriber,
)
from proxystore_hpc.stream.shims.queue import QueuePublisher, QueueSubscriber

Pair = Callable[[], tuple[Any, Any]]


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[Engine, Engine]]:
    with (
        Engine("shm", capacity="32MiB") as server,
        Engine("shm", capacity="32MiB") as client,
    ):
        yield server, client


@pytest.fixture
def there(engines: tuple[Engine, Engine]) -> Iterator[Any]:
    server, client = engines
    broker = Broker(server)
    yield client.lookup(server.address)
    broker.close()


@pytest.fixture(params=["queue", "broker"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """Makes a publisher and a subscriber of the topic "t"."""
    if request.param == "broker":
        there = request.getfixturevalue("there")
        return lambda: (BrokerPublisher(there), BrokerSubscriber(there, "t", timeout=10))

    def over_queue() -> tuple[Any, Any]:
        shared: queue.Queue[bytes] = queue.Queue()
        return QueuePublisher({"t": shared}), QueueSubscriber(shared, timeout=10)

    return over_queue


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with Store("streams", register=True, capacity="32MiB", doors=("shm",)) as store:
        yield store


def objects(store: Store) -> int:
    return store.stats()["objects"]


def test_they_follow_the_protocols(there: Any) -> None:
    assert isinstance(BrokerPublisher(there), EventPublisher)
    assert isinstance(QueuePublisher({}), MessagePublisher)
    assert not isinstance(QueuePublisher({}), EventPublisher)
    assert isinstance(QueueSubscriber(queue.Queue()), MessageSubscriber)
    with BrokerSubscriber(there, "t") as subscriber:
        assert isinstance(subscriber, EventSubscriber)
    with pytest.raises(InvalidArgumentError, match="publisher"):
        StreamProducer(object())  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="subscriber"):
        StreamConsumer(object())  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_objects_without_a_store(pair: Pair, batch_size: int) -> None:
    publisher, subscriber = pair()
    with StreamProducer[Any](publisher, batch_size=batch_size) as producer:
        for i in range(10):
            producer.send("t", [i], metadata={"i": i} if i % 2 else None)
        producer.close_topics("t")
        with pytest.raises(TopicClosedError):
            producer.send("t", 11)
    with StreamConsumer[Any](subscriber) as consumer:
        assert consumer.next() == [0]
        assert consumer.next_with_metadata() == ({"i": 1}, [1])
        assert consumer.next_object_with_metadata() == ({}, [2])
        assert list(consumer.iter_objects()) == [[i] for i in range(3, 10)]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_objects_in_a_store_are_evicted_when_they_were_used(
    pair: Pair, store: Store, batch_size: int
) -> None:
    publisher, subscriber = pair()
    with StreamProducer[Any](publisher, default_store=store, batch_size=batch_size) as producer:
        for i in range(6):
            producer.send("t", np.full(100, i), metadata={"i": i})
        producer.close_topics("t")
    with StreamConsumer[Any](subscriber) as consumer:
        for expected, (metadata, array) in enumerate(consumer.iter_objects_with_metadata()):
            assert metadata == {"i": expected}
            assert (array == expected).all()
    assert objects(store) == 0


def test_proxies_resolve_once_and_evict_then(pair: Pair, store: Store) -> None:
    publisher, subscriber = pair()
    with StreamProducer[Any](publisher, stores={"t": store}) as producer:
        producer.send("t", {"a": 1})
        producer.send("t", {"b": 2}, evict=False)
        producer.close_topics("t")
    with StreamConsumer[Any](subscriber) as consumer:
        first, second = list(consumer)
    assert issubclass(type(first), Proxy)
    assert not is_resolved(first)
    assert first == {"a": 1}
    assert second == {"b": 2}
    assert objects(store) == 1
    store.evict_batch([second.__proxy_factory__.key])


def test_filters_of_both_sides(pair: Pair, store: Store) -> None:
    publisher, subscriber = pair()
    with StreamProducer[int](
        publisher, filter_=lambda metadata: metadata["i"] == 1, default_store=store
    ) as producer:
        for i in range(4):
            producer.send("t", i, metadata={"i": i})
        producer.close_topics("t")
    with StreamConsumer[int](subscriber, filter_=lambda metadata: metadata["i"] == 2) as consumer:
        assert list(consumer.iter_objects()) == [0, 3]
    assert objects(store) == 0


def test_an_aggregator_makes_one_of_a_batch(pair: Pair) -> None:
    publisher, subscriber = pair()
    with StreamProducer[int](publisher, aggregator=sum, batch_size=3) as producer:
        for i in range(7):
            producer.send("t", i, metadata={"last": i, i: True})
        producer.close_topics("t")
    with StreamConsumer[int](subscriber) as consumer:
        assert list(consumer.iter_with_metadata()) == [
            ({"last": 2, 0: True, 1: True, 2: True}, 3),
            ({"last": 5, 3: True, 4: True, 5: True}, 12),
            ({"last": 6, 6: True}, 6),
        ]


def test_closing_sends_what_waits(pair: Pair) -> None:
    publisher, subscriber = pair()
    producer = StreamProducer[int](publisher, batch_size=10)
    producer.send("t", 1)
    producer.close(topics=["t"])
    assert list(StreamConsumer[int](subscriber).iter_objects()) == [1]
    subscriber.close()


def test_an_object_that_was_evicted_is_missed(store: Store) -> None:
    shared: queue.Queue[bytes] = queue.Queue()
    with StreamProducer[Any](QueuePublisher({"t": shared}), default_store=store) as producer:
        producer.send("t", "gone")
    event: Any = bytes_to_event(shared.queue[0])
    store.evict(event.events[0].get_key())
    consumer = StreamConsumer[Any](QueueSubscriber(shared))
    with pytest.raises(ObjectMissingError, match="evict=False"):
        consumer.next_object()


class Failing:
    """A publisher that fails now and then."""

    def __init__(self) -> None:
        self.sent: list[EventBatch] = []
        self.fails = False

    def send_events(self, events: EventBatch) -> None:
        if self.fails:
            raise OSError("the broker is down")
        self.sent.append(events)

    def close(self) -> None:
        pass


def test_a_failed_send_leaves_nothing_behind(store: Store) -> None:
    publisher = Failing()
    producer = StreamProducer[str](publisher, default_store=store, batch_size=2)
    producer.send("t", "first")
    publisher.fails = True
    with pytest.raises(OSError, match="down"):
        producer.send("t", "second")
    assert objects(store) == 0
    publisher.fails = False
    producer.send("t", "second again")
    assert len(publisher.sent[0].events) == 2
    keys = [event.get_key() for event in publisher.sent[0].events]  # type: ignore[union-attr]
    assert store.get_batch(keys) == ["first", "second again"]
    store.evict_batch(keys)


def test_threads_share_a_producer_and_a_consumer(pair: Pair) -> None:
    publisher, subscriber = pair()
    producer, consumer = StreamProducer[Any](publisher), StreamConsumer[Any](subscriber)
    got: list[Any] = []

    def send(thread: int) -> None:
        for i in range(50):
            producer.send("t", (thread, i))

    def receive() -> None:
        for _ in range(50):
            got.append(consumer.next_object())

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    threads += [threading.Thread(target=receive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [(n, i) for n in range(4) for i in range(50)]
    producer.close()
    consumer.close()


def test_queues_say_what_is_wrong() -> None:
    small: queue.Queue[bytes] = queue.Queue(1)
    publisher = QueuePublisher({"t": small}, timeout=0.01)
    publisher.send_message("t", b"1")
    with pytest.raises(TopicFullError):
        publisher.send_message("t", b"2")
    with pytest.raises(InvalidArgumentError, match="'u'"):
        publisher.send_message("u", b"1")
    subscriber = QueueSubscriber(small, block=False)
    assert subscriber.next_message() == b"1"
    with pytest.raises(OperationTimeoutError):
        next(subscriber)


def test_filters() -> None:
    assert not NullFilter()({})
    assert all(SamplingFilter(1)({}) for _ in range(100))
    assert not any(SamplingFilter(0)({}) for _ in range(100))
    dropped = sum(SamplingFilter(0.5)({}) for _ in range(2000))
    assert 700 < dropped < 1300
    with pytest.raises(InvalidArgumentError):
        SamplingFilter(1.5)


def test_a_closed_publisher_sends_nothing(there: Any) -> None:
    publisher = BrokerPublisher(there)
    publisher.close()
    publisher.close()
    with pytest.raises(StreamError, match="closed"):
        publisher.send_message("t", b"1")
