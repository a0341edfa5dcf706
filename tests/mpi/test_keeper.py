"""Stores of a job whose objects outlive them. Run on several ranks, by mpirun."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support import procfs

from proxystore_hpc import Store
from proxystore_hpc.keeper.settings import socket_name
from proxystore_hpc.keeper.talk import ask
from proxystore_hpc.mpi.job import settle

pytestmark = pytest.mark.mpi(min_size=2)


@pytest.fixture
def keeper(world: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One of this job, for all ranks of the node."""
    monkeypatch.setenv("PROXYSTORE_HPC_KEEPER", f"mpi-{world.bcast(os.getpid())}")
    monkeypatch.setenv("PROXYSTORE_HPC_KEEPER_IDLE", "30")
    yield
    world.Barrier()
    if world.rank == 0:
        ask(socket_name(), "stop")


def status() -> dict[str, Any]:
    told = ask(socket_name(), "status")
    assert told is not None
    return told


def wait_for_the_end_of_all() -> None:
    """Ranks serve until all have closed, which they notice when they next look."""

    def ended() -> bool:
        settle()
        return not status()["connected"]

    procfs.wait_until(ended, "all ranks have ended their stores")


@pytest.mark.parametrize("doors", [("shm",), None])
def test_a_jobs_objects_are_kept(world: Any, keeper: None, doors: Any) -> None:
    with Store.from_mpi(world, "kept", doors=doors, keep=True, timeout=20) as store:
        keys = world.allgather(store.put(np.full(50_000, world.rank)))
    wait_for_the_end_of_all()
    with Store("later", doors=("shm",), capacity="16MiB", timeout=20) as later:
        assert [int(array.mean()) for array in later.get_batch(keys)] == list(range(world.size))
        world.Barrier()
        later.evict(keys[world.rank])
        world.Barrier()
        assert not any(later.exists_batch(keys))
        world.Barrier()


def test_a_job_may_clear_them(world: Any, keeper: None) -> None:
    store = Store.from_mpi(world, "cleared", doors=("shm",), keep=True, timeout=20)
    store.put(1)
    store.close(clear=True)
    wait_for_the_end_of_all()
    assert status()["kept"] == []
    world.Barrier()
