"""Proxies and keys in messages with buffers out of band. Run on several ranks, by mpirun."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from proxystore_hpc import Store
from proxystore_hpc.proxy import Proxy, is_resolved

pytestmark = pytest.mark.mpi(min_size=2)

CELLS = 50_000


@pytest.fixture
def comm(world: Any) -> Iterator[Any]:
    """The job's ranks, with the sends and receives of pkl5."""
    pkl5 = pytest.importorskip("mpi4py.util.pkl5")
    with_pkl5 = pkl5.Intracomm(world.Dup())
    yield with_pkl5
    with_pkl5.Barrier()
    with_pkl5.Free()


@pytest.fixture(params=["shm", "mpi"], ids="door_{}".format)
def store(world: Any, request: pytest.FixtureRequest) -> Iterator[Store]:
    doors = (request.param,)
    with Store.from_mpi(world, "pkl5", doors=doors, timeout=20, capacity="64MiB") as store:
        yield store
        assert set(store.metrics.doors) <= {"self", request.param}
        world.Barrier()


def field(rank: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(rank).random(CELLS)


def everything_of(store: Store, rank: int) -> dict[str, Any]:
    """What a message may hold: a key, proxies, and an array that travels itself."""
    key = store.put(field(rank))
    return {
        "key": key,
        "of key": store.proxy_from_key(key),
        "of array": store.proxy(field(rank)),
        "of dict": store.proxy({"rank": rank, "field": field(rank)}, populate_target=False),
        "plain": np.full(CELLS, rank),
    }


def check(store: Store, message: dict[str, Any], rank: int) -> None:
    proxies = [message[f"of {what}"] for what in ("key", "array", "dict")]
    assert all(type(p) is not np.ndarray and issubclass(type(p), Proxy) for p in proxies)
    assert not any(map(is_resolved, proxies))
    assert isinstance(proxies[1], np.ndarray)
    assert not is_resolved(proxies[1])
    np.testing.assert_array_equal(message["plain"], np.full(CELLS, rank))
    np.testing.assert_array_equal(store.get(message["key"]), field(rank))
    for proxy in proxies[:2]:
        np.testing.assert_array_equal(proxy, field(rank))
    assert proxies[2]["rank"] == rank
    np.testing.assert_array_equal(proxies[2]["field"], field(rank))


def test_messages_between_two_ranks(world: Any, comm: Any, store: Store) -> None:
    right, left = (world.rank + 1) % world.size, (world.rank - 1) % world.size
    sent = everything_of(store, world.rank)
    check(store, comm.sendrecv(sent, right, 1, None, left, 1), left)
    request = comm.isend(sent, right, 2)
    check(store, comm.recv(None, left, 2), left)
    request.wait()
    request = comm.issend(sent, right, 3)
    check(store, comm.mprobe(left, 3).recv(), left)
    request.wait()
    world.Barrier()


def test_collective_messages(world: Any, comm: Any, store: Store) -> None:
    mine = everything_of(store, world.rank)
    check(store, comm.bcast(mine if world.rank == 0 else None), 0)
    gathered = comm.gather(mine, root=world.size - 1)
    assert (gathered is not None) == (world.rank == world.size - 1)
    for rank, message in enumerate(gathered or []):
        check(store, message, rank)
    for rank, message in enumerate(comm.allgather(mine)):
        check(store, message, rank)
    for rank, message in enumerate(comm.alltoall([mine] * world.size)):
        check(store, message, rank)
    check(store, comm.scatter([mine] * world.size if world.rank == 0 else None), 0)
    world.Barrier()


def test_only_what_is_no_proxy_has_buffers(world: Any, store: Store) -> None:
    from mpi4py import MPI

    message = everything_of(store, world.rank)
    data, buffers = MPI.Pickle().dumps_oob(message)
    assert [len(buffer) for buffer in buffers] == [message["plain"].nbytes]
    assert len(data) < 1500
    world.Barrier()


def test_a_resolved_proxy_travels_as_a_proxy(world: Any, comm: Any, store: Store) -> None:
    proxies = comm.allgather(store.proxy(field(world.rank)))
    store.resolve(proxies)
    again = comm.bcast(proxies if world.rank == 0 else None)
    assert all(map(is_resolved, proxies))
    assert world.rank == 0 or not any(map(is_resolved, again))
    for rank, proxy in enumerate(again):
        np.testing.assert_array_equal(proxy, field(rank))
    world.Barrier()


def test_views_of_stored_memory_travel_as_arrays(world: Any, comm: Any, store: Store) -> None:
    key = world.bcast(store.put(field(0)) if world.rank == 0 else None)
    view = store.get(key)
    assert not view.flags.writeable
    right, left = (world.rank + 1) % world.size, (world.rank - 1) % world.size
    array = comm.sendrecv(view[10:], right, 0, None, left, 0)
    assert type(array) is np.ndarray
    np.testing.assert_array_equal(array, field(0)[10:])
    assert not np.shares_memory(array, view)
    world.Barrier()
