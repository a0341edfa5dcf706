"""The workflow examples run, small, and both of their ways agree."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "workflows"
SMALL = {
    "federated.py": ("--parameters", "10000", "--rounds", "3", "--clients", "3"),
    "map_reduce.py": ("--size", "48MiB"),
}
LIBRARIES = {"processes": None, "dask": "distributed", "parsl": "parsl", "colmena": "colmena"}
CASES = [
    pytest.param(
        example,
        executor,
        marks=[] if (example, executor) == ("federated.py", "processes") else pytest.mark.full,
    )
    for example in SMALL
    for executor in LIBRARIES
]


@pytest.mark.timeout(150)
@pytest.mark.parametrize(("example", "executor"), CASES)
def test_an_example(example: str, executor: str, tmp_path: Path) -> None:
    library = LIBRARIES[executor]
    if library is not None and importlib.util.find_spec(library) is None:
        how = library if library == "colmena" else "'proxystore_hpc[workflows]'"
        pytest.skip(f"{library} is not installed: pip install {how}")
    command = [sys.executable, str(EXAMPLES / example), "--executor", executor, *SMALL[example]]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=140,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "both ways agree" in done.stdout
    carried = {
        how: int(nbytes.replace(",", ""))
        for how, nbytes in re.findall(r"^(\w+): .*, ([\d,]+) bytes", done.stdout, re.MULTILINE)
    }
    assert carried["proxies"] < 10_000 < carried["pickles"]
