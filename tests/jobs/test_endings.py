"""How jobs end: orderly, by errors and by signals. Starts jobs of its own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from support.job import StartJob

PROGRAM = Path(__file__).with_name("endings_program.py")


def test_ranks_that_never_close_wait_for_those_that_still_read(start_job: StartJob) -> None:
    job = start_job(3, PROGRAM, "never_closed")
    job.succeed()
    assert float(job.wait_for_file("found.0")) == 3
    job.assert_nothing_left()


def test_finalize_waits_for_those_that_still_read(start_job: StartJob) -> None:
    job = start_job(3, PROGRAM, "finalize")
    job.succeed()
    assert float(job.wait_for_file("found.0")) == 3
    job.assert_nothing_left()


def test_some_finalize_some_close_some_just_end(start_job: StartJob) -> None:
    job = start_job(3, PROGRAM, "some_finalize")
    job.succeed()
    assert float(job.wait_for_file("found.0")) == 3
    job.assert_nothing_left()


def test_several_stores_end_together(start_job: StartJob) -> None:
    job = start_job(4, PROGRAM, "several_stores")
    output = job.succeed()
    assert float(job.wait_for_file("found.0")) == 6
    assert "stops serving" not in output
    job.assert_nothing_left()


def test_an_exception_on_one_rank_costs_the_others_nothing(start_job: StartJob) -> None:
    job = start_job(3, PROGRAM, "raises")
    output = job.end()
    assert job.process.returncode != 0
    assert "rank 1 lost its way" in output
    assert float(job.wait_for_file("found.0")) == 3
    assert float(job.wait_for_file("found.2")) == 1
    job.assert_nothing_left()


def test_the_runner_of_mpi4py_aborts_without_delay(start_job: StartJob) -> None:
    began = time.monotonic()
    job = start_job(3, "-m", "mpi4py", PROGRAM, "raises_while_others_wait", LINGER="1000")
    output = job.end()
    assert job.process.returncode != 0
    assert "rank 1 lost its way" in output
    assert time.monotonic() - began < 40
    job.assert_nothing_left()


def test_a_killed_rank_ends_the_job(start_job: StartJob) -> None:
    job = start_job(3, PROGRAM, "killed")
    job.end()
    assert job.process.returncode != 0
    job.assert_nothing_left()


@pytest.mark.parametrize("door", ["shm", "mpi"], ids="door_{}".format)
def test_abort_ends_the_job_at_once_and_leaves_nothing(start_job: StartJob, door: str) -> None:
    job = start_job(3, PROGRAM, "aborts", DOOR=door, LINGER="1000")
    job.end()
    assert time.monotonic() - float(job.wait_for_file("aborted")) < 15
    assert job.process.returncode == 7
    job.assert_nothing_left()
    for rank in range(3):
        for name in job.wait_for_file(f"found.{rank}").split():
            # MPICH does not remove its own when it is aborted, with this library or without.
            assert not Path(name).exists() or Path(name).name.startswith("mpich_shm_")


def test_a_rank_that_is_seen_to_be_dead_is_not_waited_for(start_job: StartJob) -> None:
    job = start_job(2, PROGRAM, "stops_serving", LINGER="0.5")
    output = job.succeed()
    # Rank 0 is through before rank 1 comes to its end.
    assert float(job.wait_for_file("end.0")) < float(job.wait_for_file("end.1")) - 1
    assert "the store 'ends' stops serving although not all ranks have closed it" in output
    job.assert_nothing_left()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signals_to_a_rank_leave_nothing(start_job: StartJob, number: int) -> None:
    job = start_job(2, PROGRAM, "terminated")
    job.wait_for_file("found.0")
    job.wait_for_file("found.1")
    os.kill(job.told()[0][0], number)
    job.end()
    assert job.process.returncode != 0
    job.assert_nothing_left()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signals_to_the_launcher_leave_nothing(start_job: StartJob, number: int) -> None:
    job = start_job(2, PROGRAM, "terminated")
    job.wait_for_file("found.0")
    job.wait_for_file("found.1")
    os.kill(job.launcher, number)
    job.end()
    job.assert_nothing_left()


def test_a_forked_child_does_no_mpi(start_job: StartJob) -> None:
    job = start_job(2, PROGRAM, "forks")
    job.succeed()
    assert float(job.wait_for_file("found.0")) == 1
    job.assert_nothing_left()


@pytest.mark.parametrize(
    ("level", "number"), [("single", 0), ("funneled", 1), ("serialized", 2), ("multiple", 3)]
)
def test_every_thread_level_will_do(start_job: StartJob, level: str, number: int) -> None:
    job = start_job(2, PROGRAM, "other_thread", THREAD_LEVEL=level)
    output = job.succeed()
    assert int(job.wait_for_file("found.0")) >= number
    assert "stops serving" not in output
    job.assert_nothing_left()


def test_mpi_that_was_not_initialized_is_said_clearly(start_job: StartJob) -> None:
    program = """
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
from proxystore_hpc import Store
try:
    Store.from_mpi(MPI.COMM_WORLD)
except ValueError as error:
    assert "call MPI.Init() first" in str(error), error
    print("said so")
"""
    assert "said so" in start_job(1, "-c", program).succeed()
