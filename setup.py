"""Builds the extension modules; everything declarative stands in pyproject.toml.

Environment: UCX_HOME, PROXYSTORE_HPC_UCX=off, PROXYSTORE_HPC_WERROR=1 (warnings are errors),
PROXYSTORE_HPC_DEBUG=1 (assertions and debug information), PROXYSTORE_HPC_ONLY=proxy,core,ucx
(build a part) or none (a wheel for any machine, see docs/guides/install.md), and the usual CXX,
CPPFLAGS, CXXFLAGS, LDFLAGS. Without a compiler, or off Linux, none is the default.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "ci" / "buildsys"))

import parts  # noqa: E402
import sources  # noqa: E402
import ucx_sdk  # noqa: E402
from cxx_build import WARNINGS, Builder, CompileError, Target, environment_flags  # noqa: E402


class BuildExtensions(build_ext):  # type: ignore[misc]
    """Setuptools' build_ext with the incremental compile step in place of its own."""

    def build_extensions(self) -> None:
        """Builds each extension module where setuptools wants it."""
        # Not in build_temp: that is a fresh folder in every editable installation.
        tag = f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
        builder = Builder(Path("build", f"objects-{tag}"))
        if self.parallel and self.parallel is not True:
            builder.jobs = int(self.parallel)
        for extension in self.extensions:
            part = extension.name.rpartition("._")[2]
            output = Path(self.get_ext_fullpath(extension.name))
            try:
                builder.build(target_for(part, output))
            except CompileError as error:
                sys.exit(
                    f"error: {error}; {parts.SWITCH}={parts.NONE} in the environment installs "
                    "without extension modules"
                )


def target_for(part: str, output: Path) -> Target:
    """Compile and link flags of one extension module."""
    debug = os.environ.get("PROXYSTORE_HPC_DEBUG") == "1"
    compile_args = [
        "-std=c++17",
        *(["-O1", "-g"] if debug else ["-O2", "-g0", "-DNDEBUG"]),
        "-fPIC",
        "-fvisibility=hidden",
        "-pthread",
        *WARNINGS,
        *(["-Werror"] if os.environ.get("PROXYSTORE_HPC_WERROR") == "1" else []),
        "-Icsrc",
        "-Iproxystore_hpc/include",
        "-isystem",
        sysconfig.get_path("include"),
    ]
    # No run path: which libucp.so.0 is used is settled at run time (proxystore_hpc/ucx_runtime.py).
    link_args = ["-shared", "-pthread", "-Wl,-z,relro,-z,now"]
    if part != "proxy":
        import pybind11

        compile_args += ["-isystem", pybind11.get_include()]
    if part == "ucx" and (sdk := ucx_sdk.find()) is not None:
        print(f"_ucx: UCX {sdk.version[0]}.{sdk.version[1]} from {sdk.origin}", flush=True)
        compile_args += sdk.compile_args()
        link_args += sdk.link_args()
    return Target(
        name=f"_{part}",
        output=output,
        sources=sources.of_extension(part),
        compile_args=[
            *compile_args,
            *environment_flags("CPPFLAGS"),
            *environment_flags("CXXFLAGS"),
        ],
        link_args=[*environment_flags("LDFLAGS"), *link_args],
    )


os.chdir(ROOT)
setup(
    ext_modules=[
        Extension(f"proxystore_hpc._{part}", [str(path) for path in sources.of_extension(part)])
        for part in parts.to_build()
    ],
    cmdclass={"build_ext": BuildExtensions},
)
