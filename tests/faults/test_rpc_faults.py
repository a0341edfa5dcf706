"""Peers that die, stand still, or fork while calls are under way."""

from __future__ import annotations

import concurrent.futures
import functools
import threading
import time

import numpy as np
import pytest
from support import procfs
from support.doors import require_door
from support.engines import open_engine, serve_all
from support.forking import in_child

from proxystore_hpc import Engine
from proxystore_hpc.exceptions import (
    ForkedError,
    OperationTimeoutError,
    PeerLostError,
    PeerRestartedError,
)

pytestmark = pytest.mark.faults

TRANSPORTS = {"shm": {"address": "shm"}, "tcp": {"address": "tcp"}}


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    if request.param != "shm":
        require_door("ucx")
    return request.param


@pytest.fixture
def engine(transport):
    with Engine(transport, capacity="64MiB") as engine:
        yield engine


@pytest.fixture
def server(make_peer, transport):
    peer = make_peer()
    peer.address = open_engine(peer, serve_all, **TRANSPORTS[transport])
    return peer


@pytest.fixture
def bystander(make_peer, transport):
    peer = make_peer()
    peer.address = open_engine(peer, serve_all, **TRANSPORTS[transport])
    return peer


def lost_within(call, limit=15.0):
    began = time.monotonic()
    with pytest.raises(PeerLostError):
        call()
    assert time.monotonic() - began < limit


@pytest.mark.parametrize("procedure", ["sleep", "doze"])
def test_the_server_dies_in_a_handler(engine, server, bystander, procedure):
    there, other = engine.lookup(server.address), engine.lookup(bystander.address)
    call = engine.rpc(procedure).on(there)
    flying = [call.submit(20) for _ in range(20)]
    told = threading.Event()
    flying[-1].add_done_callback(lambda future: told.set())
    failed = []

    def wait():
        try:
            call(20)
        except PeerLostError as error:
            failed.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    server.kill()
    lost_within(flying[0].result)
    for future in flying[1:]:
        lost_within(lambda future=future: future.result(15))
    thread.join(15)
    assert len(failed) == 1
    assert told.wait(15)
    assert other.call("add", 1) == 2
    for _ in range(2):
        lost_within(lambda: call(1))
    assert engine.stats()["in_flight"] == 0


def test_the_server_dies_while_it_takes_a_large_argument(engine, server, bystander):
    there, other = engine.lookup(server.address), engine.lookup(bystander.address)
    echo = engine.rpc("echo").on(there)
    data = np.zeros(32 << 20, "u1")
    echo(data)
    threading.Timer(0.3, server.kill).start()
    with pytest.raises(PeerLostError):
        for _ in range(10_000):
            echo(data)
    assert (other.call("echo", data[:100_000]) == 0).all()


def first_error(call):
    """What a call raises in the end that is made again and again."""
    for _ in range(1_000_000):
        try:
            call()
        except Exception as error:
            return error
    return None


@pytest.mark.parametrize("way", ["call", "submit", "notify"])
def test_calls_begun_when_the_server_dies(engine, make_peer, transport, way):
    """Whatever of the connection is lost first, they say that the peer is."""
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        for _ in range(3):
            peer = make_peer()
            there = engine.lookup(open_engine(peer, serve_all, **TRANSPORTS[transport]))
            bound = engine.rpc("add").on(there)
            begin = functools.partial(bound if way == "call" else getattr(bound, way), 1)
            begin()
            ends = [threads.submit(first_error, begin) for _ in range(3)]
            time.sleep(0.1)
            peer.kill()
            errors = [end.result(20) for end in ends]
            assert [type(error) for error in errors] == [PeerLostError] * 3, errors


def test_the_caller_dies(engine, server, make_peer):
    """Its calls are seen as cancelled; the server goes on."""
    there = engine.lookup(server.address)
    caller = make_peer()
    open_engine(caller, address=engine.config.transport)
    address = server.address

    def call(here):
        here.engine.rpc("wait_for_gate").on(address).submit()
        for _ in range(10):
            here.engine.rpc("sleep").on(address).submit(0.01)

    caller(call)
    procfs.wait_until(lambda: server(lambda here: here.came_to_gate), "the handler runs")
    caller.kill()
    procfs.wait_until(lambda: there.call("notes") == ["given up"], "the handler hears of it")
    assert there.call("add", 1) == 2


def test_senders_that_die_hold_up_nobody(engine, server, make_peer):
    """Wherever in a message they are killed: large ones flow all the time."""
    there = engine.lookup(server.address)
    address = server.address

    def flood(here):
        echo = here.engine.rpc("echo").on(address)
        data = bytes(3_000_000)
        while True:
            for future in [echo.submit(data) for _ in range(4)]:
                future.result()

    for round in range(6):
        victim = make_peer()
        open_engine(victim, address=engine.config.transport)
        victim.start(flood)
        time.sleep(0.1 + 0.037 * round)
        victim.kill()
        for _ in range(3):
            assert there.call("echo", "still here", timeout=15) == "still here"
    assert (there.call("echo", np.ones(1 << 20)) == 1).all()


def test_a_server_that_stands_still(engine, server):
    there = engine.lookup(server.address)
    add = engine.rpc("add").on(there)
    assert add(1) == 2
    server.stop()
    began = time.monotonic()
    with pytest.raises(OperationTimeoutError):
        add(1, timeout=0.5)
    with pytest.raises(OperationTimeoutError):
        add.submit(1, timeout=0.3).result()
    assert 0.7 < time.monotonic() - began < 15
    lasting = add.submit(5, timeout=20)
    server.resume()
    assert lasting.result(15) == 6
    assert add(1) == 2
    assert engine.stats()["in_flight"] == 0


def test_the_same_peer_under_a_new_process(make_peer):
    require_door("ucx")
    first, second = make_peer(), make_peer()
    address = open_engine(first, serve_all, address="tcp://127.0.0.1:0", secret="s")
    place = address.split("/")[2]
    with Engine("tcp", secret="s", capacity="64MiB") as engine:
        there = engine.lookup(place)
        bound = engine.rpc("pid").on(there)
        assert bound() == first.pid
        first.kill()
        open_engine(second, serve_all, address=f"tcp://{place}", secret="s")
        with pytest.raises((PeerLostError, PeerRestartedError)):
            bound()
        assert engine.rpc("pid").on(place)() == second.pid


USES = {
    "call": lambda engine, bound, flying: bound(1, timeout=5),
    "submit": lambda engine, bound, flying: bound.submit(1, timeout=5).result(6),
    "notify": lambda engine, bound, flying: bound.notify(1, timeout=5),
    "lookup": lambda engine, bound, flying: engine.lookup("127.0.0.1:1", timeout=5),
    "register": lambda engine, bound, flying: engine.register("new", print),
    "deregister": lambda engine, bound, flying: engine.deregister("own"),
}


def test_a_forked_child_may_not_use_the_engine(server, make_peer, transport):
    client = make_peer()
    open_engine(client, address=transport)
    address = server.address

    def run(here):
        engine = here.engine
        engine.register("own", lambda: 1)
        bound = engine.rpc("add").on(address)
        flying = engine.rpc("doze").on(address).submit(0.5)
        assert bound(1) == 2
        answers = {name: in_child(lambda: USES[name](engine, bound, flying)) for name in USES}  # noqa: B023
        answers["close"] = in_child(engine.close)
        return answers, flying.result(15), bound(1)

    answers, slept, added = client(run)
    assert answers.pop("close") == ("None", 0)
    assert answers == dict.fromkeys(USES, (ForkedError.__name__, 0))
    assert (slept, added) == (0.5, 2)


def test_a_child_opens_an_engine_of_its_own(server, make_peer, transport):
    client = make_peer()
    open_engine(client, address=transport)
    address = server.address

    def run(here):
        bound = here.engine.rpc("add").on(address)
        assert bound(1) == 2

        def use():
            with Engine("shm", capacity="16MiB") as engine:
                return engine.lookup(address).call("add", 2)

        return in_child(use), bound(3)

    assert client(run) == (("3", 0), 4)
