"""Jobs that use the mpi door and nothing else: how they end, and at which thread level."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.job import StartJob

PROGRAM = Path(__file__).with_name("endings_program.py")

EXCHANGE = """
import os, sys, time
import mpi4py
mpi4py.rc.thread_level = sys.argv[1]
from mpi4py import MPI
import numpy as np
from proxystore_hpc import Engine, Store
from proxystore_hpc.exceptions import DoorUnavailableError

world = MPI.COMM_WORLD
right = (world.rank + 1) % world.size
with Store.from_mpi(world, "levels", doors=("mpi",), timeout=20, capacity="64MiB") as store:
    keys = world.allgather(store.put(np.full(100_000, world.rank)))
    assert (store.get(keys[right]) == right).all()
    world.Barrier()
    key = store.put(np.full(300_000, world.rank), to=right)
    world.Barrier()
    assert store.stats()["objects"] == 2
    world.Barrier()
with Engine.from_mpi(world, "mpi", capacity="64MiB") as engine:
    engine.register("rank", lambda: world.rank)
    engine.register("length", len)
    world.Barrier()
    for turn in range(3):
        assert engine.lookup(right).call("rank", timeout=20) == right
    try:
        assert engine.lookup(right).call("length", np.zeros(100_000), timeout=20) == 100_000
        assert MPI.Query_thread() == MPI.THREAD_MULTIPLE
    except DoorUnavailableError as error:
        assert MPI.Query_thread() < MPI.THREAD_MULTIPLE
        assert "MPI_THREAD_MULTIPLE" in str(error), error
    world.Barrier()
print("exchanged", MPI.Query_thread(), flush=True)
"""


@pytest.mark.parametrize("how", ["never_closed", "finalize", "several_stores", "raises", "forks"])
def test_endings(start_job: StartJob, how: str) -> None:
    job = start_job(4 if how == "several_stores" else 3, PROGRAM, how, DOOR="mpi")
    output = job.end()
    assert (job.process.returncode != 0) == (how == "raises"), output
    assert float(job.wait_for_file("found.0")) == {"several_stores": 6}.get(how, 3)
    assert "stops serving" not in output
    job.assert_nothing_left()


@pytest.mark.full
@pytest.mark.parametrize("how", ["killed", "stops_serving"])
def test_ranks_that_die_end_the_job(start_job: StartJob, how: str) -> None:
    job = start_job(3, PROGRAM, how, DOOR="mpi", LINGER="2")
    job.end()
    job.assert_nothing_left()


@pytest.mark.parametrize("level", ["single", "funneled", "serialized", "multiple"])
def test_thread_levels(start_job: StartJob, level: str) -> None:
    output = start_job(2, "-c", EXCHANGE, level).succeed()
    assert output.count("exchanged") == 2
    said = "other ranks are served only while this one is in a call" in output
    assert said == ("exchanged 3" not in output)
