"""Pools of MPI workers with proxies as arguments and results, and the example of one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.job import StartJob

PROGRAM = Path(__file__).with_name("pool_program.py")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "mpi_pool.py"
SMALL = ("--size", "512", "--spots", "12")
PICTURE_NBYTES = 512 * 512 * 8
POOL = ("-m", "mpi4py.futures")

# An id "mpi" alone would be taken for the marker.
both_doors = pytest.mark.parametrize("door", ["shm", "mpi"], ids="door_{}".format)


@both_doors
@pytest.mark.parametrize("scenario", ["in_the_job", "wrong_in_workers"])
def test_workers_that_are_ranks_of_the_job(start_job: StartJob, scenario: str, door: str) -> None:
    assert "as expected" in start_job(3, *POOL, PROGRAM, scenario, door).succeed()


@both_doors
def test_an_executor_on_a_communicator(start_job: StartJob, door: str) -> None:
    assert "as expected" in start_job(3, PROGRAM, "on_a_communicator", door).succeed()


@both_doors
def test_an_executor_on_spawned_ranks(start_job: StartJob, door: str) -> None:
    assert "as expected" in start_job(1, PROGRAM, "on_merged_children", door).succeed()


@pytest.mark.parametrize("scenario", ["spawned", "spawned_without_initializer"])
def test_workers_that_the_pool_spawns(start_job: StartJob, scenario: str) -> None:
    assert "as expected" in start_job(1, PROGRAM, scenario, "shm").succeed()


def told(output: str, what: str) -> int:
    found = re.search(rf"^ +through {what} +([\d,]+) bytes$", output, re.MULTILINE)
    assert found is not None, output
    return int(found[1].replace(",", ""))


def check_example(output: str, door: str) -> None:
    assert "12 spots found, 12 of 12 known ones" in output
    # 17 tasks and their results.
    assert told(output, "MPI as pickles") < 20_000
    assert told(output, f"the door {door}") >= 2 * PICTURE_NBYTES
    assert set(re.findall(r"through the door (\w+)", output)) <= {"self", door}


@both_doors
def test_the_example_finds_what_is_there(start_job: StartJob, door: str) -> None:
    check_example(start_job(3, *POOL, EXAMPLE, *SMALL, "--door", door).succeed(), door)


def test_the_example_spawns_workers(start_job: StartJob) -> None:
    check_example(start_job(1, EXAMPLE, *SMALL, "--workers", "2").succeed(), "shm")


def test_the_example_without_proxies(start_job: StartJob) -> None:
    output = start_job(3, *POOL, EXAMPLE, *SMALL, "--arrays").succeed()
    assert "12 spots found, 12 of 12 known ones" in output
    # 9 pictures to blur, 9 blurred ones back, and 8 pairs.
    assert told(output, "MPI as pickles") > 34 * PICTURE_NBYTES
    assert "through the door" not in output


@pytest.mark.parametrize(
    ("ranks", "arguments", "words"),
    [
        (2, (EXAMPLE,), "python -m mpi4py.futures"),
        (1, (EXAMPLE, "--door", "mpi"), "spawned workers are in no communicator"),
        (1, (EXAMPLE, "--size", "100"), "too small for 40 spots"),
    ],
)
def test_mistakes_are_told(
    start_job: StartJob, ranks: int, arguments: tuple[object, ...], words: str
) -> None:
    job = start_job(ranks, *arguments)
    assert words in job.end()
    assert job.process.returncode != 0
