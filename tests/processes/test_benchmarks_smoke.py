"""The benchmarks run: tiny sizes, whose figures mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proxystore_hpc.exceptions import DoorUnavailableError
from proxystore_hpc.ucx_runtime import import_ucx_module

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import harness  # noqa: E402


def run(script: str, output: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), "--json", str(output), *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(output.read_text())
    return document


def have_ucx() -> bool:
    try:
        import_ucx_module()
    except DoorUnavailableError:
        return False
    return True


@pytest.mark.timeout(120)
def test_every_target_is_measured_or_says_why_not(tmp_path: Path) -> None:
    document = run("targets.py", tmp_path / "targets.json", "--small")
    verdicts = document["rows"]
    parts = {row["name"].split(":")[0] for row in verdicts}
    expected = {"put", "empty", "same-node", "import", "proxies", "creating", "idle", "busy-owner"}
    if have_ucx():
        expected |= {"ucx", "latency"}
    assert expected <= parts
    for row in verdicts:
        assert row["met"] is not None or row["target"] == "" or row["detail"], row


@pytest.mark.timeout(120)
@pytest.mark.skipif(not have_ucx(), reason="no ucx door here")
def test_every_figure_of_calls_is_measured_or_says_why_not(tmp_path: Path) -> None:
    document = run("rpc.py", tmp_path / "rpc.json", "--small", "--seconds", "0.05")
    rows = document["rows"]
    parts = {row["name"].split(":")[0] for row in rows}
    assert parts == {
        *("null", "asleep", "tcp", "pipelined", "echo", "bulk", "bound", "endurance"),
        "perftest",
    }
    for row in rows:
        assert not row["name"].endswith("cannot be measured"), row
        assert row["met"] is not None or row["target"] == "" or row["detail"], row


@pytest.mark.timeout(120)
def test_gets_over_tcp(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    arguments = ["--sizes", "1KiB,1MiB", "--seconds", "0.05"]
    rows = {row["name"]: row for row in run("tcp.py", tmp_path / "tcp.json", *arguments)["rows"]}
    for way in ("bare", "plain", "gateway", "bare-tls", "tls"):
        assert rows[f"{way} 1 MiB"]["rounds"] >= 5
    assert rows["plain 1 KiB"]["times_allowed"] > 0
    assert rows["tls 1 MiB"]["share"] > 0


@pytest.mark.full
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two cores are needed")
def test_tcp_load(tmp_path: Path) -> None:
    arguments = ["--silent", "5", "--busy", "2", "--seconds", "0.4", "--rounds", "2"]
    rows = run("tcp_load.py", tmp_path / "load.json", *arguments)["rows"]
    assert [row["name"] for row in rows] == ["nothing", "5 silent clients", "and 2 busy ones"]
    assert rows[-1]["bytes_per_second"] > 0


def test_things_that_are_compared_take_turns() -> None:
    order: list[str] = []
    actions = {name: (lambda name=name: order.append(name)) for name in "ab"}
    figures = harness.interleaved(actions, seconds=0, fewest=20, warm_up=1)
    rounds = ["".join(order[i : i + 2]) for i in range(0, len(order), 2)]
    assert len(rounds) == 21
    # In another order now and then, but each in every round.
    assert set(rounds) == {"ab", "ba"}
    assert len(figures["a"].samples) == len(figures["b"].samples) == 20


def test_futures(tmp_path: Path) -> None:
    document = run("futures.py", tmp_path / "futures.json", "--seconds", "0.05")
    rows = {(row["owner"], row["nbytes"]): row for row in document["rows"]}
    assert len(rows) == 4
    assert all(0 < row["min_s"] <= row["median_s"] <= row["p99_s"] for row in rows.values())


@pytest.mark.full
def test_streams(tmp_path: Path) -> None:
    small = ["--sizes", "1000,10kB", "--items", "50,20", "--rounds", "1"]
    document = run("stream.py", tmp_path / "stream.json", *small)
    ours = [row for row in document["rows"] if row["name"].startswith("ours")]
    assert len(ours) == 4
    assert all(row["items_per_s"] > 0 for row in ours)


@pytest.mark.full
@pytest.mark.timeout(120)
def test_against_proxystore(tmp_path: Path) -> None:
    pytest.importorskip("proxystore")
    document = run("vs_proxystore.py", tmp_path / "versus.json", "--small", "--seconds", "0.05")
    measured = [row for row in document["rows"] if "against file" in row["what"]]
    assert len(measured) >= 3
    for row in measured:
        assert row["figures"]["ours"]["min_s"] > 0
        assert row["figures"]["file"]["min_s"] > 0
    assert any("8 threads" in row["what"] for row in document["rows"])


def test_setting_up_and_clearing_away_are_not_timed() -> None:
    import time

    results: list[object] = []
    action = harness.Action(
        lambda: "done", before=lambda: time.sleep(0.05), after=results.append, loops=3
    )
    stats = harness.timed(action, seconds=0, fewest=3, warm_up=0)
    assert results == ["done"] * 3
    assert stats.median < 0.05


def test_ratio_is_taken_round_by_round() -> None:
    # A machine that grows busier by the round hides nothing.
    figures = {
        "slow": harness.Stats((2.0, 20.0, 200.0)),
        "fast": harness.Stats((1.0, 10.0, 100.0)),
    }
    assert harness.ratio(figures, "slow", "fast") == 2.0
    assert figures["slow"].p99 == 200.0
    assert figures["slow"].p10 == 2.0


def test_a_peer_that_raises_or_dies_is_an_error_here() -> None:
    with harness.Companion("harness:StreamSender", nbytes=8) as peer:
        with pytest.raises(harness.CompanionError, match="AttributeError"):
            peer.call("no_such_method")
        peer.process.kill()
        with pytest.raises(harness.CompanionError, match="ended with -9"):
            peer.call("port")
    assert peer.process.poll() is not None


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(3.21e-9, "3.21 ns"), (4.56e-5, "45.6 us"), (0.789, "789 ms"), (12.0, "12.00 s")],
)
def test_durations_have_three_digits(seconds: float, shown: str) -> None:
    assert harness.duration(seconds) == shown
