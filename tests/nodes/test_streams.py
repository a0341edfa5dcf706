"""A stream from one node to the other: broker and producer here, consumers there."""

from __future__ import annotations

from typing import Any

import pytest
from support.fixtures import MakePeer
from support.nodes import Node
from support.peer import Peer

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(120)]

ITEMS = 40
SECRET = b"the secret of the stream's engines"


def serve(here: Any, address: str) -> str:
    from proxystore_hpc import Engine
    from proxystore_hpc.stream import Broker

    here.engine = Engine(f"tcp://{address}:0", secret=SECRET, capacity="32MiB")
    return Broker(here.engine).address


def open_engine(here: Any, address: str) -> None:
    from proxystore_hpc import Engine

    here.engine = Engine(f"tcp://{address}:0", secret=SECRET, capacity="32MiB")


def produce(here: Any, broker: str, in_store: bool) -> None:
    import numpy as np

    from proxystore_hpc.stream import BrokerPublisher, StreamProducer

    publisher = BrokerPublisher(here.engine.lookup(broker), producers=1)
    store = here.store if in_store else None
    with StreamProducer(publisher, default_store=store, batch_size=3) as producer:
        for i in range(ITEMS):
            producer.send("numbers", np.full(1000, i), metadata={"i": i})


def consume(here: Any, broker: str) -> list[int]:
    from proxystore_hpc.stream import BrokerSubscriber, StreamConsumer

    got = []
    there = here.engine.lookup(broker)
    subscriber = BrokerSubscriber(there, "numbers", group="all", timeout=30)
    with StreamConsumer[Any](subscriber) as consumer:
        for metadata, array in consumer.iter_objects_with_metadata():
            assert (array == metadata["i"]).all()
            got.append(metadata["i"])
    return got


@pytest.mark.parametrize("in_store", [True, False], ids=["in a store", "in the event"])
def test_every_item_crosses_once(
    nodes: tuple[Node, Node], make_peer: MakePeer, in_store: bool
) -> None:
    host = make_peer(launcher=nodes[0].launcher)
    broker = host(serve, nodes[0].address)
    producer = make_peer(
        launcher=nodes[0].launcher,
        name="arrays",
        capacity="64MiB",
        interface=nodes[0].address,
        register=True,
    )
    producer(open_engine, nodes[0].address)
    consumers: list[Peer] = [make_peer(launcher=nodes[1].launcher) for _ in range(2)]
    for consumer in consumers:
        consumer(open_engine, nodes[1].address)
    pending = [consumer.start(consume, broker) for consumer in consumers]
    producer(produce, broker, in_store)
    got = [each.result(60) for each in pending]
    assert sorted(got[0] + got[1]) == list(range(ITEMS))
