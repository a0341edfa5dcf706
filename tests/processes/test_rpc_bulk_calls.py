"""Bulk handles in calls, between real engines: what a distributed service does with them."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from support import ways

from proxystore_hpc import Bulk
from proxystore_hpc.exceptions import AccessDeniedError, BulkClosedError, InvalidArgumentError

TWO_SIDED = ways.of_bulk


def serve_memory(here):
    """Procedures that move the caller's memory, and lend their own."""
    import numpy as np

    engine = here.engine
    here.lent = []

    @engine.register
    def norm(bulk):
        return float(np.linalg.norm(np.frombuffer(bulk.pull(engine))))

    @engine.register
    def fill(bulk, value):
        bulk.push(engine, np.full(bulk.nbytes // 8, float(value)))

    @engine.register
    def lend(n, mode):
        array = engine.empty(n)
        array[:] = np.arange(n)
        here.lent.append((array, engine.expose(array, mode)))
        return here.lent[-1][1]

    @engine.register
    def total():
        return float(here.lent[-1][0].sum())

    @engine.register
    def take_back():
        here.lent.pop()[1].close()


@pytest.fixture
def pair(way, make_peer):
    """An engine here, and what serves memory in another process."""
    with way.engines(make_peer, serve_memory) as meeting:
        yield meeting.engine, meeting.there


def test_a_handler_pulls_and_pushes_the_callers_memory(pair):
    engine, there = pair
    array = np.arange(100_000.0)
    with engine.expose(array, "rw") as bulk:
        assert there.call("norm", bulk) == pytest.approx(np.linalg.norm(array))
        there.call("fill", bulk[8 * 10 : 8 * 20], 7)
        assert array[10:20].tolist() == [7.0] * 10
        assert array[9] == 9
        assert array[20] == 20
    with pytest.raises(BulkClosedError):
        there.call("norm", bulk)


def test_memory_that_is_lent_outlives_the_call(pair):
    engine, there = pair
    bulk = there.call("lend", 50_000, "rw")
    assert isinstance(bulk, Bulk)
    assert bulk.nbytes == 400_000
    mine = engine.empty(50_000)
    bulk.pull(engine, mine)
    assert (mine == np.arange(50_000)).all()
    mine[:] = 2
    bulk.push(engine, mine)
    assert there.call("total") == 100_000
    transfers = [bulk.submit_pull(engine, offset=8 * i, length=8) for i in range(200)]
    assert all(np.frombuffer(t.result(10))[0] == 2 for t in transfers)
    there.call("take_back")
    with pytest.raises(BulkClosedError):
        bulk.pull(engine)


def test_transfers_can_be_awaited(pair):
    engine, there = pair
    bulk = there.call("lend", 1000, "r")

    async def pull_all():
        return await asyncio.gather(*(bulk.submit_pull(engine) for _ in range(20)))

    assert all((np.frombuffer(view) == np.arange(1000)).all() for view in asyncio.run(pull_all()))
    with pytest.raises(AccessDeniedError):
        bulk.push(engine, np.zeros(1000))


def test_events_tell_of_transfers(pair):
    engine, there = pair
    bulk = there.call("lend", 1000, "r")
    events = []
    engine.on_event(events.append)
    bulk.pull(engine)
    moved = [(event.phase, event.name) for event in events if event.stage == "transfer"]
    assert moved == [("start", "pull"), ("end", "pull")]


def test_empty_arrays(pair):
    engine, _ = pair
    assert engine.empty((3, 4), "i4").shape == (3, 4)
    assert engine.empty(0).size == 0
    with pytest.raises(InvalidArgumentError, match="object"):
        engine.empty(3, object)
