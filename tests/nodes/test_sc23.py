"""The paper's experiment between two nodes: small arrays, whose times mean nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proxystore_hpc.exceptions import DoorUnavailableError
from proxystore_hpc.ucx_runtime import import_ucx_module

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(180)]

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "sc23.py"


def run(output: Path, *arguments: str) -> tuple[str, dict[str, dict[str, Any]]]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--part", "fig5", "--json", str(output), *arguments],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(output.read_text())["rows"]
    return done.stdout, {row["name"]: row for row in rows}


def expected() -> set[str]:
    """What can cross here."""

    def has(*modules: str) -> bool:
        return all(importlib.util.find_spec(module) for module in modules)

    found = {"tcp"}
    if has("cryptography"):
        found.add("tcp-tls")
    try:
        import_ucx_module()
        found.add("ucx-tcp")
    except DoorUnavailableError:
        pass
    if has("mpi4py") and (Path(sys.executable).with_name("mpirun").exists()):
        found.add("mpi")
    if has("proxystore"):
        found.add("file")
        if has("redis") and shutil.which("redis-server"):
            found.add("redis")
        if has("proxystore_ex", "zmq"):
            found.add("zmq")
        if has("aiortc"):
            found.add("endpoint")
    return found


def test_put_on_one_node_and_get_on_another(tmp_path: Path) -> None:
    output, rows = run(tmp_path / "sc23.json", "--largest", "10", "--rounds", "1")
    for name in expected():
        for what in ("put", "get"):
            for size in ("1 B", "10 B"):
                assert 0 < rows[f"{name} {what} {size}"]["median_s"] < 60, output
    # Beside them stands what was published, with what it is worth.
    assert "Published medians of Polaris" in output
    assert "1.10 s" in output
    assert "other machines" in output


def test_what_cannot_cross_is_told_and_large_arrays_go_one_by_one(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    plot = tmp_path / "plot.svg"
    arguments = ["--rounds", "1", "--only", "tcp,tcp-tls", "--sizes", "20000000"]
    if importlib.util.find_spec("matplotlib"):
        arguments += ["--plot", str(plot)]
    output, rows = run(tmp_path / "sc23.json", *arguments)
    assert set(rows) == {f"{n} {w} 20 MB" for n in ("tcp", "tcp-tls") for w in ("put", "get")}
    assert "the same, encrypted" in output
    if "--plot" in arguments:
        assert "published: Chameleon" in plot.read_text()
