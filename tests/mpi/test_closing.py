"""Ranks that leave at different times. Run on several ranks, by mpirun."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import procfs

from proxystore_hpc import Store
from proxystore_hpc.exceptions import StoreClosedError
from proxystore_hpc.mpi.job import settle

pytestmark = pytest.mark.mpi(min_size=2)


def open_store(world: Any, name: str) -> Store:
    return Store.from_mpi(world, name, doors=("shm",), timeout=20)


def exchanged(world: Any, store: Store) -> list[Any]:
    array = store.empty(20_000)
    array[:] = world.rank
    return world.allgather(store.proxy(array))


def test_a_closed_rank_serves_until_the_last_one_closes(world: Any) -> None:
    store = open_store(world, "late")
    addresses = world.allgather(store.address)
    proxies = exchanged(world, store)
    if world.rank != 0:
        store.close()
        with pytest.raises(StoreClosedError, match="'late' is closed"):
            store.put(1)
    world.Barrier()  # all others have closed
    if world.rank == 0:
        assert [p.mean() for p in proxies[1:]] == list(range(1, world.size))
        assert store.metrics.doors["shm"].operations == world.size - 1
        store.close()
    world.Barrier()

    def settled() -> bool:
        settle()
        return procfs.open_node_sockets(addresses) == []

    procfs.wait_until(settled, "the stores of all ranks are gone once all have closed")


def test_ranks_close_one_after_the_other(world: Any) -> None:
    store = open_store(world, "chain")
    proxies = exchanged(world, store)
    for turn in range(world.size):
        if world.rank == turn:
            # Of all that left before, and of those that come after.
            assert [p.mean() for p in proxies] == list(range(world.size))
            store.close()
        world.Barrier()


def test_two_stores_close_in_opposite_orders(world: Any) -> None:
    first, second = open_store(world, "first"), open_store(world, "second")
    keys = world.allgather((first.put(world.rank), second.put(-world.rank)))
    order = [first, second] if world.rank % 2 else [second, first]
    order[0].close()
    world.Barrier()
    last = order[1]
    which = 0 if last is first else 1
    sign = 1 if last is first else -1
    assert [last.get(pair[which]) for pair in keys] == [sign * r for r in range(world.size)]
    last.close()
    world.Barrier()


def lose_the_way(world: Any) -> None:
    with open_store(world, "raise") as store:
        exchanged(world, store)
        raise RuntimeError("lost its way")


def test_a_rank_that_raises_goes_on_serving(world: Any) -> None:
    if world.rank == 0:
        with pytest.raises(RuntimeError, match="lost its way"):
            lose_the_way(world)
        world.Barrier()
    else:
        with open_store(world, "raise") as store:
            proxies = exchanged(world, store)
            world.Barrier()
            assert proxies[0].mean() == 0
    world.Barrier()


def test_views_outlive_the_stores(world: Any) -> None:
    with open_store(world, "views") as store:
        proxies = exchanged(world, store)
        right = (world.rank + 1) % world.size
        view = proxies[right][100:200]
        del proxies
    world.Barrier()
    settle()
    np.testing.assert_array_equal(view, np.full(100, float(right)))
    world.Barrier()


def test_closing_twice_is_nothing(world: Any) -> None:
    store = open_store(world, "twice")
    store.close()
    store.close()
    world.Barrier()
    with open_store(world, "twice") as again:
        assert again is not store


def use_a_store(world: Any) -> None:
    with open_store(world, "again") as store:
        key = world.bcast(store.put(1) if world.rank == 0 else None)
        assert store.get(key) == 1
        world.Barrier()


def test_many_stores_one_after_the_other_leave_nothing(world: Any) -> None:
    use_a_store(world)
    world.Barrier()
    settle()
    before = procfs.fd_count(), procfs.thread_count()
    for _ in range(10):
        use_a_store(world)

    def as_before() -> bool:
        settle()
        return procfs.fd_count() <= before[0] and procfs.thread_count() <= before[1]

    procfs.wait_until(as_before, f"descriptors and threads are {before} again")
    world.Barrier()
