"""Stores that come and go leave no descriptors, mappings or threads in their process."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from support import procfs
from support.doors import REMOTE_DOORS, options_for

pytestmark = pytest.mark.faults

CYCLES = 15


@pytest.mark.parametrize("door", REMOTE_DOORS)
def test_open_and_close_many_times(make_peer, door):
    options = options_for(door)
    owner = make_peer(name="store", capacity="32MiB", **options)
    key = owner(lambda here: here.store.put(np.arange(100_000)))
    peer = make_peer()

    def cycle():
        from proxystore_hpc import Store

        with Store("store", capacity="32MiB", **options) as store:
            assert store.get(key).sum() == 4_999_950_000
            array = store.empty(100_000)
            array[:] = 1
            store.put(array)
            store.put(b"x" * 100_000)
            with store.register(np.zeros(1000)) as live:
                store.get(live.key)
            del array

    def count():
        return procfs.fd_count(), procfs.thread_count(), len(procfs.mapped(name="pshpc"))

    def run(here):
        import gc

        for _ in range(3):
            cycle()
        gc.collect()
        before = count()
        for _ in range(CYCLES):
            cycle()
        gc.collect()
        return before, count(), procfs.fd_targets()

    before, after, targets = peer(run, timeout=50)
    # A few that a transport keeps for the next store are not a leak: they do not grow with it.
    assert all(b - a < CYCLES / 3 for a, b in zip(before, after)), (before, after, targets)  # noqa: B905
    if door != "ucx":
        assert after == before

    def of_the_owner(here):
        return procfs.fd_count(), here.store.stats()["readers"]

    first = owner(of_the_owner)
    assert first[1] == 0
    peer(run, timeout=50)
    procfs.wait_until(
        lambda: owner(of_the_owner)[0] <= first[0] + 2, f"{owner(of_the_owner)} after {first}"
    )


def test_the_memory_of_a_closed_store_goes_with_its_last_view(make_peer):
    peer = make_peer(name="store", capacity="32MiB")

    def run(here):
        import gc

        key = here.store.put(np.full(1_000_000, 7))
        view = here.store.get(key)[5:10]
        here.store.close()
        here.store = None
        gc.collect()
        during = len(procfs.mapped(name="pshpc-store")), view.tolist()
        del view
        gc.collect()
        return during, len(procfs.mapped(name="pshpc-store"))

    (mapped_during, content), mapped_after = peer(run)
    assert mapped_during > 0
    assert content == [7] * 5
    assert mapped_after == 0


def test_a_program_that_is_started_inherits_nothing(make_peer, owner):
    peer = make_peer(name="store")
    key = owner(lambda here: here.store.put(np.arange(10)))

    def run(here):
        here.view = here.store.get(key)
        here.store.put(b"x" * 100_000)
        listing = subprocess.run(
            [sys.executable, "-c", "from support import procfs; print(procfs.fd_targets())"],
            close_fds=False,
            capture_output=True,
            text=True,
            check=True,
        )
        return listing.stdout

    targets = peer(run)
    assert "socket:" not in targets
    assert "memfd" not in targets
    assert "eventpoll" not in targets


def test_reading_costs_no_descriptors(owner, reader):
    def put(here):
        return here.store.put_batch([np.full(10_000, i) for i in range(100)])

    keys = owner(put)

    def read(here):
        return sum(int(a[0]) for a in here.store.get_batch(keys)), procfs.fd_count()

    first = reader(read)
    assert first[0] == 4950
    assert reader(read) == first
    assert owner(lambda here: procfs.fd_count()) < 40
