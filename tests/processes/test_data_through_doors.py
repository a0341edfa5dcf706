"""Every kind of data through every door: owner and reader are two processes, no fall-back."""

from __future__ import annotations

import numpy as np
import pytest
from support import data, ways
from support.procfs import available_memory

from proxystore_hpc.exceptions import ObjectEvictedError

TWO_SIDED = ways.of_doors


class Pair:
    """An owner and a reader that share one door."""

    def __init__(self, make, way, **options):
        self.door = way.door
        self.owner, self.reader = way.stores(make, **options)

    def transfers(self):
        doors = self.reader(lambda here: here.doors)
        assert set(doors) <= {self.door}
        return doors.get(self.door, 0)


@pytest.fixture(scope="module")
def pair(make_lasting_peer, way):
    pair = Pair(make_lasting_peer, way, capacity="96MiB")
    yield pair
    assert pair.transfers() > 0


@pytest.mark.parametrize("name", data.EXAMPLES)
def test_objects_arrive_as_they_were(pair, name):
    key = pair.owner(lambda here: here.store.put(data.EXAMPLES[name]()))
    before = pair.transfers()
    wrong = pair.reader(
        lambda here: (
            data.difference(here.store.get(key), data.EXAMPLES[name]())
            or data.difference(here.store.get(key, writable=True), data.EXAMPLES[name]())
        )
    )
    assert wrong is None
    assert pair.transfers() == before + 2
    pair.owner(lambda here: here.store.evict(key))


@pytest.mark.parametrize("size", data.SIZES)
def test_every_size(pair, size):
    expected = data.pattern(size, seed=size)
    keys = pair.owner(lambda here: here.store.put_batch([expected, np.frombuffer(expected, "u1")]))
    before = pair.transfers()
    got = pair.reader(lambda here: [bytes(here.store.get(key)) for key in keys])
    assert got == [expected] * 2
    assert pair.transfers() == before + 2


def test_results_are_read_only_through_every_door(pair):
    key = pair.owner(lambda here: here.store.put(np.zeros(1000)))
    assert not pair.reader(lambda here: here.store.get(key).flags.writeable)


def test_writable_results_are_private(pair):
    for length in (10, 100_000):
        key = pair.owner(lambda here: here.store.put(np.arange(length)))  # noqa: B023

        def overwrite(here):
            mine = here.store.get(key, writable=True)  # noqa: B023
            mine[:] = -1
            return int(here.store.get(key).sum()), int(mine.sum())  # noqa: B023

        assert pair.reader(overwrite) == (length * (length - 1) // 2, -length)
        assert pair.owner(lambda here: int(here.store.get(key).sum())) >= 0  # noqa: B023


def test_batches_and_their_gaps(pair):
    keys = pair.owner(
        lambda here: here.store.put_batch([data.numbered(i, 10 * i * i) for i in range(40)])
    )
    pair.owner(lambda here: here.store.evict_batch(keys[::5]))
    before = pair.transfers()

    def read(here):
        objs = here.store.get_batch(keys)
        return [None if o is None else (len(o), bool((o == i).all())) for i, o in enumerate(objs)]

    expected = [None if i % 5 == 0 else (10 * i * i, True) for i in range(40)]
    assert pair.reader(read) == expected
    assert pair.transfers() == before + 32
    assert pair.reader(lambda here: here.store.exists_batch(keys)) == [
        e is not None for e in expected
    ]


def test_parts(pair):
    whole = data.pattern(1 << 20)
    key = pair.owner(lambda here: here.store.put(np.frombuffer(whole, "u1")))
    before = pair.transfers()
    cuts = [(0, 1), (0, 4096), (777, 100_000), ((1 << 20) - 3, 3), (1 << 20, 0)]
    got = pair.reader(
        lambda here: [bytes(here.store.get(key, offset=o, length=n)) for o, n in cuts]
    )
    assert got == [whole[o : o + n] for o, n in cuts]
    assert pair.transfers() == before + len(cuts)


def test_reading_into_memory(pair):
    key = pair.owner(lambda here: here.store.put(np.arange(50_000.0)))

    def read(here):
        target = np.zeros(60_000)
        count = here.store.get_into(key, target)
        tail = np.zeros(10)
        here.store.get_into(key, tail, offset=8 * 49_990)
        return count, bool((target[:50_000] == np.arange(50_000)).all()), tail.tolist()

    before = pair.transfers()
    assert pair.reader(read) == (400_000, True, list(range(49_990, 50_000)))
    assert pair.transfers() == before + 2


def test_sealed_arrays(pair):
    def put(here):
        array = here.store.empty((300, 400), "f4", order="F")
        array[:] = np.arange(120_000).reshape(300, 400)
        here.sealed = array
        return here.store.put(array)

    key = pair.owner(put)
    before = pair.transfers()

    def read(here):
        got = here.store.get(key)
        return bool((got == np.arange(120_000).reshape(300, 400)).all()), got.flags.f_contiguous

    assert pair.reader(read) == (True, True)
    assert pair.transfers() == before + 1


def test_registered_memory(pair):
    def register(here):
        here.array = np.arange(100_000.0)
        here.live = here.store.register(here.array)
        return here.live.key

    def change(here):
        with here.live.writing():
            here.array[:] = -1

    key = pair.owner(register)
    before = pair.transfers()
    assert pair.reader(lambda here: float(here.store.get(key).sum())) == 99_999 * 50_000
    pair.owner(change)
    assert pair.reader(lambda here: float(here.store.get(key).sum())) == -100_000
    part = pair.reader(lambda here: bytes(here.store.get(key, offset=799_992)))
    assert np.frombuffer(part)[0] == -1
    assert pair.reader(lambda here: here.store.get(key).flags.writeable) in (True, False)
    assert pair.transfers() == before + 4
    pair.owner(lambda here: here.live.close())
    with pytest.raises(ObjectEvictedError):
        pair.reader(lambda here: here.store.get_or_raise(key))


def test_storing_at_another(pair):
    address = to = pair.owner.addresses[0]
    if pair.door == "tcp":  # an address names no server
        to = pair.owner(lambda here: here.store.put(0))
    for name in ("nested", "array-f", "bytes", "array-empty", "none"):
        key = pair.reader(lambda here: here.store.put(data.EXAMPLES[name](), to=to))  # noqa: B023
        assert key.owner_id == address[:16]
        wrong = pair.owner(lambda here: data.difference(here.store.get(key), data.EXAMPLES[name]()))  # noqa: B023
        assert wrong is None


def test_an_evicted_object_is_told_from_others(pair):
    key = pair.owner(lambda here: here.store.put(np.arange(1000)))
    pair.reader(lambda here: here.store.get(key))
    pair.owner(lambda here: here.store.evict(key))
    with pytest.raises(ObjectEvictedError, match=key.owner):
        pair.reader(lambda here: here.store.get_or_raise(key))
    assert pair.reader(lambda here: here.store.get(key, default="gone")) == "gone"


def test_a_reader_may_evict(pair):
    keys = pair.owner(lambda here: here.store.put_batch([1, 2, 3]))
    pair.reader(lambda here: here.store.evict_batch(keys[:2]))
    assert pair.owner(lambda here: here.store.exists_batch(keys)) == [False, False, True]


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("nbytes", [(64 << 20) - 1, 64 << 20, (64 << 20) + 1])
def test_large_objects(make_peer, way, nbytes):
    pair = Pair(make_peer, way, capacity="256MiB")
    key = pair.owner(lambda here: here.store.put(np.frombuffer(data.pattern(nbytes), "u1")))

    def read(here):
        return here.store.get(key).tobytes() == data.pattern(nbytes), here.doors

    assert pair.reader(read, timeout=100) == (True, {way.door: 1})


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("gigabytes", [2, 4])
def test_objects_that_32_bits_cannot_count(make_peer, way, gigabytes):
    nbytes = (gigabytes << 30) + 4097
    needed = (2 if way.door == "shm" else 3) * nbytes + (1 << 30)
    if available_memory() < needed:
        pytest.skip(f"needs {needed >> 30} GiB of free memory")
    pair = Pair(make_peer, way, capacity=nbytes + (64 << 20), timeout=300)

    def put(here):
        array = here.store.empty(nbytes, "u1")
        array[:] = 7
        marks = np.arange(0, nbytes, (1 << 28) + 1)
        array[marks] = np.arange(len(marks))
        array[-3:] = (11, 12, 13)
        return here.store.put(array)

    def read(here):
        got = here.store.get(key)
        marks = np.arange(0, nbytes, (1 << 28) + 1)
        others = len(got) - len(marks) - 3
        return (
            got.nbytes,
            bool((got[marks] == np.arange(len(marks))).all()),
            got[-3:].tolist(),
            sum(int((part == 7).sum()) for part in np.array_split(got, 64)) - others <= 1,
            bytes(here.store.get(key, offset=nbytes - 3)),
            set(here.doors),
        )

    key = pair.owner(put, timeout=300)
    expected = (nbytes, True, [11, 12, 13], True, bytes([11, 12, 13]), {way.door})
    assert pair.reader(read, timeout=500) == expected
