"""examples/laptop.py as its page says: watched, steered and stopped over TCP."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import procfs

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, str(ROOT / "examples" / "laptop.py"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
TOKEN = "5eed"


@pytest.fixture
def laptop(tmp_path):
    """Runs a command of the example; what it printed."""

    def run(*arguments):
        done = subprocess.run(
            [*PROGRAM, *arguments],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_simulation_is_watched_and_steered(tmp_path, laptop):
    keys = tmp_path / "run.keys"
    simulation = subprocess.Popen(
        [
            *PROGRAM,
            "simulate",
            "run.keys",
            *("--token", TOKEN, "--state", "state", "--seconds", "50"),
        ],
        cwd=tmp_path,
        env={**ENVIRONMENT, "HOME": str(tmp_path / "home"), "XDG_STATE_HOME": ""},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        procfs.wait_until(lambda: keys.exists() and keys.stat().st_size > 0, "keys are there")
        frames = laptop("watch", "run.keys", "--frames", "3").splitlines()
        temperatures = [float(frame.split()[-1]) for frame in frames]
        assert len(temperatures) == 3
        assert temperatures[-1] > 0
        laptop("heat", "run.keys", "500", "--token", TOKEN)
        procfs.wait_until(lambda: not (tmp_path / "order.key").exists(), "the order was taken")
        laptop("stop", "run.keys")
        output, _ = simulation.communicate(timeout=20)
    finally:
        simulation.kill()
        simulation.wait()
    assert output.splitlines() == ["heating with 500 degrees a second", "stopped"]
    assert simulation.returncode == 0
    assert not (tmp_path / "home").exists()  # nothing was left in the user's files
    assert "has ended" in laptop("watch", "run.keys")
