"""Run by test_spawned_ranks.py: parents and the children that they spawn open a store together.

Arguments: the scenario, and the door that the store may use. A parent prints "as expected".
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI
from support import procfs

from proxystore_hpc import Engine, Store
from proxystore_hpc.exceptions import EngineClosedError, StoreClosedError

SCENARIOS: dict[str, Callable[[str], None]] = {}
CHILDREN = 2
IS_CHILD = MPI.Comm.Get_parent() != MPI.COMM_NULL


def scenario(function: Callable[[str], None]) -> Callable[[str], None]:
    SCENARIOS[function.__name__] = function
    return function


def meet(name: str, door: str) -> tuple[MPI.Intercomm, MPI.Intracomm]:
    """The communicator between parents and new children, and that of all of them."""
    if IS_CHILD:
        between: Any = MPI.Comm.Get_parent()
    else:
        command = [os.path.abspath(__file__), name, door]
        between = MPI.COMM_WORLD.Spawn(sys.executable, command, CHILDREN)
    return between, between.Merge(high=IS_CHILD)


def open_both(comm: MPI.Intracomm, door: str, **options: Any) -> tuple[Store, Engine]:
    store = Store.from_mpi(comm, "met", doors=(door,), timeout=20, capacity="48MiB", **options)
    engine = Engine.from_mpi(comm, door, capacity="48MiB", **options)
    engine.register("rank", lambda: comm.rank)
    engine.register("mean", lambda array: float(array.mean()))
    comm.Barrier()
    return store, engine


def field(rank: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(rank).random(60_000)


def exchange(comm: MPI.Intracomm, store: Store, engine: Engine, door: str) -> None:
    keys = comm.allgather(store.put(field(comm.rank)))
    for rank, key in enumerate(keys):
        np.testing.assert_array_equal(store.get(key), field(rank))
    proxies = comm.allgather(store.proxy({"rank": comm.rank}, populate_target=False))
    assert [proxy["rank"] for proxy in proxies] == list(range(comm.size))
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    put = comm.allgather(store.put(field(comm.rank), to=right))
    np.testing.assert_array_equal(store.get(put[left]), field(left))
    assert set(store.metrics.doors) == {"self", door}
    for rank in range(comm.size):
        assert engine.lookup(rank).call("rank", timeout=20) == rank
    there = engine.lookup(right)
    mean = there.call("mean", field(comm.rank), timeout=20)
    assert mean == pytest.approx(field(comm.rank).mean())
    assert ("mpi" in there.lanes) == (door == "mpi")
    comm.Barrier()


def part(between: MPI.Intercomm, merged: MPI.Intracomm) -> None:
    merged.Free()
    between.Disconnect()


@scenario
def orders(door: str) -> None:
    """Neither closing nor freeing waits for ranks in a certain order, but freeing for all."""
    between, merged = meet("orders", door)
    store, engine = open_both(merged, door)
    exchange(merged, store, engine, door)
    key = merged.allgather(store.put(field(9)))[-1]
    if merged.rank == 0:
        engine.close()
        time.sleep(0.5)  # the others have closed their stores by now, and serve
        np.testing.assert_array_equal(store.get(key), field(9))
        store.close()
    elif IS_CHILD:
        store.close()
        engine.close()
    else:
        engine.close()
        store.close()
    part(between, merged)


@scenario
def children_first(door: str) -> None:
    """Children end while their parents go on, twice."""
    for turn in range(1 if IS_CHILD else 2):
        between, merged = meet("children_first", door)
        store, engine = open_both(merged, door, linger=1000)
        exchange(merged, store, engine, door)
        pids = merged.allgather(os.getpid())
        engine.close()
        store.close()
        part(between, merged)
        if not IS_CHILD:
            gone = pids[MPI.COMM_WORLD.size :]
            assert len(gone) == CHILDREN
            # Without a call of MPI on this side.
            procfs.wait_until(
                lambda: not any(map(procfs.exists, gone)),  # noqa: B023 (used at once)
                f"the children of turn {turn} have ended",
                timeout=20,
            )
    if not IS_CHILD:
        store, engine = open_both(MPI.COMM_WORLD, door)
        exchange(MPI.COMM_WORLD, store, engine, door)
        engine.close()
        store.close()


@scenario
def freed_open(door: str) -> None:
    """Freeing the communicator closes what was opened on it."""
    between, merged = meet("freed_open", door)
    store, engine = open_both(merged, door)
    exchange(merged, store, engine, door)
    if merged.rank == 1:
        store.close()
    part(between, merged)
    with pytest.raises(StoreClosedError):
        store.put(1)
    with pytest.raises(EngineClosedError):
        engine.lookup(0)


@scenario
def never_freed(door: str) -> None:
    """Ranks that just end wait for each other, as MPI_Finalize does."""
    _, merged = meet("never_freed", door)
    store, engine = open_both(merged, door)
    exchange(merged, store, engine, door)
    keys = merged.allgather(store.put(field(merged.rank)))
    if merged.rank == 0:
        time.sleep(1)  # the others are at their end
        for rank, key in enumerate(keys):
            np.testing.assert_array_equal(store.get(key), field(rank))


def main() -> None:
    SCENARIOS[sys.argv[1]](sys.argv[2])
    if not IS_CHILD:
        print("as expected", flush=True)


if __name__ == "__main__":
    main()
