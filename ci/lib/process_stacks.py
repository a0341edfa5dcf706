"""What all processes of a tree are doing, and how to end them: for hangs, by process id only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

Print = Callable[[str], None]


def descendants(root: int) -> list[int]:
    """Process ids below `root`, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent(int(entry.name))) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        below = sorted(children.get(queue.pop(0), []))
        found += below
        queue += below
    return found


def describe(pid: int) -> str:
    """Process id, state and command line, in one line."""
    command = _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
    return f"pid {pid} [{_state(pid)}] {command[:300] or _read(f'/proc/{pid}/comm').strip()}"


def dump(pids: Iterable[int], say: Print) -> None:
    """Prints where every thread of the processes is, by py-spy or gdb where there is one."""
    for pid in pids:
        say(f"--- {describe(pid)}")
        for thread in sorted(_entries(f"/proc/{pid}/task"), key=int):
            base = f"/proc/{pid}/task/{thread}"
            name, wait = _read(f"{base}/comm").strip(), _read(f"{base}/wchan").strip()
            say(f"    thread {thread} {name}: {wait if wait not in {'', '0'} else 'running'}")
        if is_python(pid) and _dump_with_py_spy(pid, say):
            continue
        _dump_with_gdb(pid, say)
        if is_python(pid) and pid != os.getpid():
            # PYTHONFAULTHANDLER=1, which the runner sets, makes this print all Python stacks.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGABRT)
            time.sleep(0.5)


def kill(pids: Iterable[int]) -> None:
    """Ends the processes at once; those that are gone already are fine."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def is_python(pid: int) -> bool:
    """Whether the process runs a Python interpreter."""
    with suppress(OSError):
        return "python" in Path(f"/proc/{pid}/exe").readlink().name
    return False


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    return _state(pid) not in {"Z", "X", "?"}


def _dump_with_py_spy(pid: int, say: Print) -> bool:
    spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if spy is None:
        return False
    command = [spy, "dump", "--pid", str(pid)]
    return _run([*command, "--native"], say) or _run(command, say)


def _dump_with_gdb(pid: int, say: Print) -> None:
    if gdb := shutil.which("gdb"):
        quiet = [
            "-nx",
            "-batch",
            "-iex",
            "set auto-load off",
            "-ex",
            "set print frame-arguments none",
        ]
        _run([gdb, *quiet, "-p", str(pid), "-ex", "thread apply all backtrace 20"], say)


def _run(command: list[str], say: Print) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode == 0:
        say(done.stdout.rstrip())
    return done.returncode == 0


def _parent(pid: int) -> int | None:
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 else None


def _state(pid: int) -> str:
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[0] if fields else "?"


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
