"""The broker's promises, with producers and consumers of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.procfs import thread_count, wait_until

from proxystore_hpc import Engine
from proxystore_hpc.exceptions import (
    EngineClosedError,
    InvalidArgumentError,
    OffsetGoneError,
    OperationTimeoutError,
    PeerError,
    SerializationError,
    StreamError,
    TopicClosedError,
    TopicFullError,
)
from proxystore_hpc.stream import Broker, BrokerPublisher, BrokerSubscriber, StreamConsumer
from proxystore_hpc.stream.events import EventBatch, NewObjectEvent
from proxystore_hpc.stream.frames import pack_fetch, unpack_given

MakeBroker = Callable[..., Any]


@pytest.fixture
def make_broker() -> Iterator[MakeBroker]:
    """Makes a broker; returns it as clients see it. `facts(there)` tells about its topic "t"."""
    engines: list[Engine] = []

    def make(**options: Any) -> Any:
        server, client = (Engine("shm", capacity="32MiB") for _ in range(2))
        engines.extend((client, server))
        Broker(server, **options)
        return client.lookup(server.address)

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def there(make_broker: MakeBroker) -> Any:
    return make_broker()


def facts(there: Any, topic: str = "t") -> Any:
    return Broker.handle(there).describe()[topic]


def take(subscriber: BrokerSubscriber, count: int) -> list[bytes]:
    return [subscriber.next_message() for _ in range(count)]


def rest(subscriber: BrokerSubscriber) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(subscriber.next_message())
        except StopIteration:
            return found


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % i for i in range(first, last)]


def send(publisher: BrokerPublisher, messages: list[bytes], topic: str = "t") -> None:
    for message in messages:
        publisher.send_message(topic, message)


def test_one_of_a_group_gets_an_item_and_all_groups_do(there: Any) -> None:
    got: dict[str, list[bytes]] = {"a": [], "b": []}
    subscribers = [(name, BrokerSubscriber(there, "t", group=name)) for name in "aab"]

    def consume(name: str, subscriber: BrokerSubscriber) -> None:
        got[name].extend(rest(subscriber))
        subscriber.close()

    threads = [threading.Thread(target=consume, args=each) for each in subscribers]
    for thread in threads:
        thread.start()
    with BrokerPublisher(there) as publisher:
        send(publisher, numbers(0, 300))
    for thread in threads:
        thread.join()
    assert got["b"] == numbers(0, 300)
    assert sorted(got["a"]) == sorted(numbers(0, 300))
    assert facts(there)["items"] == 0


def test_groups_without_a_name_see_everything_and_end_with_their_consumer(there: Any) -> None:
    one, other = (BrokerSubscriber(there, "t") for _ in range(2))
    with BrokerPublisher(there) as publisher:
        send(publisher, numbers(0, 5))
    assert rest(one) == rest(other) == numbers(0, 5)
    assert len(facts(there)["groups"]) == 2
    one.close()
    other.close()
    assert facts(there)["groups"] == {}


def test_a_full_topic_holds_its_producer_back(make_broker: MakeBroker) -> None:
    there = make_broker(max_items=10)
    publisher = BrokerPublisher(there, window=0, timeout=20)
    send(publisher, numbers(0, 10))
    sending = threading.Thread(target=send, args=(publisher, numbers(10, 30)))
    sending.start()
    wait_until(lambda: facts(there)["blocked"] == 1, "the producer waits")
    assert facts(there)["items"] == 10
    with BrokerSubscriber(there, "t", group="g", prefetch=3, timeout=10) as subscriber:
        assert take(subscriber, 30) == numbers(0, 30)
    sending.join()
    publisher.close()


@pytest.mark.parametrize("limits", [{"max_items": 4}, {"max_bytes": 40}])
def test_a_producer_that_gets_no_room_in_time_is_told(
    make_broker: MakeBroker, limits: dict[str, int]
) -> None:
    there = make_broker(**limits)
    publisher = BrokerPublisher(there, window=0, timeout=0.2)
    send(publisher, [b"0123456789"] * 4)
    with pytest.raises(TopicFullError, match="add consumers") as caught:
        publisher.send_message("t", b"too much")
    assert (caught.value.topic, caught.value.items, caught.value.timeout) == ("t", 4, 0.2)
    # It was not sent, and goes on when there is room.
    subscriber = BrokerSubscriber(there, "t", group="g", timeout=10)
    assert take(subscriber, 4) == [b"0123456789"] * 4
    subscriber.acknowledge()
    wait_until(lambda: facts(there)["items"] == 0, "there is room")
    publisher.send_message("t", b"again")
    assert take(subscriber, 1) == [b"again"]
    publisher.close()
    subscriber.close()


def test_what_was_buffered_is_sent_when_there_is_room(make_broker: MakeBroker) -> None:
    there = make_broker(max_items=5)
    publisher = BrokerPublisher(there, timeout=0.3)
    send(publisher, numbers(0, 20))  # returns: the window is wide
    with pytest.raises(TopicFullError):
        publisher.flush()
    with BrokerSubscriber(there, "t", timeout=10) as subscriber:
        got: list[bytes] = []
        consuming = threading.Thread(target=lambda: got.extend(take(subscriber, 20)))
        consuming.start()
        wait_until(lambda: not try_flush(publisher), "all is sent")
        consuming.join()
    assert got == numbers(0, 20)
    publisher.close()


def try_flush(publisher: BrokerPublisher) -> bool:
    """Whether the topic was full."""
    try:
        publisher.flush()
    except TopicFullError:
        return True
    return False


def test_a_message_that_never_fits_is_refused(make_broker: MakeBroker) -> None:
    publisher = BrokerPublisher(make_broker(max_bytes=100))
    with pytest.raises(InvalidArgumentError, match="max_bytes"):
        publisher.send_message("t", bytes(101))
    publisher.send_message("t", bytes(100))
    publisher.close()


def test_what_is_not_acknowledged_in_time_comes_again(there: Any) -> None:
    with BrokerPublisher(there) as publisher:
        send(publisher, numbers(0, 4))
    slow = BrokerSubscriber(there, "t", group="g", acknowledge="manual", ack_timeout=0.3)
    assert take(slow, 2) == numbers(0, 2)
    position = slow.position
    slow.acknowledge(position._replace(offset=0))
    with BrokerSubscriber(there, "t", group="g", timeout=10) as other:
        assert sorted(rest(other)) == numbers(1, 4)
    slow.close()
    assert facts(there)["items"] == 0


def test_redelivered_items_are_marked(there: Any) -> None:
    with BrokerPublisher(there) as publisher:
        publisher.send_events(EventBatch("t", [NewObjectEvent("t", i, {}) for i in range(2)]))
    first = BrokerSubscriber(there, "t", group="g")
    assert not first.next_events().redelivered
    first.release()
    with BrokerSubscriber(there, "t", group="g") as second:
        batches = list(second)
    assert [batch.redelivered for batch in batches] == [True, True]
    assert [batch.events[0].obj for batch in batches] == [0, 1]  # type: ignore[union-attr]
    first.close()


def test_an_exception_in_a_consumer_gives_its_item_back(there: Any) -> None:
    with BrokerPublisher(there) as publisher:
        publisher.send_events(EventBatch("t", [NewObjectEvent("t", i, {}) for i in range(3)]))
    consumer = StreamConsumer[int](BrokerSubscriber(there, "t", group="g"))
    with pytest.raises(RuntimeError), consumer:
        assert consumer.next_object() == 0
        assert consumer.next_object() == 1
        raise RuntimeError
    with StreamConsumer[int](BrokerSubscriber(there, "t", group="g")) as consumer:
        assert list(consumer.iter_objects()) == [1, 2]


def test_closing_acknowledges_what_was_taken_last(there: Any) -> None:
    with BrokerPublisher(there) as publisher:
        send(publisher, numbers(0, 3))
    with BrokerSubscriber(there, "t", group="g") as subscriber:
        assert take(subscriber, 2) == numbers(0, 2)
    with BrokerSubscriber(there, "t", group="g") as subscriber:
        assert rest(subscriber) == numbers(2, 3)


def test_slow_consumers_acknowledge_each_item(there: Any) -> None:
    with BrokerPublisher(there) as publisher:
        send(publisher, numbers(0, 3))
    with BrokerSubscriber(there, "t", group="g") as subscriber:
        take(subscriber, 1)
        before = subscriber._told
        wait_until(lambda: time.monotonic() > before + 0.06, "time passes")
        take(subscriber, 1)  # two more are at hand, so there is no request to ride on
        wait_until(lambda: facts(there)["groups"]["g"]["behind"] == 2, "the first is told")


def test_replay_from_an_offset(make_broker: MakeBroker) -> None:
    there = make_broker(history=50)
    with BrokerPublisher(there) as publisher:
        send(publisher, [b"%05d" % i for i in range(20)])
    with BrokerSubscriber(there, "t", group="g") as subscriber:
        assert len(rest(subscriber)) == 20
        assert facts(there)["oldest"] == 10
        subscriber.seek(15)
        assert rest(subscriber) == [b"%05d" % i for i in range(15, 20)]
        with pytest.raises(OffsetGoneError, match="10 to 20"):
            subscriber.seek(9)
    with BrokerSubscriber(there, "t", start=12) as subscriber:
        assert rest(subscriber) == [b"%05d" % i for i in range(12, 20)]
    with BrokerSubscriber(there, "t", start="latest") as subscriber:
        assert rest(subscriber) == []
    with pytest.raises(OffsetGoneError):
        BrokerSubscriber(there, "t", start=3)
    assert list(facts(there)["groups"]) == ["g"]


def test_a_topic_ends_when_all_its_producers_have(there: Any) -> None:
    publishers = [BrokerPublisher(there, producers=3) for _ in range(3)]
    subscriber = BrokerSubscriber(there, "t", timeout=10)
    for number, publisher in enumerate(publishers):
        send(publisher, numbers(number, number + 1))
        publisher.close_topics("t")
        assert facts(there)["closed"] == (number == 2)
        publisher.close()
    assert rest(subscriber) == numbers(0, 3)
    subscriber.close()
    late = BrokerPublisher(there)
    with pytest.raises(TopicClosedError, match="producers="):
        late.send_message("t", b"late")
    late.close()


def test_a_topic_can_be_left_open(there: Any) -> None:
    for _ in range(2):
        with BrokerPublisher(there, producers=None) as publisher:
            publisher.send_message("t", b"1")
    assert not facts(there)["closed"]
    with BrokerPublisher(there, producers=None) as publisher:
        publisher.send_message("t", b"1")
        publisher.close_topics("t")
        with pytest.raises(TopicClosedError):
            publisher.send_message("t", b"2")
    with BrokerSubscriber(there, "t") as subscriber:
        assert rest(subscriber) == [b"1"] * 3


def test_several_topics_in_one_subscription(there: Any) -> None:
    with BrokerSubscriber(there, ["t", "u"], timeout=10) as subscriber:
        with BrokerPublisher(there) as publisher:
            send(publisher, numbers(0, 3))
            assert take(subscriber, 3) == numbers(0, 3)
            send(publisher, numbers(3, 6), "u")
            assert take(subscriber, 3) == numbers(3, 6)
            assert subscriber.position == ("u", 2)
        assert rest(subscriber) == []


def test_no_thread_waits_for_each_consumer(there: Any) -> None:
    subscribers = [BrokerSubscriber(there, "t", group="g", prefetch=1) for _ in range(20)]
    before = thread_count()
    pending = [each._fetch.submit(pack_fetch(each._ask(20.0))) for each in subscribers]
    wait_until(lambda: facts(there)["groups"]["g"]["waiting"] == 20, "all wait")
    assert thread_count() <= before + 1
    with BrokerPublisher(there) as publisher:
        send(publisher, numbers(0, 20))
        publisher.flush()
        got = [unpack_given(future.result(10))[2][0].message for future in pending]
        assert sorted(got) == sorted(numbers(0, 20))
    for subscriber in subscribers:
        subscriber.close()


def test_a_timeout_while_nothing_comes(there: Any) -> None:
    with BrokerSubscriber(there, "t", timeout=0.2) as subscriber:
        with pytest.raises(OperationTimeoutError, match=r"0\.2 s"):
            subscriber.next_message()
        with BrokerPublisher(there) as publisher:
            publisher.send_message("t", b"late")
        assert take(subscriber, 1) == [b"late"]


def test_items_that_are_no_events_are_refused_by_stream_consumers(there: Any) -> None:
    with BrokerPublisher(there) as publisher:
        publisher.send_message("t", b"not an event")
    with BrokerSubscriber(there, "t") as subscriber, pytest.raises(SerializationError):
        subscriber.next_events()


def test_waiting_consumers_and_producers_hear_of_the_brokers_end(
    make_broker: MakeBroker,
) -> None:
    with Engine("shm", capacity="32MiB") as server, Engine("shm", capacity="32MiB") as client:
        broker = Broker(server, max_items=1)
        there = client.lookup(server.address)
        subscriber = BrokerSubscriber(there, "u")
        publisher = BrokerPublisher(there, window=0)
        publisher.send_message("t", b"1")
        errors: list[BaseException] = []

        def fails(action: Callable[[], object]) -> None:
            try:
                action()
            except BaseException as error:
                errors.append(error)

        threads = [
            threading.Thread(target=fails, args=(action,))
            for action in (subscriber.next_message, lambda: publisher.send_message("t", b"2"))
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: facts(there)["blocked"] == 1, "the producer waits")
        wait_until(
            lambda: any(g["waiting"] for g in facts(there, "u")["groups"].values()), "it waits"
        )
        broker.close()
        for thread in threads:
            thread.join(10)
        assert [type(error) for error in errors] == [EngineClosedError] * 2
        subscriber.close()
        with pytest.raises((StreamError, PeerError, LookupError)):
            BrokerSubscriber(there, "t")


def test_groups_without_members_are_forgotten_in_the_end(make_broker: MakeBroker) -> None:
    there = make_broker(group_timeout=0.2, max_items=5)
    BrokerSubscriber(there, "t", group="left").close()
    with BrokerSubscriber(there, "t", group="stays", timeout=10) as subscriber:
        publisher = BrokerPublisher(there, window=0, timeout=10)
        for i in range(12):  # more than fits, were it not for the group that is forgotten
            send(publisher, numbers(i, i + 1))
            assert take(subscriber, 1) == numbers(i, i + 1)
        assert list(facts(there)["groups"]) == ["stays"]
        publisher.close()


@pytest.mark.parametrize(
    "options",
    [{"topics": []}, {"topics": ["t", "t"]}, {"prefetch": 0}, {"ack_timeout": 0}],
    ids=str,
)
def test_arguments_that_cannot_be_meant(there: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        BrokerSubscriber(there, **{"topics": "t", **options})


def test_the_number_of_topics_is_bounded(make_broker: MakeBroker) -> None:
    there = make_broker(max_topics=2)
    with BrokerSubscriber(there, ["t", "u"]), pytest.raises(StreamError, match="max_topics"):
        BrokerSubscriber(there, "v")
