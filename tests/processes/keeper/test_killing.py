"""An owner is killed at any moment: what it had published is there, whole, and nothing else is."""

from __future__ import annotations

import multiprocessing
import random
import threading
from multiprocessing.connection import Connection

import numpy as np
import pytest

from proxystore_hpc import Store
from proxystore_hpc.key import Key

MOMENTS = 30
_SIZES = (10, 3000, 70_000, 1_500_000)


def pattern(number: int, size: int) -> np.ndarray:
    return np.arange(number, number + size, dtype=np.uint64).astype(np.uint8)


def produce(told: Connection) -> None:
    """Puts, and evicts every second object; tells of each step, of evictions before them too."""
    store = Store("store", keep=True, capacity="64MiB")
    keys: dict[int, Key] = {}
    for number in range(1_000_000):
        keys[number] = store.put(pattern(number, _SIZES[number % len(_SIZES)]))
        told.send(("put", number, keys[number].packed))
        victim = keys.pop(number - 8, None)
        if victim is None:
            continue
        told.send(("evicting", number - 8, b""))
        if number % 8:
            store.evict(victim)
            told.send(("evicted", number - 8, b""))


def heard(told: Connection) -> dict[str, dict[int, bytes]]:
    """What it had said when it was killed."""
    said: dict[str, dict[int, bytes]] = {"put": {}, "evicting": {}, "evicted": {}}
    while True:
        try:
            what, number, packed = told.recv()
        except (EOFError, OSError):
            return said
        said[what][number] = packed


@pytest.mark.timeout(180)
def test_at_any_moment(keeper):
    chance = random.Random(11)
    context = multiprocessing.get_context("fork")
    checked = 0
    for _ in range(MOMENTS):
        ours, theirs = context.Pipe(duplex=False)
        owner = context.Process(target=produce, args=(theirs,))
        owner.start()
        theirs.close()
        assert ours.poll(30)
        killer = threading.Timer(chance.random() * 0.15, owner.kill)
        killer.start()
        said = heard(ours)
        killer.join()
        owner.join()
        with Store("store", doors=("shm",), capacity="16MiB") as store:
            for number, packed in said["put"].items():
                value = store.get(Key(packed), timeout=20)
                if value is None:
                    assert number in said["evicting"]
                    continue
                assert number not in said["evicted"]
                assert np.array_equal(value, pattern(number, _SIZES[number % len(_SIZES)]))
                checked += 1
            store.evict_batch([Key(packed) for packed in said["put"].values()])
    assert checked > MOMENTS
