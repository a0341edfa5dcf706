"""Executors over pools of MPI workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.job import StartJob

PROGRAM = Path(__file__).with_name("executor_program.py")


@pytest.mark.parametrize(
    "ranks", [pytest.param(1, marks=pytest.mark.full, id="spawned"), pytest.param(3, id="in_job")]
)
def test_an_executor_over_mpi_workers(start_job: StartJob, ranks: int) -> None:
    how = ("-m", "mpi4py.futures") if ranks > 1 else ()
    variables = {} if ranks > 1 else {"MPI4PY_FUTURES_MAX_WORKERS": "2"}
    assert "as expected" in start_job(ranks, *how, PROGRAM, **variables).succeed()
