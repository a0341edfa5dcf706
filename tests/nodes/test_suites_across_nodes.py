"""The suites of calls, of bulk handles and of doors, from one node to the other.

They check themselves that every call and every transfer took the lane or the door it was to take.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import suites
from support.doors import require_door
from support.nodes import launched

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(200)]

LIMIT_S = 150
DOORS = suites.SUITES[-1]


@pytest.mark.parametrize("suite", suites.SUITES, ids=str)
def test_over_tcp_of_ucx(nodes, tmp_path: Path, suite: suites.Suite) -> None:
    require_door("ucx")
    pytest_there = (sys.executable, "-m", "pytest", "--over=nodes")
    done = subprocess.run(
        [*nodes[0].launcher, *pytest_there, *suite.arguments(tmp_path)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = suites.passed(tmp_path)
    ways = {"socket", "ucx", "tcp"} if suite is DOORS else {"tcp"}
    for way in ways:
        assert sum(f"[{way}" in name for name in names) >= suite.least
    assert len(names) >= len(ways) * suite.least


@pytest.mark.parametrize("suite", suites.SUITES, ids=str)
def test_over_tcp_of_mpi(nodes, tmp_path: Path, suite: suites.Suite) -> None:
    program = ("-m", "mpi4py", suites.PROGRAM, *suite.arguments(tmp_path))
    output = launched(nodes, tmp_path, *program, per_node=1, limit_s=LIMIT_S)
    name = nodes[0].pair.name
    assert f"ranks on {name}1, {name}2" in output
    assert len(suites.passed(tmp_path)) >= suite.least
