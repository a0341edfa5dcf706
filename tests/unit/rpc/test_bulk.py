"""Bulk handles within one process: buffers, parts, modes, ends."""

from __future__ import annotations

import asyncio
import gc
import mmap
import os
import pickle
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bulk import PlainEngine, make_buffer
from support.data import pattern

from proxystore_hpc.exceptions import (
    AccessDeniedError,
    BulkClosedError,
    ForkedError,
    InvalidArgumentError,
    PeerError,
    ProxyStoreHpcError,
)
from proxystore_hpc.rpc.bulk import Bulk


@pytest.fixture(scope="module")
def engine():
    engine = PlainEngine("process")
    yield engine
    engine._instance.close()


def test_of_a_numpy_array(engine):
    array = np.arange(1000.0)
    with engine.expose(array, "rw") as bulk:
        assert (bulk.nbytes, len(bulk), bulk.mode, bulk.segments) == (8000, 8000, "rw", (8000,))
        got = np.frombuffer(bulk.pull(engine), "f8")
        assert (got == array).all()
        got[:] = 1
        assert array[5] == 5
        bulk.push(engine, np.ones(10), offset=80)
        assert array[9:21].tolist() == [9, *[1] * 10, 20]


@pytest.mark.parametrize("kind", ["arena", "numpy", "cffi", "mmap", "memoryview"])
def test_kinds_of_buffers(engine, kind):
    if kind == "cffi":
        pytest.importorskip("cffi")
    buffer = make_buffer(kind, pattern(4096), engine)
    with engine.expose(buffer, "rw") as bulk:
        assert bytes(bulk.pull(engine)) == pattern(4096)
        bulk.push(engine, pattern(4096, seed=2))
        assert bytes(memoryview(buffer).cast("B")) == pattern(4096, seed=2)
        into = make_buffer(kind, bytes(4096), engine)
        assert bulk.pull(engine, into) is into
        assert bytes(memoryview(into).cast("B")) == pattern(4096, seed=2)


def test_read_only_buffers(engine):
    array = np.zeros(10)
    array.flags.writeable = False
    for buffer in (b"bytes", array, memoryview(b"view"), [bytearray(1), b"x"]):
        with engine.expose(buffer, "r") as bulk:
            assert bulk.pull(engine).nbytes == bulk.nbytes
        for mode in ("w", "rw"):
            with pytest.raises(InvalidArgumentError, match="read-only"):
                engine.expose(buffer, mode)
    with engine.expose(b"12345678", "r") as bulk, pytest.raises(InvalidArgumentError):
        bulk.pull(engine, b"12345678")


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        (np.zeros((10, 10))[:, 1], "C-contiguous"),
        (np.asfortranarray(np.zeros((3, 4))), "C-contiguous"),
        (np.array([object()]), "references"),
        (5, "no buffer"),
        ("text", "no buffer"),
        (None, "no buffer"),
        ([bytearray(3), 1.5], "no buffer"),
    ],
)
def test_what_cannot_be_exposed(engine, buffer, message):
    with pytest.raises(InvalidArgumentError, match=message):
        engine.expose(buffer, "r")
    with engine.expose(bytearray(96), "rw") as bulk, pytest.raises(InvalidArgumentError):
        bulk.push(engine, buffer)


@pytest.mark.parametrize("mode", ["", "x", "wr", "r+"])
def test_unknown_modes(engine, mode):
    with pytest.raises(InvalidArgumentError, match="mode"):
        engine.expose(bytearray(1), mode)


def test_modes(engine):
    with engine.expose(bytearray(5), "r") as bulk, pytest.raises(AccessDeniedError):
        bulk.push(engine, b"x")
    with engine.expose(bytearray(5), "w") as bulk, pytest.raises(AccessDeniedError):
        bulk.pull(engine)


def test_empty_buffers(engine):
    with engine.expose([bytearray(), bytearray(3), bytearray()], "rw") as bulk:
        assert bulk.segments == (3,)
        bulk.push(engine, b"abc")
        bulk.push(engine, b"", offset=3)
        assert bytes(bulk.pull(engine)) == b"abc"
    with engine.expose([], "r") as bulk:
        assert bytes(bulk.pull(engine)) == b""


PARTS = st.lists(st.integers(0, 40), max_size=6)


@given(PARTS, st.integers(-130, 130), st.integers(-130, 130), st.data())
def test_slices_are_those_of_bytes(sizes, start, stop, data):
    engine = shared_engine()
    content = pattern(sum(sizes))
    parts, at = [], 0
    for size in sizes:
        parts.append(bytearray(content[at : at + size]))
        at += size
    with engine.expose(parts, "rw") as bulk:
        part = pickle.loads(pickle.dumps(bulk[start:stop]))
        assert sum(part.segments) == part.nbytes == len(content[start:stop])
        assert bytes(part.pull(engine)) == content[start:stop]
        offset = data.draw(st.integers(0, part.nbytes))
        new = data.draw(st.binary(max_size=part.nbytes - offset))
        part.push(engine, [new[:3], new[3:]], offset=offset)
        expected = bytearray(content)
        begin = slice(start, stop).indices(len(content))[0] + offset
        expected[begin : begin + len(new)] = new
        assert b"".join(parts) == bytes(expected)


_shared: list[PlainEngine] = []


def shared_engine():
    if not _shared:
        _shared.append(PlainEngine("process"))
    return _shared[0]


def test_what_is_no_part(engine):
    with engine.expose(bytearray(10), "rw") as bulk:
        for offset, length in ((11, 0), (0, 11), (5, 6), (-1, 2), (0, -1)):
            with pytest.raises(InvalidArgumentError):
                bulk.select(offset, length)
            with pytest.raises(InvalidArgumentError):
                bulk.pull(engine, offset=offset, length=length)
        with pytest.raises(InvalidArgumentError, match="step"):
            bulk[::2]
        with pytest.raises(TypeError):
            bulk[3]


@given(st.data())
def test_damaged_handles(data):
    engine = shared_engine()
    with engine.expose([bytearray(10), bytearray(20)], "rw") as bulk:
        packed = bytearray(bulk._handle.pack())
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    from proxystore_hpc import _core

    try:
        damaged = Bulk(_core.BulkHandle(bytes(packed)))
        damaged.pull(engine, bytearray(1), timeout=0.2)
    except ProxyStoreHpcError:
        pass
    with pytest.raises(InvalidArgumentError):
        _core.BulkHandle(bytes(packed[:at]))


def test_buffers_live_as_long_as_the_handle(engine):
    array = np.zeros(100)
    alive = weakref.ref(array)
    bulk = engine.expose(array, "r")
    part = bulk[10:20]
    del array, bulk
    gc.collect()
    assert alive() is not None
    assert len(part.pull(engine)) == 10
    handle = pickle.loads(pickle.dumps(part))
    del part
    gc.collect()
    assert alive() is None
    with pytest.raises(BulkClosedError):
        handle.pull(engine)


def test_close(engine):
    area = mmap.mmap(-1, 4096)
    bulk = engine.expose(area, "rw")
    with pytest.raises(BufferError):
        area.close()
    bulk.close()
    bulk.close()
    area.close()
    with pytest.raises(BulkClosedError, match="closed"):
        bulk.pull(engine)
    with pytest.raises(BulkClosedError):
        bulk.submit_push(engine, b"x").result()


def test_transfers(engine):
    with engine.expose(bytearray(pattern(100_000)), "rw") as bulk:
        pull = bulk.submit_pull(engine)
        assert bytes(pull.result()) == pattern(100_000)
        assert pull.done()
        assert pull.wait(0)
        into = bytearray(10)
        assert bulk.submit_pull(engine, into, offset=5).result(10) is into
        assert into == pattern(100_000)[5:15]
        failing = bulk.submit_pull(engine, offset=0, length=1)
        failing.wait()
        assert failing.cancel()
        dropped = [bulk.submit_push(engine, b"y" * 1000, offset=i * 1000) for i in range(100)]
        del dropped


def test_await(engine):
    async def main():
        with engine.expose(bytearray(pattern(1000)), "rw") as bulk:
            await bulk.submit_push(engine, b"abc", offset=10)
            parts = await asyncio.gather(*(whole(bulk) for _ in range(20)))
            return parts[0][8:15], len(set(parts))

    async def whole(bulk):
        return bytes(await bulk.submit_pull(engine))

    content = pattern(1000)
    assert asyncio.run(main()) == (content[8:10] + b"abc" + content[13:15], 1)


def test_hooks_see_transfers():
    engine = PlainEngine("process")
    seen = []
    engine._hooks.add(seen.append)
    with engine.expose(bytearray(100), "rw") as bulk:
        bulk.pull(engine)
        bulk.submit_push(engine, b"x").result()
        with pytest.raises(InvalidArgumentError):
            bulk.push(engine, b"x", offset=100)
    assert [(event.phase, event.name) for event in seen] == [
        (phase, name) for name in ("pull", "push", "push") for phase in ("start", "end")
    ]
    assert [type(event.error) for event in seen[1::2]] == [
        type(None),
        type(None),
        InvalidArgumentError,
    ]
    engine._instance.close()


def test_a_closed_engine():
    engine = PlainEngine("process")
    bulk = engine.expose(bytearray(10), "rw")
    engine._instance.close()
    for attempt in (
        lambda: bulk.pull(engine),
        lambda: bulk.submit_pull(engine),
        lambda: engine.expose(bytearray(1), "r"),
    ):
        with pytest.raises(ProxyStoreHpcError, match="closed"):
            attempt()
    bulk.close()
    with pytest.raises(PeerError):
        bulk.pull(shared_engine())


def test_a_forked_child(engine):
    bulk = engine.expose(bytearray(10), "rw")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            bulk.pull(engine)
        except ForkedError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert len(bulk.pull(engine)) == 10
    bulk.close()
