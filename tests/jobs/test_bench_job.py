"""The mpi cases of the benchmarks, in a job and in one that they start by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.job import StartJob

from proxystore_hpc.bench import suite
from proxystore_hpc.bench.contestant import Operation, UnavailableError
from proxystore_hpc.bench.job import find_launcher, is_open_mpi
from proxystore_hpc.bench.ours.ranks_starting import Ranks
from proxystore_hpc.bench.record import Record

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = (
    *("--only", "doors", "--quick", "--peers", "none", "--sizes", "8,64KiB", "--seconds", "0"),
    *("--contestants", "mpi,MPI_Get,MPI-ping-pong"),
)


def looked_at(path: Path) -> Record:
    record = Record.load(path)
    assert not [absence for absence in record.absences if absence.contestant == "mpi"]
    assert {(c.operation.value, c.nbytes) for c in record.comparisons} == {
        (operation, nbytes) for operation in ("exchange", "get") for nbytes in (8, 65536)
    }
    for comparison in record.comparisons:
        found = {series.contestant for series in comparison.series}
        assert found == {"mpi", "MPI_Get", "MPI_Get-dynamic", "MPI-ping-pong"}
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


CROWD = (
    *("--only", "store/weak,store/strong,store/one-to-many,store/many-to-one,store/all-to-all"),
    *("--quick", "--peers", "none", "--sizes", "64KiB", "--seconds", "0"),
    *("--contestants", "mpi x1,mpi x2"),
)


def crowd_looked_at(path: Path) -> None:
    record = Record.load(path)
    assert not record.absences
    found = {c.operation: {s.contestant for s in c.series} for c in record.comparisons}
    assert found == {
        Operation.WEAK: {"mpi x1", "mpi x2"},
        Operation.STRONG: {"mpi x1", "mpi x2"},
        Operation.ONE_TO_MANY: {"mpi x2"},
        Operation.MANY_TO_ONE: {"mpi x2"},
        Operation.ALL_TO_ALL: {"mpi x2"},
    }


def test_ranks_of_a_job_read_at_once(start_job: StartJob, tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    command = ("-m", "proxystore_hpc", "bench", *CROWD, "--json", output)
    # One rank more than the pairs need waits.
    start_job(5, *command, PYTHONPATH=str(ROOT)).succeed()
    crowd_looked_at(output)


def test_all_ranks_of_a_job_open_a_store(start_job: StartJob, tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    which = ("--only", "startup/open", "--quick", "--seconds", "0", "--peers", "none")
    command = ("-m", "proxystore_hpc", "bench", *which, "--json", output)
    start_job(3, *command, PYTHONPATH=str(ROOT)).succeed()
    record = Record.load(output)
    assert not record.absences
    (comparison,) = record.comparisons
    assert {s.contestant for s in comparison.series} == {"mpi-open x3", "MPI-windows x3"}
    # The store makes such windows, and more.
    assert record.share(comparison, "mpi-open x3").value < 1.5


@pytest.mark.usefixtures("start_job")
def test_pairs_get_a_job_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "figures.json"
    alone(tmp_path, monkeypatch, *CROWD, "--json", output)
    crowd_looked_at(output)


def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    monkeypatch.setenv("OMPI_MCA_btl", "self,sm,tcp")  # starts in a fifth of the time
    done = subprocess.run(
        [sys.executable, "-m", "proxystore_hpc", "bench", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.usefixtures("start_job")
def test_components_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_open_mpi(find_launcher()):
        pytest.skip("components are Open MPI's")
    output, names = tmp_path / "figures.json", ("mpi-rdma-sm", "mpi-rdma-tcp")
    alone(
        *(tmp_path, monkeypatch, "--only", "doors/get", "--sizes", "1MiB", "--seconds", "0"),
        *("--peers", "none", "--contestants", ",".join(names), "--json", output),
    )
    record = Record.load(output)
    assert not record.absences
    (comparison,) = record.comparisons
    for name in names:
        assert record.share(comparison, name).value > 0


@pytest.mark.usefixtures("start_job")
def test_a_job_that_does_not_use_what_it_was_told_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = find_launcher()
    if not is_open_mpi(launcher):
        pytest.skip("components are Open MPI's")
    # A launcher with a mind of its own, as those of some sites.
    mpirun = tmp_path / "mpirun"
    mpirun.write_text(f'#!/bin/sh\nOMPI_MCA_btl=self,sm exec {launcher} "$@"\n')
    mpirun.chmod(0o755)
    (tmp_path / "ompi_info").symlink_to(Path(launcher).with_name("ompi_info"))
    monkeypatch.setenv("PROXYSTORE_HPC_MPIRUN", str(mpirun))
    offered = {each.name: each for each in suite.contestants("none")}
    variant = offered["mpi-rdma-tcp"]
    variant.check()
    with (
        pytest.raises(UnavailableError, match=r"btl self,sm instead of self,tcp"),
        variant.open(Operation.GET, 8),
    ):
        pass


@pytest.mark.usefixtures("start_job")
def test_ranks_start_and_tell_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_MCA_btl", "self,sm,tcp")
    figures: dict[Operation, dict[bool, float]] = {Operation.START: {}, Operation.MEMORY: {}}
    for operation, found in figures.items():
        for store in (False, True):
            with Ranks(2, store=store).open(operation, 0) as burst:
                found[store] = burst()
    assert 0 < figures[Operation.START][False] < 50
    assert 0 < figures[Operation.START][True] < 50
    # A store is an import of this package at least.
    assert 1e6 < figures[Operation.MEMORY][False] < figures[Operation.MEMORY][True] < 1e9
