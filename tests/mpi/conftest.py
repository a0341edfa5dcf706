from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@pytest.fixture(scope="session")
def world() -> Any:
    """The communicator of a job that was started by mpirun."""
    mpi4py = pytest.importorskip("mpi4py.MPI")
    return mpi4py.COMM_WORLD


@pytest.fixture
def store(world: Any) -> Iterator[Any]:
    """A store on all ranks that may use the shm door and no other."""
    from proxystore_hpc import Store

    with Store.from_mpi(world, "job", doors=("shm",), timeout=20) as store:
        yield store
