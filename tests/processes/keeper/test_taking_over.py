"""What a keeper goes on with when an owner has ended."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support import procfs

from proxystore_hpc.exceptions import ObjectEvictedError, OwnerGoneError
from proxystore_hpc.keeper import server
from proxystore_hpc.keeper.settings import Settings
from proxystore_hpc.store.policy import TimeToLive


@pytest.fixture
def producer(keeper, make_peer):
    """A process whose objects are kept."""
    return make_peer(name="store", keep=True, capacity="64MiB")


@pytest.fixture
def consumer(make_peer):
    return make_peer(name="store", doors=("shm",), capacity="64MiB")


def put(here, *objects):
    return here.store.put_batch(list(objects))


@pytest.mark.parametrize("ending", ["killed", "closed"])
def test_a_reader_goes_on(producer, consumer, keeper, ending):
    first, second, deferred = producer(
        lambda here: (*put(here, np.arange(50_000), b"second"), here.store.new_key())
    )

    def look(here, key):
        here.view = here.store.get(key)
        return int(here.view.sum())

    assert consumer(look, first) == sum(range(50_000))
    producer.kill() if ending == "killed" else producer(lambda here: here.store.close())
    assert consumer(lambda here: here.store.get(second)) == b"second"

    def drop(here, key):
        """The view stays whole, whatever becomes of the object."""
        here.store.evict(key)
        gone = not here.store.exists(key)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            if int(here.view.sum()) != sum(range(50_000)):
                return "changed"
        return gone

    assert consumer(drop, first) is True
    assert consumer(lambda here: here.doors.keys() <= {"shm"})
    assert not consumer(lambda here: here.store.exists(deferred))
    assert keeper.objects == 1


@pytest.mark.parametrize("clear", [False, True])
def test_close(producer, consumer, keeper, clear):
    (key,) = producer(put, b"value")
    producer(lambda here: here.store.close(clear=clear))
    if not clear:
        assert consumer(lambda here: here.store.get(key)) == b"value"
    else:
        with pytest.raises(OwnerGoneError):
            consumer(lambda here: here.store.exists(key))
    assert keeper.objects == int(not clear)


def test_a_process_that_ends_by_itself(producer, consumer):
    (key,) = producer(put, b"value")
    assert producer.end() == 0
    assert consumer(lambda here: here.store.get(key)) == b"value"


def test_views_at_home_outlast_close(producer, consumer, keeper):
    """The process that closed its store may look at what it stored."""

    def close(here):
        key = here.store.put(np.full(100_000, 7))
        here.view = here.store.get(key)
        here.store.close()
        return key

    key = producer(close)
    consumer(lambda here: here.store.evict(key))
    time.sleep(0.3)
    assert producer(lambda here: bool((here.view == 7).all()))


def test_several_owners(keeper, make_peer, consumer):
    producers = [make_peer(name="store", keep=True, capacity="16MiB") for _ in range(3)]
    keys = [producer(put, n, [n]) for n, producer in enumerate(producers)]
    producers[0].kill()
    producers[2].end()
    found = consumer(lambda here: [here.store.get_batch(each) for each in keys])
    assert found == [[0, [0]], [1, [1]], [2, [2]]]
    keeper.wait_for_owners(2)
    status = keeper.status()
    assert len(status["connected"]) == 1
    assert {kept["pid"] for kept in status["kept"]} == {producers[0].pid, producers[2].pid}


def test_objects_that_were_stored_from_elsewhere(producer, consumer):
    address = producer.addresses[0]
    key = consumer(lambda here: here.store.put("theirs", to=address))
    producer.kill()
    assert consumer(lambda here: here.store.get(key)) == "theirs"
    with pytest.raises(OwnerGoneError, match="takes nothing new"):
        consumer(lambda here: here.store.put("more", to=address))


def test_live_memory_ends_with_its_process(producer, consumer):
    def register(here):
        here.memory = np.arange(1000)
        here.live = here.store.register(here.memory)
        return here.live.key, here.store.put("stays")

    key, stays = producer(register)
    assert consumer(lambda here: int(here.store.get(key)[-1])) == 999
    producer.kill()
    assert not consumer(lambda here: here.store.exists(key))
    assert consumer(lambda here: here.store.get(key)) is None
    assert consumer(lambda here: here.store.get(stays)) == "stays"


def test_a_time_to_live_goes_on(producer, consumer):
    brief, longer = producer(
        lambda here: [here.store.put(n, policy=TimeToLive(n)) for n in (1.5, 1000)]
    )
    producer.kill()
    assert consumer(lambda here: here.store.exists(brief))
    procfs.wait_until(
        lambda: not consumer(lambda here: here.store.exists(brief)), "its time is over"
    )
    assert consumer(lambda here: here.store.get(longer)) == 1000


def test_memory_comes_back(producer, consumer, keeper):
    keys = producer(put, *(np.zeros(1 << 20) for _ in range(4)))
    producer.kill()
    keeper.wait_for_owners(1)

    def kept_bytes():
        return keeper.status()["used"]

    assert 4 << 23 <= kept_bytes() < (4 << 23) + (1 << 20)
    consumer(lambda here: here.store.evict_batch(keys[:3]))
    procfs.wait_until(lambda: kept_bytes() < (1 << 23) + (1 << 20), "memory comes back")
    descriptors = Path(f"/proc/{keeper.pid}/fd").iterdir()
    segments = [fd for fd in descriptors if "pshpc-store" in os.readlink(fd)]
    memory = sum(fd.stat().st_blocks * 512 for fd in segments)
    assert 1 << 23 <= memory < (1 << 23) + (1 << 20)


def test_forked_children_of_an_owner(producer, consumer):
    """A child that lives on is no reason to wait, and does not harm."""

    def fork(here):
        key = here.store.put(b"value")
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        return key, child

    key, child = producer(fork)
    producer.kill()
    try:
        assert consumer(lambda here: here.store.get(key)) == b"value"
    finally:
        os.kill(child, 9)


def test_the_end_of_the_keeper(producer, consumer, keeper, make_peer):
    (key,) = producer(put, b"value")
    (kept,) = (other := make_peer(name="store", keep=True, capacity="16MiB"))(put, b"kept")
    other.kill()
    assert consumer(lambda here: here.store.get(kept)) == b"kept"
    pid = keeper.pid
    os.kill(pid, 9)
    keeper.wait_for_end(pid)
    with pytest.raises(OwnerGoneError):
        consumer(lambda here: here.store.exists(kept))
    # Living owners do not need it, and the next store starts another one.
    assert consumer(lambda here: here.store.get(key)) == b"value"
    assert producer(put, b"more")
    make_peer(name="store", keep=True, capacity="16MiB")
    assert keeper.pid != pid


def test_eviction_of_what_is_gone(producer, consumer):
    (key,) = producer(put, b"value")
    producer.kill()
    consumer(lambda here: here.store.evict(key))
    with pytest.raises(ObjectEvictedError):
        consumer(lambda here: here.store.get_or_raise(key))


def test_eviction_while_it_takes_over(keeper, make_peer, monkeypatch):
    """Who evicts the last object the moment it is served is told so, not that its owner is gone."""
    consumer = make_peer(name="store", doors=("shm",), capacity="16MiB")
    evicted = threading.Event()

    class Emptied(server.Kept):
        def __init__(self, *args):
            super().__init__(*args)
            consumer(lambda here: here.store.evict(key))
            evicted.set()

    monkeypatch.setattr(server, "Kept", Emptied)
    here = server.Keeper(Settings(idle=30))
    thread = threading.Thread(target=here.run)
    thread.start()
    try:
        producer = make_peer(name="store", keep=True, capacity="16MiB")
        (key,) = producer(put, b"value")
        producer.kill()
        assert evicted.wait(20)
        assert not consumer(lambda here: here.store.exists(key))
        with pytest.raises(ObjectEvictedError):
            consumer(lambda here: here.store.get_or_raise(key))
    finally:
        here.stop()
        thread.join(20)
