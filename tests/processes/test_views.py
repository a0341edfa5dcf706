"""What a reader holds stays as it was, and costs the owner memory for just as long."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from support.procfs import mapped, wait_until

from proxystore_hpc.exceptions import StoreFullError

MIB = 1 << 20


def retired(owner):
    def look(here):
        here.store.put(b"")
        return here.store.stats()["retired_bytes"]

    return owner(look)


def hold(key, slot="view"):
    def take(here):
        setattr(here, slot, here.store.get(key))

    return take


def drop(here):
    here.view = None
    gc.collect()


def test_a_view_survives_evict_and_reuse(owner, reader):
    key = owner(lambda here: here.store.put(np.full(MIB // 8, 7)))
    reader(hold(key))
    owner(lambda here: here.store.evict(key))

    def overwrite(here):
        for number in range(100):
            here.store.evict(here.store.put(np.full(MIB // 8, number)))

    owner(overwrite)
    assert reader(lambda here: bool((here.view == 7).all()))
    assert retired(owner) >= MIB
    reader(drop)
    wait_until(lambda: retired(owner) == 0, "the memory comes back")


def test_a_slice_pins_for_as_long_as_it_lives(owner, reader):
    key = owner(lambda here: here.store.put(np.arange(MIB)))

    def keep_slice(here):
        whole = here.store.get(key)
        here.view = whole[100:110]

    reader(keep_slice)
    owner(lambda here: here.store.evict(key))
    assert retired(owner) >= MIB
    assert reader(lambda here: here.view.tolist()) == list(range(100, 110))
    reader(drop)
    wait_until(lambda: retired(owner) == 0, "the memory comes back")


def test_a_part_and_memoryviews_pin_too(owner, reader):
    keys = owner(lambda here: here.store.put_batch([b"a" * MIB, np.full(MIB, 3, "u1")]))

    def keep(here):
        here.view = [
            here.store.get(keys[0], offset=10, length=5),
            memoryview(here.store.get(keys[1]))[7:9],
        ]

    reader(keep)
    owner(lambda here: here.store.evict_batch(keys))
    assert retired(owner) >= 2 * MIB
    assert reader(lambda here: [bytes(v) for v in here.view]) == [b"aaaaa", b"\x03\x03"]
    reader(drop)
    wait_until(lambda: retired(owner) == 0, "the memory comes back")


def test_a_read_pins_only_for_its_own_duration(owner, reader):
    key = owner(lambda here: here.store.put({"a": np.arange(MIB), "b": "text"}))
    assert reader(lambda here: here.store.get(key)["b"]) == "text"
    assert reader(lambda here: bytes(here.store.get(key)["a"][:1])) == b"\0" * 8
    owner(lambda here: here.store.evict(key))
    wait_until(lambda: retired(owner) == 0, "the memory comes back")


def test_views_survive_the_readers_and_the_owners_close(owner, reader):
    key = owner(lambda here: here.store.put(np.full(MIB, 5)))
    reader(hold(key))
    reader(lambda here: here.store.close())
    assert reader(lambda here: int(here.view.sum())) == 5 * MIB
    owner(lambda here: here.store.close())
    assert reader(lambda here: int(here.view.sum())) == 5 * MIB


def test_pins_of_a_closed_reader_still_count(owner, reader):
    key = owner(lambda here: here.store.put(np.full(MIB // 8, 5)))
    reader(hold(key))
    reader(lambda here: here.store.close())
    owner(lambda here: here.store.evict(key))

    def overwrite(here):
        for number in range(20):
            here.store.evict(here.store.put(np.full(MIB // 8, number)))

    owner(overwrite)
    assert reader(lambda here: bool((here.view == 5).all()))
    reader(drop)
    wait_until(lambda: retired(owner) == 0, "the memory comes back")


def test_views_survive_the_owners_end(owner, reader):
    key = owner(lambda here: here.store.put(np.full(MIB, 5)))
    reader(hold(key))
    assert owner.end() == 0
    assert reader(lambda here: int(here.view.sum())) == 5 * MIB


def test_a_writable_mapping_survives_too(owner, reader):
    key = owner(lambda here: here.store.put(np.full(MIB, 5)))

    def change(here):
        here.view = here.store.get(key, writable=True)
        here.view[: MIB // 2] = -5

    reader(change)
    owner(lambda here: here.store.evict(key))
    owner(lambda here: here.store.put(np.full(MIB, 9)))
    assert reader(lambda here: int(here.view.sum())) == 0
    assert reader(lambda here: int(here.view[-1])) == 5


def test_writable_results_of_large_objects_are_not_copied(owner, reader):
    key = owner(lambda here: here.store.put(np.zeros(4 * MIB, "u1")))
    received = reader(
        lambda here: (here.store.get(key, writable=True)[0], here.store.stats()["received"])
    )
    assert received == (0, 0)


def test_full_because_a_reader_holds_views(make_peer, reader):
    owner = make_peer(name="store", capacity="16MiB")
    key = owner(lambda here: here.store.put(np.zeros(10 * MIB, "u1")))
    reader(hold(key))
    owner(lambda here: here.store.evict(key))
    with pytest.raises(StoreFullError) as caught:
        owner(lambda here: here.store.put(np.ones(10 * MIB, "u1")))
    assert caught.value.capacity == 16 * MIB
    assert caught.value.requested >= 10 * MIB
    assert reader(lambda here: bool((here.view == 0).all()))
    reader(drop)
    owner(lambda here: here.store.put(np.ones(10 * MIB, "u1")))


def test_more_views_than_one_table_has_pins(owner, reader):
    keys = owner(lambda here: here.store.put_batch([np.full(2, i) for i in range(5000)]))

    def hold_all(here):
        here.view = here.store.get_batch(keys)
        return all((view == i).all() for i, view in enumerate(here.view))

    assert reader(hold_all)
    owner(lambda here: here.store.evict_batch(keys))
    assert owner(lambda here: here.store.stats()["retired_blocks"]) >= 5000
    reader(drop)
    wait_until(lambda: retired(owner) == 0, "the memory comes back")


def test_a_segment_is_mapped_once(owner, reader):
    keys = owner(lambda here: here.store.put_batch([np.full(1000, i) for i in range(50)]))

    def look(here):
        views = here.store.get_batch(keys)
        return len({id(v) for v in views}), len(mapped(name="memfd:pshpc-store"))

    count, mappings = reader(look)
    assert count == 50
    assert mappings <= 2
    assert reader(lambda here: here.doors) == {"shm": 50}
