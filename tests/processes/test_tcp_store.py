"""Stores that are served over TCP: who comes through which door, and what happens when one fails.

Every kind of data goes through this door in test_data_through_doors.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import pickle
import socket
import struct
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from support import procfs

from proxystore_hpc import Store
from proxystore_hpc.exceptions import (
    AccessDeniedError,
    DoorUnavailableError,
    ObjectEvictedError,
    OperationTimeoutError,
    OwnerGoneError,
)
from proxystore_hpc.key import Key
from proxystore_hpc.tcp.endpoints import MAP_VARIABLE, TcpEndpoint, pack, unpack

TOKEN = "00112233445566778899aabbccddeeff"


def elsewhere(key, contact=None):
    """The key as it looks to a process that no native door leads from to its owner.

    Its node socket is that of a user who has none; `contact` is said to be its way off the node.
    """
    host, port = contact or ("", 0)
    where = struct.pack("<IHB", 0xFFFFFFFE, port, len(host)) + host.encode()
    packed = key.packed[:68] + where + struct.pack("<H", len(key.outside)) + key.outside
    return Key.parse(packed)


@pytest.fixture
def owner(make_peer):
    return make_peer(name="store", capacity="64MiB", tcp={"put_token": TOKEN})


@pytest.fixture
def outsider(make_peer):
    """A process that may use TCP only."""
    return make_peer(name="store", doors=("tcp",), capacity="64MiB")


@pytest.fixture
def reader(make_peer):
    """A process that may use every door."""
    return make_peer(name="store", capacity="64MiB")


def put(owner, obj):
    return owner(lambda here: here.store.put(obj))


def test_keys_say_where_the_server_is(owner):
    (endpoint,) = unpack(put(owner, 1).outside)
    assert endpoint.host == "127.0.0.1"
    assert not endpoint.authority
    assert not endpoint.gateway
    with socket.create_connection((endpoint.host, endpoint.port), 5):
        pass


def test_everything_through_tcp(owner, outsider):
    keys = owner(lambda here: here.store.put_batch([np.arange(1000.0) + i for i in range(5)]))
    later = owner(lambda here: here.store.new_key())

    def use(here):
        store = here.store
        assert store.get(keys[0])[-1] == 999
        assert [array[0] for array in store.get_batch(keys)] == [0, 1, 2, 3, 4]
        assert store.get(keys[1], offset=8, length=8).cast("d")[0] == 2
        target = np.zeros(1000)
        assert store.get_into(keys[2], target) == 8000
        assert target[0] == 2
        assert store.exists_batch([*keys, later]) == [True] * 5 + [False]
        assert store.get(later, default="not yet") == "not yet"
        with pytest.raises(OperationTimeoutError):
            store.wait_for(later, timeout=0.1)
        store.evict(keys[3])
        assert not store.exists(keys[3])
        with pytest.raises(ObjectEvictedError) as caught:
            store.get_or_raise(keys[3])
        assert caught.value.key == keys[3]
        own = store.put("own")
        assert store.get(own) == "own"
        return here.doors

    # Of the batch, one is cached; what was evicted is no transfer.
    assert outsider(use) == {"tcp": 7, "self": 1}
    assert owner(lambda here: here.store.exists_batch(keys)) == [True, True, True, False, True]


def test_who_waits_over_tcp_is_told(owner, outsider):
    key = owner(lambda here: here.store.new_key())
    waiting = outsider.start(
        lambda here: (here.store.wait_for(key), here.store.get(key), here.store.get(key, offset=1))
    )
    time.sleep(0.2)
    owner(lambda here: here.store.set(key, b"there"))
    _, whole, part = waiting.result()
    assert (whole, bytes(part)) == (b"there", b"here")


def test_what_came_over_tcp_is_cached(owner, outsider):
    key = put(owner, np.zeros(1000))

    def use(here):
        for _ in range(3):
            here.store.get(key)
        mine = here.store.get(key, writable=True)
        mine[:] = 1
        return here.store.is_cached(key), float(here.store.get(key).sum()), here.doors

    assert outsider(use) == (True, 0.0, {"tcp": 2})


def test_how_far_a_transfer_is(owner, outsider):
    key = put(owner, np.zeros(2_000_000))

    def use(here):
        told = []
        here.store.get(key, progress=lambda done, total: told.append((done, total)))
        return told

    told = outsider(use)
    assert told[-1] == (key.nbytes, key.nbytes)
    assert told == sorted(told)


def test_native_doors_come_first(owner, reader):
    key = put(owner, np.zeros(1000))
    reader(lambda here: here.store.get(key))
    assert reader(lambda here: here.doors) == {"shm": 1}


def test_tcp_where_no_native_door_leads(make_peer, owner, reader):
    near = put(make_peer(name="near", capacity="16MiB", tcp=True), np.arange(1000))
    far = elsewhere(put(owner, np.arange(2000)))
    later = elsewhere(owner(lambda here: here.store.new_key()))

    def use(here):
        store = here.store
        sizes = [store.get(key).size for key in (near, far)]
        sizes += [array.size for array in store.get_batch([near, far])]
        assert store.exists_batch([near, later]) == [True, False]
        store.evict(far)
        assert store.get(far, default="gone", writable=True) == "gone"
        return sizes, here.doors

    sizes, doors = reader(use)
    assert sizes == [1000, 2000, 1000, 2000]
    # What lies on the node is mapped anew each time, what came over a network is cached.
    assert doors == {"shm": 2, "tcp": 1}


def test_a_way_that_leads_nowhere_is_tried_once(owner, reader):
    """Somebody accepts connections at the owner's contact and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        contact = silent.getsockname()
        keys = [elsewhere(put(owner, i), contact) for i in range(20)]

        def use(here):
            began = time.monotonic()
            values = [here.store.get(key, writable=True) for key in keys]
            return values, time.monotonic() - began, here.doors

        values, seconds, doors = reader(use)
        assert values == list(range(20))
        assert doors == {"tcp": 20}
        assert 0.9 < seconds < 10
        silent.settimeout(0.0)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


class SlowRelay:
    """Leads to an owner's contact, but takes its time with the first bytes."""

    def __init__(self, contact, delay):
        self._contact, self._delay = contact, delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.address = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection(self._contact)
                self._sockets += [here, there]
                for pair in ((here, there), (there, here)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source, target):
        time.sleep(self._delay)
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)

    def close(self):
        for used in self._sockets:
            with contextlib.suppress(OSError):
                used.shutdown(socket.SHUT_RDWR)
            used.close()


def test_a_slow_native_way_is_taken_if_nobody_else_answers(make_peer, reader):
    """Its first second is too short; the server that the key names is not reached from here."""
    owner = make_peer(name="store", capacity="16MiB", interface="lo", tcp=True)
    keys = [put(owner, i) for i in range(4)]
    server = owner(lambda here: here.store._server.close())
    assert server is None
    relay = SlowRelay(keys[0].contact, 1.5)
    try:
        far = [elsewhere(key, relay.address) for key in keys]

        def use(here):
            store = here.store
            assert store.get(far[0], writable=True) == 0
            assert store.get_batch(far[1:]) == [1, 2, 3]
            assert store.exists(far[1])
            return here.doors

        assert "tcp" not in reader(use)
    finally:
        relay.close()


def test_a_store_that_may_not_use_tcp_does_not(make_peer, owner):
    key = elsewhere(put(owner, 1))
    native = make_peer(name="store", doors=("shm", "socket"), capacity="64MiB")
    with pytest.raises(OwnerGoneError, match="no process with its id"):
        native(lambda here: here.store.get(key))


def test_a_key_that_names_no_server(make_peer, outsider):
    key = put(make_peer(name="silent", capacity="16MiB"), 1)
    with pytest.raises(DoorUnavailableError, match="tcp alone"):
        outsider(lambda here: here.store.get(key))


def gone(pid):
    return not procfs.exists(pid) or procfs.state(pid) == "Z"


def test_an_owner_that_ended_is_out_of_reach(owner, outsider, reader):
    server = owner(lambda here: here.store._server.pid)
    keys = owner(lambda here: here.store.put_batch([1, 2, 3]))
    for side in (outsider, reader):
        assert side(lambda here: here.store.get(keys[0])) == 1
    owner.kill()
    procfs.wait_until(lambda: gone(server), "its server has ended")
    for key in keys[1:]:
        # Who is on the loopback interface that the key names knows what it means.
        with pytest.raises(OwnerGoneError, match="nobody listens any more"):
            outsider(lambda here: here.store.get(key))  # noqa: B023
        # What is mapped can still be read there.
        with pytest.raises(OwnerGoneError, match=r"no process with its id|nobody listens"):
            reader(lambda here: here.store.exists(key))  # noqa: B023
    assert reader(lambda here: here.doors) == {"shm": 1}


def test_the_server_ends_with_its_store(owner):
    (endpoint,) = unpack(put(owner, 1).outside)
    pid = owner(lambda here: here.store._server.pid)
    assert pid != owner.pid
    assert procfs.exists(pid)
    owner(lambda here: here.store.close())
    procfs.wait_until(lambda: not procfs.exists(pid), "the server has ended")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((endpoint.host, endpoint.port), 5)


def test_the_server_ends_with_a_store_that_was_dropped(make_peer):
    def drop(here):
        store = Store("dropped", capacity="16MiB", tcp=True)
        pid = store._server.pid
        del store
        gc.collect()
        return pid

    pid = make_peer()(drop)
    procfs.wait_until(lambda: gone(pid), "the server has ended")


def test_the_server_ends_with_a_killed_owner(owner):
    pid = owner(lambda here: here.store._server.pid)
    owner.kill()
    procfs.wait_until(lambda: gone(pid), "the server has ended")


def test_a_proxy_on_a_machine_without_the_core(make_peer, owner):
    packed = owner(lambda here: pickle.dumps(here.store.proxy(np.arange(1000.0))))
    bare = make_peer()

    def use(here):
        sys.modules["proxystore_hpc._core"] = None
        proxy = pickle.loads(packed)
        total = float(proxy.sum())
        store = here.store = __import__("proxystore_hpc").get_store(proxy)
        with pytest.raises(DoorUnavailableError, match="native core"):
            store.put(1)
        return total, store.name, here.doors

    assert bare(use) == (499_500.0, "store", {"tcp": 1})


def test_putting_from_outside(make_peer, owner):
    key = put(owner, 1)
    writer = make_peer(name="store", doors=("tcp",), capacity="16MiB", options={"put_token": TOKEN})
    stored = writer(lambda here: here.store.put(np.arange(100_000), to=key))
    assert stored.owner_id == key.owner_id
    assert stored.outside == key.outside
    assert owner(lambda here: int(here.store.get(stored).sum())) == 4_999_950_000
    proxy = writer(lambda here: pickle.dumps(here.store.proxy({"step": 5}, to=key)))
    assert owner(lambda here: pickle.loads(proxy)["step"]) == 5


def test_putting_from_outside_takes_a_token(make_peer, owner, outsider):
    key = put(owner, 1)
    with pytest.raises(AccessDeniedError):
        outsider(lambda here: here.store.put(2, to=key))
    closed = put(make_peer(name="closed", capacity="16MiB", tcp=True), 1)
    writer = make_peer(name="store", doors=("tcp",), capacity="16MiB", options={"put_token": TOKEN})
    with pytest.raises(AccessDeniedError):
        writer(lambda here: here.store.put(2, to=closed))


def test_a_key_leads_to_its_owner_natively_too(owner, reader):
    key = put(owner, 1)
    stored = reader(lambda here: here.store.put("beside", to=key))
    assert owner(lambda here: here.store.get(stored)) == "beside"


def test_an_owner_that_holds_its_gil_holds_up_nobody(owner, outsider):
    key = put(owner, np.arange(1_000_000.0))
    outsider(lambda here: here.store.get(key, writable=True).sum())
    # Unlike CDLL, PyDLL keeps the GIL for the length of the call.
    held = owner.start(lambda here: ctypes.PyDLL(None).sleep(5))
    began = time.monotonic()
    assert outsider(lambda here: here.store.get(key, writable=True)[-1]) == 999_999
    seconds = time.monotonic() - began
    assert held.result() == 0
    assert time.monotonic() - began > 4.5  # it did hold it
    assert seconds < 3


def test_many_at_once_on_one_loop(owner, outsider):
    keys = owner(lambda here: here.store.put_batch([np.full(10_000, i) for i in range(200)]))

    def use(here):
        async def gather():
            return await asyncio.gather(*(here.store.aget(key) for key in keys))

        return [int(array[0]) for array in asyncio.run(gather())], here.doors

    assert outsider(use) == (list(range(200)), {"tcp": 200})


def test_threads_share_a_client(owner, outsider):
    key = put(owner, np.arange(100_000))

    def use(here):
        sums = []

        def read():
            sums.extend(int(here.store.get(key, writable=True).sum()) for _ in range(20))

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sums

    assert outsider(use) == [4_999_950_000] * 160


def test_forwarded_ports(make_peer, owner):
    """As with `ssh -L`: keys name a host that nobody can resolve."""
    (endpoint,) = unpack(put(owner, 1).outside)
    moved = pack([TcpEndpoint("compute-17.invalid", 8443, endpoint.pin)])
    key = put(owner, "forwarded")
    key = Key(key.packed[: -len(key.outside) - 2] + struct.pack("<H", len(moved)) + moved)
    forwarding = make_peer()

    def use(here):
        import os

        os.environ[MAP_VARIABLE] = f"compute-17.invalid:8443=127.0.0.1:{endpoint.port}"
        here.open("store", doors=("tcp",))
        return here.store.get(key)

    assert forwarding(use) == "forwarded"


class Listener:
    """Somebody else, who keeps what is heard, and answers as a server does."""

    def __init__(self, port):
        self.heard = b""
        self._socket = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._socket.accept()
                with accepted, contextlib.suppress(OSError):
                    accepted.settimeout(2.0)
                    accepted.sendall(b"PSHPCTCP\1\0" + bytes(6))
                    while data := accepted.recv(4096):
                        self.heard += data

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def test_who_takes_the_port_of_an_owner_that_ended_learns_nothing(owner, outsider):
    pytest.importorskip("cryptography")
    key = put(owner, "secret")
    (endpoint,) = unpack(key.outside)
    assert endpoint.pin is not None
    owner(lambda here: here.store.close())
    taken = Listener(endpoint.port)
    try:
        with pytest.raises(DoorUnavailableError, match="no TLS"):
            outsider(lambda here: here.store.get(key))
    finally:
        taken.close()
    assert taken.heard
    assert key.packed[36:52] not in taken.heard


def test_plain_on_loopback_where_no_key_pair_can_be_made(make_peer, outsider):
    nowhere = "/proc/no/state.json"
    owner = make_peer(name="store", capacity="16MiB", tcp={"state": nowhere})
    key = put(owner, "x")
    (endpoint,) = unpack(key.outside)
    assert not endpoint.tls
    assert outsider(lambda here: here.store.get(key)) == "x"
    for server in ({"tls": True}, {"listen": "0.0.0.0:0"}):
        with pytest.raises(DoorUnavailableError, match="state="):
            Store("refused", capacity="16MiB", tcp={"state": nowhere, **server})


def test_encrypted_by_default_off_loopback(make_peer, outsider, tmp_path):
    pytest.importorskip("cryptography")
    owner = make_peer(
        name="store",
        capacity="16MiB",
        tcp={
            "listen": "0.0.0.0:0",
            "advertise": "127.0.0.1",
            "state": str(tmp_path / "identity.pem"),
        },
    )
    key = put(owner, "secret")
    (endpoint,) = unpack(key.outside)
    assert endpoint.pin is not None
    assert len(endpoint.pin) == 16
    assert outsider(lambda here: here.store.get(key)) == "secret"
    impostor = pack([TcpEndpoint(endpoint.host, endpoint.port, b"another key's pin"[:16])])
    wrong = Key(key.packed[: -len(key.outside) - 2] + struct.pack("<H", len(impostor)) + impostor)
    fresh = make_peer(name="store", doors=("tcp",), capacity="16MiB")
    with pytest.raises(AccessDeniedError):
        fresh(lambda here: here.store.get(wrong))


def test_gateways_are_named_by_keys():
    pin = "ab" * 16
    named = [{"address": "login1:8443", "pin": pin}, "login2:443"]
    with Store("gated", capacity="16MiB", gateway=named, interface="lo") as store:
        first, second = unpack(store.put(1).outside)
        assert first == TcpEndpoint("login1", 8443, bytes.fromhex(pin), gateway=True)
        assert second == TcpEndpoint("login2", 443, authority=True, gateway=True)
        assert store._server is None


def test_a_gateway_needs_a_way_to_the_store():
    with (
        pytest.warns(UserWarning, match="interface="),
        Store("apart", capacity="16MiB", gateway="login1:8443"),
    ):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Store("beside", capacity="16MiB", gateway="localhost:8443").close()


def test_where_nobody_can_listen():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DoorUnavailableError, match=str(port)):
            Store("taken", capacity="16MiB", tcp=f"127.0.0.1:{port}")
