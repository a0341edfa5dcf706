"""Keys before their objects: who waits is told, from any process."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pytest

from proxystore_hpc.exceptions import (
    ObjectEvictedError,
    ObjectMissingError,
    OperationTimeoutError,
    OwnerGoneError,
)


def new_key(owner):
    return owner(lambda here: here.store.new_key())


def test_a_reader_is_told(owner, reader):
    key = new_key(owner)
    waiting = reader.start(lambda here: (here.store.wait_for(key), here.store.get(key).sum())[1])
    time.sleep(0.2)
    owner(lambda here: here.store.set(key, np.arange(1000)))
    assert waiting.result(5) == 499_500
    assert reader(lambda here: here.doors) == {"shm": 1}


def test_waiting_costs_no_cpu(owner, reader):
    key = new_key(owner)

    def cpu(here):
        return time.process_time()

    before = owner(cpu), reader(cpu)
    waiting = reader.start(lambda here: here.store.wait_for(key))
    time.sleep(1.0)
    used = owner(cpu) - before[0]
    owner(lambda here: here.store.set(key, 1))
    waiting.result()
    assert used < 0.2
    assert reader(cpu) - before[1] < 0.2


def test_waiting_for_what_is_there_already(owner, reader):
    key = new_key(owner)
    owner(lambda here: here.store.set(key, "x"))
    reader(lambda here: here.store.wait_for(key, timeout=5))
    stored = owner(lambda here: here.store.put("y"))
    reader(lambda here: here.store.wait_for(stored, timeout=5))


def test_several_readers_wait(make_peer, owner, reader):
    key = new_key(owner)
    readers = [reader, make_peer(name="store", doors=("socket",))]
    waiting = [
        r.start(lambda here: (here.store.wait_for(key), here.store.get(key))[1]) for r in readers
    ]
    owner(lambda here: here.store.set(key, "all"))
    assert [w.result() for w in waiting] == ["all"] * 2


def test_an_unset_key_is_missing(owner, reader):
    key = new_key(owner)
    assert reader(lambda here: here.store.exists(key)) is False
    assert reader(lambda here: here.store.get(key, default=3)) == 3
    with pytest.raises(ObjectMissingError):
        reader(lambda here: here.store.get_or_raise(key))


def test_waiting_ends_in_time(owner, reader):
    key = new_key(owner)

    def wait(here):
        began = time.monotonic()
        try:
            here.store.wait_for(key, timeout=0.3)
        except OperationTimeoutError:
            return time.monotonic() - began
        return None

    assert 0.3 <= reader(wait) < 2
    owner(lambda here: here.store.set(key, "late"))
    assert reader(lambda here: here.store.get(key)) == "late"


def test_evicted_while_waited_for(owner, reader):
    key = new_key(owner)
    waiting = reader.start(lambda here: here.store.wait_for(key))
    time.sleep(0.1)
    owner(lambda here: here.store.evict(key))
    with pytest.raises(ObjectEvictedError):
        waiting.result(5)


def test_the_owner_closes_while_waited_for(owner, reader):
    key = new_key(owner)
    waiting = reader.start(lambda here: here.store.wait_for(key))
    time.sleep(0.1)
    owner(lambda here: here.store.close())
    with pytest.raises((ObjectEvictedError, OwnerGoneError)):
        waiting.result(5)


def test_a_proxy_of_an_object_to_come(owner, reader):
    key = new_key(owner)
    packed = owner(lambda here: pickle.dumps(here.store.proxy_from_key(key)))
    owner(lambda here: here.store.set(key, [1, 2, 3]))
    assert reader(lambda here: len(pickle.loads(packed))) == 3
