"""The example of a whole simulation: its frames, its reports, and who looks in from outside."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support import procfs
from support.job import StartJob

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
GRAY_SCOTT = EXAMPLES / "gray_scott.py"
SIZE, STEPS, EVERY, SEED = 37, 45, 20, 5
WRITTEN = [0, 20, 40, 45]
FEED, KILL = 0.050, 0.063


@pytest.fixture(scope="module")
def beginning() -> np.ndarray[Any, Any]:
    """What the simulation starts from, in one piece."""
    program = (
        "import sys, numpy; sys.path.insert(0, sys.argv[1]); import mpi4py; "
        "mpi4py.rc.initialize = False; from reaction import Tile; "
        "now = numpy.empty((2, int(sys.argv[2]), int(sys.argv[2]))); "
        "tile = Tile.of(int(sys.argv[2]), [1, 1], [0, 0]); "
        "tile.begin(now, int(sys.argv[2]), int(sys.argv[3])); "
        "sys.stdout.buffer.write(now.tobytes())"
    )
    pytest.importorskip("PIL")
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed")
    done = subprocess.run(
        [sys.executable, "-c", program, str(EXAMPLES), str(SIZE), str(SEED)],
        capture_output=True,
        check=True,
    )
    return np.frombuffer(done.stdout).reshape(2, SIZE, SIZE).copy()


def reference(beginning: np.ndarray[Any, Any], steps: int) -> np.ndarray[Any, Any]:
    """The equations as Pearson's paper has them, in one piece and without care for speed."""
    u, v = beginning
    area = (2.5 / 256) ** 2

    def laplacian(w: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        around = sum(np.roll(w, shift, axis) for axis in (0, 1) for shift in (1, -1))
        return (around - 4 * w) / area

    for _ in range(steps):
        reaction = u * v**2
        u, v = (
            u + 2e-5 * laplacian(u) - reaction + FEED * (1 - u),
            v + 1e-5 * laplacian(v) + reaction - (FEED + KILL) * v,
        )
    return np.stack([u, v])


def arguments(out: Path, *more: object) -> list[object]:
    return [
        *("--pattern", "kappa", "--size", SIZE, "--steps", STEPS, "--every", EVERY),
        *("--seed", SEED, "--pixels", 64, "--out", out, "--save-fields", *more),
    ]


@pytest.mark.parametrize("ranks", [1, 2, 4, 7])
def test_every_frame_is_of_one_step_and_right(
    start_job: StartJob, tmp_path: Path, beginning: np.ndarray[Any, Any], ranks: int
) -> None:
    """On 7 ranks, the tiles are 3 x 2 and of different sizes."""
    output = start_job(ranks, GRAY_SCOTT, *arguments(tmp_path)).succeed()
    lines = [json.loads(line) for line in (tmp_path / "statistics.jsonl").open()]
    assert [line["step"] for line in lines] == WRITTEN
    for step, line in zip(WRITTEN, lines, strict=True):
        expected = reference(beginning, step)
        frame = np.load(tmp_path / f"{step:06d}.npy")
        # Were one tile of another step, it would be off by far more than rounding.
        np.testing.assert_allclose(frame, expected, rtol=0, atol=1e-12)
        assert line["mean_v"] == pytest.approx(expected[1].mean())
        assert line["mean_u"] == pytest.approx(expected[0].mean())
    simulating = max(1, ranks - 1)
    door = "self" if ranks == 1 else "shm"
    objects = len(WRITTEN) * simulating
    assert re.search(rf"stored +{objects} objects", output)
    assert re.search(rf"through the door {door} +{objects} objects", output)
    assert output.count("through the door") == 1
    assert "is copied" not in output  # every tile was sealed where it lay


def test_steps_differ_by_more_than_rounding(beginning: np.ndarray[Any, Any]) -> None:
    """Without which the test above would prove nothing."""
    assert np.abs(reference(beginning, 40) - reference(beginning, 39)).max() > 1e-4


def test_any_number_of_ranks_gives_the_same_bits(start_job: StartJob, tmp_path: Path) -> None:
    for ranks in (1, 4):
        start_job(ranks, GRAY_SCOTT, *arguments(tmp_path / str(ranks))).succeed()
    for step in WRITTEN:
        alone, together = (np.load(tmp_path / n / f"{step:06d}.npy") for n in ("1", "4"))
        assert alone.tobytes() == together.tobytes()


def test_frames_are_pictures(start_job: StartJob, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    start_job(2, GRAY_SCOTT, *arguments(tmp_path)).succeed()
    names = [f"{step:06d}.png" for step in WRITTEN]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == sorted([*names, "final.png"])
    first, last = (np.asarray(image.open(tmp_path / name)) for name in (names[0], "final.png"))
    assert first.shape == last.shape == (2 * SIZE, 2 * SIZE, 3)
    assert (tmp_path / names[-1]).read_bytes() == (tmp_path / "final.png").read_bytes()
    assert len(np.unique(last.reshape(-1, 3), axis=0)) > 100
    assert np.abs(first.astype(int) - last).mean() > 3


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (("--size", "3"), "a tile needs 2 x 2 cells"),
        (("--steps", "0"), "a positive number is needed"),
        (("--every", "x"), "invalid positive value: 'x'"),
        (("--pattern", "omega"), "invalid choice"),
        (("--feed", "1"), "nothing grows outside of 0 to 0.1"),
        (("--palette", "grey"), "invalid choice"),
    ],
)
def test_mistakes_are_told_once(start_job: StartJob, mistake: tuple[str, str], words: str) -> None:
    job = start_job(4, GRAY_SCOTT, *mistake)
    output = job.end()
    assert job.process.returncode != 0
    assert output.count(words) == 1
    assert "Traceback" not in output


def test_help_tells_of_the_patterns(start_job: StartJob) -> None:
    output = start_job(2, GRAY_SCOTT, "--help").succeed()
    assert output.count("usage:") == 1
    assert "Pearson" in output
    assert "theta" in output


def test_without_pillow_it_says_what_to_install(start_job: StartJob, tmp_path: Path) -> None:
    (tmp_path / "PIL.py").write_text("raise ImportError('no Pillow here')")
    job = start_job(2, GRAY_SCOTT, *arguments(tmp_path), PYTHONPATH=with_path(tmp_path))
    output = job.end()
    assert job.process.returncode != 0
    assert "pip install pillow" in output
    assert "Traceback" not in output


def test_a_process_outside_of_mpi_uses_the_tiles_of_the_running_job(
    start_job: StartJob, tmp_path: Path
) -> None:
    handed = tmp_path / "tiles.proxies"
    job = start_job(
        4,
        GRAY_SCOTT,
        *("--size", 64, "--steps", 1_000_000, "--every", 20, "--pixels", 64),
        *("--out", tmp_path, "--hand-out", handed),
    )
    procfs.wait_until(handed.exists, "the job hands out proxies", timeout=30)
    assert handed.stat().st_mode & 0o077 == 0
    assert handed.stat().st_size < 2000
    outside = subprocess.run(
        [sys.executable, EXAMPLES / "outside_mpi.py", handed, "--frames", "3", "--picture"],
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert outside.returncode == 0, outside.stderr
    told = [line for line in outside.stdout.splitlines() if line.startswith("step ")]
    assert len(told) == 3
    lines = [json.loads(line) for line in (tmp_path / "statistics.jsonl").open()]
    means = {line["step"]: line["mean_v"] for line in lines}
    for number, line in enumerate(told, 1):
        step = int(line.split()[1].rstrip(":"))
        assert f"3 tiles, mean v {means[step]:.6f}, tiles so far: " in line
        # More, where tiles of a step were already gone and the next step was taken.
        counted = re.search(r"tiles so far: (\d+) by shm$", line)
        assert counted is not None
        assert int(counted[1]) >= 3 * number
    assert job.process.poll() is None


def test_outside_it_ends_when_the_simulation_does(start_job: StartJob, tmp_path: Path) -> None:
    handed = tmp_path / "tiles.proxies"
    outside = subprocess.Popen(
        [sys.executable, EXAMPLES / "outside_mpi.py", handed], stdout=subprocess.PIPE, text=True
    )
    try:
        # Long enough for the other process to start on a busy machine.
        job = start_job(
            2,
            GRAY_SCOTT,
            *("--size", 32, "--steps", 10_000, "--every", 100, "--pixels", 32),
            *("--out", tmp_path, "--hand-out", handed),
        )
        job.succeed()
        output, _ = outside.communicate(timeout=30)
    finally:
        outside.kill()
        outside.wait()
    assert outside.returncode == 0
    assert output.startswith("step ")
    assert not handed.exists()


def with_path(folder: Path) -> str:
    return f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"


def load(name: str) -> ModuleType:
    """A module of the examples."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_colours_come_back_from_oklab() -> None:
    pytest.importorskip("PIL")
    picture = load("picture")
    for colours in picture.PALETTES.values():
        lab = picture.to_oklab(colours)
        back = [f"#{bytes(c).hex()}" for c in picture.to_srgb(lab)]
        assert back == colours.split()


def test_pictures_have_no_seam() -> None:
    """A periodic field, shifted by half its size, gives the same picture shifted by half."""
    pytest.importorskip("PIL")
    picture = load("picture")
    field = np.random.default_rng(1).random((16, 16))
    painter = picture.Painter("lagoon", 0.0, 1.0, pixels=64)
    whole = np.asarray(painter.paint(field))
    shifted = np.asarray(painter.paint(np.roll(field, (8, 8), (0, 1))))
    np.testing.assert_array_equal(np.roll(whole, (32, 32), (0, 1)), shifted)
