"""Streams between processes: through our broker, and through the brokers of others."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.engines import open_engine
from support.fixtures import MakePeer
from support.peer import Peer
from support.procfs import fd_targets, wait_until

from proxystore_hpc import Store
from proxystore_hpc.exceptions import OperationTimeoutError
from proxystore_hpc.stream import StreamConsumer, StreamProducer


def serve(here: Any) -> None:
    from proxystore_hpc.stream import Broker

    here.broker = Broker(here.engine)


def produce(here: Any, address: str, first: int, count: int, producers: int) -> int:
    """Sends arrays from a store of this process; how many objects it holds in the end."""
    import numpy as np

    from proxystore_hpc import Engine, Store
    from proxystore_hpc.stream import BrokerPublisher, StreamProducer

    here.store = Store("arrays", capacity="64MiB", doors=("shm",), register=True)
    with Engine("shm", capacity="32MiB") as engine:
        publisher = BrokerPublisher(engine.lookup(address), producers=producers)
        with StreamProducer(publisher, default_store=here.store, batch_size=3) as producer:
            for i in range(first, first + count):
                producer.send("numbers", np.full(1000, i), metadata={"i": i})
    return int(here.store.stats()["objects"])


def consume(here: Any, address: str, group: str) -> list[int]:
    """What a member of a group got, until the stream ended."""
    from proxystore_hpc import Engine
    from proxystore_hpc.stream import BrokerSubscriber, StreamConsumer

    got = []
    with Engine("shm", capacity="32MiB") as engine:
        subscriber = BrokerSubscriber(engine.lookup(address), "numbers", group=group, timeout=20)
        with StreamConsumer[Any](subscriber) as consumer:
            for metadata, array in consumer.iter_objects_with_metadata():
                assert (array == metadata["i"]).all()
                got.append(metadata["i"])
    return got


def held(here: Any) -> int:
    return int(here.store.stats()["objects"])


def test_many_producers_and_consumers(make_peer: MakePeer) -> None:
    address = open_engine(make_peer(), serve)
    producers: list[Peer] = [make_peer() for _ in range(2)]
    consumers: list[Peer] = [make_peer() for _ in range(2)]
    got = [peer.start(consume, address, "group") for peer in consumers]
    sent = [peer.start(produce, address, 100 * n, 40, 2) for n, peer in enumerate(producers)]
    for pending in sent:
        pending.result()
    numbers = [n for pending in got for n in pending.result()]
    assert sorted(numbers) == [*range(40), *range(100, 140)]
    for peer in producers:
        assert peer(held) == 0
        peer(lambda here: here.store.close())


# Brokers of others.


@pytest.fixture(scope="module")
def redis_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Path of the socket of a Redis server."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    pytest.importorskip("redis")
    folder = tmp_path_factory.mktemp("redis")
    path = folder / "socket"
    server = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(path.exists, "Redis listens")
        yield str(path)
    finally:
        server.terminate()
        server.wait(10)


def exchange(publisher: Any, subscriber: Any) -> None:
    """Objects with and without a store, and the end of the stream."""
    with (
        Store("shims", register=True, capacity="16MiB", doors=("shm",)) as store,
        StreamProducer[Any](publisher, stores={"stored": store}, batch_size=2) as producer,
        StreamConsumer[Any](subscriber) as consumer,
    ):
        producer.send("stored", np.arange(5000.0), metadata={"n": 0})
        producer.send("stored", "text")
        metadata, array = consumer.next_object_with_metadata()
        assert metadata == {"n": 0}
        np.testing.assert_array_equal(array, np.arange(5000.0))
        assert consumer.next_object() == "text"
        producer.close_topics("stored")
        assert list(consumer.iter_objects()) == []
        assert store.stats()["objects"] == 0


def test_redis_queues(redis_socket: str) -> None:
    from proxystore_hpc.stream.shims.redis import RedisQueuePublisher, RedisQueueSubscriber

    where = {"unix_socket_path": redis_socket}
    subscriber = RedisQueueSubscriber("", 0, "stored", timeout=10, **where)
    exchange(RedisQueuePublisher("", 0, **where), subscriber)
    impatient = RedisQueueSubscriber("", 0, "stored", timeout=0.1, **where)
    with pytest.raises(OperationTimeoutError, match="stored"):
        impatient.next_message()
    impatient.close()


def test_redis_queues_share_their_items(redis_socket: str) -> None:
    from proxystore_hpc.stream.shims.redis import RedisQueuePublisher, RedisQueueSubscriber

    where = {"unix_socket_path": redis_socket}
    got: list[bytes] = []

    def receive() -> None:
        subscriber = RedisQueueSubscriber("", 0, "shared", timeout=10, **where)
        got.extend(subscriber.next_message() for _ in range(20))
        subscriber.close()

    threads = [threading.Thread(target=receive) for _ in range(2)]
    for thread in threads:
        thread.start()
    publisher = RedisQueuePublisher("", 0, **where)
    for i in range(40):
        publisher.send_message("shared", b"%d" % i)
    for thread in threads:
        thread.join()
    publisher.close()
    assert sorted(got, key=int) == [b"%d" % i for i in range(40)]


def test_redis_publications_reach_all(redis_socket: str) -> None:
    from proxystore_hpc.stream.shims.redis import RedisPublisher, RedisSubscriber

    where = {"unix_socket_path": redis_socket}
    other = RedisSubscriber("", 0, ["unused", "stored"], **where)
    exchange(RedisPublisher("", 0, **where), RedisSubscriber("", 0, "stored", **where))
    assert other.next_message()
    other.close()
    with pytest.raises(StopIteration):
        next(other)


def test_zeromq() -> None:
    pytest.importorskip("zmq")
    from proxystore_hpc.stream.shims.zmq import ZeroMQPublisher, ZeroMQSubscriber

    publisher = ZeroMQPublisher("127.0.0.1", 0)
    subscriber = ZeroMQSubscriber("127.0.0.1", publisher.port)
    # Nobody hears what is published before the connection stands.
    arrived = threading.Event()

    def first() -> None:
        subscriber.next_message()
        arrived.set()

    hearing = threading.Thread(target=first)
    hearing.start()
    wait_until(lambda: publisher.send_message("hello", b"") or arrived.wait(0.02), "they met")
    hearing.join()
    publisher.send_message("hello", b"last")
    while subscriber.next_message() != b"last":
        pass
    exchange(publisher, subscriber)


def test_kafka() -> None:
    """Over the broker that Kafka's C library has for tests: its protocol, without a server."""
    kafka = pytest.importorskip("confluent_kafka")
    from proxystore_hpc.stream.shims.kafka import KafkaPublisher, KafkaSubscriber

    before = listening_ports()
    client = kafka.Producer(
        {"test.mock.num.brokers": 1, "bootstrap.servers": "127.0.0.1:1", "log_level": 0}
    )
    (port,) = listening_ports() - before
    publisher = KafkaPublisher(client)
    publisher.send_message("stored", b"makes the topic")
    consumer = kafka.Consumer({"bootstrap.servers": f"127.0.0.1:{port}", "group.id": "g"})
    partitions = consumer.list_topics("stored", 10).topics["stored"].partitions
    # Assigned rather than subscribed to: groups take three seconds to form.
    ends = [kafka.TopicPartition("stored", n) for n in partitions]
    for end in ends:
        end.offset = consumer.get_watermark_offsets(end, 10)[1]
    consumer.assign(ends)
    exchange(publisher, KafkaSubscriber(consumer))


def test_kafka_that_is_down() -> None:
    kafka = pytest.importorskip("confluent_kafka")
    from proxystore_hpc.stream.shims.kafka import KafkaPublisher

    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        servers = f"127.0.0.1:{taken.getsockname()[1]}"
        client = kafka.Producer(
            {"bootstrap.servers": servers, "log_level": 0, "message.timeout.ms": 300}
        )
        with pytest.raises(kafka.KafkaException, match="timed out"):
            KafkaPublisher(client).send_message("t", b"lost")
        lazy = KafkaPublisher(client, flush=False)
        lazy.send_message("t", b"lost later")
        with pytest.raises(kafka.KafkaException, match="timed out"):
            lazy.close()


def listening_ports() -> set[int]:
    """Where this process listens on IPv4."""
    mine = set(fd_targets())
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {
        int(row[1].partition(":")[2], 16)
        for row in rows
        if row[3] == "0A" and f"socket:[{row[9]}]" in mine
    }
