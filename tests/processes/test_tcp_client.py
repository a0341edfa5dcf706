"""Objects over TCP, from a server beside a real owner."""

from __future__ import annotations

import gc
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from support import procfs, tcp

from proxystore_hpc.exceptions import (
    AccessDeniedError,
    DoorUnavailableError,
    InvalidArgumentError,
    InvalidKeyError,
    ObjectEvictedError,
    ObjectMissingError,
    ObjectPinnedError,
    OperationTimeoutError,
    StoreClosedError,
    StoreFullError,
)
from proxystore_hpc.key import Key
from proxystore_hpc.serialize import loads, plan
from proxystore_hpc.tcp.client import TcpClient
from proxystore_hpc.tcp.endpoints import TcpEndpoint

MIB = 1 << 20
TOKEN = b"a token of sixteen"


@pytest.fixture(scope="module", params=["plain", "tls"])
def tls(request):
    return request.param == "tls"


@pytest.fixture(scope="module")
def owner(make_lasting_peer):
    return make_lasting_peer(name="store", capacity="512MiB")


@pytest.fixture(scope="module")
def endpoints(owner, tls, tmp_path_factory):
    state = str(tmp_path_factory.mktemp("tls") / "state.json")
    found, _ = owner(
        lambda here: tcp.serve(
            here, tls=tls, state=state, put_token=TOKEN, limits={"put": 64 * MIB}
        )
    )
    yield found
    owner(tcp.close)


@pytest.fixture
def client(endpoints):
    with TcpClient(endpoints=endpoints, timeout=20.0) as made:
        yield made


@pytest.mark.parametrize("nbytes", [0, 8, 1000, 70_000, 5 * MIB, 33 * MIB + 8])
def test_objects_arrive_whole(owner, client, nbytes):
    key = owner(tcp.put_numbers, nbytes)
    received = client.get(key)
    assert received.readonly
    assert (loads(received) == tcp.numbers(nbytes)).all()
    assert Key(key).nbytes == len(received)


def test_a_writable_object_is_the_callers_own(owner, client):
    (key,) = owner(tcp.put, np.zeros(1000))
    array = loads(client.get(key, True), writable=True)
    array[:] = 1
    assert loads(client.get(key)).sum() == 0


def test_objects_of_any_kind(owner, client):
    objects = ["text", {"a": [1, 2]}, b"bytes", None, 3.5]
    keys = owner(tcp.put, *objects)
    assert [loads(client.get(key)) for key in keys] == objects


def test_ranges(owner, client):
    key = owner(tcp.put_numbers, 9 * MIB)
    whole = bytes(client.get(key))
    for offset, length in ((0, 10), (5 * MIB + 3, 3 * MIB), (len(whole) - 1, 1), (7, 0)):
        assert client.get_range(key, offset, length) == whole[offset : offset + length]
        target = bytearray(length)
        assert client.read_into(key, offset, target) == "tcp"
        assert target == whole[offset : offset + length]
    for offset, length in ((len(whole), 1), (-1, 1), (0, len(whole) + 1)):
        with pytest.raises(InvalidArgumentError):
            client.get_range(key, offset, length)
    with pytest.raises(InvalidArgumentError, match="written"):
        client.read_into(key, 0, b"constant")


def test_a_batch_has_everything_in_its_place(owner, client):
    keys = owner(tcp.put, *range(100), np.ones(2 * MIB))
    owner(lambda here, key: here.store.evict(Key(key)), keys[7])
    keys.insert(50, b"no key")
    results = client.get_batch(keys)
    assert isinstance(results[7], ObjectEvictedError)
    assert isinstance(results[50], InvalidKeyError)
    good = [loads(r) for i, r in enumerate(results[:-1]) if i not in (7, 50)]
    assert good == [n for n in range(100) if n != 7]
    assert loads(results[-1]).sum() == 2 * MIB


def test_several_streams_for_one_object(owner, endpoints):
    key = owner(tcp.put_numbers, 40 * MIB)
    seen = []
    with TcpClient(endpoints=endpoints, streams=4) as client:
        received = client.get(key, progress=lambda done, total: seen.append((done, total)))
        assert (loads(received) == tcp.numbers(40 * MIB)).all()
        target = bytearray(30 * MIB)
        client.read_into(key, 5, target)
        assert target == received[5 : 5 + 30 * MIB]
    assert max(done for done, _ in seen) == len(received)
    assert {total for _, total in seen} == {len(received)}


def test_exists_and_evict(owner, client):
    keys = owner(tcp.put, *range(1500))
    assert client.exists(keys) == [None] * 1500
    assert client.evict(keys[:2]) == [None, None]
    outcomes = client.exists([*keys[:2], keys[2], b"no key"])
    assert [type(o) for o in outcomes[:2]] == [ObjectEvictedError] * 2
    assert outcomes[2] is None
    assert isinstance(outcomes[3], InvalidKeyError)
    with pytest.raises(ObjectEvictedError):
        client.get(keys[0])


def test_an_object_that_was_read_before_is_seen_to_be_evicted(owner, client):
    (key,) = owner(tcp.put, "x")
    client.get(key)
    owner(lambda here: here.store.evict(Key(key)))
    with pytest.raises(ObjectEvictedError):
        client.get(key)


def test_pinned_objects(owner, client):
    def pin(here):
        from proxystore_hpc import Pinned

        return bytes(here.store.put("x", policy=Pinned()))

    key = owner(pin)
    assert isinstance(client.evict([key])[0], ObjectPinnedError)
    assert client.evict([key], True) == [None]


def test_waiting_for_an_object(owner, client):
    key = owner(lambda here: bytes(here.store.new_key()))
    with pytest.raises(ObjectMissingError):
        client.get(key)
    with pytest.raises(OperationTimeoutError):
        client.wait_for(key, 0.2)
    with pytest.raises(OperationTimeoutError):
        client.wait_for(key, 0.0)
    found = []
    thread = threading.Thread(target=lambda: found.append(client.wait_for(key, 20.0)))
    thread.start()
    owner(lambda here: here.store.set(Key(key), np.arange(10)))
    thread.join()
    assert Key(found[0]).nbytes
    assert Key(found[0]) == Key(key)
    assert loads(client.get(key)).sum() == loads(client.get(found[0])).sum() == 45
    assert Key(client.wait_for(key, 0.0)).nbytes


def test_live_memory(owner, client):
    def register(here):
        here.live = np.zeros(MIB)
        here.handle = here.store.register(here.live)
        return bytes(here.handle.key)

    key = owner(register)
    assert loads(client.get(key)).sum() == 0

    def change(here):
        with here.handle.writing():
            here.live[:] = 1

    owner(change)
    assert loads(client.get(key)).sum() == MIB
    owner(lambda here: here.handle.close())
    with pytest.raises((ObjectEvictedError, ObjectMissingError)):
        client.get(key)


def test_what_is_known_of_a_store(owner, client):
    (key,) = owner(tcp.put, 1)
    name, config = client.store_of(key)
    assert name == "store"
    assert '"timeout"' in config


def test_puts(owner, client):
    layout = plan(np.arange(300_000))
    packed = client.put(layout.nbytes, layout.segments(), token=TOKEN)
    assert owner(lambda here: int(here.store.get(Key(packed)).sum())) == 300_000 * 299_999 // 2
    assert loads(client.get(packed))[-1] == 299_999
    with pytest.raises(StoreFullError):
        client.put(65 * MIB, [], token=TOKEN)


@pytest.mark.parametrize("token", [b"", b"another token here", TOKEN[:-1]])
def test_puts_with_another_token_are_refused(client, token):
    with pytest.raises(AccessDeniedError):
        client.put(8, [(0, b"12345678")], token=token)


def changed(key: bytes, position: int) -> bytes:
    return key[:position] + bytes([key[position] ^ 1]) + key[position + 1 :]


def refusals(client, key):
    """What every request with this key is answered."""
    told = [str(client.exists([key])[0]), str(client.evict([key])[0])]
    for ask in (client.get, client.store_of, lambda k: client.wait_for(k, 1.0)):
        with pytest.raises(AccessDeniedError) as caught:
            ask(key)
        told.append(str(caught.value))
    return told


def test_a_token_is_not_sent_where_others_can_read_it(client):
    there = TcpEndpoint("node17.invalid", 8443)
    with pytest.raises(InvalidArgumentError, match="token is not sent"):
        client.put(8, [(0, b"12345678")], token=TOKEN, to=there)
    for kept in (replace(there, pin=bytes(16)), replace(there, authority=True)):
        with pytest.raises(DoorUnavailableError, match="nobody answers"):
            client.put(8, [(0, b"12345678")], token=TOKEN, to=kept, timeout=20.0)


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 70 + ".b"])
def test_what_cannot_be_a_host(owner, host):
    (key,) = owner(tcp.put, 1)
    for endpoint in (TcpEndpoint(host, 1), TcpEndpoint(host, 1, authority=True)):
        with TcpClient(endpoints=[endpoint]) as client, pytest.raises(DoorUnavailableError):
            client.get(key, timeout=10.0)


def test_a_tls_name_that_cannot_be_one(owner, endpoints):
    """It comes of a forwarded port; the connection to that is closed."""
    (key,) = owner(tcp.put, 1)
    there = replace(endpoints[0], pin=None, authority=True, name=".a")
    with TcpClient(endpoints=[there]) as client, warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DoorUnavailableError, match="no name of a host"):
            client.get(key, timeout=10.0)
        gc.collect()


def test_a_put_that_was_broken_off_leaves_nothing_to_the_next(owner, client):
    """The server still waits for the rest, which no other request's bytes may become."""
    layout = plan(np.zeros(3 * MIB))

    def broken(done, total):
        raise StoreFullError("the caller has enough", requested=total)

    with pytest.raises(StoreFullError, match="enough"):
        client.put(layout.nbytes, layout.segments(), token=TOKEN, progress=broken)
    small = plan("whole")
    for _ in range(2):
        key = client.put(small.nbytes, small.segments(), token=TOKEN)
        assert loads(client.get(key)) == "whole"


def test_a_get_that_was_broken_off_leaves_nothing_to_the_next(owner, client):
    large, small = owner(tcp.put_numbers, 5 * MIB), owner(tcp.put, "whole")[0]

    def broken(done, total):
        raise StoreFullError("the caller has enough", requested=total)

    with pytest.raises(StoreFullError, match="enough"):
        client.get(large, progress=broken)
    assert loads(client.get(small)) == "whole"


def test_a_put_without_an_answer_leaves_nothing_to_the_next(owner, endpoints):
    layout = plan("whole")
    with tcp.forwarder(endpoints[0]) as way:
        there = replace(endpoints[0], host="127.0.0.1", port=way.port)
        with TcpClient(endpoints=[there], timeout=20.0) as client:
            with pytest.raises(OperationTimeoutError, match="is not known"):
                client.put(
                    layout.nbytes,
                    layout.segments(),
                    token=TOKEN,
                    timeout=1.0,
                    progress=lambda *_: way.hold(),
                )
            way.release()
            key = client.put(layout.nbytes, layout.segments(), token=TOKEN)
            assert loads(client.get(key)) == "whole"


def test_without_the_capability_nothing_is_told(owner, endpoints):
    (key,) = owner(tcp.put, "x")
    with TcpClient(endpoints=endpoints) as client:
        client.get(key)  # known to the server from now on
    absent = key[:4] + (1 << 40).to_bytes(8, "little") + key[12:]
    told = set()
    for wrong in (changed(key, 36), changed(key, 51), changed(absent, 36), changed(key, 52)):
        for deferred in (False, True):
            with TcpClient(endpoints=endpoints) as client:
                packed = wrong[:1] + bytes([deferred]) + wrong[2:]
                told.update(refusals(client, packed))
    assert len(told) == 1
    assert "x" not in told.pop().split()


def test_where_a_key_says_its_object_lies_is_not_believed(owner, client):
    """A stored object may look like the header of another one, which lies anywhere."""
    (key,) = owner(tcp.put, tcp.numbers(4096))
    content = bytes(client.get(key))
    for position in (2, 13, 21, 29):
        elsewhere = changed(key, position)
        if Key(elsewhere).nbytes == Key(key).nbytes:
            assert client.get(elsewhere) == content


def test_a_server_of_another_owner_refuses(endpoints, make_peer):
    (foreign,) = make_peer(name="other", capacity="16MiB")(tcp.put, "x")
    with TcpClient(endpoints=endpoints) as client:
        assert isinstance(client.exists([foreign])[0], AccessDeniedError)


@pytest.mark.parametrize("nbytes", [1 << 10, MIB])
def test_a_forked_child_makes_connections_of_its_own(owner, endpoints, make_peer, nbytes):
    key = owner(tcp.put_numbers, nbytes)

    def use(here, there):
        import os

        with TcpClient(endpoints=[there]) as client:
            whole = bytes(client.get(key))
            child = os.fork()
            if child == 0:
                same = all(client.get(key) == whole for _ in range(20))
                os._exit(0 if same else 1)
            good = all(client.get(key) == whole for _ in range(20))
            return good, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    with tcp.forwarder(endpoints[0]) as way:
        there = replace(endpoints[0], host="127.0.0.1", port=way.port)
        assert make_peer()(use, there) == (True, 0)
        assert way.connections == 2


def test_many_threads_share_a_client(owner, client):
    keys = owner(tcp.put, *(np.full(20_000, n) for n in range(20)))
    wrong = []

    def read(n):
        for _ in range(20):
            array = loads(client.get(keys[n]))
            if not (array == n).all():
                wrong.append(n)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_outlive_the_client_and_later_results(owner, endpoints):
    keys = owner(tcp.put, *(np.full(MIB, n, "u1") for n in range(4)))
    with TcpClient(endpoints=endpoints) as client:
        arrays = [loads(client.get(key)) for key in keys]
    assert [int(array[-1]) for array in arrays] == [0, 1, 2, 3]
    with pytest.raises(StoreClosedError):
        client.get(keys[0])


def test_nobody_listens(owner):
    (key,) = owner(tcp.put, 1)
    nobody = TcpEndpoint("127.0.0.1", 1)
    told = {
        nobody: "ssh -L",
        replace(nobody, gateway=True): "is the gateway",
        replace(nobody, name="login1"): "ssh -L",
        TcpEndpoint("no.such.name.invalid", 1): "is the gateway",
    }

    def failure(endpoint):
        with TcpClient(endpoints=[endpoint], timeout=20.0) as client:
            with pytest.raises(DoorUnavailableError) as caught:
                client.get(key)
            return str(caught.value)

    with ThreadPoolExecutor(len(told)) as pool:  # each is patient for a while
        for words, text in zip(told.values(), pool.map(failure, told), strict=True):
            assert words in text


def test_the_next_endpoint_is_taken_if_one_does_not_answer(owner, endpoints):
    (key,) = owner(tcp.put, 1)
    dead = TcpEndpoint("127.0.0.1", 1)
    with TcpClient(endpoints=[dead, *endpoints]) as client:
        assert loads(client.get(key)) == 1


def test_the_server_ends_with_its_owner(make_peer):
    peer = make_peer(name="store", capacity="16MiB")
    _, pid = peer(tcp.serve)
    assert procfs.exists(pid)
    peer.kill()
    procfs.wait_until(lambda: not procfs.exists(pid), "the server has ended")
