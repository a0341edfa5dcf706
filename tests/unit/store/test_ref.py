from __future__ import annotations

import copy
import gc
import os
import pickle

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from proxystore_hpc import Store
from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    MutableBorrowError,
    NonProxiableTypeError,
    ObjectEvictedError,
    ProxyResolveError,
    ProxyStoreFactoryError,
    ReferenceInvalidError,
    ReferenceNotOwnedError,
    StoreFullError,
)
from proxystore_hpc.proxy import Proxy, get_factory, is_resolved
from proxystore_hpc.store.ref import (
    OwnedProxy,
    RefMutProxy,
    RefProxy,
    borrow,
    clone,
    into_owned,
    mut_borrow,
    update,
)


@pytest.fixture
def store():
    with Store("references", capacity="64MiB", register=True) as store:
        yield store


def key_of(proxy):
    return get_factory(proxy).key


def test_an_owner_ends_its_object(store):
    owned = store.owned_proxy([1, 2])
    key = key_of(owned)
    assert type(owned) is OwnedProxy
    assert isinstance(owned, list)
    assert owned == [1, 2]
    assert store.exists(key)
    del owned
    assert not store.exists(key)
    assert store.stats()["references"] == 0


@pytest.mark.parametrize("value", [None, True, False])
def test_what_is_compared_by_identity_is_not_owned(store, value):
    assert store.owned_proxy(value) is value
    with pytest.raises(NonProxiableTypeError):
        store.owned_proxy(value, skip_nonproxiable=False)
    assert store.stats()["objects"] == 0


@pytest.mark.parametrize("populate", [True, False])
def test_populating(store, populate):
    owned = store.owned_proxy([1], populate_target=populate)
    assert is_resolved(owned) is populate
    for function in (borrow, mut_borrow):
        assert is_resolved(function(owned)) is populate
        assert not is_resolved(function(owned, populate_target=False))
    assert is_resolved(into_owned(store.proxy([1]), populate_target=False)) is False


def test_borrowing(store):
    owned = store.owned_proxy([1, 2])
    one, other = borrow(owned), borrow(owned)
    assert type(one) is RefProxy
    assert one == other == [1, 2]
    with pytest.raises(MutableBorrowError, match="immutable"):
        mut_borrow(owned)
    del one, other
    changing = mut_borrow(owned)
    assert type(changing) is RefMutProxy
    for function in (borrow, mut_borrow, update):
        with pytest.raises(MutableBorrowError):
            function(owned)
    del changing
    borrow(owned)


def test_a_borrowed_object_outlives_its_owner(store):
    owned = store.owned_proxy([1, 2])
    key, reference = key_of(owned), pickle.loads(pickle.dumps(borrow(owned)))
    del owned
    assert reference == [1, 2]
    del reference
    assert not store.exists(key)


@pytest.mark.parametrize("function", [borrow, mut_borrow, clone])
def test_only_owners_are_borrowed_and_cloned(store, function):
    owned = store.owned_proxy([1])
    for wrong in (borrow(owned), Proxy(list), [1]):
        with pytest.raises(ReferenceNotOwnedError):
            function(wrong)


def test_updates(store):
    owned = store.owned_proxy({"a": 1})
    key = key_of(owned)
    owned["a"] = 2
    assert store.get(key) == {"a": 1}
    update(owned)
    assert store.get(key) == {"a": 2}
    changing = mut_borrow(owned, populate_target=False)
    update(changing)  # nothing to do
    changing["a"] = "a longer value than before"
    update(changing)
    assert store.get(key) == owned == {"a": "a longer value than before"}
    del changing
    with pytest.raises(ReferenceNotOwnedError):
        update(borrow(owned))
    with pytest.raises(ReferenceNotOwnedError):
        update(store.proxy([1]))
    assert store.stats()["objects"] == 2


def test_an_update_that_fails_changes_nothing(store):
    owned = store.owned_proxy([0])
    key = key_of(owned)
    owned.append(np.zeros(80 << 20, "u1"))
    with pytest.raises(StoreFullError):
        update(owned)
    assert store.get(key) == [0]
    owned.pop()
    owned.append(1)
    update(owned)
    assert store.get(key) == [0, 1]


def test_views_of_an_earlier_value_stay(store):
    owned = store.owned_proxy(np.zeros(10_000), populate_target=False)
    before = store.get(key_of(owned))
    changing = mut_borrow(owned)
    changing[:] = 1
    update(changing)
    del changing
    for _ in range(5):
        store.put(np.full(10_000, 7.0))
    assert not before.any()
    assert owned.all()


def test_clones(store):
    owned = store.owned_proxy([[1]])
    copied = clone(owned)
    copied[0].append(2)
    assert owned == [[1]]
    assert key_of(copied) != key_of(owned)
    assert store.get(key_of(copied)) == [[1]]
    unresolved = clone(store.owned_proxy([3], populate_target=False))
    assert unresolved == [3]
    del owned, copied, unresolved
    assert store.stats()["objects"] == 0


def test_into_owned(store):
    proxy = store.proxy([1], evict=True)
    owned = into_owned(proxy)
    assert store.exists(key_of(owned))
    assert not get_factory(owned).evict
    with pytest.raises(MutableBorrowError):
        into_owned(store.proxy_from_key(key_of(owned)))
    for reference in (owned, borrow(owned)):
        with pytest.raises(InvalidArgumentError):
            into_owned(reference)
    with pytest.raises(ProxyStoreFactoryError):
        into_owned(Proxy(list))
    gone = store.proxy([2])
    store.evict(key_of(gone))
    with pytest.raises(ObjectEvictedError):
        into_owned(gone)


@pytest.mark.parametrize("function", [copy.copy, copy.deepcopy])
def test_references_are_not_copied(store, function):
    owned = store.owned_proxy([1])
    for reference in (owned, borrow(owned)):
        with pytest.raises(NotImplementedError):
            function(reference)


def test_pickling_moves(store):
    owned = store.owned_proxy([1])
    moved = pickle.loads(pickle.dumps(owned))
    assert type(moved) is OwnedProxy
    assert moved == [1]
    for use in (len, borrow, mut_borrow, clone, update, pickle.dumps):
        with pytest.raises(ReferenceInvalidError):
            use(owned)
    del owned
    assert moved == [1]
    assert isinstance(pickle.loads(pickle.dumps(moved)), list)


def test_a_pickle_that_cannot_be_made_leaves_the_reference(store):
    owned = store.owned_proxy([1])
    store.evict(key_of(owned))
    with pytest.raises(ObjectEvictedError):
        pickle.dumps(owned)
    assert owned == [1]


def test_pickles_are_small(store):
    assert len(pickle.dumps(store.owned_proxy(np.zeros(10)))) <= 350


def test_constructors(store):
    factory = get_factory(store.proxy([1]))
    owned = OwnedProxy(factory)
    assert owned == [1]
    with pytest.raises(MutableBorrowError):
        OwnedProxy(factory)
    gc.collect()
    assert owned == [1]
    reference = RefProxy(factory, owner=owned, target=[2])
    assert reference == [2]
    with pytest.raises(MutableBorrowError):
        RefMutProxy(factory, owner=owned)


def test_a_closed_store(store):
    other = Store("closing", capacity="16MiB", register=True)
    owned = other.owned_proxy([1], populate_target=False)
    other.close()
    with pytest.raises(ProxyResolveError):
        len(owned)
    del owned


def test_a_forked_child_ends_no_reference(store):
    owned = store.owned_proxy([1])
    child = os.fork()
    if child == 0:
        del owned
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert store.stats()["references"] == 1
    assert store.get(key_of(owned)) == [1]


class References(RuleBasedStateMachine):
    """Any order of operations: the object is there for as long as there are references."""

    owners, shared, exclusive = Bundle("owners"), Bundle("shared"), Bundle("exclusive")

    def __init__(self):
        super().__init__()
        self.store = Store("machine", capacity="16MiB", register=True)
        self.owned = self.store.owned_proxy([0])
        self.key = key_of(self.owned)
        self.counts = {"shared": 0, "exclusive": 0}

    @rule(target=shared)
    def borrow(self):
        if self.owned is None:
            return []
        if self.counts["exclusive"]:
            with pytest.raises(MutableBorrowError):
                borrow(self.owned)
            return []
        self.counts["shared"] += 1
        return [borrow(self.owned)]

    @rule(target=exclusive)
    def mut_borrow(self):
        if self.owned is None:
            return []
        if any(self.counts.values()):
            with pytest.raises(MutableBorrowError):
                mut_borrow(self.owned)
            return []
        self.counts["exclusive"] += 1
        return [mut_borrow(self.owned, populate_target=False)]

    @rule(holder=st.one_of(shared, exclusive))
    def move(self, holder):
        if holder:
            holder[0] = pickle.loads(pickle.dumps(holder[0]))
            assert holder[0][0] >= 0

    @rule(holder=exclusive)
    def update(self, holder):
        if holder:
            holder[0][0] += 1
            update(holder[0])
            assert self.store.get(self.key) == list(holder[0])

    @rule(holder=consumes(shared))
    def drop_shared(self, holder):
        self.counts["shared"] -= len(holder)
        holder.clear()

    @rule(holder=consumes(exclusive))
    def drop_exclusive(self, holder):
        self.counts["exclusive"] -= len(holder)
        holder.clear()

    @rule()
    def move_owner(self):
        if self.owned is not None:
            self.owned = pickle.loads(pickle.dumps(self.owned))

    @rule()
    def drop_owner(self):
        self.owned = None

    @invariant()
    def counted(self):
        stats = self.store.stats()
        references = sum(self.counts.values()) + (self.owned is not None)
        # A reference in this process keeps an owner of this process, unless that was moved.
        assert stats["references"] - references in (0, 1)
        assert stats["objects"] == (stats["references"] > 0)

    def teardown(self):
        self.store.close()


TestReferences = References.TestCase
TestReferences.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
