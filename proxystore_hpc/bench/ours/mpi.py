"""The mpi door between ranks, and beside it what MPI does by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from proxystore_hpc.bench import job
from proxystore_hpc.bench.contestant import Burst, Kind, Operation, UnavailableError

__all__ = ["Backend", "Mpi"]

_ABOUT = {
    "mpi": "windows of MPI between two ranks",
    "MPI_Get": "MPI_Get and flush on a window of MPI_Win_allocate, between the same ranks",
    "MPI-ping-pong": "one byte there by MPI_Send, the array back, between the same ranks",
}


class Backend:
    """The job that all mpi cases share: a `Leader` of this process, or one that is asked.

    Args:
        leader: The leader, if this process is rank 0 of a job.
    """

    def __init__(self, leader: Any = None) -> None:
        self._leader = leader
        self._job: job.OwnJob | None = None
        self._refused = ""

    def version(self) -> str:
        """Of the MPI.

        Raises:
            UnavailableError: There is no way to have a job.
        """
        if self._leader is not None:
            return str(self._leader.describe()[1])
        return f"of a job by {job.find_launcher()}"

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the leader; starts the job if it has to be."""
        if self._leader is not None:
            return getattr(self._leader, method)(*arguments)
        if self._refused:
            raise UnavailableError(self._refused)
        if self._job is None:
            try:
                self._job = job.OwnJob()
            except UnavailableError as error:
                self._refused = str(error)
                raise
        return self._job.call(method, *arguments)

    def close(self) -> None:
        """Ends a job of its own."""
        if self._job is not None:
            self._job.close()
            self._job = None


class Mpi:
    """A contestant: one of `ranks.CASES`.

    Args:
        case: Which one.
        backend: The job.
    """

    operations = frozenset({Operation.GET, Operation.EXCHANGE})
    most = None

    def __init__(self, case: str, backend: Backend) -> None:
        self.name = case
        self.kind = Kind.OURS if case == "mpi" else Kind.LIMIT
        self.about = _ABOUT[case]
        self.limit: Mapping[Operation, str] = {}
        self.reach: tuple[str, ...] = ()
        if case == "mpi":
            self.limit = dict.fromkeys(self.operations, "MPI_Get")
            self.reach = ("node", "fabric")
        self._backend = backend

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        return {"mpi": self._backend.version()}

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return self._opened(operation, nbytes)

    @contextmanager
    def _opened(self, operation: Operation, nbytes: int) -> Iterator[Burst]:
        call, case = self._backend.call, self.name
        call("open", case, operation.value, nbytes)
        try:
            yield lambda: call("burst", case)
        finally:
            call("end", case)

    def close(self) -> None:
        """Ends a job of its own, when the run is over."""
        self._backend.close()
