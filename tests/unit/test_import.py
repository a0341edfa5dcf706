"""What `import proxystore_hpc` costs, seen from a fresh process."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

import proxystore_hpc

HEAVY = ("numpy", "mpi4py", "cloudpickle", "pandas", "asyncio", "ssl", "importlib.metadata")


def _fresh(code: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    return json.loads(done.stdout)


def test_the_import_is_quick_and_loads_nothing_heavy():
    best = min(
        (
            _fresh(
                "import sys, json, time; before = set(sys.modules); start = time.perf_counter()\n"
                "import proxystore_hpc\n"
                "seconds = time.perf_counter() - start\n"
                "maps = open('/proc/self/maps').read()\n"
                "print(json.dumps({'seconds': seconds, 'ucx': 'libucp' in maps, 'mpi': 'libmpi' in"
                " maps, 'new': sorted(set(sys.modules) - before)}))"
            )
            for _ in range(3)
        ),
        key=lambda result: result["seconds"],
    )
    assert best["seconds"] < 0.1
    assert not best["ucx"]
    assert not best["mpi"]
    assert not {name for name in best["new"] if name.startswith(HEAVY)}
    assert not {name for name in best["new"] if name.startswith("proxystore_hpc._")}


@pytest.mark.parametrize(
    "module",
    ["exceptions", "serialize", "store.cache", "store.config", "store.policy", "store.registry"],
)
def test_these_parts_need_no_numpy(module):
    result = _fresh(
        f"import sys, json, proxystore_hpc.{module}\n"
        "print(json.dumps({'new': [name for name in sys.modules if '.' not in name]}))"
    )
    assert not {"numpy", "mpi4py", "cloudpickle"} & set(result["new"])


def test_small_objects_need_no_numpy():
    result = _fresh(
        "import sys, json\n"
        "from proxystore_hpc.serialize import serialize, deserialize\n"
        "same = deserialize(serialize([1, {'a': b'b'}])) == [1, {'a': b'b'}]\n"
        "print(json.dumps({'same': same, 'numpy': 'numpy' in sys.modules}))"
    )
    assert result == {"same": True, "numpy": False}


def test_names_are_listed_and_found():
    assert set(proxystore_hpc.__all__) <= set(dir(proxystore_hpc))
    assert proxystore_hpc.TimeToLive(1).ttl_ns == 10**9
    assert (
        proxystore_hpc.StoreConfig
        is importlib.import_module("proxystore_hpc.store.config").StoreConfig
    )
    assert proxystore_hpc.exceptions.ProxyStoreHpcError is proxystore_hpc.ProxyStoreHpcError


def test_every_exported_name_exists():
    for name in proxystore_hpc.__all__:
        assert getattr(proxystore_hpc, name) is not None


def test_the_version_is_the_one_of_the_package():
    assert proxystore_hpc.__version__[0].isdigit()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Stor'"):
        _ = proxystore_hpc.Stor
    with pytest.raises(ImportError):
        from proxystore_hpc import Stor  # noqa: F401
