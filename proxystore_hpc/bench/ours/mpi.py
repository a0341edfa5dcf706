"""The mpi door between ranks, and beside it what MPI does by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from proxystore_hpc.bench import job
from proxystore_hpc.bench.contestant import Burst, Kind, Operation, UnavailableError
from proxystore_hpc.bench.ours.crowds import operations_of
from proxystore_hpc.bench.ours.variants import VARIANTS, Variant

__all__ = ["Backend", "Mpi", "MpiCrowd", "MpiOpening", "VariantBackend", "mpi"]

_ABOUT = {
    "mpi": "windows of MPI between two ranks",
    "MPI_Get": "MPI_Get and flush on a window of MPI_Win_allocate, between the same ranks",
    "MPI_Get-dynamic": "MPI_Get and flush on a dynamic window, its target waiting in MPI",
    "MPI_Get-created": "MPI_Get and flush on a window of MPI_Win_create, its target waiting in MPI",
    "MPI-ping-pong": "one byte there by MPI_Send, the array back, between the same ranks",
}
_PAIRS = (1, 2, 4)


def mpi(leader: Any = None) -> list[Mpi | MpiCrowd | MpiOpening]:
    """All that is measured between ranks, whether it can be here or not.

    Args:
        leader: The `ranks.Leader` if this process is rank 0 of a job.
    """
    backend = Backend(leader)
    found: list[Mpi | MpiCrowd | MpiOpening] = [
        Mpi("mpi", backend, limit="MPI_Get-dynamic"),
        Mpi("MPI_Get-dynamic", backend),
        Mpi("MPI_Get", backend),
        Mpi("MPI-ping-pong", backend),
    ]
    if leader is None:
        jobs = {count: backend if count == 1 else Backend(ranks=2 * count) for count in _PAIRS}
        found += [MpiCrowd(count, jobs[count]) for count in _PAIRS]
        openings = {2: jobs[1], 4: jobs[2]}
    else:
        size, count = leader.describe()[0], 1
        while 2 * count <= size:
            found.append(MpiCrowd(count, backend))
            count *= 2
        openings = {size: backend}
    for ranks, its in openings.items():
        found += [MpiOpening(what, ranks, its) for what in ("store", "windows")]
    for variant in VARIANTS:
        own, limit = VariantBackend(variant, leader), f"MPI_Get-{variant.name}"
        found.append(Mpi("mpi", own, variant, name=f"mpi-{variant.name}", limit=limit))
        found.append(Mpi("MPI_Get-created", own, variant, name=limit))
    return found


class Backend:
    """The job that some cases share: a `Leader` of this process, or one that is asked.

    A job of its own is started when it is first needed, and not again once it has ended or hung.

    Args:
        leader: The leader, if this process is rank 0 of a job.
        ranks: Of a job of its own.
    """

    def __init__(self, leader: Any = None, ranks: int = 2) -> None:
        self._leader = leader
        self._ranks = ranks
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
        """Calls a method of the leader; starts the job if it has to be.

        Raises:
            UnavailableError: There is no job, or no longer.
            CompanionError: The method raised.
        """
        if self._leader is not None:
            return getattr(self._leader, method)(*arguments)
        if self._refused:
            raise UnavailableError(self._refused)
        if self._job is None:
            try:
                self._job = self._start()
            except UnavailableError as error:
                self._refused = str(error)
                raise
        try:
            return self._job.call(method, *arguments)
        except Exception as error:
            if self._job.lost:
                self._refused = f"its job is given up: {error}"
                self.close()
            raise

    @property
    def gone(self) -> bool:
        """Whether its job was given up, and what ran there with it."""
        return bool(self._refused)

    def _start(self) -> job.OwnJob:
        return job.OwnJob(self._ranks, self._variables())

    def _variables(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        """Ends a job of its own."""
        if self._job is not None:
            job_of_ours, self._job = self._job, None
            job_of_ours.close()


class VariantBackend(Backend):
    """A job of two ranks whose MPI is told which components to use.

    Args:
        variant: Which ones.
        leader: The leader, if this process is rank 0 of a job; that has made its choice.
    """

    def __init__(self, variant: Variant, leader: Any = None) -> None:
        super().__init__()
        self._variant = variant
        self._in_job = leader is not None

    def version(self) -> str:
        """Of the MPI.

        Raises:
            UnavailableError: A component is missing, or there is no way to have a job.
        """
        if self._in_job:
            raise UnavailableError(
                "needs a job with components of its own, and this one has chosen: run "
                "proxystore-hpc bench without mpirun"
            )
        self._variables()
        return super().version()

    def _variables(self) -> dict[str, str]:
        return self._variant.variables(self._variant.components())

    def _start(self) -> job.OwnJob:
        started = super()._start()
        try:
            wanted = self._variant.settings(self._variant.components())
            for rank, chosen in enumerate(started.call("chosen", list(wanted))):
                for (framework, names), found in zip(wanted.items(), chosen, strict=True):
                    if found != names:
                        raise UnavailableError(
                            f"rank {rank} may use {framework} {_names(found)} instead of "
                            f"{_names(names)}: a file of parameters or the launcher overrules it"
                        )
        except BaseException:
            started.close()
            raise
        return started


def _names(components: frozenset[str] | None) -> str:
    return ",".join(sorted(components or ())) or "(any)"


class Mpi:
    """A contestant: one of `ranks.CASES`.

    Args:
        case: Which one.
        backend: The job.
        variant: The components of the job, if it does not choose by itself.
        name: If it is not the case's.
        limit: Name of the limit that it is held against; without it, this is a limit itself.
    """

    operations = frozenset({Operation.GET, Operation.EXCHANGE})
    most = None

    def __init__(
        self,
        case: str,
        backend: Backend,
        variant: Variant | None = None,
        *,
        name: str = "",
        limit: str = "",
    ) -> None:
        self.name = name or case
        self.kind = Kind.OURS if limit else Kind.LIMIT
        self.about = _ABOUT[case]
        self.limit: Mapping[Operation, str] = dict.fromkeys(self.operations, limit) if limit else {}
        self.reach: tuple[str, ...] = ("node", "fabric") if limit else ()
        self.extra = variant is not None
        if variant is not None:
            about = "/".join(filter(None, (f"osc/{variant.osc}", *variant.btls[:1])))
            self.about += f", by {about}: {variant.about}"
            self.reach = variant.reach if limit else ()
        self._case, self._backend = case, backend

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        return {"mpi": self._backend.version()}

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return _opened(self._backend, self._case, "open", self._case, operation.value, nbytes)

    def close(self) -> None:
        """Ends a job of its own, when the run is over."""
        self._backend.close()


class MpiCrowd:
    """A contestant: a `Crowd` of ranks that reads through the mpi door.

    Args:
        count: How many at once.
        backend: A job of twice as many ranks or more.
    """

    kind = Kind.OURS
    most = 64 << 20

    def __init__(self, count: int, backend: Backend) -> None:
        self.name = f"mpi x{count}"
        self.about = f"{count} at once, by windows of MPI between ranks"
        self.operations = operations_of(count)
        self._count, self._backend = count, backend

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        return {"mpi": self._backend.version()}

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        what = (operation.value, self._count, nbytes)
        return _opened(self._backend, self.name, "open_crowd", self.name, *what)

    def close(self) -> None:
        """Ends a job of its own, when the run is over."""
        self._backend.close()


class MpiOpening:
    """A contestant: all ranks of a job open something together.

    Args:
        what: One of `opening.OPENINGS`; `"windows"` is the limit of `"store"`.
        ranks: Of the job.
        backend: The job.
    """

    operations = frozenset({Operation.OPEN})
    most = None

    def __init__(self, what: str, ranks: int, backend: Backend) -> None:
        limit, store = f"MPI-windows x{ranks}", what == "store"
        self.name = f"mpi-open x{ranks}" if store else limit
        self.kind = Kind.OURS if store else Kind.LIMIT
        self.limit = limit if store else None
        self.about = f"MPI alone makes such a communicator and windows, {ranks} ranks"
        if store:
            self.about = f"a store over mpi, its windows new, {ranks} ranks"
        self._what, self._backend = what, backend

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        return {"mpi": self._backend.version()}

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return _opened(self._backend, self.name, "open_all", self.name, self._what)

    def close(self) -> None:
        """Ends a job of its own, when the run is over."""
        self._backend.close()


@contextmanager
def _opened(backend: Backend, case: str, method: str, *arguments: Any) -> Iterator[Burst]:
    backend.call(method, *arguments)
    try:
        yield lambda: backend.call("burst", case)
    finally:
        if not backend.gone:
            backend.call("end", case)
