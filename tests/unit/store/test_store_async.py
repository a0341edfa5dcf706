"""Getting and resolving from coroutines."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time

import numpy as np
import pytest

from proxystore_hpc import Proxy, aresolve, is_resolved
from proxystore_hpc.exceptions import (
    OperationTimeoutError,
    ProxyResolveError,
    ProxyResolveMissingKeyError,
)
from proxystore_hpc.utils.offload import THREADS, offload

IN_TURN = contextvars.ContextVar("IN_TURN", default=0)


def test_objects_are_got_and_put(store):
    async def use():
        array = np.arange(100_000)
        key = await store.aput(array)
        again = await store.aget(key)
        assert not again.flags.writeable
        assert (await store.aget(key, writable=True)).flags.writeable
        others = await store.aget_batch([key, store.new_key()], default="none")
        assert others[1] == "none"
        return [np.array_equal(array, found) for found in (again, others[0])]

    assert asyncio.run(use()) == [True, True]


def test_many_at_once(store):
    keys = [store.put(i) for i in range(1000)]

    async def use():
        return await asyncio.gather(*(store.aget(key) for key in keys))

    assert asyncio.run(use()) == list(range(1000))


def test_calls_overlap_and_do_not_block_the_loop():
    # Passed only when all of them run at the same time.
    together = threading.Barrier(THREADS, timeout=30)

    async def use():
        ticks = 0
        waiting = asyncio.gather(*(offload(together.wait) for _ in range(THREADS)))
        while not waiting.done():
            ticks += 1
            await asyncio.sleep(0)
        return ticks, await waiting

    ticks, places = asyncio.run(use())
    assert ticks > 0
    assert sorted(places) == list(range(THREADS))


def test_threads_are_bounded():
    running, most = 0, 0
    lock = threading.Lock()

    def count():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.001)
        with lock:
            running -= 1

    async def use():
        await asyncio.gather(*(offload(count) for _ in range(10 * THREADS)))

    asyncio.run(use())
    assert 0 < most <= THREADS


def test_the_context_of_the_task_is_that_of_the_call():
    async def use():
        IN_TURN.set(7)
        return await offload(IN_TURN.get)

    assert asyncio.run(use()) == 7


def test_a_cancelled_task_goes_on_at_once():
    release = threading.Event()

    async def use():
        task = asyncio.create_task(offload(release.wait, 30))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    try:
        asyncio.run(use())
        assert not release.is_set()
    finally:
        release.set()


def test_loops_one_after_the_other(store):
    key = store.put("again")
    for _ in range(3):
        assert asyncio.run(store.aget(key)) == "again"


def test_errors_are_those_of_get(store):
    waiting = store.new_key()

    async def use():
        with pytest.raises(OperationTimeoutError):
            await offload(store.wait_for, waiting, timeout=0.01)
        return await store.aget(waiting, default="nothing yet")

    assert asyncio.run(use()) == "nothing yet"


def test_proxies(store):
    proxies = [store.proxy([i], populate_target=False) for i in range(100)]

    async def use():
        return await asyncio.gather(*map(aresolve, proxies))

    assert asyncio.run(use()) == [[i] for i in range(100)]
    assert all(map(is_resolved, proxies))
    assert asyncio.run(aresolve(proxies[5])) is proxies[5].__proxy_wrapped__


def test_proxies_that_fail(store):
    gone = store.proxy([1], populate_target=False)
    store.evict(gone.__proxy_factory__.key)
    with pytest.raises(ProxyResolveError) as caught:
        asyncio.run(aresolve(gone))
    assert isinstance(caught.value.cause, ProxyResolveMissingKeyError)
    with pytest.raises(ProxyResolveError):
        asyncio.run(aresolve(Proxy(lambda: 1 / 0)))
