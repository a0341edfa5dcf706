"""However a process ends, nothing of it is left, and its signal handlers were its own."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys

import numpy as np
import pytest
from support import procfs
from support.doors import options_for

pytestmark = pytest.mark.faults


def work(here):
    """Uses all that could be left behind; tells the segments' inode numbers."""
    here.array = here.store.empty(100_000)
    here.keys = here.store.put_batch([b"x" * 500_000, 1])
    here.live = here.store.register(np.zeros(1000))
    here.view = here.store.get(here.keys[0])
    return here.keys


def leave_normally(here):
    sys.exit(0)


def leave_with_an_exception(here):
    raise KeyboardInterrupt


def leave_at_once(here):
    os._exit(5)


def terminate(here):
    os.kill(os.getpid(), signal.SIGTERM)


def kill(here):
    os.kill(os.getpid(), signal.SIGKILL)


def abort(here):
    faulthandler.disable()
    os.abort()


ENDS = {
    leave_normally: 0,
    leave_with_an_exception: 1,
    leave_at_once: 5,
    terminate: -signal.SIGTERM,
    kill: -signal.SIGKILL,
    abort: -signal.SIGABRT,
}


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_nothing_is_left(make_peer, reader, end):
    owner = make_peer(name="store", capacity="64MiB")
    keys = owner(work)
    reader(lambda here: here.store.get(keys[0]))
    owner._died_by_us = True
    owner.start(end)
    status = owner.wait(10)
    assert status in (ENDS[end], -signal.SIGINT if end is leave_with_an_exception else ENDS[end])
    # The reader's connection may be there until it notices, the listener not.
    assert not listening(owner.addresses)
    with pytest.raises(Exception, match="owner"):
        reader(lambda here: here.store.exists(keys[0]))
    assert not procfs.open_node_sockets(owner.addresses)


def listening(addresses):
    return procfs.open_node_sockets(addresses)


@pytest.mark.parametrize("door", ["shm", "ucx"])
def test_signal_handlers_are_left_alone(make_peer, door):
    peer = make_peer()
    options = options_for(door)
    names = [n for n in signal.Signals if n not in (signal.SIGKILL, signal.SIGSTOP)]

    def handlers(here):
        return [str(signal.getsignal(n)) for n in names], open("/proc/self/status").read()

    def caught(status):
        lines = [line for line in status.splitlines() if line.startswith(("SigCgt", "SigIgn"))]
        return lines

    before, status_before = peer(handlers)
    peer.open(**options)
    peer(work)
    after, status_after = peer(handlers)
    assert after == before
    assert caught(status_after) == caught(status_before)


def test_a_handler_of_the_users_runs(make_peer):
    peer = make_peer(name="store")

    def install(here):
        here.seen = []
        signal.signal(signal.SIGTERM, lambda number, frame: here.seen.append(number))

    peer(install)
    peer(work)
    os.kill(peer.pid, signal.SIGTERM)
    procfs.wait_until(lambda: peer(lambda here: here.seen) == [signal.SIGTERM], "it ran")
    assert peer(lambda here: len(here.store.get(here.keys[0]))) == 500_000


def test_no_files_and_no_processes(make_peer):
    before = set(os.listdir("/dev/shm"))
    owner = make_peer(name="store")
    owner(work)
    children = owner(lambda here: os.listdir(f"/proc/self/task/{os.getpid()}/children")) if 0 else []
    assert children == []
    assert owner(lambda here: open(f"/proc/self/task/{os.getpid()}/children").read()) == ""
    assert set(os.listdir("/dev/shm")) == before
    owner.kill()
    assert set(os.listdir("/dev/shm")) == before


def test_memory_goes_with_its_last_user(make_peer, reader):
    """A killed owner's segments live for as long as a reader maps them, and no longer."""
    owner = make_peer(name="store", capacity="64MiB")
    key = owner(lambda here: here.store.put(np.full(1_000_000, 3)))

    def hold(here):
        here.view = here.store.get(key)

    def drop(here):
        here.view = None
        try:
            here.store.exists(key)
        except Exception as error:
            return type(error).__name__

    reader(hold)
    owner.kill()
    assert reader(lambda here: bool((here.view == 3).all()))
    assert reader(drop) == "OwnerGoneError"
    assert reader(lambda here: procfs.mapped(name="memfd:pshpc-store")) == []


def test_an_interpreter_that_ends_early(make_peer):
    """The store is used by an exit handler that runs after ours."""
    peer = make_peer()

    def prepare(here):
        import atexit

        def late():
            try:
                here.store.put(1)
            except Exception as error:
                os.write(2, type(error).__name__.encode() + b"\n")

        atexit.register(late)  # before ours is registered: it runs after it

    peer(prepare)
    peer.open(name="store")
    peer(work)
    assert peer.end() == 0


def test_a_store_that_is_never_closed_and_collected(make_peer):
    peer = make_peer()

    def churn(here):
        import gc

        from proxystore_hpc import Store

        before = procfs.fd_count()
        for _ in range(20):
            store = Store("dropped", capacity="16MiB")
            store.put(np.zeros(1000))
            del store
        gc.collect()
        return procfs.fd_count() - before, procfs.thread_count()

    fds, threads = peer(churn)
    assert fds <= 1
    assert threads <= 4
