"""Which sources make which binary: folders are listed, not files, so that new files are built."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

_CORE = (
    "csrc/base/*.cpp",
    "csrc/memory/*.cpp",
    "csrc/fabric/**/*.cpp",
    "csrc/rpc/*.cpp",
    "csrc/objects/*.cpp",
)
_UCX = ("csrc/fabric/drive.cpp", "csrc/fabric/ucx/*.cpp")
_MPI = ("csrc/fabric/drive.cpp", "csrc/fabric/mpi/*.cpp")

EXTENSIONS = {
    "proxy": ("csrc/proxy/*.cpp",),
    "core": (*_CORE, "csrc/bindings/core*.cpp"),
    "ucx": ("csrc/base/*.cpp", *_UCX, "csrc/bindings/ucx*.cpp"),
    "mpi": ("csrc/base/*.cpp", *_MPI, "csrc/bindings/mpi*.cpp"),
}


# Folders of fabric/ that have a module of their own.
_DOORS = ("ucx", "mpi")


def of_extension(part: str) -> list[Path]:
    """Sources of `proxystore_hpc._<part>`, relative to the project's root."""
    found = _glob(EXTENSIONS[part])
    if part != "core":
        return found
    return [p for p in found if p.parent.name not in _DOORS]


def of_cpp_tests(with_ucx: bool) -> list[Path]:
    """Sources of the C++ test program; tests of the ucx door are named ucx*.cpp."""
    found = _glob((*_CORE, "csrc/tests/*.cpp"))
    return found if with_ucx else [p for p in found if not _is_ucx(p)]


def _glob(patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern)})


def _is_ucx(path: Path) -> bool:
    return path.parent.name == "ucx" or (
        path.parent.name == "tests" and path.stem.startswith("ucx")
    )
