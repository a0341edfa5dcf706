"""Memory that is received into."""

from __future__ import annotations

import mmap

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc.tcp.buffers import ReceivePool

MIB = 1 << 20


def address(view) -> int:
    return np.frombuffer(view, "u1").__array_interface__["data"][0]


def test_memory_is_used_again_when_nothing_refers_to_it():
    pool = ReceivePool()
    first = pool.take(MIB)
    where = address(first)
    part = np.frombuffer(first, "u1")[100:200]
    del first
    second = pool.take(MIB)
    places = {where, address(second)}
    assert len(places) == 2
    del part, second
    third = pool.take(MIB - 5)
    assert {address(third), address(pool.take(MIB))} == places


@given(st.lists(st.tuples(st.integers(1, 3 * MIB), st.booleans()), max_size=20))
def test_what_is_held_is_never_handed_out_again(steps):
    pool = ReceivePool(capacity=4 * MIB)
    held = []
    for index, (size, keep) in enumerate(steps):
        view = pool.take(size)
        assert len(view) == size
        assert not view.readonly
        view[0] = view[-1] = index
        if keep:
            held.append((index, view))
        del view
    for index, view in held:
        assert view[0] == view[-1] == index


def test_no_more_than_the_capacity_is_kept():
    pool = ReceivePool(capacity=4 * MIB)
    views = [pool.take(MIB) for _ in range(10)]
    assert pool._held <= 4 * MIB
    del views
    large = pool.take(4 * MIB)
    assert pool._held <= 4 * MIB
    assert isinstance(large.obj, mmap.mmap)


def test_clearing_leaves_what_is_in_use():
    pool = ReceivePool()
    view = pool.take(MIB)
    view[0] = 7
    pool.clear()
    assert view[0] == 7
