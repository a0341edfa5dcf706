"""A store of a job whose ranks are on two nodes, started as a launcher starts it there."""

from __future__ import annotations

import json

import pytest
from support.doors import require_door
from support.nodes import launched

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(90)]

PROGRAM = """
import json, sys
import numpy as np
from mpi4py import MPI
from proxystore_hpc import Store

world = MPI.COMM_WORLD
options = {"interface": sys.argv[1 + world.rank // 2]} if len(sys.argv) > 2 else {}
if len(sys.argv) == 2:
    options["doors"] = (sys.argv[1],)
with Store.from_mpi(world, "wide", timeout=20, **options) as store:
    key = store.put(np.full(100_000, float(world.rank)))
    left = store.put(b"from the right", to=(world.rank - 1) % world.size)
    keys = world.allgather(key)
    for rank in reversed(range(world.size)):
        assert (store.get(keys[rank]) == rank).all()
    assert store.get(world.sendrecv(left, (world.rank - 1) % world.size)) == b"from the right"
    doors = {door: stats.operations for door, stats in store.metrics.doors.items()}
    with open(f"found.{world.rank}", "w") as file:
        json.dump({"contact": key.contact, "doors": doors}, file)
    if world.rank != 0:
        store.close()
    else:
        import time
        time.sleep(0.5)
        more = store.get_batch(keys)  # of ranks that have closed, on both nodes
        assert [float(array[0]) for array in more] == list(range(world.size))
"""


@pytest.mark.parametrize("interface", ["chosen", "named"])
def test_ranks_meet_across_nodes(nodes, tmp_path, interface) -> None:
    require_door("ucx")
    one, two = nodes
    if interface == "chosen":
        for node in nodes:
            # As container engines make it on every machine: it leads nowhere.
            node.ip("link", "add", "bridge0", "type", "veth", "peer", "name", "inner0")
            node.ip("addr", "add", "172.30.0.1/16", "dev", "bridge0")
            node.ip("link", "set", "bridge0", "up")
        launched(nodes, tmp_path, "-c", PROGRAM)
    else:
        launched(nodes, tmp_path, "-c", PROGRAM, one.interface, two.interface)
    for rank in range(4):
        found = json.loads((tmp_path / f"found.{rank}").read_text())
        assert found["contact"][0] == (one if rank < 2 else two).address
        # Itself; the neighbour; the two others, and what was put from there.
        others = found["doors"].pop("ucx")
        assert others in (2, 3)
        assert sum(found["doors"].values()) == 5 - others


def test_ranks_meet_across_nodes_over_mpi_alone(nodes, tmp_path) -> None:
    launched(nodes, tmp_path, "-c", PROGRAM, "mpi")
    for rank in range(4):
        found = json.loads((tmp_path / f"found.{rank}").read_text())
        # Itself; the others, and what was put to one of them or was put here by one.
        assert set(found["doors"]) == {"self", "mpi"}
        assert found["contact"] is None  # no network of our own
        assert sum(found["doors"].values()) == 5


CALLS = """
import time
import numpy as np
from mpi4py import MPI
from proxystore_hpc import Engine

world = MPI.COMM_WORLD
with Engine.from_mpi(world, "mpi", timeout=20, capacity="64MiB") as engine:
    engine.register("echo", lambda thing: thing)
    engine.register("busy", lambda: sum(range(10_000_000)))
    bulk = engine.expose(np.full(3_000_000, world.rank, "u1"))
    bulks = world.allgather(bulk)
    far = (world.rank + 2) % world.size
    data = np.random.default_rng(world.rank).random(200_000)
    assert (engine.lookup(far).call("echo", data) == data).all()
    assert "mpi" in engine.lookup(far).lanes
    assert (np.frombuffer(bulks[far].pull(engine), "u1") == far).all()
    # A rank that computes in Python answers all the same.
    if world.rank == 0:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            sum(range(1000))
    elif world.rank == 2:
        began = time.monotonic()
        assert (np.frombuffer(bulks[0].pull(engine), "u1") == 0).all()
        assert time.monotonic() - began < 2
    world.Barrier()
"""


def test_engines_call_across_nodes_over_mpi_alone(nodes, tmp_path) -> None:
    launched(nodes, tmp_path, "-c", CALLS)


BUSY = """
import ctypes, sys, time
import numpy as np
from mpi4py import MPI
from proxystore_hpc import Store

world = MPI.COMM_WORLD
with Store.from_mpi(world, "busy", doors=("mpi",), timeout=20, capacity="64MiB") as store:
    keys = world.bcast([store.put(np.full(n, 1.0)) for n in (1, 100_000, 2_000_000)])
    if world.rank == 2:
        store.get(keys[0])  # rank 3 meets the owner only when that is busy
    world.Barrier()
    if world.rank == 0:
        ended = time.monotonic() + (busy_s := float(sys.argv[2]))
        if sys.argv[1] == "python":
            while time.monotonic() < ended:
                sum(range(1000))
        else:
            ctypes.PyDLL(None).usleep(int(busy_s * 1e6))
    else:
        for key in keys * 3:
            assert (store.get(key) == 1).all()
        ended = time.monotonic()
    # All clocks are those of one machine.
    times = world.allgather(ended)
    assert max(times[1:]) < times[0], times
"""


@pytest.mark.parametrize(
    ("where", "busy_s"), [("python", 10), ("c", 5)], ids=["computes", "holds_the_gil"]
)
def test_a_busy_owner_is_read_across_nodes_over_mpi_alone(nodes, tmp_path, where, busy_s) -> None:
    launched(nodes, tmp_path, "-c", BUSY, where, str(busy_s))


def test_a_mistaken_interface_is_said_on_every_rank(nodes, tmp_path) -> None:
    program = """
import sys
from mpi4py import MPI
from proxystore_hpc import Store
from proxystore_hpc.exceptions import ConfigError

try:
    Store.from_mpi(MPI.COMM_WORLD, "wide", interface="lo" if MPI.COMM_WORLD.rank else "nowhere")
except ConfigError as error:
    assert "'nowhere' is no interface" in str(error), error
    assert "(on rank 0 of 4)" in str(error), error
else:
    sys.exit("a store was opened")
"""
    launched(nodes, tmp_path, "-c", program)
