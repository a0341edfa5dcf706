"""Jobs that use the mpi door and nothing else: how they end, and at which thread level."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.job import StartJob, mpi_library

from proxystore_hpc.bench.contestant import UnavailableError
from proxystore_hpc.bench.ours.variants import VARIANTS, Variant

PROGRAM = Path(__file__).with_name("endings_program.py")

EXCHANGE = """
import os, sys, time
import mpi4py
mpi4py.rc.thread_level = sys.argv[1]
from mpi4py import MPI
import numpy as np
from proxystore_hpc import Engine, Store
from proxystore_hpc.exceptions import DoorUnavailableError

level = MPI.Query_thread()
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
assert MPI.Query_thread() == level, "the library has changed what MPI grants"
print(f"exchanged {level}", flush=True)
"""


@pytest.mark.parametrize("how", ["never_closed", "finalize", "several_stores", "raises", "forks"])
def test_endings(start_job: StartJob, how: str) -> None:
    job = start_job(4 if how == "several_stores" else 3, PROGRAM, how, DOOR="mpi")
    output = job.end()
    assert (job.process.returncode != 0) == (how == "raises"), output
    assert float(job.wait_for_file("found.0")) == {"several_stores": 6}.get(how, 3)
    assert "stops serving" not in output
    job.assert_nothing_left()


def test_finalize_serves_those_that_still_read(start_job: StartJob) -> None:
    """While MPI_Finalize waits for them, when not every MPI takes its locks any more."""
    job = start_job(3, PROGRAM, "finalize_while_others_read", DOOR="mpi")
    job.succeed()
    assert int(job.wait_for_file("found.0")) == 0
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


STOPPED = """
import os, signal, time
import numpy as np
from mpi4py import MPI
from proxystore_hpc import Engine
from proxystore_hpc.exceptions import OperationTimeoutError

world = MPI.COMM_WORLD
with Engine.from_mpi(world, "mpi", capacity="64MiB") as engine:
    engine.register("rank", lambda: world.rank)
    memory = np.full(300_000, world.rank, "u1")
    exposed = engine.expose(memory, "rw")
    bulks = world.allgather(exposed)
    pids = world.allgather(os.getpid())
    if world.rank == 0:
        for rank in 1, 2:  # all are connected
            assert engine.lookup(rank).call("rank", timeout=20) == rank
            assert bulks[rank].pull(engine)[0] == rank
        os.kill(pids[2], signal.SIGSTOP)
        pushes = [bulks[2].submit_push(engine, np.full(250_000, 9, "u1"), timeout=60)]
        for attempt in (
            lambda: bulks[2].push(engine, np.full(200_000, 7, "u1"), timeout=0.5),
            lambda: engine.lookup(2).call("rank", timeout=0.5),
        ):
            try:
                attempt()
            except OperationTimeoutError:
                pass
            else:
                # Where the memory can be written without the target's help.
                print("done although the rank was stopped", flush=True)
        for turn in range(20):
            assert engine.lookup(1).call("rank", timeout=20) == 1
            assert bulks[1].pull(engine, timeout=20)[0] == 1
            bulks[1].push(engine, np.full(100, 1, "u1"), timeout=20)
        os.kill(pids[2], signal.SIGCONT)
        assert engine.lookup(2).call("rank", timeout=20) == 2
        # Apart from what writes that were given up may still come to.
        bulks[2].push(engine, np.full(40_000, 5, "u1"), offset=260_000, timeout=20)
        assert set(bytes(bulks[2].pull(engine, offset=260_000, timeout=20))) == {5}
    everybody = world.Ibarrier()
    while not everybody.Test():
        time.sleep(0.001)
print("went on", flush=True)
"""


@pytest.mark.parametrize("btl", ["self,sm", "self,tcp"])
def test_a_stopped_rank_holds_nobody_else_up(start_job: StartJob, btl: str) -> None:
    if mpi_library().startswith("MPICH"):
        pytest.skip("MPICH: ranks that reached for a stopped one wait for others as well")
    output = start_job(3, "-c", STOPPED, OMPI_MCA_btl=btl).succeed()
    assert output.count("went on") == 3


COMPONENTS = """
import sys
import numpy as np
from mpi4py import MPI
from proxystore_hpc import Engine, Store
from proxystore_hpc.bench.mpi_settings import chosen_components

world = MPI.COMM_WORLD
assert chosen_components("osc") == frozenset({sys.argv[1]})
right = (world.rank + 1) % world.size
with Store.from_mpi(world, "s", doors=("mpi",), timeout=20, capacity="64MiB") as store:
    for cells in (1, 5_000, 1_000_000):
        keys = world.allgather(store.put(np.full(cells, float(world.rank))))
        assert (store.get(keys[right]) == right).all()
    there = store.put(np.full(100_000, 7.0), to=right)
    assert (store.get(there) == 7).all()
    assert set(store.metrics.doors) == {"mpi"}
    world.Barrier()
with Engine.from_mpi(world, "mpi") as engine:
    engine.register("sum", np.sum)
    world.Barrier()
    neighbour = engine.lookup(right)
    for cells in (1, 100, 100_000):
        for _ in range(20):
            assert neighbour.call("sum", np.ones(cells), timeout=20) == cells
    world.Barrier()
print("went well", flush=True)
"""


# The others need hardware.
EVERYWHERE = [variant for variant in VARIANTS if variant.name in ("rdma-sm", "rdma-tcp", "ucx")]


@pytest.mark.parametrize("variant", EVERYWHERE, ids=lambda variant: variant.name)
def test_other_components_of_open_mpi(start_job: StartJob, variant: Variant) -> None:
    try:
        variables = variant.variables(variant.components())
    except UnavailableError as error:
        pytest.skip(str(error))
    output = start_job(2, "-c", COMPONENTS, variant.osc, **variables).succeed()
    assert output.count("went well") == 2


ATTACHMENTS = """
import logging, sys
import numpy as np
from mpi4py import MPI
from proxystore_hpc import Store

logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
world = MPI.COMM_WORLD
right = (world.rank + 1) % world.size
with Store.from_mpi(world, "many", doors=("mpi",), timeout=20, capacity="64MiB") as store:
    arrays = [np.full(10_000, 1000 * world.rank + i) for i in range(80)]
    registered = [store.register(array) for array in arrays]
    theirs = world.allgather([one.key for one in registered])[right]
    for i, key in enumerate(theirs):
        assert (store.get(key) == 1000 * right + i).all()
    world.Barrier()
    doors = dict(store.metrics.doors)
    assert set(doors) == {"mpi"} and doors["mpi"].operations == 80, doors
print(f"read all {MPI.Get_library_version()}", flush=True)
"""


def test_more_arrays_than_can_be_attached(start_job: StartJob) -> None:
    output = start_job(2, "-c", ATTACHMENTS, OMPI_MCA_osc_rdma_max_attach="64").succeed()
    assert output.count("read all") == 2
    # What cannot be attached is sent by its owner; the limit is named.
    if "Open MPI" in output:
        assert "mpirun --mca osc_rdma_max_attach N" in output


STRAY_BELLS = """
import sys, time
from mpi4py import MPI
from proxystore_hpc import Store
from proxystore_hpc.mpi.job import settle
from proxystore_hpc.mpi.windows import _idle

world = MPI.COMM_WORLD
stores = [Store.from_mpi(world, f"store {i}", doors=("mpi",), capacity="32MiB") for i in (1, 2)]
key = world.bcast(stores[0].put("bells ring for this"))
stores[0].get(key)
for store in stores:
    store.close()
while len(_idle) < 2:
    settle()
    time.sleep(0.001)
world.Barrier()
if world.rank == 1:
    # Nobody listens any more, and a bell that was under way arrives.
    first = min(_idle, key=lambda windows: windows.serial)
    ring = first.comm.Isend([bytearray(0), MPI.BYTE], 0, 0)
world.Barrier()
began = time.monotonic()
MPI.Finalize()
assert time.monotonic() - began < 20
print("finalized", flush=True)
"""


def test_bells_that_nobody_heard_hold_up_no_end(start_job: StartJob) -> None:
    assert start_job(2, "-c", STRAY_BELLS).succeed().count("finalized") == 2


PROGRESSED = """
import os, time
import numpy as np
from mpi4py import MPI
from proxystore_hpc import Engine, Store

world = MPI.COMM_WORLD
right = (world.rank + 1) % world.size
with Store.from_mpi(world, "progressed", doors=("mpi",), timeout=30, capacity="64MiB") as store:
    keys = world.allgather([store.put(np.full(n, world.rank, "u1")) for n in (1, 1 << 22)])
    if world.rank == 0:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            sum(range(1000))
    for key in keys[right] * 5:
        assert (store.get(key) == right).all()
    key = store.put(np.full(300_000, world.rank), to=right)
    world.Barrier()
    assert store.stats()["objects"] == 3
    facts = store._instance.doors()["mpi"]
    print(f"progressed by: {facts['transfers are progressed by']}", flush=True)
with Engine.from_mpi(world, "mpi", capacity="64MiB") as engine:
    engine.register("echo", lambda thing: thing)
    world.Barrier()
    for n in 1, 100_000:
        data = np.arange(n)
        assert (engine.lookup(right).call("echo", data, timeout=30) == data).all()
    world.Barrier()
"""


@pytest.mark.parametrize("asynchronous", ["0", "1"])
def test_progress_of_the_mpis_own(start_job: StartJob, asynchronous: str) -> None:
    output = start_job(2, "-c", PROGRESSED, MPIR_CVAR_ASYNC_PROGRESS=asynchronous).succeed()
    itself = asynchronous == "1" and mpi_library().startswith("MPICH")
    assert output.count("progressed by: MPI itself") == (2 if itself else 0), output
    assert output.count("progressed by: our thread") == (0 if itself else 2), output


THREADS = """
import mpi4py
mpi4py.rc.thread_level = "serialized"
from concurrent.futures import ThreadPoolExecutor
from mpi4py import MPI
import numpy as np
from proxystore_hpc import Store

world = MPI.COMM_WORLD
options = {"doors": ("mpi",), "timeout": 30, "capacity": "64MiB", "cache_size": 0}
stores = [Store.from_mpi(world, f"store {i}", **options) for i in range(3)]
right = (world.rank + 1) % world.size
keys = [world.allgather(store.put(np.full(5000, world.rank)))[right] for store in stores]

def read(i):
    for _ in range(300):
        assert (stores[i].get(keys[i]) == right).all()

with ThreadPoolExecutor(3) as pool:
    list(pool.map(read, range(3)))
world.Barrier()
for store in stores:
    store.close()
print(f"read all {MPI.Query_thread()}", flush=True)
"""


def test_threads_take_turns_in_an_mpi_that_wants_it(start_job: StartJob) -> None:
    assert start_job(2, "-c", THREADS).succeed().count("read all 2") == 2
