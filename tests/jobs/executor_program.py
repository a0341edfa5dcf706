"""Run by test_executor.py: an executor over a pool of MPI workers. Prints "as expected"."""

from __future__ import annotations

from typing import Any

import numpy as np
from mpi4py.futures import MPIPoolExecutor

from proxystore_hpc import Store
from proxystore_hpc.store.executor import ProxyLarger, StoreExecutor
from proxystore_hpc.store.ref import OwnedProxy


def scale(array: Any, factor: float) -> Any:
    return array * factor


def main() -> None:
    store = Store("job", capacity="64MiB", doors=("shm",))
    with store, StoreExecutor(MPIPoolExecutor(), store, ProxyLarger(1000)) as executor:
        result = executor.submit(scale, np.ones(1000), 2.0).result()
        assert type(result) is OwnedProxy
        assert result.sum() == 2000
        del result
        arrays = [np.full(1000, i) for i in range(8)]
        for unordered in (False, True):
            results = executor.map(scale, arrays, [0.5] * 8, unordered=unordered, chunksize=3)
            assert sorted(float(array[0]) for array in results) == [i / 2 for i in range(8)]
    print("as expected")


if __name__ == "__main__":
    main()
