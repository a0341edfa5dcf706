"""A gateway: one server for all owners that it reaches through the native doors."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from support import procfs, tcp

from proxystore_hpc.exceptions import (
    AccessDeniedError,
    DoorUnavailableError,
    InvalidArgumentError,
    OwnerGoneError,
    ProxyStoreHpcError,
)
from proxystore_hpc.key import Key
from proxystore_hpc.serialize import loads, plan
from proxystore_hpc.tcp.client import TcpClient

MIB = 1 << 20
EVEN = 2.0
LOOPBACK = ("--listen", "127.0.0.1:0")


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_text("ab" * 16)
    return path


@pytest.fixture(scope="module")
def gateway(token):
    with tcp.gateway(*LOOPBACK, "--put-token-file", str(token)) as made:
        yield made


@pytest.fixture
def client(gateway):
    with TcpClient(endpoints=[gateway.endpoint], timeout=20.0) as made:
        yield made


@pytest.fixture
def owners(make_peer):
    return [make_peer(name=f"store{n}", capacity="96MiB") for n in range(2)]


def test_objects_of_several_owners(client, owners):
    keys = [owner(tcp.put_numbers, 20 * MIB) for owner in owners]
    smalls = [owner(tcp.put, n)[0] for n, owner in enumerate(owners)]
    for key in keys:
        assert (loads(client.get(key)) == tcp.numbers(20 * MIB)).all()
    assert [loads(r) for r in client.get_batch(smalls)] == [0, 1]
    assert client.exists(keys + smalls) == [None] * 4
    assert [client.store_of(key)[0] for key in keys] == ["store0", "store1"]


def test_a_store_names_it_in_its_keys(gateway, make_peer):
    owner = make_peer(name="store", capacity="16MiB", gateway=gateway.told)
    reader = make_peer(name="store", capacity="16MiB", doors=("tcp",))
    key = owner(lambda here: here.store.put(np.arange(1000)))
    assert reader(lambda here: int(here.store.get(key).sum())) == 499_500
    assert reader(lambda here: here.doors) == {"tcp": 1}


def test_an_owner_that_has_gone_is_said_to_be(gateway, client, owners):
    first, second = owners
    (key,), (other,) = first(tcp.put, "x"), second(tcp.put, "y")
    assert loads(client.get(key)) == "x"
    first.kill()
    assert isinstance(client.exists([key])[0], OwnerGoneError)

    def gone():
        try:
            return loads(client.get(key)) != "x"  # mapped memory outlives its owner for a while
        except OwnerGoneError:
            return True

    procfs.wait_until(gone, "the owner's end is said", 20.0)
    procfs.wait_until(lambda: not procfs.mapped(gateway.pid, "pshpc-store0"), "it is unmapped")
    assert loads(client.get(other)) == "y"


def test_puts_go_to_the_owner_that_is_named(client, owners):
    layout = plan(np.arange(100_000))
    for owner in owners:
        address = owner(lambda here: here.store.address)
        key = client.put(layout.nbytes, layout.segments(), token=b"\xab" * 16, address=address)
        assert Key(key).owner_id == address[:16]
        assert owner(lambda here, key: int(here.store.get(Key(key))[-1]), key) == 99_999
    with pytest.raises(InvalidArgumentError, match="gateway"):
        client.put(layout.nbytes, layout.segments(), token=b"\xab" * 16)
    with pytest.raises(AccessDeniedError):
        client.put(layout.nbytes, layout.segments(), token=b"\xac" * 16, address=address)


def at(key: bytes, host: bytes, owner: bytes = b"elsewhere, alone") -> bytes:
    """The key of an owner that is not on this node."""
    unknown = key[:52] + owner + key[68:72]
    return unknown + (9).to_bytes(2, "little") + bytes([len(host)]) + host + b"\0\0"


def refusals(asks):
    """What each of several asks, made all at once, is told, and after how many seconds."""

    def ask(call):
        began = time.monotonic()
        try:
            told = call()
        except ProxyStoreHpcError as error:
            told = error
        return told[0] if isinstance(told, list) else told, time.monotonic() - began

    with ThreadPoolExecutor(len(asks)) as pool:
        return list(pool.map(ask, asks))


def test_keys_lead_nowhere_else(gateway, owners):
    """Other networks are not connected to, and nothing is told of them."""
    (key,) = owners[0](tcp.put, "x")
    hosts = [b"8.8.8.8", b"127.0.0.1", b"169.254.169.254", b"no.such.name.invalid", b"\xff\xff"]
    with TcpClient(endpoints=[gateway.endpoint], timeout=20.0) as client:
        asks = [partial(client.exists, [at(key, host)]) for host in hosts]
        asks += [partial(client.get, at(key, host)) for host in hosts]
        for told, seconds in refusals(asks):
            assert isinstance(told, AccessDeniedError)
            assert seconds >= EVEN


def test_a_key_of_an_allowed_network_is_followed(owners):
    key, other = owners[0](tcp.put, "x", "y")
    # Nobody listens at that port.
    closed, elsewhere = at(key, b"127.0.0.1"), at(key, b"10.0.0.1")
    anyone = at(key, b"127.0.0.1", bytes(16))
    wrong = key[:36] + bytes([key[36] ^ 1]) + key[37:]
    with (
        tcp.gateway(*LOOPBACK, "--allow", "127.0.0.0/8") as gateway,
        TcpClient(endpoints=[gateway.endpoint], timeout=20.0) as client,
    ):
        asks = [partial(ask, closed) for ask in (client.get, client.store_of, client.wait_for)]
        asks += [partial(client.exists, [one]) for one in (closed, elsewhere, anyone, wrong)]
        asks += [partial(client.get, wrong)]
        told = refusals(asks)
        # The same whatever is found there, and no sooner, so that nobody can look for open ports.
        for error, seconds in told[:4]:
            assert isinstance(error, OwnerGoneError)
            assert "127.0.0.1:9" not in str(error)
            assert seconds >= EVEN
        for error, seconds in told[4:]:
            assert isinstance(error, AccessDeniedError)
            assert seconds >= EVEN
        # Who has a valid key is not kept waiting, nor is anybody once that led to the owner.
        (got, _), (there, _) = refusals([partial(client.get, key), lambda: client.exists([other])])
        assert loads(got) == "x"
        assert there is None
        began = time.monotonic()
        assert isinstance(client.exists([wrong])[0], AccessDeniedError)
        assert time.monotonic() - began < EVEN


def test_a_gateway_that_is_started_anew_serves_old_keys(make_peer, tmp_path):
    cert = ("--state", str(tmp_path / "state.json"))
    with tcp.gateway(*LOOPBACK, *cert) as gateway:
        owner = make_peer(name="store", capacity="16MiB", gateway=gateway.told)
        (key,) = owner(tcp.put, "x")
        with TcpClient(timeout=20.0) as client:
            assert loads(client.get(key)) == "x"
            gateway.kill()
            with pytest.raises(DoorUnavailableError, match="gateway"):
                client.get(key)
            gateway.restart()
            assert loads(client.get(key)) == "x"


def test_a_gateway_that_encrypts_and_was_named_without_its_pin(make_peer, tmp_path):
    pytest.importorskip("cryptography")
    state = str(tmp_path / "state.json")
    with tcp.gateway("--listen", "127.0.0.1:0", "--state", state) as gateway:
        address = gateway.told["address"]
        owner = make_peer(name="store", capacity="16MiB", gateway=address)
        (key,) = owner(tcp.put, 1)
        cure = f"gateway={{'address': '{address}', 'pin': '...'}}"
        with TcpClient() as client, pytest.raises(DoorUnavailableError) as caught:
            client.get(key, timeout=10.0)
        assert cure in str(caught.value)
        with TcpClient(endpoints=[gateway.endpoint]) as client:
            assert loads(client.get(key)) == 1


def test_forwarded_ports(make_peer, gateway, monkeypatch):
    """As through `ssh -L`."""
    owner = make_peer(name="store", capacity="16MiB", gateway="login1:8443")
    (key,) = owner(tcp.put, "x")
    with tcp.forwarder(gateway.endpoint) as way:
        named = {**gateway.told, "address": "login1:8443"}
        owner = make_peer(name="store", capacity="16MiB", gateway=named)
        (key,) = owner(tcp.put, "x")
        monkeypatch.setenv("PROXYSTORE_HPC_TCP_MAP", f"login1:8443=localhost:{way.port}")
        with TcpClient(timeout=20.0) as client:
            assert loads(client.get(key)) == "x"
        assert way.connections == 1
