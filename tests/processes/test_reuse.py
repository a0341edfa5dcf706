"""An owner evicts and stores in a loop while others read: never foreign bytes."""

from __future__ import annotations

import time

import numpy as np
import pytest
from support.doors import REMOTE_DOORS, options_for

READERS = 4
SLOTS = 16
HELD = 6


def prepare(here):
    """The board tells readers which objects there are: their numbers and keys."""
    size = len(bytes(here.store.put(1)))
    here.board = np.zeros(SLOTS, [("number", "i8"), ("key", "u1", (size,))])
    here.board["number"] = -1
    here.shown = here.store.register(here.board)
    return here.shown.key


def churn(here, seconds, length):
    """Replaces objects in a ring, each filled with its own number; returns how many there were."""
    ring = [None] * SLOTS
    number = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        slot = number % SLOTS
        if ring[slot] is not None:
            here.store.evict(ring[slot])
        array = here.store.empty(length, "i8")
        array.fill(number)
        ring[slot] = here.store.put(array)
        del array
        with here.shown.writing():
            here.board[slot] = number, np.frombuffer(bytes(ring[slot]), "u1")
        number += 1
        if number % 4 == 0:
            time.sleep(0.001)  # or slow readers find nothing but evicted objects
    return number


def watch(here, board_key, seconds):
    """Reads what the board names, newest first; counts reads and misses, lists foreign contents."""
    from proxystore_hpc.key import Key

    reads = misses = 0
    foreign = []
    held = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        board = here.store.get(board_key)
        for row in board[np.argsort(-board["number"])][:6]:
            number = int(row["number"])
            got = here.store.get(Key(row["key"].tobytes())) if number >= 0 else None
            if got is None:
                misses += 1
                continue
            reads += 1
            if not (got == number).all():
                foreign.append((number, np.unique(got).tolist()[:5]))
            if reads % 50 == 0:
                held = [*held[1 - HELD :], (got, number)]
        foreign += [(n, "held") for view, n in held if not (view == n).all()]
    return reads, misses, foreign


def run(make_peer, door, seconds, length):
    # Beside those on the board there are those that readers hold, and those that rest.
    capacity = max(64 << 20, 2 * (SLOTS + READERS * (HELD + 1)) * 8 * length)
    options = {**options_for(door), "cache_size": 0, "capacity": capacity}
    owner = make_peer(name="store", grace=0.001, **options)
    readers = [make_peer(name="store", **options) for _ in range(READERS)]
    board_key = owner(prepare)
    pending = [r.start(watch, board_key, seconds) for r in readers]
    cycles = owner(churn, seconds, length, timeout=seconds + 40)
    outcomes = [p.result(seconds + 40) for p in pending]
    assert [foreign for _, _, foreign in outcomes] == [[]] * READERS
    assert cycles > SLOTS * 3
    assert all(reads > 0 for reads, _, _ in outcomes)
    assert all(set(r(lambda here: here.doors)) == {door} for r in readers)


@pytest.mark.parametrize("door", REMOTE_DOORS)
def test_never_foreign_bytes(make_peer, door):
    run(make_peer, door, seconds=2.0, length=20_000)


@pytest.mark.full
@pytest.mark.timeout(180)
@pytest.mark.parametrize("length", [8, 1000, 20_000, 200_000])
@pytest.mark.parametrize("door", REMOTE_DOORS)
def test_never_foreign_bytes_for_long(make_peer, door, length):
    run(make_peer, door, seconds=10.0, length=length)
