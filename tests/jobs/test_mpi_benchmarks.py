"""The benchmarks of jobs run: tiny sizes, whose figures mean nothing."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from support.job import StartJob

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PARTS = {"reads", "store", "exchange", "flights", "null", "backoff", "gray-scott"}


def rows_of(path: Path, benchmark: str) -> list[dict[str, Any]]:
    document = json.loads(path.read_text())
    assert document["benchmark"] == benchmark
    rows: list[dict[str, Any]] = document["rows"]
    return rows


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.full)])
def test_every_comparison_with_mpi4py_is_made(
    start_job: StartJob, tmp_path: Path, ranks: int
) -> None:
    """Bytes are compared by the program itself, which fails if others arrive."""
    output = tmp_path / "figures.json"
    job = start_job(ranks, BENCHMARKS / "mpi_rma.py", "--quick", "--json", output)
    printed = job.succeed()
    rows = rows_of(output, "mpi_rma")
    assert {row["name"].split(":")[0] for row in rows} == PARTS
    for row in rows:
        assert not row["name"].endswith("cannot be measured"), row
        assert row["name"].split(": ", 1)[1] in printed
        for figures in row["figures"].values():
            if "share" not in figures:
                assert 0 < figures["min_s"] <= figures["median_s"] <= figures["p99_s"]
    names = [row["name"] for row in rows]
    for state in ("in a barrier", "computing"):
        assert f"reads: read of 8 B, adaptive, target {state}" in names
    judged = [row for row in rows if row["target"] == "<= 1.5x" and row["met"] is not None]
    if importlib.util.find_spec("PIL") is not None:
        assert any(row["name"].startswith("gray-scott") for row in judged)


def test_options_are_told_once(start_job: StartJob) -> None:
    job = start_job(2, BENCHMARKS / "mpi_rma.py", "--only", "reads,wings")
    output = job.end()
    assert job.process.returncode != 0
    assert output.count("there is no part 'wings'; the parts are reads") == 1
    assert "Traceback" not in output


def test_one_rank_is_not_enough(start_job: StartJob) -> None:
    output = start_job(1, BENCHMARKS / "mpi_rma.py", "--quick").end()
    assert "mpirun -n 2" in output


def test_starting_up_is_measured(start_job: StartJob, tmp_path: Path) -> None:
    """What each of its jobs runs; the program that starts them has nothing else to do."""
    output = start_job(4, BENCHMARKS / "mpi_startup.py", "--rank").succeed()
    (told,) = [line for line in output.splitlines() if line.startswith("startup: ")]
    figures = json.loads(told.removeprefix("startup: "))
    assert figures.keys() == {
        *("MPI alone", "store, first", "store, again", "engine, first", "engine, again"),
    }
    assert min(figures.values()) > 0
