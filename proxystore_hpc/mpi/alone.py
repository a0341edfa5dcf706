"""Calls of MPI where only one thread of the process may be in it.

That is so at MPI_THREAD_SERIALIZED, and while MPI ends: MPI_Finalize begins with the delete
callbacks of MPI_COMM_SELF, in which what is still open is closed, and MPICH takes no locks any more
by then. So threads take turns: the doors' own, and whoever calls MPI beside them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def begin() -> None:
    """MPI_Finalize has begun."""
    module = _module()
    if module is not None:
        module.begin_alone()


@contextmanager
def turn() -> Iterator[None]:
    """Calls MPI while no other thread does, where that is not allowed. Nests; not to wait in."""
    module = _module()
    if module is None or not module.enter_alone():
        yield
        return
    try:
        yield
    finally:
        module.leave_alone()


def _module() -> Any:
    # Without it there is no door, and so no thread that calls MPI.
    return sys.modules.get("proxystore_hpc._mpi")
