"""Lifetimes of objects in other processes."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from support import procfs

from proxystore_hpc.exceptions import LifetimeEndedError
from proxystore_hpc.key import Key


@pytest.fixture
def holder(make_peer):
    """Whose lifetime it is."""
    return make_peer(name="store", register=True)


def missing(owner, keys):
    return owner(lambda here: [not here.store.exists(key) for key in keys])


def put_elsewhere(here, address, lifetime):
    here.lifetime = lifetime(here)
    return [here.store.put(n, lifetime=here.lifetime, to=address) for n in range(3)]


def lease(seconds, **options):
    def make(here):
        from proxystore_hpc.store.lifetimes import LeaseLifetime

        return LeaseLifetime(here.store, seconds, **options)

    return make


def test_a_lease_ends_where_the_objects_are(owner, holder):
    keys = holder(put_elsewhere, owner.addresses[0], lease(1.5))
    assert missing(owner, keys) == [False] * 3
    holder.kill()
    assert missing(owner, keys) == [False] * 3
    procfs.wait_until(lambda: all(missing(owner, keys)), "the lease is over")


@pytest.mark.full
def test_an_extended_lease(owner, holder):
    keys = holder(put_elsewhere, owner.addresses[0], lease(2))
    holder(lambda here: here.lifetime.extend(60))
    time.sleep(2.5)  # longer than it was at first
    assert missing(owner, keys) == [False] * 3
    assert not holder(lambda here: here.lifetime.done())
    holder(lambda here: here.lifetime.close())
    assert missing(owner, keys) == [True] * 3
    with pytest.raises(LifetimeEndedError):
        holder(lambda here: here.lifetime.extend(1))


@pytest.mark.full
def test_a_patient_lease_is_renewed_while_its_holder_lives(owner, holder):
    keys = holder(put_elsewhere, owner.addresses[0], lease(60, patience=1.0))
    time.sleep(2)
    assert missing(owner, keys) == [False] * 3
    holder.kill()
    procfs.wait_until(lambda: all(missing(owner, keys)), "nobody renews it any more")


def test_a_context_evicts_elsewhere(owner, holder):
    def context(here):
        from proxystore_hpc.store.lifetimes import ContextLifetime

        return ContextLifetime(here.store)

    keys = holder(put_elsewhere, owner.addresses[0], context)
    assert missing(owner, keys) == [False] * 3
    holder(lambda here: here.lifetime.close())
    assert missing(owner, keys) == [True] * 3


PROGRAM = """
import sys
from proxystore_hpc import Store
from proxystore_hpc.store.lifetimes import ContextLifetime, StaticLifetime, register_lifetime_atexit

store = Store("store", register=True)
to = bytes.fromhex(sys.argv[1])
keys = [store.put("static", lifetime=StaticLifetime(), to=to)]
context = ContextLifetime(store)
register_lifetime_atexit(context)
keys.append(store.put("context", lifetime=context, to=to))
assert all(store.exists_batch(keys))
print(*(key.packed.hex() for key in keys))
"""


def test_the_end_of_a_program_ends_its_lifetimes(owner):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, owner.addresses[0].hex()],
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert done.returncode == 0, done.stderr
    keys = [Key(bytes.fromhex(text)) for text in done.stdout.split()]
    assert missing(owner, keys) == [True, True]
    assert not done.stderr
