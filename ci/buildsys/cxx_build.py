"""A small incremental, parallel C++ build: used by setup.py and by the C++ test runner.

An object is rebuilt when its command line, its source or any header it included has changed.
Several builds of one tree may run at once: a lock file serialises them, and every output
is renamed into place, so that a process which has the old library mapped is not disturbed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

WARNINGS = ("-Wall", "-Wextra")


class CompileError(Exception):
    """The compiler or linker refused; its own output has been printed."""


@dataclass(frozen=True)
class Target:
    """One binary: its sources and the arguments of its compile and link commands."""

    name: str
    output: Path
    sources: Sequence[Path]
    compile_args: Sequence[str] = ()
    link_args: Sequence[str] = ()


@dataclass
class Builder:
    """Compiles targets into `directory`, at most `jobs` compilers at a time."""

    directory: Path
    jobs: int = field(default_factory=lambda: default_jobs())
    compiler: Sequence[str] = field(default_factory=lambda: find_compiler())

    def build(self, target: Target) -> bool:
        """Bring `target` up to date; returns whether anything had to be done."""
        with _locked(self.directory / ".lock"):
            return self._build(target)

    def _build(self, target: Target) -> bool:
        objects = [self._object_path(target, source) for source in target.sources]
        commands = [
            [*self.compiler, *target.compile_args, "-c", str(source), "-o", str(obj)]
            for source, obj in zip(target.sources, objects, strict=True)
        ]
        stale = [
            (command, obj)
            for command, obj in zip(commands, objects, strict=True)
            if not _is_current(obj, command)
        ]
        link = [*self.compiler, *map(str, objects), *target.link_args, "-o", str(target.output)]
        stamp = self._object_path(target, Path("link"))
        if not stale and _is_current(stamp, link, output=target.output, inputs=objects):
            return False
        print(f"{target.name}: compiling {len(stale)} of {len(objects)} files", flush=True)
        started = time.monotonic()
        with ThreadPoolExecutor(max_workers=self.jobs) as pool:
            failed = [r for r in pool.map(lambda work: _compile(*work), stale) if r is not None]
        if failed:
            raise CompileError(f"{target.name}: cannot compile {', '.join(failed)}")
        _link(target, link, stamp)
        print(f"{target.name}: built in {time.monotonic() - started:.1f} s", flush=True)
        return True

    def _object_path(self, target: Target, source: Path) -> Path:
        return self.directory / target.name / source.with_suffix(source.suffix + ".o")


def default_jobs() -> int:
    """One compiler for each core that this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


def find_compiler() -> list[str]:
    """The C++ compiler: CXX, else the one that built Python, else c++."""
    configured = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    for candidate in (configured, "c++", "g++", "clang++"):
        command = shlex.split(candidate)
        if shutil.which(command[0]) is not None:
            return command
    raise CompileError(
        "no C++ compiler found: install one (Debian, Ubuntu: apt-get install g++) or set CXX"
    )


def environment_flags(name: str) -> list[str]:
    """User flags from CPPFLAGS, CXXFLAGS or LDFLAGS; run paths are dropped, as we set none."""
    return [
        flag for flag in shlex.split(os.environ.get(name, "")) if not flag.startswith("-Wl,-rpath,")
    ]


def _compile(command: list[str], obj: Path) -> str | None:
    obj.parent.mkdir(parents=True, exist_ok=True)
    partial = obj.with_suffix(".partial")
    depfile = obj.with_suffix(".d")
    done = subprocess.run(
        [*command[:-1], str(partial), "-MD", "-MF", str(depfile)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.stdout:
        print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        return command[command.index("-c") + 1]
    partial.replace(obj)
    _command_file(obj).write_text(shlex.join(command))
    return None


def _link(target: Target, command: list[str], stamp: Path) -> None:
    target.output.parent.mkdir(parents=True, exist_ok=True)
    partial = target.output.with_name(f".{target.output.name}.{os.getpid()}")
    done = subprocess.run([*command[:-1], str(partial)], check=False)
    if done.returncode != 0:
        partial.unlink(missing_ok=True)
        raise CompileError(f"{target.name}: cannot link {target.output.name}")
    partial.replace(target.output)
    stamp.touch()
    _command_file(stamp).write_text(shlex.join(command))


def _is_current(
    obj: Path, command: list[str], output: Path | None = None, inputs: Sequence[Path] | None = None
) -> bool:
    made = output or obj
    try:
        if _command_file(obj).read_text() != shlex.join(command):
            return False
        made_at = made.stat().st_mtime_ns
        depends_on = _read_depfile(obj.with_suffix(".d")) if inputs is None else inputs
        return all(path.stat().st_mtime_ns <= made_at for path in depends_on)
    except FileNotFoundError:
        return False


def _read_depfile(path: Path) -> list[Path]:
    text = path.read_text().replace("\\\n", " ")
    return [Path(word) for word in shlex.split(text.split(":", 1)[1])]


def _command_file(obj: Path) -> Path:
    return obj.with_suffix(".cmd")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl  # not everywhere where this module is imported can it build

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
