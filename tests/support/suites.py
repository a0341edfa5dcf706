"""Suites that another test runs: between other sides (support/ways.py), or with other parts."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PROGRAM = Path(__file__).with_name("suite_program.py")
IN_FULL_TIER = "full tier"


@dataclass(frozen=True)
class Suite:
    """A file of tests.

    Attributes:
        file: Below tests/processes.
        least: How many tests run in each of its ways, at least, without those of the full tier.
    """

    file: str
    least: int

    def __str__(self) -> str:
        return self.file

    def arguments(self, folder: Path, *more: str) -> list[str]:
        """Arguments of pytest, which writes its report into `folder`."""
        return arguments(folder, *more, str(TESTS / "processes" / f"{self.file}.py"))


SUITES = (
    Suite("test_rpc_calls", 67),
    Suite("test_rpc_bulk_calls", 5),
    Suite("test_data_through_doors", 52),
)


def arguments(folder: Path, *more: str) -> list[str]:
    """Arguments of pytest, which writes its report into `folder`."""
    return [
        *("-c", str(TESTS.parent / "pyproject.toml"), "--rootdir", str(TESTS.parent)),
        *("-q", "--color=no", f"--junitxml={report(folder)}", *more),
    ]


def passed(folder: Path, *, excused: Sequence[str] = (IN_FULL_TIER,)) -> list[str]:
    """Names of the tests that passed. Fails if others did not, but for skips of these reasons."""
    names = []
    for case in ElementTree.parse(report(folder)).iter("testcase"):
        assert case.find("failure") is None, case.get("name")
        assert case.find("error") is None, case.get("name")
        skipped = case.find("skipped")
        if skipped is None:
            names.append(case.get("name", ""))
        else:
            reason = skipped.get("message", "")
            assert any(text in reason for text in excused), (
                f"{case.get('name')} is skipped: {reason}"
            )
    return names


def report(folder: Path) -> Path:
    return folder / "report.xml"
