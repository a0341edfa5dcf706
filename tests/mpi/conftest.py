from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


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
