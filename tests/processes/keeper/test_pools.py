"""Workers of pools that return proxies and end; the issue that the keeper is there for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from typing import Any

import numpy as np
import pytest
from support import procfs

from proxystore_hpc import Store
from proxystore_hpc.exceptions import ObjectEvictedError
from proxystore_hpc.store import get_store


@pytest.fixture(autouse=True)
def no_helpers() -> Iterator[None]:
    """Ends the processes that multiprocessing leaves to this one."""
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


def stored(count: int) -> tuple[int, Any, Any, list[Any]]:
    """What a task returns: its process, and objects that it stored."""
    store = get_store("pool") or Store("pool", keep=True, register=True, capacity="64MiB")
    return (
        os.getpid(),
        store.proxy(np.arange(count, dtype=np.float64)),
        store.proxy({"small": [1, 2, 3]}),
        store.put_batch([b"x" * size for size in (0, 1, 100, 70_000)]),
    )


def check(results: tuple[int, Any, Any, list[Any]], count: int) -> None:
    _, large, small, keys = results
    with Store("pool", register=True, doors=("shm",)) as store:
        assert large.sum() == count * (count - 1) / 2
        assert small == {"small": [1, 2, 3]}
        assert [len(found) for found in store.get_batch(keys)] == [0, 1, 100, 70_000]
        assert all(store.exists(key) for key in keys)
        store.evict(keys[0])
        assert not store.exists(keys[0])
        with pytest.raises(ObjectEvictedError):
            store.get_or_raise(keys[0])


def pool(method: str) -> Executor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_worker_that_was_killed(keeper, method):
    workers = pool(method)
    results = workers.submit(stored, 1_000_000).result()
    os.kill(results[0], signal.SIGKILL)
    check(results, 1_000_000)
    with pytest.raises(BrokenProcessPool):
        workers.submit(stored, 1).result()
    workers.shutdown()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_that_was_shut_down(keeper, method):
    with pool(method) as workers:
        results = workers.submit(stored, 1000).result()
    assert not procfs.exists(results[0])
    check(results, 1000)


def test_workers_of_multiprocessing(keeper):
    with multiprocessing.get_context("fork").Pool(2) as workers:  # terminated at the end
        results = workers.map(stored, [1000, 2000, 3000])
    for count, result in zip([1000, 2000, 3000], results, strict=True):
        check(result, count)


def test_it_holds_nothing_of_who_started_it(keeper):
    """Whoever waits for the end of a program's output is not kept waiting."""
    program = "from proxystore_hpc import Store; print(Store('s', keep=True).put(1) is not None)"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    assert ended.stdout == "True\n"
    assert procfs.state(keeper.pid) in "SR"
    targets = procfs.fd_targets(keeper.pid)
    assert not [target for target in targets if target.startswith("pipe:")]
    assert os.getsid(keeper.pid) not in (os.getsid(0), keeper.pid)
    assert os.readlink(f"/proc/{keeper.pid}/cwd") == "/"


def through_proxystore(count: int) -> tuple[int, Any]:
    from proxystore.store import Store as TheirStore

    from proxystore_hpc.connectors.hpc import HPCConnector
    from proxystore_hpc.serialize import deserialize

    connector = HPCConnector("kept", keep=True, capacity="16MiB")
    store = TheirStore("kept", connector, serializer=connector.serialize, deserializer=deserialize)
    return os.getpid(), store.proxy(np.arange(count), populate_target=False)


def test_proxystores_own_store(keeper):
    """As its Redis and DIM servers do, with our memory as its connector."""
    theirs = pytest.importorskip("proxystore.store")
    workers = pool("fork")
    worker, proxy = workers.submit(through_proxystore, 100_000).result()
    os.kill(worker, signal.SIGKILL)
    try:
        assert int(proxy.sum()) == 100_000 * 99_999 // 2
    finally:
        theirs.get_store("kept").close()
        workers.shutdown()
