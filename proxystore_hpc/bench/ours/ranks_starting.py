"""What it costs each rank of a job to be there: starting up, and memory."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from proxystore_hpc.bench import job
from proxystore_hpc.bench.contestant import Burst, Kind, Operation, UnavailableError
from proxystore_hpc.bench.ours.processes import private_bytes

__all__ = ["Ranks"]

_BARE = "import numpy; from mpi4py import MPI; world = MPI.COMM_WORLD"
_STORE = (
    "; from proxystore_hpc import Store"
    "; opened = Store.from_mpi(world, 'bench', doors=('mpi',), capacity=1 << 26)"
)
_READY = "; world.Barrier(); world.rank or print('ready', world.size, flush=True)"
_NEXT = "the next rank"
_TELL = (
    "; from pathlib import Path; told = world.gather(Path('/proc/self/smaps_rollup').read_text())"
    f"; world.rank or print('{_NEXT}'.join(told))"
)
_END_S = 20.0


class Ranks:
    """A contestant: a new job, each rank with a store or with nothing but MPI.

    Args:
        count: Of ranks.
        store: Whether each opens a store over mpi of 64 MiB, together; if not, it is the limit of
            those that do.
        leader: The `ranks.Leader` if this process is rank 0 of a job.
    """

    operations = frozenset({Operation.START, Operation.MEMORY})
    most = None

    def __init__(self, count: int, *, store: bool, leader: Any = None) -> None:
        bare = f"ranks x{count}"
        self.name = f"mpi-store x{count}" if store else bare
        self.kind = Kind.OURS if store else Kind.LIMIT
        self.limit = bare if store else None
        self.about = f"a new job of {count} ranks that import numpy and mpi4py"
        if store:
            self.about += ", and open a store of 64 MiB over mpi"
        self.extra = count > 2
        self._count, self._in_job = count, leader is not None
        self._program = _BARE + (_STORE if store else "") + _READY

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        if self._in_job:
            raise UnavailableError(
                "starts jobs, which cannot be done inside of one: run proxystore-hpc bench "
                "without mpirun"
            )
        return {"mpi": f"of a job by {job.find_launcher()}"}

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return self._opened(operation)

    @contextmanager
    def _opened(self, operation: Operation) -> Iterator[Burst]:
        command = job.command_of(job.find_launcher(), self._count)
        if operation is Operation.START:
            yield lambda: self._run(command, "")[0]
        else:
            yield lambda: max(map(private_bytes, self._run(command, _TELL)[1].split(_NEXT)))

    def _run(self, command: list[str], ending: str) -> tuple[float, str]:
        """A job; the seconds until the slowest rank was ready, and what rank 0 told after that."""
        began = time.perf_counter()
        with _Job([*command, sys.executable, "-c", self._program + ending]) as process:
            assert process.stdout is not None
            said: list[str] = []
            elapsed = 0.0
            for line in process.stdout:
                elapsed = time.perf_counter() - began
                said.append(line.strip())
                if line.startswith("ready "):
                    break
            told = process.stdout.read()
        if process.returncode:
            text = " ".join([*said, *told.split()])[-400:]
            raise ChildProcessError(
                f"a job of {self._count} ranks ended with {process.returncode}: {text}"
            )
        if said[-1:] != [f"ready {self._count}"]:
            raise ChildProcessError(
                f"{command[0]} is not of the same MPI as mpi4py: its ranks do not find each other"
            )
        return elapsed, told


class _Job(subprocess.Popen[str]):
    """Ends with its context, by force if that is left by an exception."""

    def __init__(self, command: list[str]) -> None:
        super().__init__(
            command,
            env=job.environment_of(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        if kind is not None:
            self.terminate()  # mpirun ends its ranks
        try:
            self.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
        super().__exit__(kind, value, traceback)
