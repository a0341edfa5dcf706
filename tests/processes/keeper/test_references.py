"""References to objects whose owner has ended: they go on counting."""

from __future__ import annotations

import pickle

import pytest
from support import procfs

from proxystore_hpc.store.ref import borrow


@pytest.fixture
def producer(keeper, make_peer):
    return make_peer(name="store", keep=True, capacity="16MiB", register=True)


@pytest.fixture
def holder(keeper, make_peer):
    return make_peer(name="store", register=True, keep=False)


@pytest.fixture
def observer(make_peer):
    return make_peer(name="store", doors=("shm",))


def send(here, sharing=False):
    """A reference that is on its way: the one owner, or a borrowed one whose owner stays here."""
    here.owned = here.store.owned_proxy([1, 2, 3])
    key = here.owned.__proxy_factory__.key
    here.sent = borrow(here.owned) if sharing else here.owned
    return pickle.dumps(here.sent), key


def take(here, packed):
    here.ref = pickle.loads(packed)
    return list(here.ref)


def drop(here):
    here.ref = None


def is_there(observer, key):
    return observer(lambda here: here.store.exists(key))


def wait_until_gone(observer, key):
    procfs.wait_until(lambda: not is_there(observer, key), "the object is evicted")


def test_one_that_was_on_its_way(producer, holder, observer):
    packed, key = producer(send)
    producer.kill()
    assert holder(take, packed) == [1, 2, 3]
    assert is_there(observer, key)
    holder(drop)
    wait_until_gone(observer, key)


def test_one_that_somebody_held(producer, holder, observer, keeper):
    packed, key = producer(send, True)
    assert holder(take, packed) == [1, 2, 3]
    producer.kill()  # and with it the owned one
    keeper.wait_for_owners(1)
    assert is_there(observer, key)
    holder(drop)
    wait_until_gone(observer, key)


@pytest.mark.parametrize("comes_again", [False, True])
def test_one_whose_holder_is_killed_too(producer, holder, observer, keeper, comes_again):
    packed, key = producer(send, True)
    holder(take, packed)
    producer.kill()
    keeper.wait_for_owners(1)
    if comes_again:
        assert holder(lambda here: here.store.exists(key))
    holder.kill()
    wait_until_gone(observer, key)


def test_the_owners_own(producer, observer, keeper):
    def both(here):
        here.owned = here.store.owned_proxy("owned")
        return here.owned.__proxy_factory__.key, here.store.put("free")

    owned, free = producer(both)
    assert is_there(observer, owned)
    producer.kill()
    assert observer(lambda here: here.store.get(free)) == "free"
    assert not is_there(observer, owned)
