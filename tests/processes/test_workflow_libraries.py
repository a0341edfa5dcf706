"""Executors over Dask and Parsl, by the libraries themselves."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.procfs import wait_until

from proxystore_hpc import Store
from proxystore_hpc.proxy import Proxy
from proxystore_hpc.store.executor import ProxyLarger, StoreExecutor
from proxystore_hpc.store.ref import OwnedProxy

pytestmark = [pytest.mark.full, pytest.mark.timeout(120)]


@pytest.fixture
def store() -> Iterator[Store]:
    with Store("workflow", capacity="64MiB", doors=("shm",)) as store:
        yield store


def functions() -> tuple[Any, Any]:
    """Pickled by value: workers need not find them in a module."""

    def scale(array: Any, factor: float) -> Any:
        return array * factor

    def fail(_: Any) -> None:
        raise ValueError("of the task")

    return scale, fail


def check(executor: StoreExecutor, store: Store, kind: type[Any]) -> None:
    scale, fail = functions()
    result = executor.submit(scale, np.ones(1000), 2.0).result()
    assert type(result) is kind
    assert result.sum() == 2000
    arrays = [np.full(1000, i) for i in range(6)]
    found = list(executor.map(scale, arrays, [0.5] * 6, chunksize=2))
    assert [float(array[0]) for array in found] == [i / 2 for i in range(6)]
    with pytest.raises(ValueError, match="of the task"):
        executor.submit(fail, np.ones(1000)).result()
    if kind is OwnedProxy:
        del result, found
        wait_until(lambda: store.stats()["objects"] == 0, "all is evicted")
    else:  # the results are there; their arguments are not
        wait_until(lambda: store.stats()["objects"] == 7, "the arguments are evicted")


def test_dask(store: Store, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        executor = StoreExecutor(
            distributed.Client(cluster),
            store,
            ProxyLarger(1000),
            ownership=False,
            close_store=False,
        )
        with executor:
            check(executor, store, Proxy)


def test_parsl(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    concurrent = pytest.importorskip("parsl.concurrent")
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    # Its scripts are looked for in PATH; what is pickled from here needs this module.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    tests = Path(__file__).resolve().parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{tests.parent}:{tests}")
    config = Config(
        executors=[
            HighThroughputExecutor(
                address="127.0.0.1",
                loopback_address="127.0.0.1",
                max_workers_per_node=2,
                provider=LocalProvider(init_blocks=1, max_blocks=1),
            )
        ],
        run_dir=str(tmp_path),
        initialize_logging=False,
    )
    executor = StoreExecutor(
        concurrent.ParslPoolExecutor(config), store, ProxyLarger(1000), close_store=False
    )
    with executor:
        check(executor, store, OwnedProxy)
