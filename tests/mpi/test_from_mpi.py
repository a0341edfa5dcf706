"""What the ranks of a job do with each other's objects. Run on several ranks, by mpirun."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from proxystore_hpc import Store
from proxystore_hpc.exceptions import ConfigError, InvalidArgumentError, StoreExistsError
from proxystore_hpc.proxy import get_factory, is_resolved
from proxystore_hpc.store import get_store

pytestmark = pytest.mark.mpi(min_size=2)


def field(rank: int, cells: int = 50_000) -> np.ndarray[Any, Any]:
    return np.random.default_rng(rank).random(cells)


def operations(store: Store) -> dict[str, int]:
    return {door: stats.operations for door, stats in store.metrics.doors.items()}


def test_every_rank_reads_every_other_through_shared_memory(world: Any, store: Store) -> None:
    keys = world.allgather(store.put(field(world.rank)))
    for rank, key in enumerate(keys):
        found = store.get(key)
        assert not found.flags.writeable
        np.testing.assert_array_equal(found, field(rank))
    assert operations(store) == {"self": 1, "shm": world.size - 1}
    world.Barrier()


def test_fresh_arrays_reach_other_ranks_as_views_of_the_owners_memory(
    world: Any, store: Store
) -> None:
    array = store.empty(100_000)
    array[:] = world.rank
    before = store.stats()["used"]
    proxy = store.proxy(array)
    assert store.stats()["used"] == before  # sealed where it lay, not copied
    proxies = world.allgather(proxy)
    other = proxies[(world.rank + 1) % world.size]
    assert not is_resolved(other)
    assert len(pickle.dumps(other)) <= 300
    assert (other == (world.rank + 1) % world.size).all()
    assert operations(store) == {"shm": 1}
    world.Barrier()


def test_many_proxies_resolve_at_once(world: Any, store: Store) -> None:
    mine = [store.proxy((world.rank, i, b"x" * 1000)) for i in range(5)]
    theirs = [p for row in world.allgather(mine) for p in row]
    store.resolve(theirs)
    assert all(is_resolved(p) for p in theirs)
    assert [tuple(p)[:2] for p in theirs] == [(r, i) for r in range(world.size) for i in range(5)]
    world.Barrier()


def test_get_batch_reads_from_all_ranks(world: Any, store: Store) -> None:
    keys = world.allgather(store.put(field(world.rank)))
    for rank, found in enumerate(store.get_batch(keys)):
        np.testing.assert_array_equal(found, field(rank))
    assert operations(store)["shm"] == world.size - 1
    world.Barrier()


def test_objects_are_put_into_the_memory_of_another_rank(world: Any, store: Store) -> None:
    right = (world.rank + 1) % world.size
    world.Barrier()
    key = store.put(field(world.rank), to=right)
    world.Barrier()
    assert store.stats()["objects"] == 1
    keys = world.allgather(key)
    here = keys[(world.rank - 1) % world.size]
    np.testing.assert_array_equal(store.get(here), field((world.rank - 1) % world.size))
    assert operations(store) == {"self": 1}
    np.testing.assert_array_equal(store.get(key), field(world.rank))
    assert operations(store) == {"self": 1, "shm": 1}
    world.Barrier()


def test_an_object_can_be_put_to_the_own_rank(world: Any, store: Store) -> None:
    key = store.put([1, 2], to=world.rank)
    assert store.get(key) == [1, 2]
    assert operations(store) == {"self": 1}


@pytest.mark.parametrize("rank", [-1, 10_000])
def test_a_rank_that_is_not_there_is_refused(world: Any, store: Store, rank: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"ranks 0 to {world.size - 1}"):
        store.put(1, to=rank)


def test_other_ranks_evict(world: Any, store: Store) -> None:
    key = store.put(field(world.rank))
    keys = world.allgather(key)
    store.evict(keys[(world.rank + 1) % world.size])
    world.Barrier()
    assert not any(store.exists_batch(keys))
    assert store.get(key, default="gone") == "gone"
    assert store.stats()["objects"] == 0
    world.Barrier()


def test_ranks_wait_for_an_object_that_another_makes_later(world: Any, store: Store) -> None:
    key = world.bcast(store.new_key() if world.rank == 0 else None)
    if world.rank == 0:
        # The others say that they are about to wait, and most of them will be waiting then.
        for rank in range(1, world.size):
            world.recv(source=rank)
        store.set(key, {"made": "later"})
    else:
        world.send(None, dest=0)
        store.wait_for(key, timeout=20)
    assert store.get(key) == {"made": "later"}
    world.Barrier()


def test_stores_on_parts_of_the_job_do_not_meet(world: Any, store: Store) -> None:
    half = world.Split(world.rank % 2, key=world.rank)
    with Store.from_mpi(half, "half", doors=("shm",)) as part:
        sums = half.allgather(part.proxy(field(world.rank)))
        expected = [float(field(r).sum()) for r in range(world.rank % 2, world.size, 2)]
        assert [float(p.sum()) for p in sums] == expected
        assert operations(part).get("shm", 0) == half.size - 1
        with pytest.raises(InvalidArgumentError, match="there is no rank"):
            part.put(1, to=half.size)
        assert operations(store) == {}
    half.Free()
    world.Barrier()


def test_proxies_find_the_store_of_their_name(world: Any, store: Store) -> None:
    assert get_store("job") is store
    proxies = world.allgather(store.proxy([world.rank]))
    other = proxies[(world.rank + 1) % world.size]
    assert get_factory(other).get_store() is store
    world.Barrier()


def test_one_communicator_carries_several_stores(world: Any, store: Store) -> None:
    with Store.from_mpi(world, "second", doors=("shm",)) as second:
        key = world.bcast(second.put(b"in the second") if world.rank == 0 else None)
        assert second.get(key) == b"in the second"
        assert operations(store) == {}
        world.Barrier()


def test_the_default_capacity_is_shared_by_the_ranks_of_a_node(world: Any, store: Store) -> None:
    from proxystore_hpc import _core

    shares = world.allgather(store.stats()["capacity"])
    alone = _core.default_capacity(1)
    assert 0 < sum(shares) < 1.5 * alone


def test_the_capacity_can_be_given(world: Any) -> None:
    with Store.from_mpi(world, "small", capacity="32MiB") as small:
        assert small.stats()["capacity"] == 32 * 2**20


def test_a_name_can_be_used_once(world: Any, store: Store) -> None:
    with pytest.raises(StoreExistsError, match=rf"on rank 0 of {world.size}"):
        Store.from_mpi(world, "job")
    key = world.bcast(store.put(1) if world.rank == 0 else None)
    assert store.get(key) == 1
    world.Barrier()


def test_a_mistake_on_one_rank_is_told_on_all(world: Any) -> None:
    last = world.size - 1
    options = {"cache_size": -1} if world.rank == last else {}
    with pytest.raises(ConfigError, match=rf"cache_size: .*\(on rank {last} of {world.size}\)"):
        Store.from_mpi(world, "mistaken", **options)
    assert get_store("mistaken") is None


def test_a_rank_that_cannot_open_leaves_no_store_on_the_others(world: Any) -> None:
    options = {"doors": ("wormhole",)} if world.rank == 0 else {}
    with pytest.raises(ConfigError, match=rf"no door 'wormhole'.*\(on rank 0 of {world.size}\)"):
        Store.from_mpi(world, "half-open", **options)
    assert get_store("half-open") is None
    with Store.from_mpi(world, "half-open"):
        assert get_store("half-open") is not None


def test_the_ranks_must_agree_on_the_name(world: Any) -> None:
    with pytest.raises(ConfigError, match="different names: 'x0' on rank 0 and 'x1' on rank 1"):
        Store.from_mpi(world, f"x{world.rank}")


@pytest.mark.parametrize(
    ("option", "value"), [("linger", -1), ("linger", "long"), ("secret", b"s"), ("register", False)]
)
def test_options_that_cannot_be_meant(world: Any, option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        Store.from_mpi(world, "odd", **{option: value})


def test_only_intracommunicators_will_do(world: Any) -> None:
    from mpi4py import MPI

    with pytest.raises(InvalidArgumentError, match=r"MPI\.COMM_WORLD, not str"):
        Store.from_mpi("world")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="COMM_NULL"):
        Store.from_mpi(MPI.COMM_NULL)
    half = world.Split(world.rank % 2)
    between = half.Create_intercomm(0, world, 1 - world.rank % 2)
    with pytest.raises(InvalidArgumentError, match=r"comm\.Merge\(\)"):
        Store.from_mpi(between)
    between.Free()
    half.Free()
