"""The MPI job that mpi cases run in: that of this process, or one that is started for them."""

from __future__ import annotations

import functools
import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from proxystore_hpc.bench.companion import PATIENCE, CompanionError
from proxystore_hpc.bench.contestant import UnavailableError
from proxystore_hpc.bench.deadline import deadline

__all__ = [
    "OwnJob",
    "command_of",
    "environment_of",
    "find_launcher",
    "is_open_mpi",
    "ranks_of_this_job",
]

_START_S = 60.0
_KEY = "PROXYSTORE_HPC_BENCHMARK_JOB_SECRET"
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


def ranks_of_this_job() -> int:
    """How many ranks the launcher of this process has started, 1 without one."""
    for name in _SIZES:
        if name in os.environ:
            return int(os.environ[name])
    if "PMIX_RANK" in os.environ:
        return int(os.environ.get("SLURM_NTASKS", "1"))
    return 1


def find_launcher() -> str:
    """Path of `mpirun`: what PROXYSTORE_HPC_MPIRUN says, beside this Python, or in PATH.

    Raises:
        UnavailableError: There is none, or no mpi4py.
    """
    if importlib.util.find_spec("mpi4py") is None:
        raise UnavailableError("mpi4py is not installed: pip install 'proxystore_hpc[mpi]'")
    beside = Path(sys.prefix, "bin", "mpirun")
    named = os.environ.get("PROXYSTORE_HPC_MPIRUN")
    found = shutil.which(named or "mpirun", path=f"{beside.parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        raise UnavailableError(
            "no mpirun was found: run `mpirun -n 2 proxystore-hpc bench`, or name one in "
            "PROXYSTORE_HPC_MPIRUN"
        )
    return found


class OwnJob:
    """A job on this node, whose rank 0 is asked from here as a `Leader`.

    Args:
        ranks: How many.
        variables: Of its environment, besides ours.

    Attributes:
        lost: Whether it ended or gave no answer in time, so that no other call makes sense.

    Raises:
        UnavailableError: It does not start, or its ranks do not find each other.
    """

    def __init__(self, ranks: int = 2, variables: Mapping[str, str] | None = None) -> None:
        launcher = find_launcher()
        self.lost = False
        key = secrets.token_hex(16)
        self._stack = ExitStack()
        with ExitStack() as undo:
            undo.callback(self._stack.close)
            folder = self._stack.enter_context(tempfile.TemporaryDirectory())
            place = str(Path(folder, "job"))
            listener = self._stack.enter_context(
                Listener(place, "AF_UNIX", authkey=bytes.fromhex(key))
            )
            log = self._log = self._stack.enter_context(Path(folder, "log").open("a+"))
            self._process = subprocess.Popen(
                [
                    *command_of(launcher, ranks),
                    *(sys.executable, "-m", "proxystore_hpc.bench.job", place),
                ],
                env={**environment_of(), **(variables or {}), _KEY: key},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            self._stack.callback(self._end)
            try:
                with deadline(_START_S, "the start of an MPI job"):
                    self._pipe = self._stack.enter_context(self._accept(listener))
            except Exception as error:
                self.lost = True
                raise UnavailableError(f"{launcher}: {error}; {self._said()}") from error
            size, self.version = self.call("describe")
            if size != ranks:
                raise UnavailableError(
                    f"{launcher} is not the launcher of mpi4py's MPI ({self.version}): its ranks "
                    "do not find each other; name the right one in PROXYSTORE_HPC_MPIRUN"
                )
            undo.pop_all()

    def _accept(self, listener: Listener) -> Connection:
        # Whoever fails before it connects ends, and with it the job.
        socket: Any = listener._listener._socket  # type: ignore[attr-defined]
        socket.settimeout(0.2)
        while True:
            try:
                return listener.accept()
            except TimeoutError:
                if self._process.poll() is not None:
                    status = self._process.returncode
                    raise UnavailableError(f"the job ended with {status}") from None

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the leader.

        Raises:
            CompanionError: It raised, was slow or ended.
        """
        # Until the answer is here: who is interrupted would take it for that of the next call.
        self.lost = True
        try:
            self._pipe.send((method, arguments))
            if not self._pipe.poll(PATIENCE):
                raise CompanionError(f"the MPI job gave no answer within {PATIENCE:.0f} s")
            failed, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise CompanionError(f"the MPI job has ended: {self._said() or error}") from error
        self.lost = False
        if failed:
            raise CompanionError(f"rank 0 raised\n{value}")
        return value

    def _said(self) -> str:
        self._log.seek(0)
        # The lines that frame the messages of Open MPI say nothing, and the first ones say most.
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip(" -")]
        return " ".join(lines)[:400]

    def close(self) -> None:
        """Ends the job."""
        self._stack.close()

    def _end(self) -> None:
        try:
            self._process.wait(timeout=0 if self.lost else 20)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def command_of(launcher: str, ranks: int) -> list[str]:
    """What starts so many ranks on this node, on any number of cores."""
    # Bound to one core, a rank's progress thread would fight its main thread.
    open_mpi = ["--oversubscribe", "--bind-to", "none"] if is_open_mpi(launcher) else []
    return [launcher, *open_mpi, "-n", str(ranks)]


@functools.lru_cache
def is_open_mpi(launcher: str) -> bool:
    """Whether a launcher is Open MPI's; it is asked for its version."""
    told = subprocess.run(
        [launcher, "--version"], capture_output=True, text=True, timeout=30, check=False
    ).stdout
    return any(name in told for name in ("Open MPI", "OpenRTE", "PRTE"))


def environment_of() -> dict[str, str]:
    """Of a job: ours, with the modules that this process finds."""
    from proxystore_hpc.bench.companion import module_path

    found = {**os.environ, "PYTHONPATH": module_path()}
    if os.geteuid() == 0:
        for name in ("OMPI", "PRTE"):
            found[f"{name}_ALLOW_RUN_AS_ROOT"] = found[f"{name}_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return found


def _lead(place: str) -> None:
    """Rank 0 of a job that was started for the benchmarks."""
    import traceback

    from mpi4py import MPI

    from proxystore_hpc.bench.ranks import Leader, follow

    world = MPI.COMM_WORLD
    if world.rank != 0:
        follow(world)
        return
    with Client(place, "AF_UNIX", authkey=bytes.fromhex(os.environ.pop(_KEY))) as pipe:
        leader = Leader(world)
        while True:
            try:
                method, arguments = pipe.recv()
            except (EOFError, ConnectionResetError):
                break
            try:
                answer = False, getattr(leader, method)(*arguments)
            except Exception:
                answer = True, traceback.format_exc()
            try:
                pipe.send(answer)
            except (BrokenPipeError, ConnectionResetError):
                break
    leader.close()


if __name__ == "__main__":
    _lead(sys.argv[1])
