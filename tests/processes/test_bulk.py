"""Bulk transfers between processes: every way, every kind of buffer, both directions."""

from __future__ import annotations

import asyncio
import pickle
import time
from types import SimpleNamespace

import numpy as np
import pytest
from support.bulk import WAYS, Pair, transfer_ways
from support.data import pattern
from support.doors import require_door
from support.engines import open_engine
from support.procfs import available_memory

from proxystore_hpc import Engine
from proxystore_hpc.exceptions import (
    AccessDeniedError,
    BulkClosedError,
    DoorUnavailableError,
    InvalidArgumentError,
    OperationTimeoutError,
)


@pytest.fixture(scope="module", params=WAYS)
def pair(request, make_lasting_peer):
    """An owner and another process, between which one way is open."""
    return Pair(make_lasting_peer, request.param)


def test_pull_and_push(pair):
    owner, other = pair
    bulk = owner.expose(pattern(100_000), "rw")
    taken = other(lambda here: bytes(bulk.pull(here.engine)))
    assert taken == pattern(100_000)
    other(lambda here: bulk.push(here.engine, pattern(100_000, seed=7)))
    assert owner.contents() == pattern(100_000, seed=7)
    assert other(transfer_ways, bulk) == pair.way


@pytest.mark.parametrize("size", [1, 63, 4096, 65_537, (8 << 20) + 1])
def test_every_size(pair, size):
    owner, other = pair
    bulk = owner.expose(pattern(size), "rw")

    def swap(here):
        got = bulk.pull(here.engine)
        assert not got.readonly
        same = bytes(got) == pattern(size)
        bulk.push(here.engine, got[::1].tobytes()[::-1])
        return same

    assert other(swap)
    assert owner.contents() == pattern(size)[::-1]


def test_parts_and_offsets(pair):
    owner, other = pair
    bulk = owner.expose(pattern(10_000), "rw")
    whole = pattern(10_000)

    def parts(here):
        engine = here.engine
        into = bytearray(50)
        assert bulk[100:200].pull(engine, into, offset=50) is into
        return (
            bytes(bulk.pull(engine, offset=9_990)),
            bytes(bulk.pull(engine, offset=5, length=7)),
            bytes(bulk[-3:].pull(engine)),
            bytes(into),
            bytes(bulk.select(500)[5:10].pull(engine, length=2)),
            bytes(bulk[7:7].pull(engine)),
        )

    expected = (whole[-10:], whole[5:12], whole[-3:], whole[150:200], whole[505:507], b"")
    assert other(parts) == expected
    other(lambda here: bulk[2_000:].push(here.engine, b"abc", offset=10))
    assert owner.contents() == whole[:2_010] + b"abc" + whole[2_013:]


def test_scatter_and_gather(pair):
    owner, other = pair
    bulk = owner.expose([pattern(1_000), pattern(1), pattern(5_000)], "rw")
    assert bulk.segments == (1_000, 1, 5_000)

    def scatter(here):
        targets = [np.zeros(500, "u1"), bytearray(3), np.zeros((49, 50), "i2")]
        assert bulk.pull(here.engine, targets, offset=500) is targets
        bulk.push(here.engine, [b"x" * 600, np.full(600, ord("y"), "u1")], offset=200)
        return b"".join(bytes(target) for target in targets)

    whole = pattern(1_000) + pattern(1) + pattern(5_000)
    assert other(scatter) == whole[500 : 500 + 5_403]
    assert owner.contents()[200:1_400] == b"x" * 600 + b"y" * 600


def test_many_in_flight(pair):
    owner, other = pair
    bulk = owner.expose(bytes(200 * 5_000), "rw")

    def all_at_once(here):
        pushes = [
            bulk.submit_push(here.engine, bytes([i]) * 5_000, offset=i * 5_000) for i in range(200)
        ]
        for push in pushes:
            push.result()
            assert push.done()
        pulls = [bulk.submit_pull(here.engine, offset=i * 5_000, length=5_000) for i in range(200)]
        assert all(pull.wait(30) for pull in pulls)
        return [bytes(pull.result()) == bytes([i]) * 5_000 for i, pull in enumerate(pulls)]

    assert all(other(all_at_once))


def test_transfers_are_awaited(pair):
    owner, other = pair
    bulk = owner.expose(pattern(50_000), "r")

    def gather(here):
        async def main():
            async def one(i):
                return bytes(await bulk.submit_pull(here.engine, offset=i * 1_000, length=1_000))

            return b"".join(await asyncio.gather(*(one(i) for i in range(50))))

        return asyncio.run(main())

    assert other(gather) == pattern(50_000)


def test_prepared_transfers(pair):
    owner, other = pair
    bulk = owner.expose(pattern(50_000), "rw")

    def repeat(here):
        into = bytearray(20_000)
        pull = bulk.prepare_pull(here.engine, into, offset=10_000)
        source = np.zeros(100, "u1")
        push = bulk.prepare_push(here.engine, source, offset=10_000)
        several = bulk.prepare_pull(here.engine, [bytearray(7), bytearray(9)], offset=9_999)
        seen = []
        for i in range(5):
            source[:] = i
            assert push() is source
            assert pull() is into
            assert bytes(into[100:]) == pattern(50_000)[10_100:30_000]
            seen.append(set(into[:100]))
            first, second = several()
            assert first[1:] + second == bytes([i]) * 15
        return seen

    assert other(repeat) == [{i} for i in range(5)]


def test_prepared_transfers_see_the_end_of_the_memory(pair):
    owner, other = pair
    bulk = owner.expose(pattern(5_000), "r")

    def prepare(here):
        here.pull = bulk.prepare_pull(here.engine, bytearray(5_000))
        assert bytes(here.pull()) == pattern(5_000)
        with pytest.raises(InvalidArgumentError):
            bulk.prepare_pull(here.engine, bytearray(10), offset=4_991)
        with pytest.raises(InvalidArgumentError, match="memory of yours"):
            bulk.prepare_pull(here.engine, None)
        with pytest.raises(AccessDeniedError, match="not exposed for writing"):
            bulk.prepare_push(here.engine, b"x")()

    other(prepare)
    owner.close()

    def after(here):
        for _ in range(2):
            with pytest.raises(BulkClosedError, match="closed"):
                here.pull()

    other(after)


def test_closed_memory(pair):
    owner, other = pair
    bulk = owner.expose(pattern(5_000), "rw")
    assert other(lambda here: len(bulk.pull(here.engine))) == 5_000
    owner.close()

    def try_all(here):
        caught = []
        for attempt in (
            lambda: bulk.pull(here.engine),
            lambda: bulk.push(here.engine, bytes(5_000)),
            lambda: bulk.submit_pull(here.engine).result(),
            lambda: bulk.submit_push(here.engine, b"x").result(),
        ):
            with pytest.raises(BulkClosedError) as error:
                attempt()
            caught.append(str(error.value))
        return caught

    assert all("closed" in message for message in other(try_all))
    again = owner.expose(pattern(5_000), "r")
    assert other(lambda here: bytes(again.pull(here.engine))) == pattern(5_000)


def test_modes(pair):
    owner, other = pair
    readable = owner.expose(pattern(500), "r")

    def push(here):
        readable.push(here.engine, b"x")

    with pytest.raises(AccessDeniedError, match="not exposed for writing"):
        other(push)
    writable = owner.expose(bytes(500), "w")
    other(lambda here: writable.push(here.engine, b"x"))
    with pytest.raises(AccessDeniedError, match="not exposed for reading"):
        other(lambda here: writable.pull(here.engine))


def test_outside(pair):
    owner, other = pair
    bulk = owner.expose(pattern(500), "rw")

    def outside(here):
        for attempt in (
            lambda: bulk.pull(here.engine, offset=501),
            lambda: bulk.pull(here.engine, length=501),
            lambda: bulk.pull(here.engine, bytearray(10), offset=491),
            lambda: bulk.pull(here.engine, bytearray(10), length=5),
            lambda: bulk.push(here.engine, bytes(501)),
            lambda: bulk.pull(here.engine, offset=-1),
        ):
            with pytest.raises(InvalidArgumentError):
                attempt()

    other(outside)


def test_kinds_of_exposed_buffers(pair):
    pytest.importorskip("cffi")
    owner, other = pair
    for name in ("numpy", "cffi", "mmap", "memoryview"):
        bulk = owner.expose_made(name, pattern(4_096))
        assert other(lambda here: bytes(bulk.pull(here.engine))) == pattern(4_096), name  # noqa: B023
        other(lambda here: bulk.push(here.engine, pattern(4_096, seed=3)))  # noqa: B023
        assert owner.contents() == pattern(4_096, seed=3), name


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["process", "tcp", "ucx"])
def test_more_than_32_bits_can_count(make_peer, way):
    nbytes = (2 << 30) + 4_097
    if available_memory() < 3 * nbytes:
        pytest.skip(f"needs {3 * nbytes >> 30} GiB of free memory")
    owner, other = Pair(make_peer, way)
    bulk = owner(expose_large, nbytes, timeout=120)

    def pull(here):
        into = np.zeros(nbytes, "u1")
        bulk.pull(here.engine, into, timeout=200)
        ends = into[:3].tolist(), into[-3:].tolist(), int(into[1 << 31])
        bulk[-3:].push(here.engine, b"end")
        return ends

    assert other(pull, timeout=300) == ([1, 2, 3], [7, 8, 9], 5)
    assert owner(lambda here: bytes(here.exposed[-3:])) == b"end"


def expose_large(here, nbytes):
    here.exposed = np.zeros(nbytes, "u1")
    here.exposed[:3] = 1, 2, 3
    here.exposed[-3:] = 7, 8, 9
    here.exposed[1 << 31] = 5
    here.bulk = here.engine.expose(here.exposed, "rw")
    return here.bulk


def test_a_stored_handle(pair):
    owner, other = pair
    packed = pickle.dumps(owner.expose(pattern(300), "r"))
    assert other(lambda here: bytes(pickle.loads(packed).pull(here.engine))) == pattern(300)


def test_time_limits(make_peer):
    """A stopped owner keeps neither the caller nor its own memory."""
    owner, other = Pair(make_peer, "tcp")
    bulk = owner.expose(pattern(1_000_000), "rw")
    assert other(lambda here: len(bulk.pull(here.engine))) == 1_000_000
    owner.peer.stop()

    def wait(here):
        into = bytearray(1_000_000)
        with pytest.raises(OperationTimeoutError):
            bulk.pull(here.engine, into, timeout=0.3)
        with pytest.raises(OperationTimeoutError):
            bulk.submit_pull(here.engine, timeout=0.3).result()
        return True

    assert other(wait)
    owner.peer.resume()

    def until_it_works(here):
        for _ in range(100):
            try:
                return len(bulk.pull(here.engine))
            except DoorUnavailableError:
                time.sleep(0.1)
        return None

    assert other(until_it_works) == 1_000_000


@pytest.mark.parametrize(
    ("transport", "door"), [("shm", "shm"), ("shm", "socket"), ("ucx", "ucx"), ("tcp", "ucx")]
)
def test_an_engine_keeps_to_the_door_that_it_was_given(make_peer, transport, door):
    require_door(door)
    owner = make_peer()
    open_engine(owner, address=transport)
    bulk = owner(_lend)
    with Engine(transport, bulk_door=door, capacity="64MiB") as engine:
        assert bytes(bulk.pull(engine)) == pattern(100_000)
        bulk.push(engine, pattern(100_000, seed=7))
        assert transfer_ways(SimpleNamespace(engine=engine), bulk) == door
        pull = bulk.prepare_pull(engine, bytearray(100_000))
        assert all(bytes(pull()) == pattern(100_000, seed=7) for _ in range(3))
        assert bytes(bulk.submit_pull(engine).result(10)) == pattern(100_000, seed=7)


def test_where_the_given_door_does_not_lead_nothing_else_is_taken(make_peer):
    require_door("ucx")
    owner = make_peer()
    open_engine(owner, address="shm")
    bulk = owner(_lend)
    with (
        Engine("ucx", bulk_door="ucx", capacity="64MiB") as engine,
        pytest.raises(DoorUnavailableError, match="allowed: ucx"),
    ):
        bulk.pull(engine, timeout=2)


def _lend(here):
    here.bulk = here.engine.expose(bytearray(pattern(100_000)), "rw")
    return here.bulk
