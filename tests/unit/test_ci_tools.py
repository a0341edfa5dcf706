"""The tools that the other tests and the build rely on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import procfs

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "ci" / "buildsys"))

from cxx_build import Builder, CompileError, Target, find_compiler  # noqa: E402


def run_guarded(limit_s: float, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            str(ROOT / "ci/run_with_stacks.py"),
            str(limit_s),
            sys.executable,
            "-c",
            code,
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("status", [0, 3])
def test_the_status_of_the_command_is_passed_on(status: int) -> None:
    assert run_guarded(20, f"raise SystemExit({status})").returncode == status


def test_a_hang_ends_with_the_stacks_of_every_process() -> None:
    child = "import time\ndef in_the_child(): time.sleep(600)\nin_the_child()"
    parent = (
        f"import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print(child.pid, flush=True)\ndef in_the_parent(): child.wait()\nin_the_parent()"
    )
    done = run_guarded(3, parent)
    assert done.returncode == 124
    assert "in_the_parent" in done.stderr
    assert "in_the_child" in done.stderr
    assert not procfs.exists(int(done.stdout))


def test_an_orphan_is_named_ended_and_a_failure() -> None:
    orphan = "import time; time.sleep(600)"
    done = run_guarded(
        30,
        f"import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', {orphan!r}], "
        "start_new_session=True)\nprint(child.pid, flush=True)",
    )
    assert done.returncode == 1
    assert "LEFT BEHIND" in done.stderr
    assert not procfs.exists(int(done.stdout))


def test_ending_the_runner_ends_what_it_runs() -> None:
    runner = subprocess.Popen(
        [
            *(sys.executable, str(ROOT / "ci/run_with_stacks.py"), "60", sys.executable, "-c"),
            "import os, time; print(os.getpid(), flush=True); time.sleep(600)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert runner.stdout is not None
    with runner.stdout as output:
        inner = int(output.readline())
    runner.terminate()
    assert runner.wait(timeout=30) == 128 + 15
    assert not procfs.exists(inner)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    try:
        find_compiler()
    except CompileError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    Path("answer.h").write_text("#define ANSWER 1\n")
    Path("one.cpp").write_text('#include "answer.h"\nint one() { return ANSWER; }\n')
    Path("main.cpp").write_text("int one();\nint main() { return one(); }\n")
    return tmp_path


def build(*compile_args: str) -> bool:
    target = Target("program", Path("program"), [Path("main.cpp"), Path("one.cpp")], compile_args)
    return Builder(Path("objects")).build(target)


def change(path: str, text: str) -> None:
    before = Path(path).stat().st_mtime_ns
    while Path(path).stat().st_mtime_ns == before:
        time.sleep(0.01)
        Path(path).write_text(text)


def compiled() -> set[str]:
    return {f"{o.name}:{o.stat().st_mtime_ns}" for o in Path("objects/program").glob("*.cpp.o")}


def test_only_what_changed_is_compiled_again(project: Path) -> None:
    assert build() is True
    assert subprocess.run([project / "program"], check=False).returncode == 1
    first = compiled()
    assert build() is False
    change("answer.h", "#define ANSWER 2\n")
    assert build() is True
    assert subprocess.run([project / "program"], check=False).returncode == 2
    assert len(first & compiled()) == 1, "main.cpp does not include the header"
    assert build("-DOTHER_FLAGS") is True
    assert not first & compiled()


@pytest.mark.usefixtures("project")
def test_a_failed_build_keeps_the_old_program(capfd: pytest.CaptureFixture[str]) -> None:
    build()
    old = Path("program").read_bytes()
    change("one.cpp", "int one() { return }\n")
    with pytest.raises(CompileError, match=r"one\.cpp"):
        build()
    assert "one.cpp" in capfd.readouterr().out
    assert Path("program").read_bytes() == old
    change("one.cpp", "int one() { return 5; }\n")
    assert build() is True
