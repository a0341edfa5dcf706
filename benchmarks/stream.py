"""Items that a stream passes in a second, from one process to another through a broker.

    python benchmarks/stream.py [--sizes 1000,1MB] [--items N,N] [--rounds N] [--json FILE]

Ours over our broker, and ProxyStore's over Redis (queues), in the same run, by turns; all processes
are on this node. Items are float64 arrays that travel through a store (ours; ProxyStore's with its
RedisConnector), or in their events. Producer and consumer are as their libraries make them by
default: one item is one event. A round ends when the consumer has got the last object.

Needs redis-server, redis and proxystore; without them it tells only ours.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import harness

SECRET = b"0123456789abcdef"
TOPIC = "items"
CAPACITY = "1GiB"


class BrokerHost:
    """Role: our broker."""

    def __init__(self) -> None:
        from proxystore_hpc import Engine
        from proxystore_hpc.stream import Broker

        self.engine = Engine("shm", secret=SECRET)
        self.broker = Broker(self.engine)

    def address(self) -> str:
        return self.engine.address

    def close(self) -> None:
        self.engine.close()


class Producer:
    """Role: sends items."""

    def __init__(self, library: str, where: Any, stored: bool, nbytes: int) -> None:
        self.item = harness.pattern(nbytes)
        self.engine: Any = None
        self.store: Any = None
        warnings.simplefilter("ignore")
        if library == "ours":
            from proxystore_hpc import Engine, Store
            from proxystore_hpc.stream import BrokerPublisher, StreamProducer

            self.engine = Engine("shm", secret=SECRET)
            self.publisher: Any = BrokerPublisher(self.engine.lookup(where), producers=None)
            if stored:
                self.store = Store("bench", capacity=CAPACITY, doors=("shm",), register=True)
            self.producer: Any = StreamProducer(self.publisher, default_store=self.store)
        else:
            from proxystore.connectors.redis import RedisConnector
            from proxystore.store import Store as TheirStore
            from proxystore.stream import StreamProducer as TheirProducer
            from proxystore.stream.shims.redis import RedisQueuePublisher

            if stored:
                connector = RedisConnector("127.0.0.1", where)
                self.store = TheirStore("bench", connector, cache_size=0, register=True)
            self.publisher = RedisQueuePublisher("127.0.0.1", where)
            self.producer = TheirProducer(self.publisher, default_store=self.store)

    def send(self, count: int) -> None:
        for _ in range(count):
            self.producer.send(TOPIC, self.item)
        if self.engine is not None:
            self.publisher.flush()

    def close(self) -> None:
        self.producer.close(stores=True)
        if self.engine is not None:
            self.engine.close()


class Consumer:
    """Role: gets items."""

    def __init__(self, library: str, where: Any) -> None:
        self.engine: Any = None
        warnings.simplefilter("ignore")
        if library == "ours":
            from proxystore_hpc import Engine
            from proxystore_hpc.stream import BrokerSubscriber, StreamConsumer

            self.engine = Engine("shm", secret=SECRET)
            subscriber: Any = BrokerSubscriber(self.engine.lookup(where), TOPIC, group="bench")
            self.consumer: Any = StreamConsumer(subscriber)
        else:
            from proxystore.stream import StreamConsumer as TheirConsumer
            from proxystore.stream.shims.redis import RedisQueueSubscriber

            self.consumer = TheirConsumer(RedisQueueSubscriber("127.0.0.1", where, TOPIC))

    def receive(self, count: int, nbytes: int) -> None:
        for _ in range(count):
            item = self.consumer.next_object()
            if item.nbytes != nbytes or item[-1] != nbytes // 8 - 1:
                raise AssertionError("something else came")

    def close(self) -> None:
        self.consumer.close()
        if self.engine is not None:
            self.engine.close()


@contextmanager
def redis_server() -> Iterator[int | None]:
    """The port of a Redis server on loopback; `None` where ProxyStore's side cannot run."""
    try:
        import proxystore  # noqa: F401
        import redis
    except ImportError:
        redis = None
    program = shutil.which("redis-server")
    if program is None or redis is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            client = redis.Redis(port=port)
            deadline = time.monotonic() + 10
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
            client.close()
            yield port
        finally:
            server.terminate()
            server.wait()


def measure(
    run: harness.Run, places: dict[str, Any], stored: bool, nbytes: int, items: int, rounds: int
) -> None:
    """One case, by turns; notes and prints it."""
    rates: dict[str, list[float]] = {library: [] for library in places}
    with ExitStack() as stack:
        pairs = {}
        for library, where in places.items():
            consumer = stack.enter_context(
                harness.Companion("stream:Consumer", library=library, where=where)
            )
            producer = stack.enter_context(
                harness.Companion(
                    "stream:Producer", library=library, where=where, stored=stored, nbytes=nbytes
                )
            )
            pairs[library] = producer, consumer
        for round_ in range(rounds + 1):
            for library, (producer, consumer) in pairs.items():
                began = time.perf_counter()
                consumer.start("receive", items, nbytes)
                producer.start("send", items)
                producer.result()
                consumer.result()
                if round_:  # the first warms up
                    rates[library].append(items / (time.perf_counter() - began))
    way = "store" if stored else "event"
    for library, found in rates.items():
        name = f"{library} {harness.size(nbytes)} in the {way}"
        stats = harness.Stats(tuple(1 / rate for rate in found))
        row = run.add(name, stats, items_per_s=statistics.median(found))
        times = ""
        if library != "ours":
            each = [x / y for x, y in zip(rates["ours"], found, strict=True)]
            row["ours_times_as_many"] = statistics.median(each)
            times = f"   ours: {statistics.median(each):.1f}x ({min(each):.1f} to {max(each):.1f})"
        print(f"{name:36}{statistics.median(found):12,.0f} items/s{times}", flush=True)


def main() -> int:
    parser = harness.arguments(__doc__)
    parser.add_argument("--sizes", type=harness.parse_sizes, default=(1_000, 1_000_000))
    parser.add_argument("--items", type=harness.parse_sizes, default=(5_000, 500))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    run = harness.Run("stream")
    run.header()
    with redis_server() as port, harness.Companion("stream:BrokerHost") as host:
        places: dict[str, Any] = {"ours": host.call("address")}
        if port is None:
            print("redis-server, redis or proxystore is not installed: ours only")
        else:
            places["proxystore"] = port
        for nbytes, items in zip(options.sizes, options.items, strict=True):
            for stored in (True, False):
                measure(run, places, stored, nbytes, items, options.rounds)
    run.finish(options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
