"""Streams between ranks: rank 0 serves, all produce and consume. Run by mpirun."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from proxystore_hpc import Engine, Store
from proxystore_hpc.stream import (
    Broker,
    BrokerPublisher,
    BrokerSubscriber,
    StreamConsumer,
    StreamProducer,
)

pytestmark = pytest.mark.mpi(min_size=2)


def meet(world: Any) -> None:
    """A barrier that leaves the processor to the threads that serve."""
    everybody = world.Ibarrier()
    while not everybody.Test():
        time.sleep(0.001)


@pytest.mark.parametrize("transport", ["auto", "mpi"])
def test_ranks_stream_to_each_other(world: Any, store: Store, transport: str) -> None:
    with Engine.from_mpi(world, transport, capacity="64MiB") as engine:
        if world.rank == 0:
            Broker(engine)
        meet(world)
        there = engine.lookup(0)
        subscriber = BrokerSubscriber(there, "t", group="ranks", prefetch=2, timeout=30)
        meet(world)
        got: list[int] = []

        def consume() -> None:
            with StreamConsumer[Any](subscriber) as consumer:
                for array in consumer.iter_objects():
                    got.append(int(array[0]))

        consuming = threading.Thread(target=consume)
        consuming.start()
        publisher = BrokerPublisher(there, producers=world.size)
        with StreamProducer[Any](publisher, default_store=store) as producer:
            for i in range(20):
                producer.send("t", np.full(500, 100 * world.rank + i))
        while consuming.is_alive():  # leaves the processor to others
            consuming.join(0.01)
        everything = world.allgather(got)
        expected = [100 * rank + i for rank in range(world.size) for i in range(20)]
        assert sorted(n for some in everything for n in some) == expected
        meet(world)
        assert store.stats()["objects"] == 0
        meet(world)
