"""Open MPI's components: which there are, and which a job was told to use."""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

from proxystore_hpc.bench.contestant import UnavailableError

__all__ = ["chosen_components", "components", "components_in"]

_LINE = re.compile(r"^mca:(\w+):(\w+):version:", re.MULTILINE)
_LONG = 4096


@functools.lru_cache
def components(launcher: str) -> dict[str, frozenset[str]]:
    """Names of components by framework, such as `"btl"`, as `ompi_info` tells them.

    Args:
        launcher: Path of the `mpirun` of that Open MPI.

    Raises:
        UnavailableError: It has no `ompi_info`, or that says nothing.
    """
    folders = [str(Path(launcher).parent), str(Path(launcher).resolve().parent)]
    found = next(filter(None, (shutil.which("ompi_info", path=path) for path in folders)), None)
    if found is None:
        raise UnavailableError(
            f"there is no ompi_info beside {launcher}, which tells the components of Open MPI"
        )
    done = subprocess.run(
        [found, "--parsable"], capture_output=True, text=True, timeout=30, check=False
    )
    names = components_in(done.stdout)
    if not names:
        raise UnavailableError(f"{found} --parsable names no components: {done.stderr[-200:]}")
    return names


def components_in(told: str) -> dict[str, frozenset[str]]:
    """Names of components by framework, from what `ompi_info --parsable` prints."""
    names: dict[str, set[str]] = defaultdict(set)
    for framework, component in _LINE.findall(told):
        names[framework].add(component)
    return {framework: frozenset(found) for framework, found in names.items()}


def chosen_components(framework: str) -> frozenset[str] | None:
    """The components that this process may use, as MPI's tool interface (MPI_T) tells.

    Open MPI opens no others, so what it does is done by these.

    Returns:
        Their names, empty if MPI chooses by itself; None if this MPI has no such framework.
    """
    from mpi4py import MPI

    # MPI itself is found through mpi4py's module, since a process may have two.
    mpi = ctypes.CDLL(MPI.__file__)
    text = _variable(mpi, framework, MPI.Query_thread())
    return None if text is None else frozenset(filter(None, text.split(",")))


def _variable(mpi: ctypes.CDLL, name: str, level: int) -> str | None:
    """A control variable that is a text, of an MPI that runs with this level of threads."""
    provided, index, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    handle = ctypes.c_void_p()
    # Open MPI takes the level for that of all of MPI: asked for less, it would stop taking locks.
    if mpi.MPI_T_init_thread(level, ctypes.byref(provided)) != 0:
        return None
    try:
        if mpi.MPI_T_cvar_get_index(name.encode(), ctypes.byref(index)) != 0:
            return None
        if mpi.MPI_T_cvar_handle_alloc(index, None, ctypes.byref(handle), ctypes.byref(count)) != 0:
            return None
        try:
            text = ctypes.create_string_buffer(max(_LONG, count.value + 1))
            if mpi.MPI_T_cvar_read(handle, text) != 0:
                return None
            return text.value.decode()
        finally:
            mpi.MPI_T_cvar_handle_free(ctypes.byref(handle))
    finally:
        mpi.MPI_T_finalize()
