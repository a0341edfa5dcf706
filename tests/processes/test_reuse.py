"""An owner evicts and stores in a loop while others read: never foreign bytes."""

from __future__ import annotations

import time

import numpy as np
import pytest
from support.doors import REMOTE_DOORS, options_for

READERS = 4
SLOTS = 16


def churn(here, seconds, length, board):
    """Replaces objects in a ring; each is filled with its own number, which the board tells too."""
    ring = [None] * SLOTS
    number = 0
    end = time.monotonic() + seconds
    with here.store.register(board):
        while time.monotonic() < end:
            slot = number % SLOTS
            if ring[slot] is not None:
                here.store.evict(ring[slot])
            array = here.store.empty(length, "i8")
            array.fill(number)
            ring[slot] = here.store.put(array)
            del array
            packed = bytes(ring[slot])
            board[slot, : len(packed)] = np.frombuffer(packed, "u1")
            number += 1
    return number


def watch(here, board_key, seconds, size):
    """Reads whatever the board names; counts reads, misses, and objects that are not of one number."""
    from proxystore_hpc.exceptions import InvalidKeyError, ObjectChangedError, ProxyStoreHpcError
    from proxystore_hpc.key import Key

    reads = misses = 0
    foreign = []
    held = []
    end = time.monotonic() + seconds
    turn = 0
    while time.monotonic() < end:
        board = here.store.get(board_key, default=None)
        if board is None:
            break
        for row in board:
            packed = row[:size].tobytes()
            try:
                got = here.store.get(Key(packed))
            except InvalidKeyError:
                continue  # the board was read while it was written
            except ObjectChangedError:
                continue
            except ProxyStoreHpcError as error:
                if "not issued" in str(error):
                    continue
                raise
            if got is None:
                misses += 1
                continue
            reads += 1
            turn += 1
            first = int(got[0])
            if not (got == first).all():
                foreign.append(first)
            if turn % 50 == 0:
                held = [*held[-5:], (got, first)]
        foreign += [n for view, n in held if not (view == n).all()]
    return reads, misses, foreign


def run(make_peer, door, seconds, length):
    options = {**options_for(door), "cache_size": 0}
    owner = make_peer(name="store", capacity="64MiB", grace=0.001, **options)
    readers = [make_peer(name="store", capacity="64MiB", **options) for _ in range(READERS)]

    def prepare(here):
        here.board = np.zeros((SLOTS, 128), "u1")
        here.shown = here.store.register(here.board)
        return here.shown.key, len(bytes(here.store.put(1)))

    board_key, size = owner(prepare)
    pending = [r.start(watch, board_key, seconds, size) for r in readers]
    cycles = owner(lambda here: churn(here, seconds, length, here.board), timeout=seconds + 40)
    outcomes = [p.result(seconds + 40) for p in pending]
    assert cycles > SLOTS * 3
    assert [foreign for _, _, foreign in outcomes] == [[]] * READERS
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
