"""Our futures and streams, between two processes."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from proxystore_hpc.bench.companion import Companion
from proxystore_hpc.bench.contestant import Burst, Kind, Operation
from proxystore_hpc.bench.data import expect, pattern
from proxystore_hpc.bench.ours import ways

__all__ = ["Futures", "Streams"]

_HERE = "proxystore_hpc.bench.ours.futures"
# So that the consumer waits when the result is set.
_PAUSE = 0.002
_FUTURES = 10
_TOPIC = "items"
_SECONDS = 0.05
_BYTES = 32 << 20


def _check() -> dict[str, str]:
    (way,) = (way for way in ways.ways() if way.name == "shm")
    return ways.check(way)


class Futures:
    """A contestant: a future of a store, whose producer owns it."""

    name = "future"
    kind = Kind.OURS
    about = "Store.future, set in another process of the node, waited for here"
    operations = frozenset({Operation.FUTURE})
    most = None
    reach = ("node",)

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        return _check()

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return self._opened(nbytes)

    @contextmanager
    def _opened(self, nbytes: int) -> Iterator[Burst]:
        from proxystore_hpc.store import Store

        capacity = 2 * _FUTURES * nbytes + ways.ROOM
        with (
            Store("bench-futures", register=True, capacity=capacity, cache_size=0),
            Companion(f"{_HERE}:Producer", capacity=capacity) as producer,
        ):

            def burst() -> float:
                futures = [pickle.loads(each) for each in producer.call("make", _FUTURES)]
                producer.start("set_all", nbytes)
                ended, found = [], None
                for future in futures:
                    found = future.result(30)
                    # Both processes read the monotonic clock of the machine.
                    ended.append(time.monotonic())
                expect(found, nbytes)
                del found
                began = producer.result()
                taken = sorted(end - start for start, end in zip(began, ended, strict=True))
                return float(taken[len(taken) // 2])

            yield burst


class Producer:
    """Role: sets results."""

    def __init__(self, capacity: int) -> None:
        from proxystore_hpc.store import Store

        self._store = Store("bench-futures", register=True, capacity=capacity, cache_size=0)
        self._futures: list[Any] = []

    def make(self, count: int) -> list[bytes]:
        """Futures of its own, pickled."""
        self._futures = [self._store.future() for _ in range(count)]
        return [pickle.dumps(future) for future in self._futures]

    def set_all(self, nbytes: int) -> list[float]:
        """Sets one after the other; when."""
        array, began = pattern(nbytes), []
        for future in self._futures:
            time.sleep(_PAUSE)
            began.append(time.monotonic())
            future.set_result(array)
        return began

    def close(self) -> None:
        """Ends it."""
        self._store.close()


class Streams:
    """A contestant: producer, consumer and broker in three processes.

    Args:
        stored: Whether items travel through a store instead of in their events.
    """

    kind = Kind.OURS
    operations = frozenset({Operation.STREAM})
    reach = ("node",)

    def __init__(self, *, stored: bool) -> None:
        self._stored = stored
        self.name = "stream-store" if stored else "stream-event"
        where = "through a store" if stored else "in their events"
        self.about = f"our broker, over rings in shared memory; items travel {where}"
        self.most = None if stored else 4 << 20

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        return _check()

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return self._opened(nbytes)

    @contextmanager
    def _opened(self, nbytes: int) -> Iterator[Burst]:
        with ExitStack() as stack:
            host = stack.enter_context(Companion(f"{_HERE}:BrokerHost"))
            where = host.call("address")
            consumer = stack.enter_context(Companion(f"{_HERE}:ItemConsumer", where=where))
            producer = stack.enter_context(
                Companion(f"{_HERE}:ItemProducer", where=where, stored=self._stored, nbytes=nbytes)
            )
            fewest = max(2, min(50, _BYTES // nbytes))
            items = 0

            def send(count: int) -> float:
                began = time.perf_counter()
                consumer.start("receive", count, nbytes)
                producer.start("send", count)
                producer.result()
                consumer.result()
                return (time.perf_counter() - began) / count

            def burst() -> float:
                nonlocal items
                if not items:
                    send(fewest)
                    items = max(fewest, min(_BYTES // nbytes, int(_SECONDS / send(fewest))))
                return send(items)

            yield burst


class BrokerHost:
    """Role: our broker."""

    def __init__(self) -> None:
        from proxystore_hpc.rpc import Engine
        from proxystore_hpc.stream import Broker

        self._engine = Engine("shm", secret=ways.SECRET)
        self._broker = Broker(self._engine)

    def address(self) -> str:
        """Where it is."""
        return str(self._engine.address)

    def close(self) -> None:
        """Ends it."""
        self._engine.close()


class ItemProducer:
    """Role: sends items."""

    def __init__(self, where: str, stored: bool, nbytes: int) -> None:
        from proxystore_hpc.rpc import Engine
        from proxystore_hpc.store import Store
        from proxystore_hpc.stream import BrokerPublisher, StreamProducer

        self._item = pattern(nbytes)
        self._engine = Engine("shm", secret=ways.SECRET)
        self._publisher = BrokerPublisher(self._engine.lookup(where), producers=None)
        store = None
        if stored:
            capacity = 4 * _BYTES + 4 * nbytes + ways.ROOM
            store = Store("bench-stream", capacity=capacity, doors=("shm",), register=True)
        self._producer: Any = StreamProducer(self._publisher, default_store=store)

    def send(self, count: int) -> None:
        """Sends an item a few times."""
        for _ in range(count):
            self._producer.send(_TOPIC, self._item)
        self._publisher.flush()

    def close(self) -> None:
        """Ends it, with its store."""
        self._producer.close(stores=True)
        self._engine.close()


class ItemConsumer:
    """Role: gets items."""

    def __init__(self, where: str) -> None:
        from proxystore_hpc.rpc import Engine
        from proxystore_hpc.stream import BrokerSubscriber, StreamConsumer

        self._engine = Engine("shm", secret=ways.SECRET)
        subscriber = BrokerSubscriber(self._engine.lookup(where), _TOPIC, group="bench")
        self._consumer: Any = StreamConsumer(subscriber)

    def receive(self, count: int, nbytes: int) -> None:
        """Gets as many items; the last must be what was sent."""
        for _ in range(count):
            item = self._consumer.next_object()
            if item.nbytes != nbytes:
                raise ValueError(f"an item of {item.nbytes} bytes arrived instead of {nbytes}")
        expect(item, nbytes)

    def close(self) -> None:
        """Ends it."""
        self._consumer.close()
        self._engine.close()
