"""The code in the documentation runs, page by page, as a reader would type it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.doors import require_door

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
NEEDS_MPIRUN = "# mpirun"
# One of the pages' own, which ends soon after them.
KEEPER = {"PROXYSTORE_HPC_KEEPER": "docs", "PROXYSTORE_HPC_KEEPER_IDLE": "0.5"}


def runnable(page: Path) -> str:
    blocks = BLOCK.findall(page.read_text("utf-8"))
    return "\n".join(block for block in blocks if not block.startswith(NEEDS_MPIRUN))


PAGES = sorted(
    page for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")) if runnable(page)
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_of_page_runs(page: Path, tmp_path: Path) -> None:
    code = runnable(page)
    if "Engine(" in code:
        require_door("ucx")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **KEEPER, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_links_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []
