"""References and leases over a connector: this process keeps count and time."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from support import procfs

from proxystore_hpc import Store
from proxystore_hpc.connectors.file import FileConnector
from proxystore_hpc.exceptions import (
    BaseRefProxyError,
    MutableBorrowError,
    ObjectMissingError,
    ReferenceInvalidError,
)
from proxystore_hpc.store import get_key
from proxystore_hpc.store.lifetimes import ContextLifetime, LeaseLifetime
from proxystore_hpc.store.ref import borrow, clone, into_owned, mut_borrow, update
from proxystore_hpc.store.scopes import mark_refs_out_of_scope


@pytest.fixture
def store(tmp_path):
    connector = FileConnector(str(tmp_path / "a"))
    with Store("shared", connector, register=True, populate_target=False) as store:
        yield store


def gone(store, key):
    procfs.wait_until(lambda: not store.exists(key), "the object is gone")


def test_the_end_of_the_owner_is_the_object_s(store):
    owned = store.owned_proxy([1, 2])
    key = get_key(owned)
    assert owned == [1, 2]
    assert store.exists(key)
    del owned
    gone(store, key)


def test_borrowed_objects_live_on(store):
    owned = store.owned_proxy([1])
    key = get_key(owned)
    one, two = borrow(owned), borrow(owned)
    with pytest.raises(MutableBorrowError):
        mut_borrow(owned)
    mark_refs_out_of_scope(two)
    del owned
    assert one == [1]
    assert store.exists(key)
    del one
    gone(store, key)


def test_the_mutable_reference_changes_the_object(store):
    owned = store.owned_proxy(np.zeros(3))
    changing = mut_borrow(owned)
    with pytest.raises(MutableBorrowError):
        borrow(owned)
    with pytest.raises(MutableBorrowError):
        _ = owned.shape
        update(owned)
    changing[0] = 7
    update(changing)
    mark_refs_out_of_scope(changing)
    assert borrow(owned)[0] == 7
    assert store.get(get_key(owned))[0] == 7


def test_a_clone_is_another_object(store):
    owned = store.owned_proxy([1])
    copied = clone(owned)
    assert get_key(copied) != get_key(owned)
    del owned
    assert copied == [1]


def test_a_plain_proxy_becomes_an_owner_once(store):
    proxy = store.proxy([1])
    owned = into_owned(proxy)
    with pytest.raises(MutableBorrowError):
        into_owned(store.proxy_from_key(get_key(proxy)))
    key = get_key(owned)
    del owned
    gone(store, key)
    with pytest.raises(ObjectMissingError):
        into_owned(store.proxy_from_key(key))


def test_a_pickled_owner_goes(store):
    owned = store.owned_proxy([1])
    key = get_key(owned)
    pickled = pickle.dumps(owned)
    with pytest.raises(ReferenceInvalidError):
        _ = owned[0]
    del owned
    again = pickle.loads(pickled)
    assert again == [1]
    del again
    gone(store, key)


def test_a_borrowed_owner_stays(store):
    owned = store.owned_proxy([1])
    reference = borrow(owned)
    with pytest.raises(BaseRefProxyError, match="borrowed"):
        pickle.dumps(owned)
    assert reference == owned == [1]


def test_a_reference_that_nobody_loads_ends(tmp_path):
    connector = FileConnector(str(tmp_path / "a"))
    options = {"lease": 0.05}
    with Store("leased", connector, register=True, options=options) as store:
        owned = store.owned_proxy([1])
        pickle.dumps(borrow(owned))
        with pytest.raises(MutableBorrowError):
            mut_borrow(owned)

        def free():
            try:
                return mut_borrow(owned) is not None
            except MutableBorrowError:
                return False

        procfs.wait_until(free, "the lease is over")


def test_an_owner_goes_to_another_process(store):
    owned = store.owned_proxy([5])
    key = get_key(owned)
    program = (
        "import pickle, sys\nproxy = pickle.loads(bytes.fromhex(sys.argv[1]))\nprint(proxy[0])\n"
    )
    command = [sys.executable, "-c", program, pickle.dumps(owned).hex()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout == "5\n"
    assert not store.exists(key)


def test_what_is_owned_ends_with_the_store(tmp_path):
    connector = FileConnector(str(tmp_path / "a"), clear=False)
    store = Store("ends", connector)
    owned = store.owned_proxy([1])
    key, kept = get_key(owned), store.put([2])
    store.close()
    again = FileConnector(str(tmp_path / "a"))
    assert not again.exists(key)
    assert again.exists(kept)


def test_lifetimes(store):
    with ContextLifetime(store) as lifetime:
        key = store.put([1], lifetime=lifetime)
        proxy = store.proxy([2], lifetime=lifetime)
        assert proxy == [2]
    assert not store.exists(key)
    assert not store.exists(get_key(proxy))
    lease = LeaseLifetime(store, 0.05)
    key = store.put([3], lifetime=lease)
    lease.extend(0.05)
    assert store.exists(key)
    gone(store, key)
    assert lease.done()
