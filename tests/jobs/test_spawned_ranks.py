"""Stores and engines of ranks that were spawned by others, and how the two part."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.job import StartJob

PROGRAM = Path(__file__).with_name("spawn_program.py")
PATHS = os.pathsep.join([str(PROGRAM.parents[1]), os.environ.get("PYTHONPATH", "")])


@pytest.mark.parametrize("door", ["shm", "mpi"], ids="door_{}".format)
@pytest.mark.parametrize("scenario", ["orders", "children_first", "freed_open", "never_freed"])
def test_parents_and_children(start_job: StartJob, scenario: str, door: str) -> None:
    output = start_job(2, PROGRAM, scenario, door, PYTHONPATH=PATHS).succeed()
    assert output.count("as expected") == 2
    assert "stops serving" not in output
