"""Uses an installed package a little: run by ci/packages where nothing else is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import proxystore_hpc

heavy = {"numpy", "mpi4py", "proxystore_hpc._ucx", "proxystore_hpc._mpi"} & set(sys.modules)
assert not heavy, f"import proxystore_hpc loaded {heavy}"

installed = Path(proxystore_hpc.__file__).resolve()
assert Path(sys.prefix).resolve() in installed.parents, f"{installed} is not what was installed"
for name in ("py.typed",):
    assert (installed.parent / name).is_file(), f"{name} was not installed"

import numpy as np  # noqa: E402

from proxystore_hpc import Store  # noqa: E402

with Store("smoke") as store:
    array = np.arange(10_000.0)
    key = store.put(array)
    assert (store.get(key) == array).all()
    proxy = store.proxy({"a": [1, 2, 3]})
    assert proxy["a"] == [1, 2, 3]
print(f"proxystore_hpc {proxystore_hpc.__version__} works in {sys.prefix}")
