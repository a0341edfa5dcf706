"""Forked children keep nothing open, cannot use the store, and leave the parent's pins alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import warnings

import numpy as np
import pytest
from support import procfs
from support.forking import in_child

from proxystore_hpc.exceptions import ForkedError, OwnerGoneError

pytestmark = pytest.mark.faults


def fork_child(here):
    """A child that sleeps; its pid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    return pid


@contextlib.contextmanager
def ending(pid):
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "idle"])
def test_a_parents_death_is_seen_although_its_child_lives(owner, reader, waits):
    key = owner(lambda here: here.store.new_key())
    reader(lambda here: here.store.exists(key))
    child = owner(fork_child)
    with ending(child):
        waiting = reader.start(lambda here: here.store.wait_for(key)) if waits else None
        time.sleep(0.2)
        owner.kill()
        began = time.monotonic()
        waiting = waiting or reader.start(lambda here: here.store.exists(key))
        with pytest.raises(OwnerGoneError):
            waiting.result(10)
        assert time.monotonic() - began < 1.5
        assert procfs.exists(child)
        assert not procfs.open_node_sockets(owner.addresses)


def test_a_readers_death_is_seen_although_its_child_lives(owner, reader):
    key = owner(lambda here: here.store.put(np.full(100_000, 3)))

    def hold(here):
        here.view = here.store.get(key)

    reader(hold)
    child = reader(fork_child)
    with ending(child):
        owner(lambda here: here.store.evict(key))
        reader.kill()

        def retired(here):
            here.store.put(b"")
            return here.store.stats()["retired_bytes"], here.store.stats()["readers"]

        procfs.wait_until(lambda: owner(retired) == (0, 0), "the pins are given back")
        assert procfs.exists(child)


def test_a_child_keeps_no_descriptor_of_ours(owner, reader):
    keys = owner(lambda here: here.store.put_batch([b"x" * 100_000, 1]))

    def look(here):
        here.view = here.store.get(keys[0])
        here.own = here.store.put(b"y" * 100_000)
        here.live = here.store.register(np.zeros(1000))
        return fork_child(here), os.getpid()

    def shared(pid):
        kinds = ("socket:", "/memfd", "anon_inode")
        return {t for t in procfs.fd_targets(pid) if t.startswith(kinds)}

    child, parent = reader(look)
    with ending(child):
        assert len(shared(parent)) > 3
        # fork() may return to the parent first: the child closes them before it returns there.
        procfs.wait_until(lambda: not shared(child), "the child keeps nothing open", timeout=1)


USES = {
    "put": lambda store, key: store.put(1),
    "get": lambda store, key: store.get(key),
    "get_batch": lambda store, key: store.get_batch([key]),
    "part": lambda store, key: store.get(key, offset=0, length=1),
    "get_into": lambda store, key: store.get_into(key, bytearray(1)),
    "exists": lambda store, key: store.exists(key),
    "evict": lambda store, key: store.evict(key),
    "wait_for": lambda store, key: store.wait_for(key),
    "new_key": lambda store, key: store.new_key(),
    "empty": lambda store, key: store.empty(10),
    "register": lambda store, key: store.register(bytearray(10)),
    "proxy": lambda store, key: store.proxy([1]),
}


def test_a_childs_use_of_the_store_is_refused(owner, reader):
    key = owner(lambda here: here.store.put(b"x" * 1000))

    def run(here):
        here.store.get(key)
        own = here.store.put(2)
        return {
            (name, which is own): in_child(lambda: USES[name](here.store, which))  # noqa: B023
            for name in USES
            for which in (key, own)
        }

    answers = reader(run)
    assert answers == dict.fromkeys(answers, ("ForkedError", 0))
    assert reader(lambda here: here.store.get(key)) == b"x" * 1000


def test_the_error_says_what_to_do(reader):
    def run(here):
        def use():
            try:
                here.store.put(1)
            except ForkedError as error:
                return str(error)

        return in_child(use)

    text, _ = reader(run)
    assert "forked" in text
    assert "spawn" in text


def test_a_child_reads_its_parents_views_and_drops_them(owner, reader):
    key = owner(lambda here: here.store.put(np.full(100_000, 6)))

    def run(here):
        here.view = here.store.get(key)
        here.own = here.store.get(here.store.put(np.full(100_000, 7)))
        here.fresh = here.store.empty(1000)

        def use():
            total = int(here.view.sum()), int(here.own.sum())
            here.view = here.own = here.fresh = None
            here.store.close()
            here.store = None
            return total

        return in_child(use)

    assert reader(run) == ("(600000, 700000)", 0)
    owner(lambda here: here.store.evict(key))
    owner(lambda here: [here.store.put(np.full(100_000, 8)) for _ in range(3)])
    # The child's drop gave none of the parent's pins away.
    assert reader(lambda here: bool((here.view == 6).all() and (here.own == 7).all()))
    assert owner(lambda here: here.store.stats()["retired_bytes"]) >= 800_000


def test_pools_of_forked_workers(owner, reader):
    key = owner(lambda here: here.store.put(np.arange(1000)))

    def run(here):
        here.view = here.store.get(key)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            with multiprocessing.get_context("fork").Pool(2) as pool:
                results = pool.map(abs, range(-9, 1))
        return results, int(here.view.sum()), here.store.exists(key)

    results, total, exists = reader(run)
    assert results == list(range(9, -1, -1))
    assert (total, exists) == (499_500, True)


def test_a_child_opens_a_store_of_its_own(owner, reader):
    key = owner(lambda here: here.store.put(np.arange(1000)))

    def run(here):
        here.store.get(key)

        def use():
            from proxystore_hpc import Store

            with Store("store", doors=("shm",), capacity="16MiB") as store:
                own = store.put(b"own")
                return int(store.get(key).sum()), store.get(own), dict(store.metrics.doors).keys()

        return in_child(use)

    answer, status = reader(run)
    assert status == 0
    assert answer.startswith("(499500, b'own'")
    assert "'shm'" in answer
    assert reader(lambda here: here.store.exists(key))


def test_a_child_that_ends_with_exit_handlers(make_peer, owner):
    """multiprocessing ends its children at once, os.fork() alone does not."""
    peer = make_peer(name="store")
    key = owner(lambda here: here.store.put(1))

    def run(here):
        here.store.get(key)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            raise SystemExit(7)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)

    assert peer(run) == 7
    assert peer(lambda here: here.store.get(here.store.put("alive"))) == "alive"
    assert peer(lambda here: here.store.get(key)) == 1


def test_forking_while_other_threads_use_the_store(owner, reader):
    """A lock that another thread held at the fork must not hang the child."""
    import threading

    key = owner(lambda here: here.store.put(np.arange(1000)))

    def run(here):
        stop = threading.Event()

        def use():
            while not stop.is_set():
                here.store.get(key)
                here.store.evict(here.store.put(b"x" * 1000))

        threads = [threading.Thread(target=use) for _ in range(3)]
        [t.start() for t in threads]
        own = here.store.get(here.store.put(np.arange(10)))
        holder = [own]

        def child():
            holder.clear()  # drops what the parent pinned
            try:
                here.store.put(1)
            except ForkedError:
                pass
            here.store.close()
            return "done"

        del own
        answers = {in_child(child) for _ in range(20)}
        stop.set()
        [t.join() for t in threads]
        return answers

    assert reader(run, timeout=50) == {("'done'", 0)}
