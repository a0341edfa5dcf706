"""Many threads read at once; one slow owner does not keep the others waiting."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from support.doors import REMOTE_DOORS, options_for

from proxystore_hpc.exceptions import OperationTimeoutError


@pytest.mark.parametrize("door", REMOTE_DOORS)
def test_eight_threads_read(make_peer, door):
    options = options_for(door)
    owners = [make_peer(name="store", **options) for _ in range(2)]
    reader = make_peer(name="store", cache_size=0, **options)
    keys = [
        key
        for n, owner in enumerate(owners)
        for key in owner(
            lambda here, n: here.store.put_batch([np.full(20_000, n * 50 + i) for i in range(50)]),
            n,
        )
    ]

    def read(here):
        failures = []

        def work(offset):
            for turn in range(100):
                number = (offset * 13 + turn) % 100
                if not (here.store.get(keys[number]) == number).all():
                    failures.append(number)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        return failures, here.doors

    assert reader(read, timeout=50) == ([], {door: 800})


@pytest.mark.parametrize("door", ["socket", "shm"])
def test_a_stopped_owner_does_not_block_others(make_peer, door):
    slow, quick = (make_peer(name="store") for _ in range(2))
    reader = make_peer(name="store", doors=(door,), cache_size=0)
    held = slow(lambda here: here.store.put(b"x" * 5000))
    free = quick(lambda here: here.store.put_batch([b"y" * 5000] * 50))
    reader(lambda here: (here.store.exists(held), here.store.exists_batch(free)))
    slow.stop()

    def read(here):
        outcome = {}

        def wait_for_slow():
            try:
                here.store.exists(held, timeout=3)
            except OperationTimeoutError:
                outcome["slow ended"] = time.monotonic()

        thread = threading.Thread(target=wait_for_slow)
        thread.start()
        time.sleep(0.1)
        good = all(here.store.get(key) == b"y" * 5000 for key in free)
        outcome["quick ended"] = time.monotonic()
        thread.join()
        return good, outcome["quick ended"] < outcome["slow ended"]

    assert reader(read) == (True, True)
    slow.resume()
    assert reader(lambda here: here.store.exists(held))


def test_other_threads_run_while_one_waits(owner, reader):
    """The GIL is released: a thread counts while another waits for an object."""
    key = owner(lambda here: here.store.new_key())

    def count(here):
        turns = 0
        waiting = threading.Thread(target=lambda: here.store.wait_for(key))
        waiting.start()
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            turns += 1
        alive = waiting.is_alive()
        here.waiting = waiting
        return alive, turns

    alive, turns = reader(count)
    assert alive
    assert turns > 1000
    owner(lambda here: here.store.set(key, 1))
    reader(lambda here: here.waiting.join(10))


def test_an_owner_serves_while_it_computes(owner, reader):
    """Its main thread is in Python code all the time."""
    keys = owner(lambda here: here.store.put_batch([np.full(100, i) for i in range(20)]))

    def compute(here):
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            pass
        return time.monotonic()

    busy = owner.start(compute)

    def read(here):
        good = all((here.store.get(key) == i).all() for i, key in enumerate(keys))
        return good and all(here.store.exists_batch(keys)), time.monotonic()

    good, ended = reader(read)
    assert good
    assert ended < busy.result()
