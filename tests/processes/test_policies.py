from __future__ import annotations

import numpy as np
import pytest
from support.procfs import wait_until

from proxystore_hpc import Pinned, TimeToLive
from proxystore_hpc.exceptions import ObjectEvictedError, ObjectPinnedError


def test_a_view_outlives_the_time_to_live(owner, reader):
    key = owner(lambda here: here.store.put(np.full(100_000, 4), policy=TimeToLive(0.5)))

    def hold(here):
        here.view = here.store.get(key)

    reader(hold)
    wait_until(lambda: not reader(lambda here: here.store.exists(key)), "the time to live ends")
    with pytest.raises(ObjectEvictedError):
        reader(lambda here: here.store.get_or_raise(key))
    owner(lambda here: here.store.put(np.full(100_000, 5)))
    assert reader(lambda here: bool((here.view == 4).all()))


def test_the_owner_evicts_without_being_used(owner, reader):
    owner(lambda here: here.store.put_batch([b"x" * 100_000] * 5, policy=TimeToLive(0.1)))
    wait_until(
        lambda: owner(lambda here: here.store.stats()["objects"]) == 0, "the objects are evicted"
    )


def test_pinned_objects_resist_readers(owner, reader):
    pinned, other = owner(lambda here: [here.store.put("p", policy=Pinned()), here.store.put("o")])
    with pytest.raises(ObjectPinnedError, match="force"):
        reader(lambda here: here.store.evict_batch([pinned, other]))
    assert reader(lambda here: here.store.exists_batch([pinned, other])) == [True, False]
    reader(lambda here: here.store.evict(pinned, force=True))
    assert owner(lambda here: here.store.exists(pinned)) is False


def test_policies_of_what_is_stored_at_another(owner, reader):
    address = owner.addresses[0]
    short, pinned = reader(
        lambda here: [
            here.store.put("t", to=address, policy=TimeToLive(0.2)),
            here.store.put("p", to=address, policy=Pinned()),
        ]
    )
    with pytest.raises(ObjectPinnedError):
        owner(lambda here: here.store.evict(pinned))
    wait_until(lambda: not owner(lambda here: here.store.exists(short)), "its time ends")
