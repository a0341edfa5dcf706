from __future__ import annotations

import threading
import time

import numpy as np

from proxystore_hpc import Store
from proxystore_hpc.exceptions import StoreClosedError


def run_all(functions):
    failures = []

    def guarded(function):
        try:
            function()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


def test_threads_put_get_and_evict(store):
    def work(number):
        for turn in range(200):
            value = number * 1000 + turn
            key = store.put(np.full(1 + 37 * turn, value))
            got = store.get(key)
            assert (got == value).all()
            store.evict(key)
            assert store.get(key) is None
            assert (got == value).all()

    run_all([lambda n=n: work(n) for n in range(8)])
    assert store.stats()["objects"] == 0


def test_one_thread_waits_and_another_sets(store):
    keys = [store.new_key() for _ in range(20)]
    seen = []

    def wait():
        for key in keys:
            store.wait_for(key, timeout=10)
            seen.append(store.get(key))

    def set_all():
        for number, key in enumerate(keys):
            time.sleep(0.002)
            store.set(key, number)

    run_all([wait, set_all])
    assert seen == list(range(20))


def test_closing_while_others_work():
    for _ in range(5):
        store = Store("closing", capacity="16MiB")
        started = threading.Event()

        def work(store=store, started=started):
            try:
                while True:
                    key = store.put(np.arange(1000))
                    started.set()
                    got = store.get(key)
                    assert got is None or got.sum() == 499_500
                    store.evict(key)
            except StoreClosedError:
                return

        def close(store=store, started=started):
            started.wait(10)
            store.close()

        run_all([work, work, work, close])


def test_closing_wakes_those_who_wait():
    store = Store("closing", capacity="16MiB")
    key = store.new_key()
    outcome = []

    def wait():
        try:
            store.wait_for(key, timeout=20)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    began = time.monotonic()
    store.close()
    thread.join(10)
    assert time.monotonic() - began < 5
    assert "closed" in str(outcome[0])
