"""No-op tasks with and without proxies, as the benchmark suite runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from proxystore_hpc.bench import faas, published
from proxystore_hpc.bench.contestant import Kind, Operation, UnavailableError
from proxystore_hpc.bench.data import pattern

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "sc23.py"
CONTESTANTS = {contestant.name: contestant for contestant in faas.CONTESTANTS}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", CONTESTANTS)
def test_contestant(name: str) -> None:
    contestant = CONTESTANTS[name]
    assert contestant.operations == {Operation.TASK}
    assert contestant.kind is (Kind.OURS if "proxies" in name else Kind.PEER)
    try:
        contestant.check()
    except UnavailableError as error:
        pytest.skip(str(error))
    for nbytes in (10, 300_001):
        with contestant.open(Operation.TASK, nbytes) as burst:
            assert all(0 < burst() < 60 for _ in range(2))


def test_a_garbled_input_is_found() -> None:
    assert faas.noop(pattern(1000)) == 1000
    assert faas.look(1000) == ""
    faas.noop(np.roll(pattern(1000), 1))
    assert "other bytes" in faas.look(1000)


@pytest.mark.timeout(120)
def test_the_program(tmp_path: Path) -> None:
    output = tmp_path / "faas.json"
    command = [sys.executable, str(PROGRAM), "--part", "faas", "--json", str(output)]
    done = subprocess.run(
        [*command, "--sizes", "10", "--rounds", "1"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["name"]: row for row in json.loads(output.read_text())["rows"]}
    assert rows["pool-tasks 10 B"]["median_s"] > 0
    assert rows["pool+proxies 10 B"]["median_s"] > 0
    assert "Globus Compute: 10 B 470 ms" in done.stdout


def test_published_times_grow_with_sizes() -> None:
    """Slips of the pen would show."""
    for connectors in published.SITES.values():
        assert set(connectors) == {"redis", "margo", "ucx", "zmq"}
        for medians in connectors.values():
            assert list(medians) == [1, 10**6, 10**8, 10**9]
            for part in (0, 1):
                times = [both[part] for both in medians.values()]
                assert times == sorted(times)
                assert 1e-4 < times[0] < times[-1] < 10
