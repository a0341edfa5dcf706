"""`proxystore-hpc info --measure` opens doors between processes that it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxystore_hpc.cli import measure
from proxystore_hpc.cli.node import why_no_process_vm_readv
from proxystore_hpc.cli.peer import Plan


def test_a_mapped_segment_has_figures_and_a_view() -> None:
    row = measure.measure(Plan("shm", "mapped segment"))
    assert row.refused is None
    assert row.latency_us is not None
    assert row.latency_min_us is not None
    assert 0 < row.latency_min_us <= row.latency_us
    assert row.bandwidth is not None
    assert row.bandwidth > 0
    assert row.mapped_us is not None


@pytest.mark.skipif(why_no_process_vm_readv() is not None, reason="process_vm_readv is refused")
def test_registered_memory_is_read_in_place() -> None:
    row = measure.measure(Plan("shm", "registered", live=True))
    assert row.refused is None
    assert row.mapped_us is None


def test_the_socket_is_measured() -> None:
    row = measure.measure(Plan("socket", "unix socket"))
    assert row.refused is None


def test_a_door_that_cannot_be_opened_costs_its_row_only() -> None:
    row = measure.measure(Plan("tunnel", "nothing"))
    assert row.unexpected
    assert "there is no door 'tunnel'" in str(row.refused)


def test_a_peer_that_dies_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # A Python that ends itself where the peer should run.
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho oh dear >&2\nkill -SEGV $$\n")
    fake.chmod(0o755)
    monkeypatch.setattr(measure.sys, "executable", str(fake))
    row = measure.measure(Plan("shm", "mapped segment"))
    assert row.unexpected
    assert "was ended by SIGSEGV" in str(row.refused)
    assert "oh dear" in str(row.refused)


def test_the_command_prints_a_row_for_each_door_and_leaves_nobody_behind() -> None:
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("OMPI_", "PMIX_"))}
    done = subprocess.run(
        [sys.executable, "-m", "proxystore_hpc", "info", "--measure", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    document = json.loads(done.stdout)
    rows = {(row["door"], row["how"]): row for row in document["measured"]}
    assert {door for door, _ in rows} == {"shm", "socket", "ucx"}
    for row in rows.values():
        # Each has figures or says why not.
        assert (row["latency_us"] is None) == (row["refused"] is not None), row
    assert done.returncode == (1 if any(row["unexpected"] for row in rows.values()) else 0)
    assert "measuring" not in done.stderr
