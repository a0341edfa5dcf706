"""MPI jobs that a test starts, watches and ends."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support import procfs


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

    @property
    def launcher(self) -> int:
        """Process id of mpirun, which its supervisor started."""
        (pid,) = procfs.children(self.process.pid)
        return pid

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


@functools.cache
def mpi_library() -> str:
    """What MPI's library says of itself."""
    program = (
        "import mpi4py; mpi4py.rc.initialize = False; "
        "from mpi4py import MPI; print(MPI.Get_library_version())"
    )
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
