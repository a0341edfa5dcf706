"""The executor that an example makes of Colmena's queues."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("colmena", reason="colmena is not installed: pip install colmena")

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "workflows"))

from colmena_pool import ColmenaPool

from proxystore_hpc import Store
from proxystore_hpc.store.executor import ProxyLarger, StoreExecutor

pytestmark = pytest.mark.timeout(90)


def test_tasks_and_their_errors() -> None:
    with ColmenaPool(2) as pool:
        futures = [pool.submit(divmod, number, 7) for number in range(20)]
        failed = pool.submit(divmod, 1, 0)
        assert [future.result(timeout=60) for future in futures] == [
            divmod(n, 7) for n in range(20)
        ]
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            failed.result(timeout=60)


def test_arguments_as_proxies() -> None:
    pool = ColmenaPool(1)
    with (
        Store("colmena", capacity="64MiB", doors=("shm",)) as store,
        StoreExecutor(pool, store, ProxyLarger(1000), close_store=False) as executor,
    ):
        assert executor.submit(np.sum, np.ones(1000)).result(timeout=60) == 1000
