"""Which extension modules are built here: all of them, a part, or none."""

from __future__ import annotations

import os
import sys

import sources
import ucx_sdk
from cxx_build import CompileError, find_compiler

SWITCH = "PROXYSTORE_HPC_ONLY"
NONE = "none"


def to_build() -> list[str]:
    """Names of the modules to build. Prints a line for what is left out, and why."""
    if (reason := why_none()) is not None:
        print(
            f"proxystore_hpc is installed without extension modules: {reason}. Proxies are in "
            "Python then, and objects are reached over TCP only",
            flush=True,
        )
        return []
    parts = []
    for part in _named() or sources.EXTENSIONS:
        if part == "ucx" and ucx_sdk.find() is None:
            print(f"proxystore_hpc._ucx is not built: {ucx_sdk.why_not()}", flush=True)
        else:
            parts.append(part)
    return parts


def why_none() -> str | None:
    """Why there will be no extension module at all; `None` if there will be."""
    named = _named()
    if named:
        # Parts that are asked for by name are an error if they cannot be built.
        return f"{SWITCH}={NONE}" if named == [NONE] else None
    if sys.platform != "linux":
        return f"they need Linux, and this is {sys.platform}"
    try:
        find_compiler()
    except CompileError as error:
        return str(error)
    return None


def _named() -> list[str]:
    return [part for part in os.environ.get(SWITCH, "").split(",") if part]
