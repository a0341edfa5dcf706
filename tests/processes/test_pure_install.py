"""A wheel without extension modules: built without a compiler, used without numpy and MPI."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from proxystore_hpc import Store, load_key
from proxystore_hpc.factory import SimpleFactory
from proxystore_hpc.proxy import Proxy
from proxystore_hpc.tcp.endpoints import unpack

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("ci", "proxystore_hpc", "LICENSE", "README.md", "pyproject.toml", "setup.py")
NO_COMPILER = "installed without extension modules: no C++ compiler found"
TOKEN = "00112233445566778899aabbccddeeff"
BY_REQUEST = "installed without extension modules: PROXYSTORE_HPC_ONLY=none"

pytestmark = pytest.mark.timeout(180)


def run(*command: str | Path, **environment: str) -> str:
    ours = {"PYTHONPATH", "PROXYSTORE_HPC_ONLY", "PROXYSTORE_HPC_PURE", "CXX"}
    done = subprocess.run(
        [str(part) for part in command],
        env={name: value for name, value in os.environ.items() if name not in ours} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def build(folder: Path, **environment: str) -> tuple[Path, str]:
    """A wheel of the sources, and what the build printed."""
    pytest.importorskip("setuptools")
    pytest.importorskip("pip")
    source = folder / "source"
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "build", "*.egg-info")
    for name in SOURCES:
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, source / name, ignore=ignored)
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(origin, source / name)
    said = run(
        *(sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-index"),
        *("--no-build-isolation", "--disable-pip-version-check", "-w", folder, source),
        **environment,
    )
    [wheel] = folder.glob("*.whl")
    return wheel, said


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a fresh environment that has a pure wheel of the package and nothing else."""
    folder = tmp_path_factory.mktemp("pure")
    nothing = folder / "empty"
    nothing.mkdir()
    wheel, said = build(folder, PATH=str(nothing))
    assert NO_COMPILER in said
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps"),
        *("--no-index", "--disable-pip-version-check", wheel),
    )
    return python


def test_wheel_is_for_any_machine(tmp_path: Path) -> None:
    wheel, said = build(tmp_path, PROXYSTORE_HPC_ONLY="none")
    assert BY_REQUEST in said
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "proxystore_hpc/proxy/_pure/type.py" in names
    assert not [name for name in names if name.endswith((".so", ".cpp"))]


IMPORT_ALL = """
import importlib, pkgutil, sys

absent = ("numpy", "mpi4py", "cloudpickle", "typing_extensions", "libucx")
for name in absent:
    assert importlib.util.find_spec(name) is None, name

import proxystore_hpc

assert sys.prefix in proxystore_hpc.__file__
private = ("__main__", "mypy_plugin", "serialize.cloud")  # a command; what needs a library
found = [
    module.name
    for module in pkgutil.walk_packages(proxystore_hpc.__path__, "proxystore_hpc.")
    if not module.name.endswith(private)
]
for name in found:
    importlib.import_module(name)
for name in proxystore_hpc.__all__:
    getattr(proxystore_hpc, name)
print(len(found))
"""


def test_every_module_can_be_imported(installed: Path) -> None:
    assert int(run(installed, "-I", "-c", IMPORT_ALL)) > 60


USE = """
import pickle, sys
from proxystore_hpc.key import Key
from proxystore_hpc.proxy import Proxy, is_resolved
from proxystore_hpc.serialize import deserialize, serialize

proxy = pickle.loads(bytes.fromhex(sys.argv[1]))
assert isinstance(proxy, Proxy) and isinstance(proxy, dict) and not is_resolved(proxy)
assert proxy["a"] + 1 == 3 and {**proxy} == {"a": 2}
assert pickle.loads(pickle.dumps(proxy)) == {"a": 2}
assert deserialize(serialize([1, b"x" * 100_000])) == [1, b"x" * 100_000]
assert Key.parse(bytes.fromhex(sys.argv[2])).nbytes == int(sys.argv[3])

of_a_store = pickle.loads(bytes.fromhex(sys.argv[4]))
assert not is_resolved(of_a_store)
print(sys.prefix in sys.modules[Proxy.__module__].__file__)
"""


def test_proxies_and_keys_of_a_native_installation_are_read(installed: Path) -> None:
    proxy = Proxy(SimpleFactory({"a": 2}), cache_defaults=True, target={"a": 2})
    with Store("test-pure-install") as store:
        key = store.put(b"x" * 1000)
        of_a_store = store.proxy([1, 2, 3])
        said = run(
            *(
                installed,
                "-I",
                "-c",
                USE,
                pickle.dumps(proxy).hex(),
                bytes(key).hex(),
                str(key.nbytes),
            ),
            pickle.dumps(of_a_store).hex(),
        )
    assert said.strip() == "True"


RESOLVE = """
import pickle, sys

proxies = pickle.loads(bytes.fromhex(sys.argv[1]))
assert proxies[0] == {"a": [1, 2]}
assert len(proxies[1]) == 200_000_000 and proxies[1][-1] == 7
try:
    proxies[2].shape
except Exception as error:
    print(type(error.cause).__name__, error.cause)
assert "numpy" not in sys.modules
"""


def test_proxies_resolve_over_tcp(installed: Path) -> None:
    with Store("test-pure-tcp", tcp=True, populate_target=False) as store:
        objects = [{"a": [1, 2]}, bytes(199_999_999) + b"\7", np.arange(3.0)]
        proxies = [store.proxy(obj) for obj in objects]
        said = run(installed, "-I", "-c", RESOLVE, pickle.dumps(proxies).hex())
    assert said.startswith("SerializationError")
    assert "pip install numpy" in said


def test_commands_work_over_tcp(installed: Path, tmp_path: Path) -> None:
    command = installed.with_name("proxystore-hpc")
    key_file, output = tmp_path / "field.key", tmp_path / "field.npy"
    with Store("test-pure-tcp", tcp={"put_token": TOKEN}) as store:
        array = np.arange(3_000_000.0).reshape(1000, 3000)
        store.export(store.put(array), key_file)
        assert "1000x3000" in run(command, "ls", key_file)
        said = run(command, "get", key_file, "-o", output)
        assert said == "", "there is no terminal to show a bar on"
        assert np.array_equal(np.load(output), array)

        (tmp_path / "new").write_bytes(b"from outside")
        server = unpack(load_key(key_file).outside)[0]
        assert server.pin is not None
        for to in (key_file,), (f"127.0.0.1:{server.port}", "--pin", server.pin.hex()):
            run(command, "put", "-f", tmp_path / "new", "--to", *to, PROXYSTORE_HPC_PUT_TOKEN=TOKEN)
            new = load_key(tmp_path / "new.key")
            assert new.owner_id == load_key(key_file).owner_id
            assert store.get(new) == b"from outside"

        run(command, "rm", key_file)
        assert not store.exists(load_key(key_file))


def test_info_says_what_is_missing_and_is_content(installed: Path) -> None:
    said = run(installed.with_name("proxystore-hpc"), "info")
    assert "this installation has no native part" in " ".join(said.split())
    assert "numpy is not installed" in said
    assert not re.search(r"\bERROR\b", said)
