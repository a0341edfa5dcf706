#!/usr/bin/env python3
"""Static checks: format, lint, types, layers, headers. A tool that is not installed is skipped.

    ci/lint.py [--tidy all|none|changed|K/N] [check ...]

Checks: ruff format mypy stubs layers headers clang-format clang-tidy.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "ci" / "buildsys"))

import ucx_sdk  # noqa: E402
from cxx_build import default_jobs, find_compiler  # noqa: E402

# What each layer of csrc/ may include, besides itself.
LAYERS = {
    "base": set[str](),
    "memory": {"base"},
    "fabric": {"base", "memory"},
    "rpc": {"base", "memory", "fabric"},
    "objects": {"base", "memory", "fabric", "rpc"},
    "proxy": set[str](),
    "bindings": {"base", "memory", "fabric", "rpc", "objects", "proxystore_hpc"},  # its header
    "tests": {"base", "memory", "fabric", "rpc", "objects"},
}
MAY_INCLUDE_PYTHON = {"proxy", "bindings"}
LONGEST_FILE = 600


@dataclass
class Outcome:
    """What a check found; `skipped` says why it did not run."""

    name: str
    problems: str = ""
    skipped: str = ""


def find_tool(name: str) -> str | None:
    """A tool of this environment, else of the system."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def run_tool(name: str, command: Sequence[str]) -> Outcome:
    """Runs a tool on the tree, if it is installed."""
    program = find_tool(command[0])
    if program is None:
        return Outcome(name, skipped=f"{command[0]} is not installed")
    done = subprocess.run(
        [program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return Outcome(name, "" if done.returncode == 0 else (done.stdout + done.stderr).strip())


def check_ruff() -> Outcome:
    """Lint of the Python code."""
    return run_tool("ruff", ["ruff", "check", "--quiet", "."])


def check_format() -> Outcome:
    """Format of the Python code."""
    return run_tool("format", ["ruff", "format", "--check", "--quiet", "."])


def check_mypy() -> Outcome:
    """Types of the Python code."""
    return run_tool("mypy", ["mypy", "--no-error-summary"])


def check_stubs() -> Outcome:
    """The .pyi files name what the extension modules have."""
    modules = [
        f"proxystore_hpc.{stub.stem}"
        for stub in sorted((ROOT / "proxystore_hpc").glob("_*.pyi"))
        if any(stub.parent.glob(f"{stub.stem}.*.so"))
    ]
    if not modules:
        return Outcome("stubs", skipped="no extension module with a .pyi is built")
    return run_tool(
        "stubs", ["stubtest", "--mypy-config-file", "pyproject.toml", "--concise", *modules]
    )


def check_layers() -> Outcome:
    """Includes point down the layers, and no file has grown into two."""
    problems = []
    for path in cxx_files():
        layer = path.relative_to(ROOT / "csrc").parts[0]
        text = path.read_text()
        for included in re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.MULTILINE):
            below = included.split("/")[0]
            if "/" in included and below != layer and below not in LAYERS.get(layer, set()):
                problems.append(f"{path.relative_to(ROOT)}: {layer}/ must not include {included}")
        if "<Python.h>" in text and layer not in MAY_INCLUDE_PYTHON:
            problems.append(f"{path.relative_to(ROOT)}: only proxy/ and bindings/ know Python.h")
    for path in (*cxx_files(), *ROOT.glob("proxystore_hpc/**/*.py"), *ROOT.glob("tests/**/*.py")):
        if (lines := path.read_text().count("\n")) > LONGEST_FILE:
            problems.append(f"{path.relative_to(ROOT)}: {lines} lines, more than {LONGEST_FILE}")
    return Outcome("layers", "\n".join(problems))


def check_headers() -> Outcome:
    """Every header compiles by itself."""
    sdk = ucx_sdk.find()
    headers = [p for p in cxx_files() if p.suffix == ".h" and (sdk or p.parent.name != "ucx")]

    def compile_alone(header: Path) -> str:
        command = [*find_compiler(), *cxx_flags(sdk), "-fsyntax-only", "-x", "c++", str(header)]
        # "#pragma once in main file" is what this check is about, and no problem.
        done = subprocess.run(
            [*command, "-w"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return "" if done.returncode == 0 else done.stderr.strip()

    return Outcome("headers", in_parallel(compile_alone, headers))


def check_clang_format() -> Outcome:
    """Format of the C++ code."""
    files = [str(p.relative_to(ROOT)) for p in cxx_files()]
    outcome = run_tool("clang-format", ["clang-format", "--dry-run", "-Werror", *files])
    if outcome.problems:
        places = sorted(
            set(re.findall(r"^(?:.*/)?(csrc/[^:]+):\d+:", outcome.problems, re.MULTILINE))
        )
        outcome.problems = "ci/format changes " + ", ".join(places)
    return outcome


def check_clang_tidy(selection: str) -> Outcome:
    """Lint of the C++ code."""
    tidy = find_tool("clang-tidy")
    if tidy is None:
        return Outcome("clang-tidy", skipped="clang-tidy is not installed")
    if selection == "none":
        return Outcome("clang-tidy", skipped="takes minutes: ci/lint.py --tidy all")
    sdk = ucx_sdk.find()
    files = [p for p in select(selection) if sdk or p.parent.name != "ucx"]
    if not files:
        return Outcome("clang-tidy", skipped=f"no files in selection {selection}")

    def tidy_one(source: Path) -> str:
        command = [tidy, "--quiet", "--warnings-as-errors=*", str(source), "--", *cxx_flags(sdk)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stdout.strip() or done.stderr.strip()

    return Outcome("clang-tidy", in_parallel(tidy_one, files))


def cxx_files() -> list[Path]:
    """All C++ files of the project."""
    return sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in {".h", ".cpp"})


def cxx_flags(sdk: ucx_sdk.UcxSdk | None) -> list[str]:
    """What any file of csrc/ needs to be parsed."""
    flags = [
        "-std=c++17",
        "-Icsrc",
        "-Iproxystore_hpc/include",
        "-isystem",
        sysconfig.get_path("include"),
    ]
    try:
        import pybind11
    except ImportError:
        return flags
    return [*flags, "-isystem", pybind11.get_include(), *(sdk.compile_args() if sdk else [])]


def select(selection: str) -> list[Path]:
    """Sources to run clang-tidy on: all, those that the last commit changed, or a share by name."""
    sources = [p for p in cxx_files() if p.suffix == ".cpp" and p.parent.name != "tests"]
    if selection == "all":
        return sources
    if selection == "changed":
        command = ["git", "diff", "--name-only", "HEAD~1"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return sources
        changed = {ROOT / name for name in done.stdout.splitlines()}
        return [p for p in sources if p in changed]
    k, _, n = selection.partition("/")
    return [p for p in sources if zlib.crc32(p.name.encode()) % int(n) == int(k)]


def in_parallel(check: Callable[[Path], str], files: list[Path]) -> str:
    """Applies a check to files on all cores; returns the complaints."""
    with ThreadPoolExecutor(max_workers=default_jobs()) as pool:
        return "\n".join(filter(None, pool.map(check, files)))


def run(tidy: str = "none", only: Sequence[str] = ()) -> list[Outcome]:
    """Runs the checks and prints what they found."""
    checks: dict[str, Callable[[], Outcome]] = {
        "ruff": check_ruff,
        "format": check_format,
        "mypy": check_mypy,
        "stubs": check_stubs,
        "layers": check_layers,
        "headers": check_headers,
        "clang-format": check_clang_format,
        "clang-tidy": lambda: check_clang_tidy(tidy),
    }
    outcomes = []
    for name, check in checks.items():
        if only and name not in only:
            continue
        outcome = check()
        outcomes.append(outcome)
        state = "skipped: " + outcome.skipped if outcome.skipped else "ok"
        print(f"lint {name}: {'FAILED' if outcome.problems else state}", flush=True)
        if outcome.problems:
            print(outcome.problems, flush=True)
    return outcomes


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tidy", default="none", metavar="all|none|changed|K/N")
    parser.add_argument("checks", nargs="*", metavar="check")
    arguments = parser.parse_args()
    outcomes = run(arguments.tidy, arguments.checks)
    return 1 if any(outcome.problems for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
