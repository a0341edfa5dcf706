"""Futures of an engine that calls itself."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import weakref

import pytest

from proxystore_hpc.rpc import CallCancelledError


@pytest.fixture
def gate(engine):
    """Calls of `"gate"` end when it is set."""
    gate = threading.Event()
    engine.register("gate", lambda value=None: gate.wait(20) and value)
    yield gate
    gate.set()


@pytest.fixture
def call(engine, itself, gate):
    return engine.rpc("gate").on(itself)


def test_a_result_can_be_asked_for_again(call, gate):
    gate.set()
    future = call.submit([1])
    assert future.result() is future.result(0)
    assert future.exception() is None
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert "ended well" in repr(future)


def test_an_exception_can_be_asked_for_again(engine, itself):
    engine.register("fail", lambda: 1 / 0)
    future = engine.rpc("fail").on(itself).submit()
    error = future.exception(10)
    assert isinstance(error, ZeroDivisionError)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as caught:
            future.result()
        assert caught.value is error
    assert "ZeroDivisionError" in repr(future)
    assert not future.cancel()


def test_many_threads_ask_for_one_result(call, gate):
    for _ in range(20):
        future = call.submit({"a": 1})
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            asked = [threads.submit(future.result, 10) for _ in range(4)]
            gate.set()
            assert len({id(result.result()) for result in asked}) == 1


@pytest.mark.parametrize("first", ["result", "callback", "wait", "await"])
@pytest.mark.parametrize("second", ["result", "callback", "wait", "await"])
def test_every_way_to_wait_goes_with_every_other(call, gate, first, second):
    future = call.submit(7)
    heard = []
    ways = {
        "result": lambda: future.result(10),
        "callback": lambda: callback(),
        "wait": lambda: concurrent.futures.wait([future], 10).done.pop().result(),
        "await": lambda: asyncio.run(awaited()),
    }

    def callback():
        told = threading.Event()
        future.add_done_callback(lambda f: told.set())
        assert told.wait(10)
        return future.result(0)

    async def awaited():
        return await future

    threads = [
        threading.Thread(target=lambda way=way: heard.append(ways[way]()))
        for way in (first, second)
    ]
    threads[0].start()
    threads[0].join(0.02)
    threads[1].start()
    threads[1].join(0.02)
    gate.set()
    for thread in threads:
        thread.join(10)
    assert heard == [7, 7]


def test_cancelling(call):
    future = call.submit()
    assert not future.done()
    assert future.cancel()
    assert future.cancel()
    assert future.cancelled()
    assert future.done()
    with pytest.raises(CallCancelledError):
        future.result()
    with pytest.raises(concurrent.futures.CancelledError):
        future.exception()
    assert concurrent.futures.wait([future], 5).done == {future}
    told = []
    future.add_done_callback(told.append)
    assert told == [future]


def test_cancelling_tells_those_who_wait(call):
    future = call.submit()
    told = threading.Event()
    future.add_done_callback(lambda f: told.set())

    async def wait():
        await asyncio.wrap_future(future)

    async def both():
        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0.05)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(both())
    assert told.wait(5)


def test_a_callback_that_fails_stops_no_other(call, gate, caplog):
    future = call.submit()
    told = threading.Event()
    future.add_done_callback(lambda f: 1 / 0)
    future.add_done_callback(lambda f: told.set())
    gate.set()
    assert told.wait(5)
    assert "ZeroDivisionError" in caplog.text


def test_a_future_that_nobody_wants_is_dropped(call, gate):
    future = call.submit()
    gone = weakref.ref(future)
    del future
    gc.collect()
    assert gone() is None
    gate.set()
    assert call(3) == 3


def test_map_ends_with_its_first_error(engine, itself):
    engine.register("odd", lambda n: n if n % 2 else 1 // 0)
    results = engine.rpc("odd").on(itself).map([1, 3, 4, 5])
    assert [next(results), next(results)] == [1, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(engine.rpc("odd").on(itself).map([])) == []
    assert list(engine.rpc("odd").on(itself).map(iter([1, 3]), window=1)) == [1, 3]


def test_map_that_is_left_cancels_what_is_under_way(call, engine, gate):
    gate.set()
    results = call.map(range(100), window=10)
    assert next(results) == 0
    gate.clear()
    results.close()
    gate.set()
    assert call(1) == 1
    assert engine.stats()["in_flight"] == 0
