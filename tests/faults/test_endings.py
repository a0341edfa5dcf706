"""However a process ends, nothing of it is left, and its signal handlers were its own."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from support import procfs
from support.doors import options_for

from proxystore_hpc.exceptions import OwnerGoneError, StoreClosedError

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
    leave_with_an_exception: -signal.SIGINT,
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
    owner.ends_badly = True
    owner.start(end)
    assert owner.wait(10) == ENDS[end]
    assert not procfs.open_node_sockets(owner.addresses)
    with pytest.raises(OwnerGoneError):
        reader(lambda here: here.store.exists(keys[0]))


@pytest.mark.parametrize("door", ["shm", "ucx"])
def test_signal_handlers_are_left_alone(make_peer, door):
    peer = make_peer()
    options = options_for(door)
    names = [n for n in signal.Signals if n not in (signal.SIGKILL, signal.SIGSTOP)]

    def handlers(here):
        """As Python and as the kernel know them; libc's own two (32, 33) come with any thread."""
        masks = [
            int(line.split()[1], 16) & ~(3 << 31)
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith(("SigCgt", "SigIgn"))
        ]
        return [str(signal.getsignal(n)) for n in names], masks

    peer(lambda here: faulthandler.disable())  # it has handlers where a transport could put its own
    before = peer(handlers)
    peer.open(**options)
    peer(work)
    assert peer(handlers) == before


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
    assert procfs.children(owner.pid) == []
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
            return here.store.exists(key)
        except OwnerGoneError:
            return "gone"

    reader(hold)
    owner.kill()
    assert reader(lambda here: bool((here.view == 3).all()))
    assert reader(drop) == "gone"
    assert reader(lambda here: procfs.mapped(name="memfd:pshpc-store")) == []


def test_an_interpreter_that_ends_early(make_peer):
    """The store is used by an exit handler that runs after ours."""
    peer = make_peer()

    def prepare(here):
        import atexit

        def late():
            try:
                here.store.put(1)
            except StoreClosedError:
                os._exit(9)

        atexit.register(late)  # before ours is registered: it runs after it

    peer(prepare)
    peer.open(name="store")
    peer(work)
    peer.ends_badly = True
    assert peer.end() == 9


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
