#!/usr/bin/env python3
"""Runs every test of the project, in stages, and closes with one line of counts; see ci/test.

    ci/run_tests.py [quick|full] [--full-share K/N] [--tidy SELECTION] [--ranks 2,4]
                    [--only-mpi] [pytest argument ...]

With pytest arguments only the Python tests run. `quick` leaves out tests marked `full`, the
sanitizers and clang-tidy; `--full-share` adds a share of the full tests to it. `--only-mpi` runs
what depends on which MPI it is: the tests marked mpi, and some that start jobs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import traceback
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "build" / "reports"
PYTEST_LIMIT_S = {"quick": 1500, "full": 5400}
MPI_LIMIT_S = {"quick": 600, "full": 1800}
GUARD_LIMIT_S = 240
PYTEST_FOUND_NOTHING = 5
OF_JOBS = (
    *(
        f"tests/jobs/test_{name}.py"
        for name in ("lammps", "mpi_door_jobs", "spawned_ranks", "suites_over_mpi")
    ),
    "tests/nodes/test_job_across_nodes.py::test_ranks_meet_across_nodes_over_mpi_alone",
    "tests/nodes/test_job_across_nodes.py::test_engines_call_across_nodes_over_mpi_alone",
    "tests/nodes/test_suites_across_nodes.py::test_over_tcp_of_mpi",
)
"""Tests of jobs that do not turn out the same under every MPI."""

import cpp_tests  # noqa: E402
import lint  # noqa: E402


@dataclass
class Stage:
    """Counts of one stage, and why parts of it did not run."""

    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def skip(self, reason: str, count: int = 1) -> None:
        """Notes tests that did not run."""
        self.skipped += count
        self.reasons[reason] += count


def cpp_stage(full: bool) -> Stage:
    """The C++ tests; with the sanitizers in the full tier."""
    stage = Stage("C++")
    for variant in cpp_tests.VARIANTS.values():
        if variant.name != "plain" and not full:
            stage.reasons[f"full tier: C++ tests under {variant.name}"] += 1
            continue
        passed, failed = cpp_tests.build_and_run(variant)
        stage.passed += passed
        stage.failed += failed
    return stage


def lint_stage(tidy: str) -> Stage:
    """Static checks, one count each."""
    stage = Stage("lint")
    for outcome in lint.run(tidy):
        if outcome.skipped:
            stage.skip(f"{outcome.name}: {outcome.skipped}")
        elif outcome.problems:
            stage.failed += 1
        else:
            stage.passed += 1
    return stage


def pytest_stage(tier: str, arguments: list[str]) -> Stage:
    """All Python tests but those for several ranks."""
    report = REPORTS / "pytest.xml"
    command = [
        *(sys.executable, "ci/run_with_stacks.py", str(PYTEST_LIMIT_S[tier])),
        *(sys.executable, "-m", "pytest", "-m", "not mpi", f"--junitxml={report}", *arguments),
    ]
    return from_report(Stage("Python"), report, command, os.environ)


def mpi_stage(tier: str, ranks: int, arguments: list[str]) -> Stage:
    """The tests marked mpi, under mpirun; rank 0 reports, the others are shown if they fail."""
    stage = Stage(f"MPI, {ranks} ranks")
    launcher = os.environ.get("PROXYSTORE_HPC_MPIRUN", "mpirun")
    if shutil.which(launcher) is None:
        stage.skip(f"{launcher} was not found")
        return stage
    report = REPORTS / f"mpi-{ranks}.xml"
    others = REPORTS / f"mpi-{ranks}.rank"
    for stale in REPORTS.glob(f"{others.name}*"):
        stale.unlink()
    # mpi4py's runner aborts the job when one rank fails, so that the others do not wait for it.
    command = [
        *("ci/mpirun", "-n", str(ranks), "ci/lib/quiet_ranks.sh", str(others)),
        *(
            sys.executable,
            "-m",
            "mpi4py",
            "-m",
            "pytest",
            "-x",
            "-m",
            "mpi",
            "--with-mpi",
            "--color=no",
        ),
        *arguments,
    ]
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "MPIRUN_LIMIT_S": str(MPI_LIMIT_S[tier]),
        "QUIET_RANKS_REPORT": str(report),
    }
    from_report(stage, report, command, environment)
    if stage.failed:
        for output in sorted(REPORTS.glob(f"{others.name}*")):
            print(f"--- {output.name}\n{output.read_text(errors='replace')}", flush=True)
    return stage


def from_report(
    stage: Stage, report: Path, command: list[str], environment: Mapping[str, str]
) -> Stage:
    """Runs pytest and reads the counts from its report."""
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    if report.exists():
        for case in ElementTree.parse(report).iter("testcase"):
            skipped = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                stage.failed += 1
            elif skipped is not None:
                stage.skip(skipped.get("message") or "no reason given")
            else:
                stage.passed += 1
    if status not in {0, PYTEST_FOUND_NOTHING} and stage.failed == 0:
        print(f"the stage '{stage.name}' ended with status {status}", flush=True)
        stage.failed += 1
    return stage


def guard_stage() -> Stage:
    """Whether something has become twice as slow, by the machine's limits."""
    stage = Stage("guard")
    done = subprocess.run(
        [sys.executable, "ci/run_with_stacks.py", str(GUARD_LIMIT_S), "ci/guard"],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    # But for its closing line, which would be taken for that of all stages.
    print(done.stdout.partition("total: ")[0], flush=True)
    counts = re.search(r"^total: (\d+) passed, (\d+) failed", done.stdout, re.MULTILINE)
    if counts is None:
        stage.failed = 1
    else:
        stage.passed, stage.failed = int(counts[1]), int(counts[2])
    return stage


def close(stages: list[Stage]) -> int:
    """Prints what ran, what did not and why, and the closing line."""
    print("\n== stages", flush=True)
    for stage in stages:
        print(
            f"   {stage.name:<14} {stage.passed:>5} passed {stage.failed:>4} failed "
            f"{stage.skipped:>4} skipped {stage.seconds:>7.1f} s"
        )
    reasons = [(stage.name, *item) for stage in stages for item in stage.reasons.most_common()]
    if reasons:
        print("== not run")
        for name, reason, count in reasons:
            print(f"   {name}: {reason}" + (f" ({count} times)" if count > 1 else ""))
    passed, failed, skipped = (
        sum(getattr(stage, kind) for stage in stages) for kind in ("passed", "failed", "skipped")
    )
    print(f"total: {passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or not passed else 0


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tier", nargs="?", choices=("quick", "full"), default="quick")
    parser.add_argument("--full-share", metavar="K/N")
    parser.add_argument("--tidy", metavar="all|none|changed|K/N")
    parser.add_argument("--ranks", metavar="N,...", default="2,4")
    parser.add_argument("--only-mpi", action="store_true")
    options, for_pytest = parser.parse_known_args()
    os.chdir(ROOT)
    full = options.tier == "full"
    pytest_arguments = [f"--tier={options.tier}", *for_pytest]
    if options.full_share:
        pytest_arguments.append(f"--full-share={options.full_share}")
    mpi_stages: list[tuple[str, Callable[[], Stage]]] = [
        (f"MPI tests on {n} ranks", partial(mpi_stage, options.tier, n, pytest_arguments))
        for n in map(int, options.ranks.split(","))
    ]
    selected = [*pytest_arguments, *(OF_JOBS if options.only_mpi and not for_pytest else ())]
    python_stages: list[tuple[str, Callable[[], Stage]]] = [
        ("Python tests", lambda: pytest_stage(options.tier, selected)),
        *mpi_stages,
    ]
    other_stages: list[tuple[str, Callable[[], Stage]]] = [
        ("static checks", lambda: lint_stage(options.tidy or ("all" if full else "none"))),
        ("C++ tests", lambda: cpp_stage(full)),
        ("regression guard", guard_stage),
    ]
    stages = []
    only_python = for_pytest or options.only_mpi
    for title, run_stage in python_stages if only_python else [*other_stages, *python_stages]:
        print(f"\n== {title}", flush=True)
        started = time.monotonic()
        try:
            stages.append(run_stage())
        except Exception:
            # The other stages are still worth their run.
            traceback.print_exc()
            stages.append(Stage(title, failed=1))
        stages[-1].seconds = time.monotonic() - started
    return close(stages)


if __name__ == "__main__":
    sys.exit(main())
