"""The regression guard: shares of limits, of the same run, that this package must reach.

    ci/guard [--slow-down FACTOR]

A bound is about 0.6 of what is usual, so that something that has become twice as slow falls below
it. A check passes if one of three tries does; all that are compared take turns, so a busy machine
slows both. `--slow-down 2` multiplies our times, to see that the guard would find that.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from proxystore_hpc.bench import suite
from proxystore_hpc.bench.contestant import Operation
from proxystore_hpc.bench.record import Record
from proxystore_hpc.bench.runner import Match, Pace, Runner

TRIES = 3
PACE = Pace(seconds=0.3, fewest=9, most=60, warm_up=2)
KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Check:
    """One share, and the least that it may be."""

    contestant: str
    operation: Operation
    nbytes: int
    least: float

    def __str__(self) -> str:
        size = f" of {self.nbytes} bytes" if self.nbytes else ""
        return f"{self.contestant}: {self.operation.value}{size}"


CHECKS = (
    Check("shm", Operation.GET, KIB, 0.050),
    Check("shm", Operation.PUT, KIB, 0.049),
    Check("registered", Operation.GET, MIB, 0.42),
    Check("engine-shm", Operation.PULL, MIB, 0.50),
    Check("proxy", Operation.USE, 0, 0.48),
)


def measure(checks: Sequence[Check]) -> dict[Check, float]:
    """The shares, of those that could be measured."""
    names = sorted({check.contestant for check in checks})
    record = Record()
    runner = Runner(suite.chosen(suite.contestants("none"), names), PACE, record)
    runner.check()
    found = {}
    try:
        for check in checks:
            comparison = runner.run(Match("guard", check.operation, check.nbytes))
            share = None
            if comparison.of(check.contestant) is not None:
                share = record.share(comparison, check.contestant)
            if share is not None:
                found[check] = share.value
    finally:
        runner.close()
    for absence in record.absences:
        print(f"   {absence.contestant}: {absence.reason}", flush=True)
    return found


def main() -> int:
    """Runs what has not passed yet, three times at most."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slow-down", type=float, default=1.0, metavar="FACTOR")
    options = parser.parse_args()
    left, passed = list(CHECKS), 0
    for attempt in range(1, TRIES + 1):
        found = measure(left)
        for check, measured in found.items():
            share = measured / options.slow_down
            word = "ok" if share >= check.least else "LOW"
            told = f"{100 * share:.1f} % of its limit, {100 * check.least:.1f} % are needed"
            print(f"try {attempt}: {check}: {told}: {word}", flush=True)
            if share >= check.least:
                left.remove(check)
                passed += 1
        if not left:
            break
    for check in left:
        print(f"FAILED: {check}", flush=True)
    print(f"total: {passed} passed, {len(left)} failed, 0 skipped")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
