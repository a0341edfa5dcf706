from __future__ import annotations

import numpy as np
import pytest
from support.doors import REMOTE_DOORS, options_for


@pytest.mark.parametrize("door", REMOTE_DOORS)
def test_the_door_of_every_transfer_is_counted(make_peer, door):
    options = options_for(door)
    owner = make_peer(name="store", **options)
    reader = make_peer(name="store", metrics=True, cache_size=0, **options)
    key = owner(lambda here: here.store.put(np.zeros(100_000)))

    def read(here):
        here.store.get(key)
        here.store.get(key, offset=0, length=1000)
        here.store.get_into(key, bytearray(2000))
        stats = here.store.metrics.doors
        found = here.store.metrics.get_metrics(key)
        return set(stats), stats[door], found.attributes["store.get.door"], found.times

    doors, stats, of_key, times = reader(read)
    assert doors == {door}
    assert stats.operations == 3
    assert stats.bytes == key.nbytes + 3000
    assert 0 < stats.seconds < 30
    assert of_key == door
    assert times["store.get"].count == 1


def test_the_cheapest_door_is_taken(make_peer):
    owner, reader = (make_peer(name="store") for _ in range(2))
    key = owner(lambda here: here.store.put(np.zeros(10)))
    reader(lambda here: here.store.get(key))
    assert reader(lambda here: here.doors) == {"shm": 1}
    assert owner(lambda here: (here.store.get(key)[0], here.doors)[1]) == {"self": 1}
