"""Stores whose ranks reach each other by MPI and nothing else. Run on several ranks, by mpirun."""

from __future__ import annotations

import concurrent.futures
import ctypes
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from proxystore_hpc import Store
from proxystore_hpc.exceptions import ConfigError, DoorUnavailableError
from proxystore_hpc.mpi.job import settle

pytestmark = pytest.mark.mpi(min_size=2)


def open_store(world: Any, name: str = "over-mpi", **options: Any) -> Store:
    return Store.from_mpi(world, name, doors=("mpi",), timeout=20, **options)


@pytest.fixture
def store(world: Any) -> Iterator[Store]:
    with open_store(world, capacity="96MiB") as store:
        yield store


def field(rank: int, cells: int = 50_000) -> np.ndarray[Any, Any]:
    return np.random.default_rng(rank).random(cells)


def operations(store: Store) -> dict[str, int]:
    return {door: stats.operations for door, stats in store.metrics.doors.items()}


def leave_together(world: Any) -> None:
    """A barrier that leaves the processor to the threads that serve."""
    everybody = world.Ibarrier()
    while not everybody.Test():
        time.sleep(0.001)


@pytest.mark.parametrize("cells", [0, 1, 100, 5_000, 1_000_000])
def test_every_rank_reads_every_other(world: Any, store: Store, cells: int) -> None:
    keys = world.allgather(store.put(field(world.rank, cells)))
    for rank, key in enumerate(keys):
        np.testing.assert_array_equal(store.get(key), field(rank, cells))
    assert operations(store) == {"self": 1, "mpi": world.size - 1}
    leave_together(world)


def test_results_are_read_only_unless_asked_otherwise(world: Any, store: Store) -> None:
    keys = world.allgather(store.put(field(world.rank)))
    right = keys[(world.rank + 1) % world.size]
    assert not store.get(right).flags.writeable
    mine = store.get(right, writable=True)
    mine[:] = -1
    np.testing.assert_array_equal(store.get(right), field((world.rank + 1) % world.size))
    leave_together(world)


def test_proxies_of_all_ranks_resolve_on_all(world: Any, store: Store) -> None:
    array = store.empty(10_000)
    array[:] = world.rank
    proxies = world.allgather(store.proxy(array))
    assert [p.mean() for p in proxies] == list(range(world.size))
    leave_together(world)


def test_many_are_read_at_once(world: Any, store: Store) -> None:
    mine = [store.put(field(1000 * world.rank + i, 20_000)) for i in range(20)]
    rows = world.allgather(mine)
    found = store.get_batch([key for row in rows for key in row])
    for number, array in enumerate(found):
        rank, i = divmod(number, 20)
        np.testing.assert_array_equal(array, field(1000 * rank + i, 20_000))
    leave_together(world)


def test_threads_read_at_the_same_time(world: Any, store: Store) -> None:
    from concurrent.futures import ThreadPoolExecutor

    keys = world.allgather([store.put(field(10 * world.rank + i)) for i in range(8)])
    right = (world.rank + 1) % world.size
    with ThreadPoolExecutor(4) as pool:
        for i, array in enumerate(pool.map(store.get, keys[right])):
            np.testing.assert_array_equal(array, field(10 * right + i))
    leave_together(world)


def test_objects_are_put_into_the_memory_of_another_rank(world: Any, store: Store) -> None:
    right, left = (world.rank + 1) % world.size, (world.rank - 1) % world.size
    keys = world.allgather(store.put(field(world.rank, 300_000), to=right))
    np.testing.assert_array_equal(store.get(keys[left]), field(left, 300_000))
    assert operations(store) == {"self": 1}
    np.testing.assert_array_equal(store.get(keys[world.rank]), field(world.rank, 300_000))
    leave_together(world)


def test_live_memory_is_read_in_place(world: Any, store: Store) -> None:
    live = field(world.rank, 30_000)
    with store.register(live) as handle:
        keys = world.allgather(handle.key)
        right = (world.rank + 1) % world.size
        np.testing.assert_array_equal(store.get(keys[right]), field(right, 30_000))
        leave_together(world)
        with handle.writing():
            live[:] = -world.rank
        leave_together(world)
        assert (store.get(keys[right]) == -right).all()
        leave_together(world)


def test_evicted_objects_are_not_read(world: Any, store: Store) -> None:
    key = store.put(field(world.rank))
    keys = world.allgather(key)
    right = (world.rank + 1) % world.size
    store.get(keys[right])
    leave_together(world)
    store.evict(key)
    leave_together(world)
    store.cache.clear()
    assert store.get(keys[right], default="gone") == "gone"
    leave_together(world)


def requests(store: Store) -> int:
    """Requests about objects that this rank has served."""
    served = store._instance.rpc_stats()["served"]
    return sum(method["calls"] for method in served if method["name"].startswith("store."))


def test_what_is_cached_is_looked_at_and_not_asked_for(world: Any, store: Store) -> None:
    key = store.put(field(world.rank))
    keys = world.allgather(key)
    right = (world.rank + 1) % world.size
    kept = store.get(keys[right])
    leave_together(world)
    before = requests(store)
    for _ in range(20):
        assert store.get(keys[right]).ctypes.data == kept.ctypes.data
    leave_together(world)
    assert requests(store) == before
    store.evict(key)
    leave_together(world)
    assert store.get(keys[right], default="gone") == "gone"
    leave_together(world)


@pytest.mark.parametrize("cells", [1, 1_500, 100_000])
def test_memory_of_the_users_is_filled(world: Any, store: Store, cells: int) -> None:
    keys = world.allgather(store.put(field(world.rank, cells)))
    for rank, key in enumerate(keys):
        into = np.full(cells + 3, -1.0)
        assert store.get_into(key, into) == 8 * cells
        np.testing.assert_array_equal(into[:cells], field(rank, cells))
        assert (into[cells:] == -1).all()
        half = np.zeros(cells // 2)
        store.get_into(key, half, offset=8 * (cells - cells // 2))
        np.testing.assert_array_equal(half, field(rank, cells)[cells - cells // 2 :])
    leave_together(world)


def compute_in_python(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def hold_the_gil_in_c(seconds: float) -> None:
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


@pytest.mark.parametrize("occupy", [compute_in_python, hold_the_gil_in_c])
def test_an_owner_that_is_busy_holds_nobody_up(world: Any, store: Store, occupy: Any) -> None:
    busy_s = 4.0
    keys = world.allgather([store.put(field(10 * world.rank + i)) for i in range(5)])
    store.get(keys[(world.rank + 1) % world.size][0])  # the ranks know each other
    leave_together(world)
    if world.rank == 0:
        began = time.monotonic()
        occupy(busy_s)
        ended = began + busy_s
    else:
        for i, key in enumerate(keys[0]):
            np.testing.assert_array_equal(store.get(key), field(i))
        ended = time.monotonic()
    # All clocks are those of one machine.
    times = world.allgather(ended)
    assert max(times[1:]) < times[0]
    leave_together(world)


def test_large_objects(world: Any) -> None:
    cells = 12_000_000  # 96 MB
    with open_store(world, "large", capacity="128MiB") as store:
        key = world.bcast(store.put(field(0, cells)) if world.rank == 0 else None)
        if world.rank == 1:
            np.testing.assert_array_equal(store.get(key), field(0, cells))
        leave_together(world)


def test_stores_on_parts_of_the_job_do_not_meet(world: Any, store: Store) -> None:
    half = world.Split(world.rank % 2, key=world.rank)
    with open_store(half, "half", capacity="32MiB") as part:
        found = half.allgather(part.put(field(world.rank)))
        for rank, key in zip(range(world.rank % 2, world.size, 2), found, strict=True):
            np.testing.assert_array_equal(part.get(key), field(rank))
    half.Free()
    leave_together(world)


def test_ranks_close_in_different_orders(world: Any) -> None:
    first, second = (open_store(world, name, capacity="32MiB") for name in ("first", "second"))
    keys = world.allgather((first.put(world.rank), second.put(-world.rank)))
    order = [first, second] if world.rank % 2 else [second, first]
    order[0].close()
    leave_together(world)
    last = order[1]
    values = [last.get(pair[last is second]) for pair in keys]
    assert values == [(-r if last is second else r) for r in range(world.size)]
    last.close()
    leave_together(world)


def test_a_closed_rank_serves_until_the_last_one_closes(world: Any) -> None:
    store = open_store(world, "late", capacity="32MiB")
    keys = world.allgather(store.put(field(world.rank)))
    if world.rank != 0:
        store.close()
    leave_together(world)
    if world.rank == 0:
        for rank, key in enumerate(keys):
            np.testing.assert_array_equal(store.get(key), field(rank))
        store.close()
    leave_together(world)


def test_windows_are_used_again(world: Any) -> None:
    from proxystore_hpc.mpi import windows

    numbers = []
    for turn in range(4):
        with open_store(world, f"turn-{turn}", capacity="32MiB") as store:
            key = world.allgather(store.put(world.rank))[(world.rank + 1) % world.size]
            assert store.get(key) == (world.rank + 1) % world.size
            numbers.append(store._job._windows.number)
            leave_together(world)
        deadline = time.monotonic() + 20
        while not any(w.number == numbers[-1] for w in windows._idle):
            assert time.monotonic() < deadline
            settle()
            time.sleep(0.001)
    assert len(set(world.allgather(tuple(numbers)))) == 1
    assert len(set(numbers[1:])) == 1


def test_threads_that_open_at_once_get_windows_of_their_own(world: Any) -> None:
    with open_store(world, "before", capacity="32MiB"):  # leaves windows over
        leave_together(world)
    comms = [world.Dup(), world.Dup()]
    right = (world.rank + 1) % world.size

    def exchange(number: int) -> bool:
        comm = comms[number]
        for turn in range(3):
            with open_store(comm, f"thread-{number}", capacity="32MiB") as store:
                keys = comm.allgather(store.put(np.full(20_000, 10 * turn + comm.rank)))
                assert (store.get(keys[right]) == 10 * turn + right).all()
                leave_together(comm)
        return True

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        assert all(threads.map(exchange, range(2)))
    settle()
    for comm in comms:
        comm.Free()


def test_the_door_needs_a_job() -> None:
    with pytest.raises(DoorUnavailableError, match=r"Store\.from_mpi"):
        Store("alone", doors=("mpi",))


def test_the_ranks_must_agree_on_the_door(world: Any) -> None:
    doors = ("mpi",) if world.rank == 0 else ("shm",)
    with pytest.raises(ConfigError, match="rank 0 wants the mpi door and rank 1 does not"):
        Store.from_mpi(world, "odd", doors=doors)
