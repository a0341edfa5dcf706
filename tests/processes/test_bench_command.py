"""The benchmark command from end to end, in little time: its figures mean nothing here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support import procfs

from proxystore_hpc.bench.record import Record

ROOT = Path(__file__).resolve().parents[2]
DOORS = {"self", "shm", "socket"}
FEW = ["--peers", "none", "--contestants", "self,shm,socket"]


def bench(*arguments: object, module: str = "proxystore_hpc", status: int = 0):
    command = [sys.executable, "-m", module]
    if module == "proxystore_hpc":
        command.append("bench")
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def test_a_run_leaves_a_table_json_and_a_page(tmp_path):
    old, new, page = tmp_path / "old.json", tmp_path / "new.json", tmp_path / "page.html"
    quick = ["--quick", "--only", "doors", "--sizes", "8,64KiB", "--seconds", "0", *FEW]
    done = bench(*quick, "--json", old)
    assert "doors: exchange of 8 B" in done.stdout
    assert "[4/4" in done.stderr
    assert done.stderr.count(" left] doors") == 4
    assert "for opening and closing, of which" in done.stdout
    record = Record.load(old)
    assert record.finished
    assert record.machine["cores"] >= 1
    assert record.machine["load_after"] >= 0
    assert record.clock["pair_s"] < 1e-3
    assert {(c.operation.value, c.nbytes) for c in record.comparisons} == {
        (operation, nbytes) for operation in ("exchange", "get") for nbytes in (8, 65536)
    }
    for comparison in record.comparisons:
        took_part = {series.contestant for series in comparison.series}
        assert took_part >= DOORS | {"memcpy", "unix-socket"}
        for series in comparison.series:
            assert len(series.samples) == len(series.rounds) == 5
        for door in DOORS:
            share = record.share(comparison, door)
            assert 0 < share.low <= share.value <= share.high
    for absence in record.absences:
        assert absence.reason

    # What is copied cannot be had in the time of something far below a copy.
    (large,) = [c for c in record.comparisons if (c.operation, c.nbytes) == ("exchange", 65536)]
    assert record.share(large, "socket").value < 3

    done = bench(*quick, "--json", new, "--html", page, "--compare", old, module="benchmarks")
    assert "compared with the earlier run" in done.stdout
    text = page.read_text("utf-8")
    body = text[text.index("<body>") : text.index("</body>") + len("</body>")]
    assert len(ElementTree.fromstring(body).findall(".//svg")) >= 4
    assert "What changed" in text
    for door in DOORS:
        assert door in body


def test_what_can_run_is_listed_with_reasons():
    done = bench("--list", "--peers", "none")
    lines = done.stdout.splitlines()
    assert any(line.split()[:2] == ["yes", "memcpy"] for line in lines)
    missing = [line for line in lines if line.startswith("  no ")]
    assert all(len(line.split()) > 4 for line in missing)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--only", "wings"), "the groups are doors"),
        (("--peers", "nobody"), "there is no peer 'nobody'"),
        (("--contestants", "shm,nobody"), "there is no contestant 'nobody'"),
        (("--sizes", "8,many"), "is no size"),
        (("--sizes", "0"), "no bytes"),
        (("--seconds", "-1"), "cannot be negative"),
        (("--quick", "--full"), "not allowed with"),
    ],
)
def test_wrong_arguments_are_told(arguments, told):
    assert told in bench(*arguments, status=2).stderr


def test_what_is_no_earlier_run_is_refused_before_anything_is_measured(tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"benchmark": "doors", "rows": []}))
    done = bench("--compare", path, status=2)
    assert "other.json" in done.stderr
    assert "[1/" not in done.stderr


def test_where_nothing_can_be_written_nothing_is_measured(tmp_path):
    done = bench("--quick", *FEW, "--json", tmp_path / "no" / "such.json", status=2)
    assert "nothing can be written" in done.stderr
    assert "[1/" not in done.stderr


def support_run(*arguments: object):
    return subprocess.run(
        [sys.executable, "-m", "support.benching", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_who_has_become_slower_is_told(tmp_path):
    old, page = tmp_path / "old.json", tmp_path / "page.html"
    arguments = ["--quick", "--only", "doors/put", "--sizes", "64KiB", "--seconds", "0.3"]
    arguments += ["--peers", "none", "--contestants", "self,shm"]
    bench(*arguments, "--json", old)
    done = support_run("slowed", 5, "shm", *arguments, "--compare", old, "--html", page)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line.split()[:2] for line in done.stdout.splitlines() if "x the time" in line]
    assert ["SLOWER", "shm"] in told
    assert ["SLOWER", "self"] not in told
    assert "What changed" in page.read_text("utf-8")


def test_what_hangs_where_no_signal_reaches_it_ends_the_run_with_what_there_is(tmp_path):
    output, page = tmp_path / "part.json", tmp_path / "part.html"
    arguments = ["--only", "doors/get", "--sizes", "1KiB,64KiB", "--seconds", "0"]
    arguments += ["--peers", "none", "--contestants", "self,deaf"]
    done = support_run("hanging", *arguments, "--json", output, "--html", page)
    assert done.returncode == 70, done.stdout + done.stderr
    assert "a burst of deaf did not end within 1 s and cannot be interrupted" in done.stderr
    record = Record.load(output)
    assert not record.finished
    (comparison,) = record.comparisons
    assert comparison.nbytes == 1024
    assert {"self", "deaf"} <= {series.contestant for series in comparison.series}
    assert "This run was not finished" in page.read_text("utf-8")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_shows_what_there_is(tmp_path, how):
    output = tmp_path / "part.json"
    command = [sys.executable, "-m", "proxystore_hpc", "bench", "--only", "doors", *FEW]
    process = subprocess.Popen(
        [*command, "--sizes", "8,1KiB,64KiB", "--seconds", "0", "--json", str(output)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[2/"):
            break
    children = procfs.children(process.pid)
    process.send_signal(how)
    _, errors = process.communicate(timeout=50)
    assert process.returncode == 0, errors
    record = Record.load(output)
    assert not record.finished
    assert record.comparisons
    procfs.wait_until(
        lambda: not any(procfs.exists(pid) for pid in children), "no companion is left"
    )
