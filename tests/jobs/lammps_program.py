"""Run by test_lammps.py: rank 1 runs LAMMPS and registers its positions, rank 0 reads them.

Arguments: the scenario, and the door that the store may use. Rank 0 prints "as expected".
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lammps_rdf import CUTOFF, MELT, PerAtom, lammps
from mpi4py import MPI

from proxystore_hpc import Store
from proxystore_hpc.exceptions import ObjectEvictedError

SCENARIOS: dict[str, Callable[[MPI.Intracomm, Store, Any], None]] = {}
CELLS = 8


def scenario(function: Callable[..., None]) -> Callable[..., None]:
    SCENARIOS[function.__name__] = function
    return function


def all_rows(lmp: Any) -> np.ndarray[Any, Any]:
    rows = lmp.extract_setting("nmax")
    array: np.ndarray[Any, Any] = lmp.numpy.extract_atom("x", nelem=rows, dim=3)
    return array


@scenario
def moves(world: MPI.Intracomm, store: Store, lmp: Any) -> None:
    if lmp is None:
        for turn in range(3):
            key, before, expected = world.recv(source=1)
            np.testing.assert_array_equal(store.get(key)[: len(expected)], expected)
            if turn == 2:
                with pytest.raises(ObjectEvictedError):
                    store.get_or_raise(before)
            world.send(None, dest=1)
        return
    positions = PerAtom(lmp, store, "x")
    first = positions.follow()
    for turn, command in enumerate(("run 5", "run 5", "create_atoms 1 random 60000 5 NULL")):
        with positions.handle.writing():
            lmp.command(command)
        key = positions.follow()
        # Atoms that come and go find room; many more do not.
        assert (key != first) == (turn == 2)
        assert positions.registrations == (2 if turn == 2 else 1)
        atoms = lmp.extract_setting("nlocal")
        world.send((key, first, all_rows(lmp)[:atoms].copy()), dest=0)
        world.recv(source=0)
    assert lmp.get_natoms() > 60000
    positions.close()


@scenario
def whole_steps(world: MPI.Intracomm, store: Store, lmp: Any) -> None:
    """A reader that asks nobody gets what was there at the end of some step, and nothing else."""
    if lmp is None:
        key, rows = world.recv(source=1)
        seen: list[bytes] = []
        buffer = np.empty((rows, 3))
        finished = world.irecv(source=1)
        done, known = finished.test()
        while not done:
            store.get_into(key, buffer)
            seen.append(hashlib.sha256(buffer).digest())
            done, known = finished.test()
        world.send(None, dest=1)
        assert len(set(seen)) > 3
        assert set(seen) <= set(known)
        return
    positions = PerAtom(lmp, store, "x")
    key = positions.follow()
    array = all_rows(lmp)
    known = [hashlib.sha256(array).digest()]
    world.send((key, len(array)), dest=0)
    for _ in range(40):
        with positions.handle.writing():
            lmp.command("run 2 pre no post no")
        known.append(hashlib.sha256(array).digest())
        time.sleep(0.02)
    assert positions.follow() == key
    world.send(known, dest=0)
    world.recv(source=0)
    positions.close()


def main() -> None:
    world: MPI.Intracomm = MPI.COMM_WORLD
    alone = world.Split(world.rank)
    name, door = sys.argv[1:]
    with Store.from_mpi(world, "lammps", doors=(door,), timeout=20) as store:
        lmp = None
        if world.rank == 1:
            lmp = lammps(comm=alone, cmdargs=["-screen", "none", "-log", "none"])
            lmp.commands_string(
                MELT.format(cells=CELLS, seed=1, bins=50, every=1000, cutoff=CUTOFF)
            )
        SCENARIOS[name](world, store, lmp)
        if lmp is not None:
            lmp.close()
        world.Barrier()
    if world.rank == 0:
        print("as expected", flush=True)


if __name__ == "__main__":
    main()
