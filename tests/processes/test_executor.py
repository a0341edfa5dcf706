"""Executors of the standard library, whose arguments and results travel as proxies."""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.resource_tracker
import operator
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from support.procfs import wait_until

from proxystore_hpc import Store
from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    StoreFullError,
)
from proxystore_hpc.proxy import Proxy
from proxystore_hpc.store import get_store, store_registration
from proxystore_hpc.store.executor import (
    ProxyAlways,
    ProxyLarger,
    ProxyNever,
    ProxyType,
    StoreExecutor,
)
from proxystore_hpc.store.ref import OwnedProxy

BIG = ProxyLarger(500)


def pool(method: str) -> Executor:
    if method == "threads":
        return ThreadPoolExecutor(2)
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method))


@pytest.fixture
def store() -> Iterator[Store]:
    with Store("executor", capacity="32MiB", doors=("shm",)) as store:
        yield store


@pytest.fixture
def make(store: Store) -> Iterator[Callable[..., StoreExecutor]]:
    """Makes an executor over a pool; it is shut down after the test."""
    made: list[StoreExecutor] = []

    def make(method: str = "threads", should_proxy: Any = BIG, **options: Any) -> StoreExecutor:
        executor = StoreExecutor(pool(method), store, should_proxy, close_store=False, **options)
        made.append(executor)
        return executor

    yield make
    for executor in made:
        executor.shutdown()


@pytest.fixture(scope="module", autouse=True)
def no_tracker() -> Iterator[None]:
    """Spawning starts a process that would outlive the tests."""
    yield
    multiprocessing.resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


def objects(store: Store) -> int:
    return store.stats()["objects"]


def is_proxy(thing: Any) -> bool:
    return issubclass(type(thing), Proxy)


def describe(*args: Any, **kwargs: Any) -> list[tuple[bool, float]]:
    """Of each argument: whether it came as a proxy, and its sum."""
    return [(is_proxy(arg), float(np.sum(arg))) for arg in (*args, *kwargs.values())]


def make_array(size: int) -> Any:
    return np.ones(size)


@pytest.mark.parametrize("method", ["threads", "fork", "spawn"])
def test_arguments_and_results_are_proxied_and_evicted(
    make: Any, store: Store, method: str
) -> None:
    executor = make(method)
    found = executor.submit(describe, np.ones(100), 3, named=np.ones(200)).result()
    assert found == [(True, 100), (False, 3), (True, 200)]
    wait_until(lambda: objects(store) == 0, "the arguments are evicted")
    result = executor.submit(make_array, 1000).result()
    assert type(result) is OwnedProxy
    assert objects(store) == 1
    assert result.sum() == 1000
    assert executor.submit(make_array, 3).result().tolist() == [1, 1, 1]
    del result
    wait_until(lambda: objects(store) == 0, "the result is evicted")
    numbers = [np.full(100, i) for i in range(6)]
    found = [float(array.sum()) for array in executor.map(operator.neg, numbers)]
    assert found == [-100.0 * i for i in range(6)]
    wait_until(lambda: objects(store) == 0, "all is evicted")


def test_results_outlive_their_workers(make: Any) -> None:
    executor = make("spawn")
    result = executor.submit(make_array, 1000).result()
    executor.shutdown()
    assert result.sum() == 1000


def test_without_ownership_results_stay(make: Any, store: Store) -> None:
    result = make(ownership=False).submit(make_array, 1000).result()
    assert type(result) is Proxy
    key = result.__proxy_factory__.key
    del result
    assert store.exists(key)
    store.evict(key)


@pytest.mark.parametrize("chunksize", [1, 3])
@pytest.mark.parametrize("unordered", [False, True])
def test_map_proxies_items(make: Any, store: Store, chunksize: int, unordered: bool) -> None:
    executor = make()
    numbers = [np.full(100, i) for i in range(7)]
    results = executor.map(
        describe,
        numbers,
        range(100),
        itertools.repeat(np.ones(300)),
        chunksize=chunksize,
        unordered=unordered,
    )
    expected = [[(True, 100.0 * i), (False, i), (True, 300)] for i in range(7)]
    assert sorted(results) == expected
    wait_until(lambda: objects(store) == 0, "all is evicted")


def test_what_many_tasks_get_is_stored_once(make: Any, store: Store) -> None:
    gate = threading.Event()

    def wait(_: Any, __: int) -> int:
        gate.wait(20)
        return objects(store)

    results = make().map(wait, [np.ones(100)] * 5, range(5))
    assert objects(store) == 1
    gate.set()
    assert set(results) == {1}
    wait_until(lambda: objects(store) == 0, "it is evicted")


def test_results_of_map_that_nobody_asks_for(make: Any, store: Store) -> None:
    make().map(describe, [np.ones(100)] * 3)
    wait_until(lambda: objects(store) == 0, "the items are evicted all the same")


def test_leaving_map_cancels_what_has_not_begun(make: Any, store: Store) -> None:
    gate = threading.Event()
    begun: list[int] = []

    def wait(number: int, _: Any) -> int:
        begun.append(number)
        if number:
            gate.wait(20)
        return number

    results = make().map(wait, range(50), itertools.repeat(np.ones(100)))
    assert next(results) == 0
    results.close()
    gate.set()
    wait_until(lambda: objects(store) == 0, "the items are evicted")
    assert len(begun) < 10


def test_a_timeout_of_map(make: Any) -> None:
    gate = threading.Event()
    for unordered in (False, True):
        with pytest.raises(TimeoutError):
            next(make().map(lambda _: gate.wait(20), [1], timeout=0.05, unordered=unordered))
    gate.set()


def fail(_: Any) -> None:
    raise ValueError("of the task")


@pytest.mark.parametrize("method", ["threads", "spawn"])
def test_arguments_of_a_task_that_fails_are_evicted(make: Any, store: Store, method: str) -> None:
    with pytest.raises(ValueError, match="of the task"):
        make(method).submit(fail, np.ones(100)).result()
    with pytest.raises(ValueError, match="of the task"):
        list(make(method).map(fail, [np.ones(100)] * 3))
    wait_until(lambda: objects(store) == 0, "the arguments are evicted")


def die(_: Any) -> None:
    os._exit(1)


def test_arguments_of_a_worker_that_dies_are_evicted(make: Any, store: Store) -> None:
    executor = make("spawn")
    with pytest.raises(Exception, match="terminated abruptly"):
        executor.submit(die, np.ones(100)).result()
    wait_until(lambda: objects(store) == 0, "the arguments are evicted")


def test_a_store_that_is_full_keeps_nothing_of_the_task(make: Any, store: Store) -> None:
    with pytest.raises(StoreFullError):
        make().submit(describe, np.ones(100), np.ones(1 << 23))
    with pytest.raises(StoreFullError):
        make().map(describe, [np.ones(100), np.ones(1 << 23)])
    wait_until(lambda: objects(store) == 0, "nothing is left")


def test_proxies_pass_through(make: Any, store: Store) -> None:
    proxy = store.proxy(np.ones(100))
    executor = make(should_proxy=ProxyAlways())
    assert executor.submit(lambda arg: arg is proxy, proxy).result() is True
    assert executor.submit(lambda: None).result() is None


def test_the_store_is_closed_after_the_last_task() -> None:
    gate = threading.Event()
    store = Store("closing", capacity="16MiB", doors=("shm",))
    executor = StoreExecutor(ThreadPoolExecutor(1), store, BIG)
    future = executor.submit(lambda array: gate.wait(20) and float(array.sum()), np.ones(100))
    executor.shutdown(wait=False)
    assert get_store("closing") is store
    gate.set()
    assert future.result() == 100
    wait_until(lambda: get_store("closing") is None, "the store is closed")
    with pytest.raises(RuntimeError):
        executor.submit(describe)


def test_a_closed_executor_keeps_the_store_if_asked(make: Any, store: Store) -> None:
    make().shutdown()
    assert get_store("executor") is store
    store.get(store.put(1))


def test_an_executor_without_an_end_is_told_of(store: Store) -> None:
    with pytest.warns(RuntimeWarning, match="neither"):
        StoreExecutor(object(), store, close_store=False).shutdown()


def test_what_is_proxied() -> None:
    assert ProxyAlways()(1)
    assert not ProxyNever()(np.ones(10**6))
    assert ProxyType(list, str)([1])
    assert not ProxyType(list, str)((1,))
    large = ProxyLarger(1000)
    for item in (b"x" * 1000, "x" * 1000, np.ones(125), [np.ones(125)], {"a": bytes(1000)}):
        assert large(item)
    for item in (1, None, True, b"x" * 999, np.ones(124), [1] * 10, (i for i in range(3))):
        assert not large(item)


def test_chunks_have_calls(make: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        make().map(describe, [1], chunksize=0)


def resolve(proxy: Any) -> tuple[float, bool]:
    store = get_store("executor")
    return float(proxy.sum()), store is None


def test_proxies_resolve_in_forked_workers_without_an_executor_of_ours(store: Store) -> None:
    proxy = store.proxy(np.ones(1000))
    with store_registration(store), pool("fork") as workers:
        # The parent's store is not found there; the proxy opens another.
        assert workers.submit(resolve, proxy).result() == (1000, True)
