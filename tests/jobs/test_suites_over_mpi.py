"""The suites of calls, of bulk handles and of doors, between two ranks over windows of MPI."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import suites
from support.job import StartJob


@pytest.mark.parametrize("suite", suites.SUITES, ids=str)
def test_suite(start_job: StartJob, tmp_path: Path, suite: suites.Suite) -> None:
    start_job(2, "-m", "mpi4py", suites.PROGRAM, *suite.arguments(tmp_path)).succeed()
    assert len(suites.passed(tmp_path)) >= suite.least


@pytest.mark.full
@pytest.mark.timeout(200)
def test_large_objects(start_job: StartJob, tmp_path: Path) -> None:
    doors = suites.SUITES[-1]
    arguments = doors.arguments(tmp_path, "--tier=full", "-k", "large_objects")
    start_job(2, "-m", "mpi4py", suites.PROGRAM, *arguments).succeed()
    assert len(suites.passed(tmp_path)) == 3
