"""The regression guard finds what it is there for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.full
def test_a_regression_of_two_fails_it() -> None:
    done = subprocess.run(
        [str(ROOT / "ci/guard"), "--slow-down", "2"],
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "try 3" in done.stdout
    assert "total: 0 passed, 5 failed" in done.stdout
