"""Ranks whose stores are served over TCP. Run on several ranks, by mpirun."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from proxystore_hpc import Store
from proxystore_hpc.tcp.endpoints import unpack

pytestmark = pytest.mark.mpi(min_size=2)


@pytest.fixture
def outsider():
    """What a process off the cluster would have."""
    with Store("outside", doors=("tcp",), capacity="16MiB", timeout=20) as store:
        yield store


def test_each_rank_has_a_server(world: Any, outsider: Store) -> None:
    with Store.from_mpi(world, "served", tcp=True, timeout=20) as store:
        keys = world.allgather(store.put(np.full(1000, world.rank)))
        assert len({endpoint.port for key in keys for endpoint in unpack(key.outside)}) == len(keys)
        assert [int(array[0]) for array in outsider.get_batch(keys)] == list(range(world.size))
        assert outsider.metrics.doors["tcp"].operations == world.size
        store.get(keys[(world.rank + 1) % world.size])
        assert "tcp" not in store.metrics.doors
        world.Barrier()


def test_a_rank_that_asks_for_none_has_none(world: Any, outsider: Store) -> None:
    with Store.from_mpi(world, "some", tcp=True if world.rank == 0 else None) as store:
        keys = world.allgather(store.put(world.rank))
        assert [bool(key.outside) for key in keys] == [rank == 0 for rank in range(world.size)]
        assert outsider.get(keys[0]) == 0
        world.Barrier()


def test_a_rank_that_closed_serves_until_all_have(world: Any, outsider: Store) -> None:
    store = Store.from_mpi(world, "closing", tcp=True)
    keys = world.allgather(store.put(world.rank))
    if world.rank == 0:
        store.close()
    world.Barrier()
    if world.rank == 1:
        assert outsider.get(keys[0]) == 0
    world.Barrier()
    store.close()
