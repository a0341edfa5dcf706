"""Owner and reader on two nodes, which are network namespaces with a wire between them."""

from __future__ import annotations

import pickle
import time
import warnings

import numpy as np
import pytest
from support import data
from support.doors import require_door

from proxystore_hpc.exceptions import (
    AccessDeniedError,
    ConfigError,
    DoorUnavailableError,
    ObjectEvictedError,
    OperationTimeoutError,
    OwnerGoneError,
    PeerError,
)
from proxystore_hpc.key import Key

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(90)]

SECRET = bytes(range(16))
DOORS = ("socket", "ucx")


@pytest.fixture
def on_nodes(nodes, make_peer):
    """Makes a peer on node 0 or 1, with a store there; they share a secret."""

    def make(number, door, **options):
        require_door(door)
        options.setdefault("secret", SECRET)
        node = nodes[number]
        return make_peer(
            launcher=node.launcher,
            name="store",
            interface=node.interface,
            doors=(door,),
            capacity="64MiB",
            **options,
        )

    return make


@pytest.mark.parametrize("door", DOORS)
def test_objects_cross_the_wire(on_nodes, door):
    owner, reader = on_nodes(0, door), on_nodes(1, door, cache_size=0)
    names = list(data.EXAMPLES)
    keys = owner(lambda here: [here.store.put(data.EXAMPLES[name]()) for name in names])
    assert keys[0].contact is not None

    def read(here):
        return [
            data.difference(here.store.get(key), data.EXAMPLES[name](), name)
            for name, key in zip(names, keys)  # noqa: B905
        ]

    assert [wrong for wrong in reader(read, timeout=50) if wrong] == []
    assert reader(lambda here: here.doors) == {door: len(names)}


@pytest.mark.parametrize("door", DOORS)
def test_every_size_and_part(on_nodes, door):
    owner, reader = on_nodes(0, door), on_nodes(1, door, cache_size=0)
    sizes = (*data.SIZES, 9 << 20)
    keys = owner(lambda here: [here.store.put(data.pattern(n, n)) for n in sizes])

    def read(here):
        whole = [here.store.get(key) == data.pattern(n, n) for n, key in zip(sizes, keys)]  # noqa: B905
        part = here.store.get(keys[-1], offset=5 << 20, length=70_000)
        target = bytearray(1000)
        here.store.get_into(keys[-1], target, offset=1234)
        pattern = data.pattern(9 << 20, 9 << 20)
        return (
            all(whole),
            bytes(part) == pattern[5 << 20 : (5 << 20) + 70_000],
            bytes(target) == pattern[1234:2234],
        )

    assert reader(read, timeout=50) == (True, True, True)
    assert set(reader(lambda here: here.doors)) == {door}


@pytest.mark.parametrize("door", DOORS)
def test_live_memory_batches_evict_and_waiting(on_nodes, door):
    owner, reader = on_nodes(0, door), on_nodes(1, door, cache_size=0)

    def fill(here):
        here.array = np.arange(10_000.0)
        here.live = here.store.register(here.array)
        return [here.live.key, here.store.new_key(), *here.store.put_batch([[1], [2], [3]])]

    live, late, *keys = owner(fill)
    assert reader(lambda here: float(here.store.get(live).sum())) == 9999 * 5000
    owner(lambda here: here.array.fill(-1))
    assert reader(lambda here: float(here.store.get(live).sum())) == -10_000
    assert reader(lambda here: here.store.get_batch(keys)) == [[1], [2], [3]]
    reader(lambda here: here.store.evict(keys[0]))
    assert reader(lambda here: here.store.exists_batch(keys)) == [False, True, True]
    with pytest.raises(ObjectEvictedError):
        reader(lambda here: here.store.get_or_raise(keys[0]))
    waiting = reader.start(lambda here: (here.store.wait_for(late), here.store.get(late))[1])
    time.sleep(0.2)
    owner(lambda here: here.store.set(late, "late"))
    assert waiting.result(10) == "late"


@pytest.mark.parametrize("door", DOORS)
def test_storing_at_another(on_nodes, door):
    owner, writer = on_nodes(0, door), on_nodes(1, door)
    address = owner.addresses[0]
    for name in ("nested", "array-f", "bytes", "array-empty"):
        key = writer(lambda here: here.store.put(data.EXAMPLES[name](), to=address))  # noqa: B023
        wrong = owner(lambda here: data.difference(here.store.get(key), data.EXAMPLES[name]()))  # noqa: B023
        assert wrong is None


@pytest.mark.parametrize("secret", [None, SECRET[::-1]], ids=["no-secret", "another-secret"])
def test_without_the_secret_one_only_reads_what_one_has_keys_of(on_nodes, secret):
    owner, stranger = on_nodes(0, "socket"), on_nodes(1, "socket", secret=secret)
    address = owner.addresses[0]
    with pytest.raises(AccessDeniedError, match="secret"):
        stranger(lambda here: here.store.put(1, to=address))
    key = owner(lambda here: here.store.put(np.arange(100_000)))
    assert stranger(lambda here: int(here.store.get(key).sum())) == 4_999_950_000
    with pytest.raises(AccessDeniedError, match="secret"):
        stranger(lambda here: here.store.put(1, to=address))


def test_transports_without_capabilities_need_the_secret(on_nodes):
    owner, stranger = on_nodes(0, "ucx"), on_nodes(1, "ucx", secret=None)
    key = owner(lambda here: here.store.put(1))
    with pytest.raises(DoorUnavailableError, match="secret"):
        stranger(lambda here: here.store.get(key))


def test_a_forged_key_opens_nothing(on_nodes):
    owner, reader = on_nodes(0, "socket"), on_nodes(1, "socket", secret=None)
    packed = bytearray(bytes(owner(lambda here: here.store.put(b"secret"))))
    packed[40] ^= 1
    with pytest.raises(AccessDeniedError):
        reader(lambda here: here.store.get(Key(bytes(packed))))


def test_shared_memory_does_not_lead_to_another_node(on_nodes):
    owner, reader = on_nodes(0, "socket"), on_nodes(1, "shm")
    key = owner(lambda here: here.store.put(np.arange(10)))
    with pytest.raises(DoorUnavailableError, match="another node"):
        reader(lambda here: here.store.get(key))


def test_without_an_interface_the_owner_cannot_be_reached(nodes, make_peer):
    owner = make_peer(launcher=nodes[0].launcher, name="store")
    reader = make_peer(launcher=nodes[1].launcher, name="store")
    key = owner(lambda here: here.store.put(1))
    with pytest.raises(OwnerGoneError, match="another node"):
        reader(lambda here: here.store.get(key))


def test_a_proxy_finds_its_way(nodes, make_peer, on_nodes):
    """No store on the other side, every door allowed: the best one is taken."""
    owner = make_peer(launcher=nodes[0].launcher, name="store", interface=nodes[0].interface)
    packed = owner(lambda here: pickle.dumps(here.store.proxy(np.arange(1000))))
    stranger = make_peer(launcher=nodes[1].launcher)

    def use(here):
        from proxystore_hpc import get_store

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            total = int(pickle.loads(packed).sum())
        return total, set(get_store("store").metrics.doors)

    total, doors = stranger(use)
    assert total == 499_500
    assert doors <= {"ucx", "socket"}
    assert len(packed) <= 300


@pytest.mark.faults
@pytest.mark.parametrize("door", DOORS)
def test_an_owner_on_another_node_dies(on_nodes, door):
    owner, reader = on_nodes(0, door), on_nodes(1, door, cache_size=0)
    key = owner(lambda here: here.store.put(1))
    late = owner(lambda here: here.store.new_key())
    reader(lambda here: here.store.get(key))
    waiting = reader.start(lambda here: here.store.wait_for(late))
    time.sleep(0.2)
    owner.kill()
    began = time.monotonic()
    with pytest.raises(OwnerGoneError):
        waiting.result(10)
    for ask in (here_gets, here_asks):
        with pytest.raises(OwnerGoneError):
            reader(ask, key)
    assert time.monotonic() - began < 3


def here_gets(here, key):
    return here.store.get(key)


def here_asks(here, key):
    return here.store.exists(key)


@pytest.mark.faults
@pytest.mark.parametrize("door", DOORS)
def test_a_wire_that_is_cut(nodes, on_nodes, door):
    """No goodbye reaches the reader: its deadline ends the call."""
    owner, reader = on_nodes(0, door), on_nodes(1, door, cache_size=0)
    key = owner(lambda here: here.store.put(b"x" * 100_000))
    assert reader(lambda here: len(here.store.get(key))) == 100_000
    nodes[0].ip("link", "set", nodes[0].interface, "down")

    def try_it(here):
        began = time.monotonic()
        try:
            here.store.get(key, timeout=2)
        except (PeerError, OperationTimeoutError, DoorUnavailableError):
            return time.monotonic() - began
        return None

    took = reader(try_it)
    assert took is not None
    assert took < 8
    with pytest.raises(ConfigError, match="is down, or has no carrier"):
        on_nodes(1, door)
    nodes[0].ip("link", "set", nodes[0].interface, "up")
    assert reader(lambda here: len(here.store.get(key, timeout=20)), timeout=40) == 100_000
