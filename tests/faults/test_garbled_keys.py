"""Keys that were cut short, garbled or forged, through every door: errors, never a crash."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.doors import REMOTE_DOORS, options_for

from proxystore_hpc.exceptions import AccessDeniedError, InvalidKeyError, ProxyStoreHpcError
from proxystore_hpc.key import Key

pytestmark = pytest.mark.faults

USES = {
    "get": lambda store, key: store.get(key),
    "writable": lambda store, key: store.get(key, writable=True),
    "part": lambda store, key: store.get(key, offset=0, length=8),
    "into": lambda store, key: store.get_into(key, bytearray(100)),
    "batch": lambda store, key: store.get_batch([key]),
    "exists": lambda store, key: store.exists(key),
    "wait": lambda store, key: store.wait_for(key, timeout=0.05),
}


def use_all(here, packed):
    """Tries each use of each key; tells which raised something that is not ours."""
    strange = []
    for one in packed:
        for name, use in USES.items():
            try:
                use(here.store, Key(one))
            except ProxyStoreHpcError:
                continue
            except Exception as error:
                strange.append((name, one.hex(), repr(error)))
    return strange


@pytest.fixture(scope="module", params=REMOTE_DOORS)
def served(request, make_lasting_peer):
    """A reader, and keys of an owner: an array, something tiny, live memory."""
    options = {**options_for(request.param), "cache_size": 0, "timeout": 2, "capacity": "64MiB"}
    owner = make_lasting_peer(name="store", **options)
    reader = make_lasting_peer(name="store", **options)

    def fill(here):
        here.live = here.store.register(np.arange(1000.0))
        return [*here.store.put_batch([np.arange(20_000.0), b"tiny"]), here.live.key]

    keys = owner(fill)
    reader(lambda here: here.store.get_batch(keys))
    return reader, keys


def mutated(keys):
    """Some bytes of a key replaced, mostly of what says where the object is."""

    def change(key, position, value):
        packed = bytearray(bytes(key))
        packed[position : position + len(value)] = value
        return bytes(packed[: len(bytes(key))])

    return st.builds(
        change,
        st.sampled_from(keys),
        st.one_of(st.integers(0, 35), st.integers(0, 75)),
        st.binary(min_size=1, max_size=8),
    )


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_nothing_crashes(served, data):
    reader, keys = served
    packed = data.draw(st.lists(mutated(keys), min_size=20, max_size=20))
    assert reader(use_all, packed, timeout=50) == []
    assert reader(lambda here: bytes(here.store.get(keys[1]))) == b"tiny"


def with_field(key, position, value, size):
    packed = bytearray(bytes(key))
    packed[position : position + size] = value.to_bytes(size, "little")
    return bytes(packed)


def test_extreme_values_of_every_field(served):
    """Flags, segment, object, generation, offset, length, at the edges of their ranges."""
    reader, keys = served
    fields = {1: 1, 2: 2, 4: 8, 12: 8, 20: 8, 28: 8}
    packed = [
        with_field(key, position, value & (256**size - 1), size)
        for key in keys
        for position, size in fields.items()
        for value in (0, 1, 3, 63, 1 << 30, (1 << 48) - 1, (1 << 48) - 64, 1 << 63, -1, -64, -65)
    ]
    assert reader(use_all, packed, timeout=55) == []
    assert reader(lambda here: float(here.store.get(keys[0]).sum())) == 19_999 * 10_000.0


def test_cut_short(served):
    reader, keys = served
    packed = [bytes(keys[0])[:length] for length in range(0, len(bytes(keys[0])), 5)]
    assert reader(use_all, packed) == []
    with pytest.raises(InvalidKeyError, match="cut short"):
        reader(lambda here: here.store.get(Key(packed[3])))


def test_a_forged_capability_opens_nothing(make_peer, owner):
    """The right place with the wrong capability, from a process that knows nothing else."""
    key = owner(lambda here: here.store.put(np.arange(1000)))
    packed = bytearray(bytes(key))
    packed[40] ^= 1
    stranger = make_peer(name="store", doors=("shm",))
    forged = Key(bytes(packed))
    for use in (
        lambda here: here.store.get(forged),
        lambda here: here.store.evict(forged),
        lambda here: here.store.exists(forged),
    ):
        with pytest.raises(AccessDeniedError, match="issued"):
            stranger(use)
    assert owner(lambda here: here.store.exists(key))


def test_keys_of_another_owner_of_the_same_name(make_peer, owner, reader):
    other = make_peer(name="store")
    first = owner(lambda here: here.store.put("first"))
    second = other(lambda here: here.store.put("second"))
    assert reader(lambda here: here.store.get_batch([first, second])) == ["first", "second"]
    mixed = bytes(first)[:52] + bytes(second)[52:]
    with pytest.raises(AccessDeniedError):
        reader(lambda here: here.store.get_or_raise(Key(mixed)))
