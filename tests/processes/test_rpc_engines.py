"""Engines: providers, pools, who may call, and how an engine ends."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import time

import pytest
from support import procfs
from support.doors import require_door
from support.engines import open_engine, serve_all

from proxystore_hpc import Engine, Provider
from proxystore_hpc.exceptions import (
    AccessDeniedError,
    ConfigError,
    DoorUnavailableError,
    EngineClosedError,
    InvalidArgumentError,
    PeerLostError,
    ProtocolError,
    UnknownProviderError,
    UnknownRpcError,
)
from proxystore_hpc.rpc import Request, rpc


@pytest.fixture
def engine():
    require_door("ucx")
    with Engine("ucx", capacity="64MiB") as engine:
        yield engine


class Counter(Provider):
    """Counts; each instance by itself."""

    def __init__(self, start):
        self.value = start

    @rpc
    def add(self, n=1):
        self.value += n
        return self.value

    @rpc("counter-read")
    def read(self, request: Request):
        return self.value, request.provider_id

    @rpc(codec="raw")
    def reverse(self, data):
        return bytes(reversed(data))

    @rpc(one_way=True)
    def reset(self):
        self.value = 0

    @rpc
    async def later(self, seconds):
        await asyncio.sleep(seconds)
        return self.value

    def hidden(self):
        return 1


class Named(Counter, service="tally"):
    pass


def test_providers(make_peer, engine):
    def serve(here):
        here.counters = [here.engine.register_provider(Counter(10 * i), i) for i in range(3)]

    there = engine.lookup(open_engine(make_peer(), serve))
    handles = [Counter.handle(there, i) for i in range(3)]
    assert [handle.add() for handle in handles] == [1, 11, 21]
    assert handles[2].add(n=4) == 25
    assert handles[1].read() == (11, 1)
    assert handles[1].add.submit().result() == 12
    assert asyncio.run(handles[1].later.aio(0.01)) == 12
    assert handles[0].reverse(b"abc") == b"cba"
    assert handles[2].reset() is None
    procfs.wait_until(lambda: handles[2].read() == (0, 2), "it is reset")
    assert handles[0].read() == (1, 0)
    assert engine.rpc("Counter.add").on(there, 1)(0) == 12
    with pytest.raises(UnknownProviderError):
        Counter.handle(there, 3).add()
    with pytest.raises(UnknownRpcError):
        Named.handle(there).add()
    with pytest.raises(AttributeError):
        handles[0].hidden  # noqa: B018


def test_a_service_of_another_name(engine):
    engine.register_provider(Named(5), 7)
    there = engine.lookup(engine.address)
    assert Named.handle(there, 7).add() == 6
    assert engine.rpc("tally.add").on(there, 7)() == 7
    with pytest.raises(InvalidArgumentError):
        engine.register_provider(Named(5), 7)
    with pytest.raises(InvalidArgumentError, match="no method"):
        engine.register_provider(object(), 7)


def test_a_provider_is_registered_whole_or_not_at_all(engine):
    engine.register("tally.later", lambda: None)
    provider = Named(1)
    with pytest.raises(InvalidArgumentError):
        engine.register_provider(provider)
    there = engine.lookup(engine.address)
    with pytest.raises(UnknownRpcError):
        Named.handle(there).add()
    engine.deregister("tally.later")
    assert engine.register_provider(provider) is provider
    assert Named.handle(there).add() == 2
    engine.deregister_provider(provider)
    with pytest.raises(UnknownRpcError):
        Named.handle(there).add()
    with pytest.raises((UnknownRpcError, InvalidArgumentError)):
        engine.deregister("nobody")


def test_registering(engine):
    there = engine.lookup(engine.address)

    @engine.register
    def one():
        return 1

    @engine.register("two", provider_id=2)
    def second():
        return 2

    class Callable:
        async def __call__(self, x):
            return x

    three = engine.register("three", Callable())
    assert one() == there.call("one") == 1
    assert second() == there.call("two", provider_id=2) == 2
    assert three.on(there)(3) == 3
    assert engine.register("one").on(there)() == 1
    for wrong in ("", 3):
        with pytest.raises(InvalidArgumentError):
            engine.register(wrong, one)
    for wrong in (-1, 65536, "0", True):
        with pytest.raises(InvalidArgumentError):
            engine.register("four", one, wrong)
        with pytest.raises(InvalidArgumentError):
            engine.rpc("one").on(there, wrong)
    with pytest.raises(InvalidArgumentError, match="function or a capsule"):
        engine.register("four", 4)
    with pytest.raises(InvalidArgumentError, match="called at a peer"):
        engine.register("four")(4)
    with pytest.raises(ConfigError, match="no pool 'io'"):
        engine.register("four", one, pool="io")
    with pytest.raises(ConfigError, match="codec"):
        engine.register("four", one, codec="json")
    with pytest.raises(InvalidArgumentError):
        engine.register("one", one)


def test_pools_work_side_by_side(make_peer, engine):
    def serve(here):
        here.engine.register("block", lambda t: time.sleep(t), pool="slow")
        here.engine.register("quick", lambda: threading.current_thread().name)

    there = engine.lookup(open_engine(make_peer(), serve, handlers={"slow": 3}))
    block = engine.rpc("block").on(there)
    began = time.monotonic()
    blocked = [block.submit(1.5) for _ in range(6)]
    assert there.call("quick").startswith("rpc-default")
    assert not any(future.done() for future in blocked)
    assert not concurrent.futures.wait(blocked, 30).not_done
    assert time.monotonic() - began < 8  # three at a time: 3 s; one at a time: 9 s


def test_a_handler_that_waits_lets_others_run(make_peer, engine):
    """Through futures, other engines and `concurrent.futures` as well."""

    def serve(here):
        here.other = here.engine.__class__("ucx", capacity="64MiB")

        def nested(request: Request, how):
            ends = {"same": here.engine, "other": here.other}
            bound = ends[how[0]].rpc("answer").on(here.engine.address)
            if how[1] == "call":
                return bound()
            if how[1] == "result":
                return bound.submit().result()
            concurrent.futures.wait([bound.submit()], 10)
            return 42

        here.engine.register("nested", nested)
        here.engine.register("answer", lambda: 42)
        here.addresses = [here.other._instance.address]

    peer = make_peer()
    there = engine.lookup(open_engine(peer, serve))
    nested = engine.rpc("nested").on(there)
    for which in ("same", "other"):
        for how in ("call", "result", "wait"):
            assert nested((which, how), timeout=9) == 42
    hows = [("same", "call"), ("other", "result"), ("same", "wait")] * 4
    assert list(nested.map(hows, timeout=20)) == [42] * 12
    peer(lambda here: here.other.close())


def test_only_who_knows_the_secret_is_served(make_peer):
    require_door("ucx")
    peer = make_peer()
    open_engine(peer, serve_all, address="tcp", listen="127.0.0.1:0", secret="right")
    place = peer(lambda here: here.engine.address.split("/")[2])
    stranger = make_peer()

    def call(here, address, secret):
        from proxystore_hpc import Engine

        with Engine("tcp", listen="127.0.0.1:0", secret=secret, capacity="64MiB") as engine:
            return engine.lookup(address).call("add", 1)

    assert stranger(call, place, "right") == 2
    with pytest.raises(AccessDeniedError):
        stranger(call, place, "wrong")
    assert stranger(call, place, b"right") == 2


def test_an_engine_that_listens(make_peer):
    require_door("ucx")
    peer = make_peer()
    address = open_engine(peer, serve_all, address="tcp://127.0.0.1:0", name="listener", secret="s")
    place = address.split("/")[2]
    assert place.startswith("127.0.0.1:")
    with Engine("tcp://127.0.0.1:0", secret="s", capacity="64MiB") as engine:
        there = engine.lookup(place)
        assert there.address == address
        assert there.name == "listener"
        assert engine.lookup(address) == there
        assert there.call("add", 1) == 2
        assert "tcp" in there.lanes
        assert (str(there), hash(there)) == (address, hash(engine.lookup(place)))


def test_on_the_node_ucx_is_not_even_loaded(make_peer):
    peer = make_peer()
    address = open_engine(peer, serve_all)
    client = make_peer()

    def call(here, address):
        import sys

        from proxystore_hpc import Engine

        with Engine(capacity="64MiB") as engine:
            there = engine.lookup(address)
            answer = engine.rpc("add").on(there).submit(1).result()
            return answer, there.lanes, "proxystore_hpc._ucx" in sys.modules

    assert client(call, address) == (2, "ring/memory", False)


def test_off_the_node_ucx_is_loaded_by_itself(make_peer):
    require_door("ucx")
    peer = make_peer()
    address = open_engine(peer, serve_all, listen="127.0.0.1:0", secret="s")
    place = address.split("/")[2]
    with Engine(secret="s", capacity="64MiB") as engine:
        there = engine.lookup(place)  # by host and port it is as if it were elsewhere
        assert "ring" not in there.lanes
        assert there.lanes != "node socket"
        assert there.call("echo", bytes(100_000)) == bytes(100_000)


def test_ucx_that_cannot_be_had_is_told_once(make_peer, monkeypatch):
    def missing():
        raise DoorUnavailableError("ucx", "it is not installed")

    monkeypatch.setattr("proxystore_hpc.ucx_runtime.import_ucx_module", missing)
    with pytest.warns(UserWarning, match="no fast way to other nodes.*not installed"):
        engine = Engine(listen="127.0.0.1:0", secret="s", capacity="16MiB")
    with engine:
        engine.register("one", lambda: 1)
        with Engine(secret="s", capacity="16MiB") as other:
            assert other.lookup(engine.address).call("one") == 1
    with pytest.raises(DoorUnavailableError, match="not installed"):
        Engine("ucx", capacity="16MiB")


def test_what_is_no_address(engine):
    for wrong in ("", "nowhere", "pshpc://", "tcp://127.0.0.1:1", "127.0.0.1:0", "a:b", 3):
        with pytest.raises(InvalidArgumentError):
            engine.lookup(wrong)
    with pytest.raises(AccessDeniedError, match="pass the same secret="):
        engine.lookup("127.0.0.1:1", timeout=5)
    with Engine("tcp", secret="s", capacity="16MiB") as other, pytest.raises(PeerLostError):
        other.lookup("127.0.0.1:1", timeout=5)
    with pytest.raises((PeerLostError, ProtocolError)):
        engine.lookup("pshpc:///" + "ab" * 16 + "?uid=0", timeout=5)
    with pytest.raises(InvalidArgumentError):
        engine.rpc("add").on(3)


def test_without_ucx_off_the_node(make_peer):
    """What remains is the socket of the hello: calls one at a time, of moderate size."""
    peer = make_peer()
    address = open_engine(peer, serve_all, address="shm", listen="127.0.0.1:0", secret="s")
    host_and_port = address.removeprefix("pshpc://").partition("/")[0]
    with Engine("shm", capacity="64MiB", secret="s") as engine:
        there = engine.lookup(host_and_port)
        assert (there.on_node, there.lanes) == (False, "node socket")
        assert there.call("add", 1) == 2
        assert there.call("echo", b"x" * 1000) == b"x" * 1000
        with pytest.raises(ValueError, match="bad"):
            there.call("fail", ValueError("bad"))
        with pytest.raises(UnknownRpcError):
            there.call("nobody")
        with pytest.raises(DoorUnavailableError, match="UCX"):
            engine.rpc("add").on(there).submit(1)


def test_an_engine_ended_by_a_peer(make_peer, engine):
    peer = make_peer()
    address = open_engine(peer, serve_all, remote_shutdown=True)
    there = engine.lookup(address)
    assert not peer(lambda here: here.engine.wait(0.05))
    waiting = peer.start(lambda here: here.engine.wait(20))
    engine.shutdown(there)
    assert waiting.result()
    with pytest.raises(EngineClosedError):
        there.call("add", 1)
    peer(lambda here: here.engine.close())
    with pytest.raises((PeerLostError, EngineClosedError)):
        there.call("add", 1)


def test_an_engine_that_peers_may_not_end(make_peer, engine):
    peer = make_peer()
    address = open_engine(peer, serve_all)
    with pytest.raises(AccessDeniedError, match="remote_shutdown=True"):
        engine.shutdown(address)
    assert engine.lookup(address).call("add", 1) == 2
    assert not peer(lambda here: here.engine.wait(0))


def test_callbacks_at_the_end(make_peer, engine):
    """The network works still, the last comes first, and one that fails stops none."""
    there = engine.lookup(open_engine(make_peer(), serve_all))
    with Engine("ucx", capacity="64MiB") as other:
        peer = other.lookup(there.address)
        other.on_finalize(lambda: peer.call("note", "first given"))
        other.on_finalize(lambda: 1 / 0)

        @other.on_finalize
        def last():
            peer.call("note", "last given")

    assert there.call("notes") == ["last given", "first given"]
    assert other.wait(0)


def test_closing_with_calls_in_flight(make_peer):
    require_door("ucx")
    address = open_engine(make_peer(), serve_all)
    engine = Engine("ucx", capacity="64MiB")
    doze = engine.rpc("doze").on(address)
    flying = [doze.submit(20) for _ in range(10)]
    told = []
    flying[0].add_done_callback(told.append)
    sync = []

    def call():
        try:
            doze(20)
        except EngineClosedError as error:
            sync.append(error)

    async def wait():
        with pytest.raises(EngineClosedError):
            await doze.aio(20)

    threads = [threading.Thread(target=call), threading.Thread(target=lambda: asyncio.run(wait()))]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    began = time.monotonic()
    engine.close()
    engine.close()
    for future in flying:
        with pytest.raises(EngineClosedError):
            future.result(15)
    for thread in threads:
        thread.join(15)
        assert not thread.is_alive()
    assert time.monotonic() - began < 15  # and not 20
    assert len(sync) == 1
    procfs.wait_until(lambda: told == flying[:1], "the callback is called")
    for use in (
        lambda: doze(1),
        lambda: doze.submit(1),
        lambda: doze.notify(1),
        lambda: engine.lookup(address),
        lambda: engine.register("x", call),
        lambda: engine.deregister("x"),
    ):
        with pytest.raises(EngineClosedError):
            use()


def test_a_server_that_closes_with_calls_in_flight(make_peer, engine):
    peer = make_peer()
    there = engine.lookup(open_engine(peer, serve_all))
    waits = [engine.rpc(name).on(there).submit(20) for name in ("doze", "doze", "sleep")]
    queued = [engine.rpc("add").on(there).submit(1) for _ in range(5)]
    time.sleep(0.2)
    peer(lambda here: here.engine.close())
    for future in (*waits, *queued):
        with pytest.raises((EngineClosedError, PeerLostError)):
            future.result(10)


def test_handlers_that_run_at_the_end_answer(make_peer, engine):
    peer = make_peer()
    there = engine.lookup(open_engine(peer, serve_all))
    future = engine.rpc("sleep").on(there).submit(0.5)
    time.sleep(0.2)
    peer(lambda here: here.engine.close())
    assert future.result(5) == 0.5


def test_a_restart_on_the_same_address(make_peer):
    require_door("ucx")
    from proxystore_hpc.exceptions import PeerRestartedError

    first, second = make_peer(), make_peer()
    address = open_engine(first, serve_all, address="tcp://127.0.0.1:0", secret="s")
    place = address.split("/")[2]
    with Engine("tcp", listen="127.0.0.1:0", secret="s", capacity="64MiB") as engine:
        bound = engine.rpc("pid").on(place)
        assert bound() == first.pid
        first(lambda here: here.engine.close())
        open_engine(second, serve_all, address=f"tcp://{place}", secret="s")
        with pytest.raises((PeerRestartedError, PeerLostError)):
            bound()
        with pytest.raises((PeerRestartedError, PeerLostError)):
            engine.lookup(address)
        assert engine.rpc("pid").on(place)() == second.pid


@pytest.mark.parametrize("each", [10, pytest.param(40, marks=pytest.mark.full)])
def test_many_clients_at_once(make_peer, each):
    """Fifty (200) engines connect at the same time, call, and leave."""
    peer = make_peer()
    address = open_engine(peer, serve_all)
    clients = [make_peer() for _ in range(5)]

    def run(here):
        from concurrent.futures import ThreadPoolExecutor

        from proxystore_hpc import Engine

        def one(i):
            with Engine("shm", capacity="16MiB") as engine:
                bound = engine.rpc("add").on(engine.lookup(address, timeout=25))
                return sum(bound(i, timeout=25) for i in range(20))

        with ThreadPoolExecutor(each) as threads:
            return list(threads.map(one, range(each)))

    pending = [client.start(run) for client in clients]
    assert [p.result(50) for p in pending] == [[210] * each] * 5
    assert peer(lambda here: here.engine.stats()["in_flight"]) == 0


def test_engines_leave_nothing_behind():
    require_door("ucx")

    def once():
        with Engine("ucx", capacity="16MiB") as engine:
            engine.register("f", lambda: 1)
            there = engine.lookup(engine.address)
            assert there.call("f") == 1
            assert there._engine.rpc("f").on(there).submit().result() == 1
            asyncio.run(engine.rpc("f").on(there).aio())
            engine.rpc("f").on(there).submit().add_done_callback(print)

    once()
    gc.collect()
    before = procfs.fd_count(), procfs.thread_count()
    for _ in range(5):
        once()
    gc.collect()
    procfs.wait_until(lambda: procfs.thread_count() <= before[1], "the engines' threads end")
    assert procfs.fd_count() <= before[0] + 2
