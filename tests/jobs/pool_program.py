"""Run by test_mpi_pool.py: a pool of MPI workers whose tasks get and return proxies.

Arguments: the scenario, and the door that the stores may use. The master prints "as expected".
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI
from mpi4py.futures import MPICommExecutor, MPIPoolExecutor

from proxystore_hpc import Store
from proxystore_hpc.exceptions import (
    ConfigError,
    OwnerGoneError,
    ProxyResolveError,
    ProxyResolveMissingKeyError,
)
from proxystore_hpc.proxy import is_resolved
from proxystore_hpc.store import get_or_create_store, get_store
from proxystore_hpc.store.config import StoreConfig

SCENARIOS: dict[str, Callable[[str], None]] = {}
CELLS = 100_000


def scenario(function: Callable[[str], None]) -> Callable[[str], None]:
    SCENARIOS[function.__name__] = function
    return function


def open_together(door: str, capacity: str = "64MiB") -> Any:
    return get_store("pool") or Store.from_mpi(
        MPI.COMM_WORLD, "pool", doors=(door,), capacity=capacity, timeout=20
    )


def open_alone(door: str) -> Store:
    config = StoreConfig("pool", doors=(door,), capacity=64 << 20, timeout=20)
    return get_or_create_store(config)


def doubled(array: Any, to: bytes | None = None) -> tuple[Any, int]:
    store: Any = get_store(array) if hasattr(array, "__proxy_factory__") else get_store("pool")
    return store.proxy(2 * np.asarray(array), to=to, populate_target=False), os.getpid()


def total(*arrays: Any) -> tuple[float, list[str]]:
    store: Any = get_store("pool")
    return sum(float(array.sum()) for array in arrays), sorted(store.metrics.doors)


def field() -> Any:
    return np.arange(float(CELLS))


def check_exchange(pool: Any, store: Store, door: str) -> None:
    """Arguments from the master, results of one worker as arguments of another, and back."""
    given = store.proxy(field())
    results = [future.result() for future in [pool.submit(doubled, given) for _ in range(8)]]
    assert len({pid for _, pid in results} - {os.getpid()}) >= 1
    proxies = [proxy for proxy, _ in results]
    assert not any(map(is_resolved, proxies))
    expected = 2 * field().sum()
    tasks = [pool.submit(total, *proxies) for _ in range(8)]
    for found, doors in (task.result() for task in tasks):
        assert found == 8 * expected
        assert set(doors) <= {"self", door}
        assert door in doors
    store.resolve(proxies)
    for proxy in proxies:
        np.testing.assert_array_equal(proxy, 2 * field())
    assert set(store.metrics.doors) == {door}


@scenario
def in_the_job(door: str) -> None:
    with MPIPoolExecutor(initializer=open_together, initargs=(door,)) as pool:
        pool.bootup(wait=False)
        store = open_together(door)
        check_exchange(pool, store, door)
        late = pool.submit(doubled, store.proxy(field())).result()[0]
    # The pool is shut down, and its workers are ranks that live on.
    assert not is_resolved(late)
    np.testing.assert_array_equal(late, 2 * field())
    with MPIPoolExecutor(initializer=open_together, initargs=(door,)) as another:
        check_exchange(another, store, door)
        again = another.submit(doubled, late).result()[0]
    np.testing.assert_array_equal(again, 4 * field())


@scenario
def wrong_in_workers(door: str) -> None:
    """What goes wrong in a worker is told by the store, as the pool hides why it is broken."""
    with MPIPoolExecutor(initializer=open_together, initargs=(door, "a lot")) as pool:
        pool.bootup(wait=False)
        with pytest.raises(ConfigError, match=r"a lot.*on rank 1 of 3"):
            open_together(door)


def wait_for_end(pid: int) -> None:
    """A pool that shuts down lets go of the workers that it spawned before they have ended."""
    limit = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < limit, f"worker {pid} did not end"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@scenario
def spawned(door: str) -> None:
    with open_alone(door) as store:
        with MPIPoolExecutor(2, initializer=open_alone, initargs=(door,)) as pool:
            check_exchange(pool, store, door)
            argument = store.proxy(field())
            seen, _ = pool.submit(doubled, argument).result()
            unseen, worker = pool.submit(doubled, argument).result()
            mine, _ = pool.submit(doubled, argument, store.address).result()
            assert seen.sum() == 2 * field().sum()
        wait_for_end(worker)
        # What was mapped stays, and so does what the workers put here.
        np.testing.assert_array_equal(seen, 2 * field())
        with pytest.raises(ProxyResolveError) as caught:
            unseen.sum()
        assert isinstance(caught.value.cause, (OwnerGoneError, ProxyResolveMissingKeyError))
        np.testing.assert_array_equal(mine, 2 * field())


@scenario
def spawned_without_initializer(door: str) -> None:
    """A worker opens what the first proxy that it uses needs."""
    with open_alone(door) as store, MPIPoolExecutor(2) as pool:
        argument = store.proxy(field())
        result, pid = pool.submit(doubled, argument).result()
        assert pid != os.getpid()
        np.testing.assert_array_equal(result, 2 * field())


def executor_on(comm: MPI.Intracomm, door: str) -> None:
    """The ranks of any communicator as master and workers, and as themselves afterwards."""
    with Store.from_mpi(comm, "pool", doors=(door,), capacity="64MiB", timeout=20) as store:
        results: list[Any] = []
        with MPICommExecutor(comm, root=0) as pool:
            if pool is not None:
                check_exchange(pool, store, door)
                results = [pool.submit(doubled, field()).result()[0] for _ in range(4)]
        for proxy in comm.bcast(results):
            np.testing.assert_array_equal(proxy, 2 * field())
        comm.Barrier()


@scenario
def on_a_communicator(door: str) -> None:
    executor_on(MPI.COMM_WORLD, door)


@scenario
def on_merged_children(door: str) -> None:
    parent = MPI.Comm.Get_parent()
    if parent == MPI.COMM_NULL:
        command = [os.path.abspath(__file__), "on_merged_children", door]
        between = MPI.COMM_SELF.Spawn(sys.executable, command, 2)
        merged = between.Merge(high=False)
    else:
        between = parent
        merged = parent.Merge(high=True)
    executor_on(merged, door)
    merged.Free()


def main() -> None:
    SCENARIOS[sys.argv[1]](sys.argv[2])
    if MPI.COMM_WORLD.rank == 0 and MPI.Comm.Get_parent() == MPI.COMM_NULL:
        print("as expected", flush=True)


if __name__ == "__main__":
    main()
