"""Program: opens the MPI library of mpi4py, without initialising MPI, and tells what it is.

Prints one line of JSON: `library` and `path`, or `reason`; and `ucx`, the UCX that such a process
gets.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

from proxystore_hpc.exceptions import DoorUnavailableError

_LIBMPI = re.compile(r"libmpi(?:ch|_cray|_abi|_intel|mpich)?\.so(?:\.[\d.]+)?")


def main() -> None:
    """Prints what was found."""
    print(json.dumps(probe()), flush=True)
    # MPI libraries that were opened but not initialised need not survive their own exit handlers.
    os._exit(0)


def probe() -> dict[str, Any]:
    """Opens the library as mpi4py would: its finder opens libmpi, its module is linked to it."""
    try:
        if importlib.util.find_spec("mpi4py") is None:
            return {"reason": "mpi4py is not installed"}
        spec = importlib.util.find_spec("mpi4py.MPI")
    except (ImportError, RuntimeError) as error:
        return {"reason": f"mpi4py finds no MPI: {' '.join(str(error).split())}"}
    if spec is None or spec.origin is None:
        return {"reason": "mpi4py is installed without its module MPI"}
    try:
        ctypes.CDLL(spec.origin, mode=os.RTLD_LAZY)
    except OSError as error:
        return {"reason": f"mpi4py finds no MPI library: {error}"}
    path = _mapped_library()
    if path is None:
        return {"reason": f"{spec.origin} is linked to no MPI library of a known name"}
    return {"library": _version_text(path), "path": path, "ucx": _ucx()}


def _mapped_library() -> str | None:
    for line in Path("/proc/self/maps").read_text().splitlines():
        columns = line.split(maxsplit=5)
        if len(columns) == 6 and _LIBMPI.fullmatch(os.path.basename(columns[5])):  # noqa: PTH119
            return columns[5]
    return None


def _version_text(path: str) -> str:
    # One of the few functions that may be called before MPI_Init.
    text, length = ctypes.create_string_buffer(8193), ctypes.c_int()
    ctypes.CDLL(path).MPI_Get_library_version(text, ctypes.byref(length))
    lines = text.value.decode(errors="replace").replace("\t", " ").splitlines()
    first = lines[0] if lines else "unknown"
    # Open MPI puts package, identification and date on one line.
    return first.split(", package:")[0].strip()


def _ucx() -> dict[str, Any]:
    from proxystore_hpc.ucx_runtime import load

    try:
        runtime = load()
    except DoorUnavailableError as error:
        return {"reason": error.reason}
    return {
        "version": ".".join(map(str, runtime.version)),
        "path": runtime.path,
        "origin": runtime.origin,
        "has_verbs": runtime.has_verbs,
    }


if __name__ == "__main__":
    main()
