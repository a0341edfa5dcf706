"""The owner is suspended: one-sided reads go on, all else ends by its deadline and works again."""

from __future__ import annotations

import importlib.util
import os
import time

import numpy as np
import pytest
from support.doors import options_for

from proxystore_hpc.exceptions import OperationTimeoutError

pytestmark = pytest.mark.faults


def fill(here):
    here.array = np.arange(50_000.0)
    here.live = here.store.register(here.array)
    return [
        *here.store.put_batch([np.full(100_000, 1), np.full(10, 2), b"x" * 200_000]),
        here.live.key,
    ]


@pytest.fixture
def keys(owner, reader):
    """Keys of a stopped owner's objects: two arrays, bytes, live memory. Its segment is mapped."""
    keys = owner(fill)
    reader(lambda here: here.store.get(keys[1]))
    owner.stop()
    return keys


def test_mapped_objects_are_read(reader, keys):
    def read(here):
        objs = [here.store.get(key) for key in keys[:3]]
        again = here.store.get_batch(keys[:3])
        return (
            bool((objs[0] == 1).all() and (objs[1] == 2).all() and objs[2] == b"x" * 200_000),
            bool((again[0] == 1).all()),
            bytes(here.store.get(keys[2], offset=100, length=3)),
            int(here.store.get(keys[0], writable=True).sum()),
            int(here.store.get(keys[1], writable=True).sum()),
        )

    assert reader(read, timeout=10) == (True, True, b"xxx", 100_000, 20)
    assert set(reader(lambda here: here.doors)) == {"shm"}


def test_registered_memory_is_read(reader, keys):
    def read(here):
        target = np.zeros(50_000)
        here.store.get_into(keys[3], target)
        part = np.frombuffer(here.store.get(keys[3], offset=8, length=16))
        return float(here.store.get(keys[3]).sum()), float(target.sum()), part.tolist()

    total = 49_999 * 25_000.0
    assert reader(read, timeout=10) == (total, total, [1.0, 2.0])
    assert set(reader(lambda here: here.doors)) == {"shm"}


def test_ucx_reads_by_the_kernel(make_peer):
    """Without a word of the owner's, also where its sending would be faster."""
    wheel = importlib.util.find_spec("libucx")
    if wheel is None or wheel.origin is None:
        pytest.skip("UCX with cma beside peer error handling: pip install libucx-cu12")
    launcher = ("env", f"UCX_HOME={os.path.dirname(wheel.origin)}")
    options = {**options_for("ucx"), "launcher": launcher, "name": "store", "cache_size": 0}
    owner, reader = make_peer(**options), make_peer(**options)
    lengths = (100, 100_000, 4 << 20)
    keys = owner(lambda here: here.store.put_batch([np.full(n, float(n)) for n in lengths]))
    live = owner(fill)[3]

    def read(here):
        arrays = [*map(here.store.get, keys), *here.store.get_batch(keys)]
        total = float(here.store.get(live).sum())
        return all((a == a.size).all() for a in arrays), [a.size for a in arrays], total

    expected = True, [*lengths, *lengths], 49_999 * 25_000.0
    assert reader(read) == expected
    packed = keys[0].packed
    if not reader(lambda here: here.store._instance.channels(packed)["ucx"]["one_sided"]):
        pytest.skip("ucx: process_vm_readv is not allowed here")
    owner.stop()
    assert reader(read) == expected
    assert set(reader(lambda here: here.doors)) == {"ucx"}


def test_views_stay_and_are_dropped(owner, reader, keys):
    def hold(here):
        here.view = here.store.get(keys[0])

    def drop(here):
        here.view = None

    reader(hold)
    assert reader(lambda here: bool((here.view == 1).all()))
    reader(drop)
    owner.resume()
    owner(lambda here: here.store.evict(keys[0]))
    assert (
        owner(lambda here: (here.store.put(b"x" * 100_000), here.store.stats())[1])["retired_bytes"]
        == 0
    )


ASKING = {
    "exists": lambda store, key, address: store.exists(key, timeout=0.5),
    "evict": lambda store, key, address: store.evict(key, timeout=0.5),
    "wait_for": lambda store, key, address: store.wait_for(key, timeout=0.5),
    "put": lambda store, key, address: store.put(b"x" * 10, to=address, timeout=0.5),
}


@pytest.mark.parametrize("ask", ASKING)
def test_requests_end_in_time(owner, reader, keys, ask):
    address = owner.addresses[0]

    def try_it(here):
        began = time.monotonic()
        try:
            ASKING[ask](here.store, keys[1], address)
        except OperationTimeoutError:
            return time.monotonic() - began
        return None

    assert 0.4 <= reader(try_it) < 3
    owner.resume()
    # The connection is as good as before: the answer that came late is not taken for another's.
    assert reader(lambda here: here.store.exists_batch(keys[2:])) == [True, True]
    assert reader(lambda here: here.store.get(keys[2])) == b"x" * 200_000


@pytest.mark.parametrize("door", ["shm", "socket"])
def test_a_first_contact_ends_in_time(make_peer, owner, door):
    keys = owner(fill)
    stranger = make_peer(name="store", doors=(door,), timeout=0.5)
    owner.stop()

    def try_it(here):
        began = time.monotonic()
        try:
            here.store.get(keys[0])
        except OperationTimeoutError as error:
            return time.monotonic() - began, str(error)
        return None

    took, message = stranger(try_it)
    assert 0.4 <= took < 3
    assert keys[0].owner in message
    owner.resume()
    assert stranger(lambda here: int(here.store.get(keys[0], timeout=10).sum())) == 100_000


def test_a_large_transfer_ends_in_time(make_peer, owner):
    key = owner(lambda here: here.store.put(b"x" * (30 << 20)))
    other = make_peer(name="store", doors=("socket",), cache_size=0)
    other(lambda here: here.store.get(key, offset=0, length=10))
    owner.stop()

    def try_it(here):
        began = time.monotonic()
        try:
            here.store.get(key, timeout=0.5)
        except OperationTimeoutError:
            return time.monotonic() - began
        return None

    assert 0.4 <= other(try_it) < 3
    owner.resume()
    assert other(lambda here: len(here.store.get(key))) == 30 << 20


def test_the_end_of_a_stopped_owner_is_seen(owner, reader, keys):
    waiting = reader.start(lambda here: here.store.exists(keys[0]))
    time.sleep(0.2)
    owner.kill()
    began = time.monotonic()
    with pytest.raises(Exception, match="owner") as caught:
        waiting.result(10)
    assert type(caught.value).__name__ == "OwnerGoneError"
    assert time.monotonic() - began < 2
