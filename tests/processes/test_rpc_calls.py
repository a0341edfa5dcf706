"""Calls to another process, in all the ways there are."""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
import threading
import time

import numpy as np
import pytest
from support import procfs, ways
from support.data import EXAMPLES, difference

from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    OperationTimeoutError,
    RemoteError,
    RpcCancelledError,
    SerializationError,
    UnknownProviderError,
    UnknownRpcError,
)
from proxystore_hpc.rpc import Request

TWO_SIDED = ways.of_calls


@pytest.fixture(scope="module")
def meeting(make_lasting_peer, way):
    with way.engines(make_lasting_peer, handlers={"default": 1}) as meeting:
        yield meeting


@pytest.fixture(scope="module")
def server(meeting):
    return meeting.server


@pytest.fixture(scope="module")
def engine(meeting):
    return meeting.engine


@pytest.fixture(scope="module")
def there(meeting):
    return meeting.there


@pytest.mark.parametrize("name", EXAMPLES)
def test_objects_come_back(there, name):
    assert difference(there.call("echo", EXAMPLES[name]()), EXAMPLES[name]()) is None
    args, kwargs = there.call("echo", 1, EXAMPLES[name](), key=EXAMPLES[name]())
    assert difference(args, (1, EXAMPLES[name]())) is None
    assert difference(kwargs, {"key": EXAMPLES[name]()}) is None


@pytest.mark.parametrize(
    "nbytes", [0, 1, 4095, 4096, 4097, 8192, 16383, 16384, 65536, 1 << 20, 5 << 20]
)
def test_sizes(engine, there, nbytes):
    data = np.arange(nbytes, dtype="u4").astype("u1")
    got = there.call("echo", data)
    assert (got == data).all()
    got[:1] = 7  # received memory is the caller's own
    assert there.call("echo", data.tobytes()) == data.tobytes()
    raw = engine.rpc("raw", codec="raw").on(there)
    assert bytes(raw(data)) == data.tobytes()[::-1]


def test_several_large_buffers_in_one_call(there):
    arrays = [np.arange(n, dtype="f8") for n in (512, 700, 20_001, 300_000)]
    args, kwargs = there.call("echo", *arrays, more=[a.copy() for a in arrays])
    for got in (args, kwargs["more"]):
        for one, array in zip(got, arrays, strict=True):
            assert (one == array).all()
            one[:1] = -1


def test_all_ways_to_call(engine, there):
    add = engine.rpc("add").on(there)
    assert add(1) == 2
    assert add(1, b=5) == 6
    assert add.submit(1, b=7).result() == 8
    assert asyncio.run(add.aio(2, b=3)) == 5
    assert list(add.map(range(200), window=7)) == list(range(1, 201))
    assert engine.rpc("null").on(there)() is None
    assert engine.rpc("null").on(there).submit().result(10) is None


def test_one_way(engine, there):
    note = engine.rpc("note").on(there)
    assert note.notify("told") is None
    assert engine.rpc("note", one_way=True).on(there)("once more") is None
    engine.rpc("fail").on(there).notify(ValueError("nobody hears it"))
    procfs.wait_until(lambda: {"told", "once more"} <= set(there.call("notes")), "both came")


def test_a_thousand_in_flight(engine, there):
    doze = engine.rpc("doze").on(there)

    async def run():
        began = time.monotonic()
        results = await asyncio.gather(*(doze.aio(0.3) for _ in range(1000)))
        return results, time.monotonic() - began

    results, took = asyncio.run(run())
    assert results == [0.3] * 1000
    assert took < 100  # one after the other they would take 300 s
    futures = [doze.submit(0.2) for _ in range(1000)]
    assert sum(future.result() for future in futures) == pytest.approx(200)


def test_futures_are_those_of_the_standard_library(engine, there):
    add, doze = engine.rpc("add").on(there), engine.rpc("doze").on(there)
    slow, quick = doze.submit(1.0), add.submit(1)
    done, left = concurrent.futures.wait(
        [slow, quick], timeout=10, return_when=concurrent.futures.FIRST_COMPLETED
    )
    assert (done, left) == ({quick}, {slow})
    assert quick.done()
    assert slow.running()
    with pytest.raises(concurrent.futures.TimeoutError):
        slow.result(0.01)
    futures = {add.submit(i): i + 1 for i in range(50)}
    for future in concurrent.futures.as_completed(futures, timeout=10):
        assert future.result() == futures[future]
    heard = threading.Event()
    quick.add_done_callback(lambda future: heard.set())
    assert heard.wait(15)
    told = []
    late = add.submit(5)
    late.add_done_callback(lambda future: told.append(future.result()))
    assert late.result(10) == 6
    procfs.wait_until(lambda: told == [6], "the callback is called")
    failing = engine.rpc("fail").on(there).submit(ValueError("x"))
    assert isinstance(failing.exception(10), ValueError)
    assert slow.result() == 1.0


def test_futures_can_be_awaited(engine, there):
    add, doze, fail = (engine.rpc(name).on(there) for name in ("add", "doze", "fail"))

    async def run():
        assert await add.submit(1) == 2
        future = doze.submit(0.1)
        assert await asyncio.gather(future_of(future), future_of(future)) == [0.1, 0.1]
        assert await asyncio.wrap_future(doze.submit(0.05)) == 0.05
        ended = add.submit(3)
        ended.result()
        assert await ended == 4
        with pytest.raises(ValueError, match="awaited"):
            await fail.submit(ValueError("awaited"))
        with pytest.raises(ValueError, match="awaited"):
            await fail.aio(ValueError("awaited"))

    async def future_of(future):
        return await future

    asyncio.run(run())


def test_loops_in_several_threads(engine, there):
    doze = engine.rpc("doze").on(there)

    async def run():
        return sum(await asyncio.gather(*(doze.aio(0.01) for _ in range(50))))

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        sums = list(threads.map(lambda _: asyncio.run(run()), range(12)))
    assert sums == [pytest.approx(0.5)] * 12
    assert len(engine._completer._loops) <= 5  # those of loops that are closed are forgotten


def test_threads_share_a_bound_call(engine, there):
    add = engine.rpc("add").on(there)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert list(threads.map(add, range(400))) == list(range(1, 401))


def test_a_timeout(engine, there):
    doze = engine.rpc("doze").on(there)
    for call in (
        lambda: doze(20, timeout=0.1),
        lambda: doze.submit(20, timeout=0.1).result(),
        lambda: asyncio.run(doze.aio(20, timeout=0.1)),
    ):
        began = time.monotonic()
        with pytest.raises(OperationTimeoutError):
            call()
        assert time.monotonic() - began < 15
    assert doze(0.01, timeout=10) == 0.01


def test_what_nobody_waits_for_is_dropped(engine, server, there):
    note, sleep = engine.rpc("note").on(there), engine.rpc("sleep").on(there)
    busy = sleep.submit(0.5)
    late = [note.submit(f"late {i}", timeout=0.05) for i in range(5)]
    for future in late:
        with pytest.raises(OperationTimeoutError):
            future.result()
    assert busy.result() == 0.5
    assert not [text for text in there.call("notes") if str(text).startswith("late")]
    served = {s["name"]: s for s in server(lambda here: here.engine.stats()["served"])}
    assert served["note"]["dropped"] >= 5


def test_cancelling(engine, server, there):
    wait = engine.rpc("wait_for_gate").on(there)
    came = server(lambda here: here.came_to_gate)
    future = wait.submit()
    procfs.wait_until(lambda: server(lambda here: here.came_to_gate) > came, "the handler runs")
    assert future.cancel()
    assert future.cancelled()
    assert future.done()
    for kind in (concurrent.futures.CancelledError, RpcCancelledError):
        with pytest.raises(kind):
            future.result()
    procfs.wait_until(lambda: "given up" in there.call("notes"), "the handler hears of it")
    ended = engine.rpc("add").on(there).submit(1)
    assert ended.result() == 2
    assert not ended.cancel()
    assert not ended.cancelled()
    heard = threading.Event()
    waited = wait.submit()
    waited.add_done_callback(lambda future: heard.set())
    waited.cancel()
    assert heard.wait(15)
    assert not concurrent.futures.wait([waited], 5).not_done


def test_cancelling_a_task_cancels_its_call(engine, server, there):
    wait = engine.rpc("wait_for_gate").on(there)
    before = there.call("notes").count("given up")

    def came():
        return server(lambda here: here.came_to_gate)

    async def run(awaitable):
        already = came()
        task = asyncio.ensure_future(awaitable)
        while came() == already:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run(wait.aio()))

    async def submitted():
        return await wait.submit()

    asyncio.run(run(submitted()))
    procfs.wait_until(
        lambda: there.call("notes").count("given up") >= before + 2, "the handlers hear of it"
    )
    assert engine.stats()["in_flight"] == 0


def test_callbacks_into_the_caller(engine, server, there):
    """One thread for handlers on either side, which waits while the other's handler calls it."""

    def back(request: Request, depth):
        return 1 + request.endpoint.call("back", depth - 1) if depth else 0

    engine.register("back", back)
    try:
        assert there.call("back", 9, timeout=20) == 9
        bound = engine.rpc("back").on(there)
        assert [f.result(20) for f in [bound.submit(3) for _ in range(20)]] == [3] * 20
    finally:
        engine.deregister("back")


def test_unknown_names(engine, there):
    with pytest.raises(UnknownRpcError, match=f"'nobody' at {re.escape(there.address)}: no such"):
        there.call("nobody")
    with pytest.raises(UnknownRpcError, match="'nobody' at"):
        engine.rpc("nobody").on(there).submit().result()
    with pytest.raises(UnknownProviderError, match="'add' at"):
        there.call("add", 1, provider_id=3)


@pytest.mark.parametrize("procedure", ["fail", "fail_later"])
def test_exceptions_of_handlers(there, procedure):
    with pytest.raises(ValueError, match="bad") as caught:
        there.call(procedure, ValueError("bad", 3))
    assert caught.value.args == ("bad", 3)
    assert procedure in caught.value.remote_traceback
    with pytest.raises(OSError, match="no file") as caught:
        there.call(procedure, FileNotFoundError(2, "no file"))
    assert caught.value.errno == 2
    for error in (SystemExit(3), KeyboardInterrupt(), StopIteration(1), GeneratorExit()):
        with pytest.raises((RemoteError, RuntimeError)):
            there.call(procedure, error)
    assert there.call("add", 1) == 2


def test_handlers_that_misuse_arguments(there):
    with pytest.raises(TypeError, match="argument"):
        there.call("add")
    with pytest.raises(TypeError, match="unexpected keyword"):
        there.call("add", 1, c=3)


def test_what_cannot_be_sent(engine, there):
    with pytest.raises(SerializationError):
        there.call("echo", threading.Lock())
    with pytest.raises(InvalidArgumentError, match="one bytes-like"):
        engine.rpc("raw", codec="raw").on(there)(b"1", b"2")


def test_a_result_that_cannot_be_sent(server, there):
    def serve(here):
        here.engine.register("lock", lambda: here.gate)

    server(serve)
    with pytest.raises(SerializationError, match="Event"):
        there.call("lock")
    server(lambda here: here.engine.deregister("lock"))


def test_an_engine_calls_itself(engine):
    engine.register("own", lambda x: x + 1)
    try:
        assert engine.lookup(engine.address).call("own", 1) == 2
    finally:
        engine.deregister("own")


def test_events(engine, there):
    seen = []
    stop = engine.on_event(seen.append)
    assert there.call("add", 1) == 2
    with pytest.raises(UnknownRpcError):
        there.call("nobody")
    assert engine.rpc("add").on(there).submit(2).result() == 3
    asyncio.run(engine.rpc("add").on(there).aio(3))
    stop()
    there.call("add", 1)
    assert [(e.stage, e.phase, e.name) for e in seen] == [
        ("call", phase, name)
        for name in ("add", "nobody", "add", "add")
        for phase in ("start", "end")
    ]
    assert all(e.peer == there.address for e in seen)
    assert isinstance(seen[3].error, UnknownRpcError)
    assert seen[1].seconds > 0


def test_a_hook_that_fails_harms_nothing(engine, there, caplog):
    stop = engine.on_event(lambda event: 1 / 0)
    assert there.call("add", 1) == 2
    stop()
    assert "hook" in caplog.text


def test_counters_are_exact(make_peer, way):
    data = np.zeros(10_000, "u1")
    with way.engines(make_peer) as meeting:
        engine, there = meeting.engine, meeting.there
        echo = engine.rpc("echo").on(there)
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda i: engine.rpc("null").on(there)(), range(400)))
        for _ in range(3):
            echo(data)
        with pytest.raises(ValueError, match="x"):
            there.call("fail", ValueError("x"))
        calls = engine.stats()["calls"]
        served = {s["name"]: s for s in meeting.server(lambda here: here.engine.stats()["served"])}
    assert calls["null"]["calls"] == calls["null"]["latency"]["count"] == 400
    assert calls["fail"]["failures"] == calls["fail"]["calls"] == 1
    assert calls["echo"]["bytes_out"] == calls["echo"]["bytes_in"]
    assert 30_000 < calls["echo"]["bytes_out"] < 31_000
    assert served["null"]["calls"] == 400
    assert served["null"]["queue_wait"]["count"] == served["null"]["handler_time"]["count"] == 400
    assert served["fail"]["failures"] == 1
    assert served["echo"]["bytes_in"] == calls["echo"]["bytes_out"]
