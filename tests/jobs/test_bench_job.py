"""The mpi cases of the benchmarks, in a job and in one that they start by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.job import StartJob

from proxystore_hpc.bench.contestant import UnavailableError
from proxystore_hpc.bench.job import find_launcher
from proxystore_hpc.bench.record import Record

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = (
    *("--only", "doors", "--quick", "--peers", "none", "--sizes", "8,64KiB", "--seconds", "0"),
    *("--contestants", "mpi,MPI-ping-pong"),
)


def looked_at(path: Path) -> Record:
    record = Record.load(path)
    assert not [absence for absence in record.absences if absence.contestant == "mpi"]
    assert {(c.operation.value, c.nbytes) for c in record.comparisons} == {
        (operation, nbytes) for operation in ("exchange", "get") for nbytes in (8, 65536)
    }
    for comparison in record.comparisons:
        assert {s.contestant for s in comparison.series} == {"mpi", "MPI_Get", "MPI-ping-pong"}
        assert record.share(comparison, "mpi").value > 0
    return record


@pytest.mark.parametrize("ranks", [2, 3])
def test_in_a_job_the_first_rank_measures(start_job: StartJob, tmp_path: Path, ranks: int) -> None:
    output = tmp_path / "figures.json"
    command = ("-m", "proxystore_hpc", "bench", *ARGUMENTS, "--json", output)
    printed = start_job(ranks, *command, PYTHONPATH=str(ROOT)).succeed()
    assert printed.count("doors: get of 8 B") == 1
    assert looked_at(output).machine["ranks"] == ranks


@pytest.mark.usefixtures("start_job")  # skips where there is no mpirun
def test_without_one_a_job_is_started_and_ended(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "proxystore_hpc", "bench", *ARGUMENTS, "--json", str(output)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    looked_at(output)


def test_a_launcher_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mpi4py")
    monkeypatch.setenv("PROXYSTORE_HPC_MPIRUN", "no-such-launcher")
    with pytest.raises(UnavailableError, match="no mpirun was found"):
        find_launcher()
