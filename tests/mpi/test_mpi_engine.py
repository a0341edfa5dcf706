"""Engines whose ranks call each other over windows of MPI. Run on several ranks, by mpirun."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.data import EXAMPLES, difference
from support.engines import serve_all

from proxystore_hpc import Engine
from proxystore_hpc.exceptions import (
    ConfigError,
    DoorUnavailableError,
    EngineClosedError,
    InvalidArgumentError,
    OperationTimeoutError,
    PeerError,
    UnknownRpcError,
)

pytestmark = pytest.mark.mpi(min_size=2)


def meet(world: Any) -> None:
    """A barrier that leaves the processor to the threads that serve."""
    everybody = world.Ibarrier()
    while not everybody.Test():
        time.sleep(0.001)


@pytest.fixture(scope="module")
def here(world: Any) -> Iterator[Any]:
    with Engine.from_mpi(world, "mpi", capacity="96MiB", handlers={"default": 1}) as engine:
        here = SimpleNamespace(engine=engine, rank=world.rank)
        serve_all(here)
        engine.register("rank", lambda: world.rank)
        meet(world)
        yield here
        meet(world)


@pytest.fixture
def right(world: Any, here: Any) -> Iterator[Any]:
    """The engine of the next rank; all ranks leave the test together."""
    yield here.engine.lookup((world.rank + 1) % world.size)
    meet(world)


def test_every_rank_calls_every_other(world: Any, here: Any) -> None:
    for rank in range(world.size):
        assert here.engine.lookup(rank).call("rank") == rank
    lanes = here.engine.lookup((world.rank + 1) % world.size).lanes
    assert "mpi" in lanes
    assert "ring" not in lanes
    meet(world)


def test_objects_come_back(right: Any) -> None:
    for name, make in EXAMPLES.items():
        assert difference(right.call("echo", make()), make()) is None, name


@pytest.mark.parametrize("nbytes", [0, 1, 4000, 4096, 5000, 262_144, 300_000, 9_000_000])
def test_sizes(here: Any, right: Any, nbytes: int) -> None:
    data = np.arange(nbytes, dtype="u4").astype("u1")
    assert (right.call("echo", data) == data).all()
    raw = here.engine.rpc("raw", codec="raw").on(right)
    assert bytes(raw(data)) == data.tobytes()[::-1]


def test_calls_keep_their_order(here: Any, right: Any) -> None:
    before = len(right.call("notes"))
    note = here.engine.rpc("note").on(right)
    for i in range(300):
        note.notify((here.rank, i))
    mine = [n for n in right.call("notes")[before:] if isinstance(n, tuple) and n[0] == here.rank]
    assert mine == [(here.rank, i) for i in range(300)]


def test_a_thousand_in_flight(here: Any, right: Any) -> None:
    doze = here.engine.rpc("doze").on(right)

    async def run() -> list[float]:
        return list(await asyncio.gather(*(doze.aio(0.2) for _ in range(1000))))

    assert asyncio.run(run()) == [0.2] * 1000


def test_all_ranks_call_one(world: Any, here: Any) -> None:
    """More than its ring has room for at once."""
    add = here.engine.rpc("add").on(here.engine.lookup(0))
    futures = [add.submit(i) for i in range(1500)]
    assert [future.result(30) for future in futures] == list(range(1, 1501))
    meet(world)


def test_callbacks_into_the_caller(right: Any) -> None:
    assert right.call("back", 0) == 0


def test_large_calls_both_ways_at_once(here: Any, right: Any) -> None:
    data = np.random.default_rng(here.rank).random(500_000)
    echo = here.engine.rpc("echo").on(right)
    for future in [echo.submit(data) for _ in range(5)]:
        np.testing.assert_array_equal(future.result(30), data)


def test_bulk_is_pulled_and_pushed(world: Any, here: Any, right: Any) -> None:
    from proxystore_hpc import Bulk

    memory = np.full(2_000_000, world.rank, "u1")
    bulk = here.engine.expose(memory, "rw")
    bulks = world.allgather(bulk)
    theirs = bulks[(world.rank + 1) % world.size]
    assert isinstance(theirs, Bulk)
    assert (np.frombuffer(theirs.pull(here.engine), "u1") == (world.rank + 1) % world.size).all()
    meet(world)
    theirs.push(here.engine, np.full(1000, 200, "u1"), offset=77)
    meet(world)
    assert (memory[77:1077] == 200).all()
    assert (memory[:77] == world.rank).all()


def test_errors_come_back(here: Any, right: Any) -> None:
    with pytest.raises(ValueError, match="over there"):
        right.call("fail", ValueError("over there"))
    with pytest.raises(UnknownRpcError):
        right.call("nobody")
    with pytest.raises(OperationTimeoutError):
        right.call("doze", 20, timeout=0.2)
    assert right.call("echo", 1) == 1


def test_a_busy_caller_is_answered(world: Any, here: Any, right: Any) -> None:
    """The main thread computes while messages come and go."""
    future = here.engine.rpc("echo").on(right).submit(np.ones(1000))
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        sum(range(1000))
    assert future.result(20).sum() == 1000


def test_ranks_that_are_not_there(world: Any, here: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=f"ranks 0 to {world.size - 1}"):
        here.engine.lookup(world.size)


def test_options_that_cannot_be_meant(world: Any) -> None:
    for options in ({"secret": b"x"}, {"listen": "lo:1"}, {"linger": -1}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            Engine.from_mpi(world, "mpi", **options)
    with pytest.raises(ConfigError, match="carrier"):
        Engine.from_mpi(world, "carrier")
    with pytest.raises(DoorUnavailableError, match=r"Engine\.from_mpi"):
        Engine("mpi")


@pytest.mark.parametrize("transport", ["shm", "mpi"])
def test_ranks_close_at_different_times(world: Any, transport: str) -> None:
    engine = Engine.from_mpi(world, transport, capacity="32MiB")
    engine.register("rank", lambda: world.rank)
    meet(world)
    last = world.size - 1
    if world.rank != last:
        engine.close()
    meet(world)
    if world.rank == last:
        for rank in range(last):
            with pytest.raises((PeerError, EngineClosedError)):
                engine.lookup(rank).call("rank", timeout=10)
        engine.close()
    meet(world)
