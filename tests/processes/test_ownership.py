"""References across processes: what the owner of the memory counts, and what ends them."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
from support import procfs

from proxystore_hpc.exceptions import MutableBorrowError, ReferenceInvalidError


@pytest.fixture
def owner(make_peer):
    """Whose memory it is."""
    return make_peer(name="store", capacity="64MiB", register=True, options={"lease": 60})


@pytest.fixture
def holder(make_peer):
    return make_peer(name="store", register=True)


def own(here, value=(1, 2, 3)):
    here.owned = here.store.owned_proxy(list(value))
    here.key = here.owned.__proxy_factory__.key


def there(owner):
    return owner(lambda here: here.store.exists(here.key))


def counted(owner):
    return owner(lambda here: here.store.stats()["references"])


def lend(here, borrowing):
    """A pickled reference that is on its way."""
    import proxystore_hpc.store.ref as ref

    here.ref = getattr(ref, borrowing)(here.owned)
    return pickle.dumps(here.ref)


def take(here, packed):
    here.ref = pickle.loads(packed)


def drop(here):
    here.ref = None


def drop_owned(here):
    here.owned = None


def gone(owner, timeout=10.0):
    procfs.wait_until(lambda: not there(owner), "the object is evicted", timeout)


def test_ownership_moves_with_its_pickle(owner, holder):
    owner(own)
    packed = owner(lambda here: pickle.dumps(here.owned))
    owner(drop_owned)
    assert there(owner)
    holder(take, packed)
    assert holder(lambda here: sum(here.ref)) == 6
    holder(drop)
    gone(owner)


def test_an_owner_in_another_process_that_dies(owner, holder):
    owner(own)
    holder(take, owner(lambda here: pickle.dumps(here.owned)))
    assert there(owner)
    holder.kill()
    gone(owner)


def test_a_borrower_that_dies_takes_only_its_own(make_peer, owner, holder):
    owner(own)
    other = make_peer(name="store", register=True)
    holder(take, owner(lend, "borrow"))
    other(take, owner(lend, "borrow"))
    owner(drop)
    owner(drop_owned)
    assert counted(owner) == 2
    holder.kill()
    procfs.wait_until(lambda: counted(owner) == 1, "the dead one's reference is given back")
    assert other(lambda here: list(here.ref)) == [1, 2, 3]
    other(drop)
    gone(owner)


def test_a_loan_that_nobody_takes_ends(make_peer, holder):
    owner = make_peer(name="store", register=True, options={"lease": 0.5})
    owner(own)
    packed = owner(lend, "borrow")
    owner(drop)
    owner(drop_owned)
    assert there(owner)
    gone(owner)
    holder(take, packed)
    with pytest.raises(ReferenceInvalidError):
        holder(lambda here: len(here.ref))


def test_a_lender_that_dies_leaves_the_loan(make_peer, owner, holder):
    owner(own)
    holder(take, owner(lambda here: pickle.dumps(here.owned)))
    packed = holder(lambda here: pickle.dumps(here.ref))
    holder.kill()
    time.sleep(0.3)  # its end is noticed at once
    assert there(owner)
    last = make_peer(name="store", register=True)
    last(take, packed)
    assert last(lambda here: len(here.ref)) == 3


def test_a_pickle_that_is_loaded_twice(owner, holder):
    owner(own)
    owned = owner(lambda here: pickle.dumps(here.owned))
    holder(take, owned)

    def again(here):
        return sum(pickle.loads(owned))

    with pytest.raises(ReferenceInvalidError):
        holder(again)
    with pytest.raises(ReferenceInvalidError):
        owner(again)
    assert holder(lambda here: sum(here.ref)) == 6  # the first one has it

    def borrow_there(here):
        from proxystore_hpc.store.ref import borrow

        here.borrowed = borrow(here.ref)
        return pickle.dumps(here.borrowed)

    shared = holder(borrow_there)
    assert owner(lambda here: sum(pickle.loads(shared)) + sum(pickle.loads(shared))) == 12


def test_borrowing_rules_hold_between_processes(owner, holder):
    owner(own)
    holder(take, owner(lend, "borrow"))
    with pytest.raises(MutableBorrowError):
        owner(lend, "mut_borrow")
    owner(lend, "borrow")
    holder(drop)

    def ended(here):
        from proxystore_hpc.store.scopes import mark_refs_out_of_scope

        mark_refs_out_of_scope(here.ref)
        return here.store.stats()["references"]

    procfs.wait_until(lambda: owner(ended) == 1, "only the owner is left")
    holder(take, owner(lend, "mut_borrow"))
    for kind in ("borrow", "mut_borrow"):
        with pytest.raises(MutableBorrowError):
            owner(lend, kind)
    holder.kill()

    def again(here):
        try:
            return len(lend(here, "mut_borrow"))
        except MutableBorrowError:
            return 0

    procfs.wait_until(lambda: owner(again) > 0, "a dead borrower's reference is given back")


@pytest.mark.parametrize(
    "doors",
    [("shm",), ("socket",), pytest.param(("ucx",), marks=pytest.mark.full)],
    ids="+".join,
)
def test_a_change_elsewhere_is_seen_everywhere(make_peer, doors):
    if doors == ("ucx",):
        pytest.importorskip("libucx")
    owner = make_peer(name="store", capacity="64MiB", register=True, doors=doors)
    worker = make_peer(name="store", register=True, doors=doors)
    reader = make_peer(name="store", register=True, doors=doors)

    def make(here):
        here.owned = here.store.owned_proxy(np.zeros(50_000))
        here.key = here.owned.__proxy_factory__.key
        return here.key

    key = owner(make)

    def first(here):
        return float(here.store.get(key)[0])

    assert reader(first) == 0

    def change(here):
        from proxystore_hpc.store.ref import update

        for value in (1.0, 2.0):
            here.ref[0] = value
            update(here.ref)

    worker(take, owner(lend, "mut_borrow"))
    worker(change)
    assert reader(first) == 2
    assert reader(lambda here: here.store.get_batch([key, key])[1][0]) == 2
    worker(drop)

    def looks_again(here):
        from proxystore_hpc.store.scopes import mark_refs_out_of_scope

        mark_refs_out_of_scope(here.ref)
        return float(here.owned[0])

    assert owner(looks_again) == 2
    with pytest.raises(ReferenceInvalidError):
        worker(take, owner(lambda here: pickle.dumps(here.owned)))
        owner(lambda here: here.owned[0])


def test_submit_ends_references_when_the_call_is_done(owner):
    def run(here):
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        from proxystore_hpc.store.ref import borrow, mut_borrow
        from proxystore_hpc.store.scopes import submit

        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            future = submit(pool.submit, args=(sum, borrow(here.owned)), kwargs={"start": 4})
            total = future.result(30)
            procfs.wait_until(lambda: here.store.stats()["references"] == 1, "its scope has ended")
            mut_borrow(here.owned)
        return total

    owner(own)
    assert owner(run) == 10
    owner(drop_owned)
    assert not there(owner)


def test_many_references_of_a_killed_process_end_soon(owner, holder):
    def make(here):
        from proxystore_hpc.store.ref import borrow

        here.all = [here.store.owned_proxy([n]) for n in range(200)]
        here.mine = here.all[:100]
        return pickle.dumps([borrow(each) for each in here.all] + here.all[100:])

    holder(take, owner(make))
    assert counted(owner) == 400
    holder.kill()
    procfs.wait_until(lambda: counted(owner) == 100, "what the dead one held is given back")
    left = owner(lambda here: (here.store.stats()["objects"], sum(len(p) for p in here.mine)))
    assert left == (100, 100)


def test_what_a_store_elsewhere_owns_is_released_when_it_closes(owner, holder):
    owner(own)
    holder(take, owner(lambda here: pickle.dumps(here.owned)))
    holder(lambda here: here.store.close())
    gone(owner)
