"""Reads and writes through the mpi door and by a store, against mpi4py's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import harness
import numpy as np
from mpi_job import STATES, TARGET, Feed, Job, numbers
from mpi_scale import LIMITS, MIB, PIECES, Arms, Scale, compared, more, numbers_of
from targets import US, Rows, Verdict

from proxystore_hpc import Engine
from proxystore_hpc._core import PreparedTransfer

# In the mode "adaptive": as many as the target's thread still polls for.
FEW = 5


def reads(job: Job, scale: Scale) -> Rows:
    """Reads into a prepared buffer against `MPI_Get` and flush."""
    for progress in ("polling", "adaptive"):
        with job.engine(progress) as engine:
            for nbytes in scale.sizes:
                for state in STATES:
                    yield from reads_of(job, scale, engine, nbytes, state, progress)


def reads_of(
    job: Job, scale: Scale, engine: Engine, nbytes: int, state: str, progress: str
) -> Rows:
    arrays = mine, again, theirs, apart = [np.zeros(nbytes, "u1") for _ in range(4)]
    with job.exposed(nbytes) as (bulk, address):
        pull = bulk.prepare_pull(engine, mine)
        way = pull._transfer.run(30.0)
        assert way == "mpi", f"it took the way {way}"
        awake = np.zeros(8, "u1")
        ring = partial(bulk.pull, engine, awake, length=8) if progress == "adaptive" else None
        # Few, so that the thread still polls when the last one comes.
        loops = scale.loops(nbytes) if ring is None else min(scale.loops(nbytes), FEW)
        action = partial(harness.Action, before=ring, loops=loops)
        with job.target_is(state):
            for array in arrays:
                array[:] = 0
            figures = scale.timed(
                {
                    "prepared": action(pull),
                    "pull": action(partial(bulk.pull, engine, again)),
                    "Get": action(job.bare.get(TARGET, address, theirs)),
                    "Get of Win_allocate": action(job.bare.get_allocated(TARGET, apart)),
                },
            )
    expected = numbers(nbytes).view("u1")
    for array in arrays:
        assert np.array_equal(array, expected), "other bytes arrived"
    what = f"read of {harness.size(nbytes)}, {progress}, target {state}"
    judged = progress == "polling" or state == STATES[0] or nbytes < MIB
    limit = LIMITS.get(nbytes) if judged else None
    yield compared(what, figures, "prepared", "Get", limit)
    yield compared(f"{what}, not prepared", figures, "pull", "Get")
    what = f"Get {what.removeprefix('read ')}, dynamic of Win_allocate"
    yield compared(what, figures, "Get", "Get of Win_allocate")


def store(job: Job, scale: Scale) -> Rows:
    """What a store adds to the read."""
    with job.store() as opened:
        for nbytes in scale.sizes:
            size = harness.size(nbytes)
            key = job.target.call("put", nbytes)
            mine, theirs, into = (np.zeros(nbytes, "u1") for _ in range(3))
            with job.exposed(nbytes) as (bulk, address):
                # What Bulk.prepare_pull makes, for the instance of a store.
                def read(array: Any, handle: Any = bulk._handle) -> Callable[[], str]:
                    buffers = [memoryview(array)]
                    made = PreparedTransfer(opened._instance, handle, False, 0, buffers)
                    return partial(made.run, 30.0)

                actions: dict[str, Callable[[], Any]] = {
                    "get": partial(opened.get, key),
                    "get_into": partial(opened.get_into, key, into),
                    "door": read(mine),
                    "Get": job.bare.get(TARGET, address, theirs),
                }
                ring = read(np.zeros(8, "u1"))
                action = partial(harness.Action, before=ring, loops=scale.loops(nbytes))
                with job.target_is(STATES[0]):
                    figures = scale.timed(
                        {name: action(run) for name, run in actions.items()},
                    )
            expected = numbers(nbytes)
            assert np.array_equal(opened.get(key), expected)
            for array in (mine, theirs, into):
                assert np.array_equal(array, expected.view("u1")), "other bytes arrived"
            assert set(opened.metrics.doors) == {"mpi"}
            opened.evict(key)
            adds = {name: more(figures, name, "door") for name in ("get", "get_into")}
            bare = harness.duration(more(figures, "get", "Get"))
            yield Verdict(
                f"store.get of {size}: what it adds to the door's read",
                "<= 10 us",
                harness.duration(adds["get"]),
                adds["get"] <= 10 * US,
                f"{bare} to the bare Get; get_into adds {harness.duration(adds['get_into'])}; "
                + ", ".join(f"{n} {harness.duration(s.median)}" for n, s in figures.items()),
                numbers_of(figures),
            )


def exchange(job: Job, scale: Scale) -> Rows:
    """An array fetched from a store, and sent by mpi4py when it is asked for."""
    comm = job.side.comm
    with job.store() as opened:
        for nbytes in sorted({min(MIB, max(scale.sizes)), max(scale.sizes)}):
            expected, into = numbers(nbytes), np.zeros(nbytes, "u1").view(numbers(nbytes).dtype)
            key = job.target.call("put", nbytes)
            stored: list[Any] = []

            def ask(way: int) -> None:
                comm.Send(np.array([way], "i4"), TARGET)

            def pickled() -> Any:
                ask(Feed.PICKLED)
                return comm.recv(source=TARGET)

            def buffer(into: Any = into) -> Any:
                ask(Feed.BUFFER)
                comm.Recv(into, TARGET)
                return into

            def put_and_get(stored: list[Any] = stored) -> Any:
                ask(Feed.STORED)
                stored.append(comm.recv(source=TARGET))
                return opened.get(stored[-1])

            def evict(_: Any, stored: list[Any] = stored) -> None:
                opened.evict_batch(stored)
                stored.clear()

            arms: Arms = {
                "get": harness.Action(partial(opened.get, key)),
                "send/recv": harness.Action(pickled),
                "Send/Recv": harness.Action(buffer),
                "put and get": harness.Action(put_and_get, after=evict),
            }
            job.target.start("feed", nbytes)
            for arm in arms.values():
                assert np.array_equal(arm.run(), expected), "other bytes arrived"
            figures = scale.timed(arms)
            ask(Feed.END)
            job.target.results()
            assert set(opened.metrics.doors) == {"mpi"}
            opened.evict_batch([key, *stored])
            size = harness.size(nbytes)
            limit = 1.0 if nbytes <= MIB else None
            what = f"store.get of {size}, of pickled send/recv"
            yield compared(what, figures, "get", "send/recv", limit)
            yield compared(f"store.get of {size}, of Send/Recv", figures, "get", "Send/Recv")
            what = f"put there and get of {size}, of pickled send/recv"
            yield compared(what, figures, "put and get", "send/recv")


def flights(job: Job, scale: Scale) -> Rows:
    """Several reads in flight, writes, and putting into the memory of another rank."""
    count = scale.in_flight
    with job.engine() as engine:
        for piece in PIECES:
            mine, theirs = (np.zeros(count * piece, "u1") for _ in range(2))
            parts = [mine[i * piece : (i + 1) * piece] for i in range(count)]
            with job.exposed(count * piece) as (bulk, address), job.target_is(STATES[0]):
                spans = [bulk.select(i * piece, piece) for i in range(count)]

                def together(spans: Any = spans, parts: Any = parts) -> None:
                    pairs = zip(spans, parts, strict=True)
                    flying = [span.submit_pull(engine, part) for span, part in pairs]
                    for transfer in flying:
                        transfer.result()

                def one_by_one(spans: Any = spans, parts: Any = parts) -> None:
                    for span, part in zip(spans, parts, strict=True):
                        span.pull(engine, part)

                figures = scale.timed(
                    {
                        "in flight": harness.Action(together),
                        "one by one": harness.Action(one_by_one),
                        "Gets, one flush": harness.Action(
                            job.bare.gets(TARGET, address, theirs, count)
                        ),
                    },
                )
            expected = numbers(count * piece).view("u1")
            assert np.array_equal(mine, expected)
            assert np.array_equal(theirs, expected)
            what = f"{count} reads of {harness.size(piece)} in flight"
            yield compared(f"{what}, of as many Gets", figures, "in flight", "Gets, one flush")
            yield compared(f"{what}, of one by one", figures, "in flight", "one by one")
        for nbytes in scale.sizes:
            data = numbers(nbytes).view("u1")[::-1].copy()
            action = partial(harness.Action, loops=scale.loops(nbytes))
            with job.exposed(nbytes) as (bulk, address):
                bulk.push(engine, data)
                assert job.target.call("exposed_is", data.tobytes()), "other bytes were written"
                with job.target_is(STATES[0]):
                    figures = scale.timed(
                        {
                            "prepared": action(bulk.prepare_push(engine, data)),
                            "push": action(partial(bulk.push, engine, data)),
                            "Put": action(job.bare.put(TARGET, address, data)),
                        },
                    )
                assert job.target.call("exposed_is", data.tobytes()), "other bytes were written"
            what = f"write of {harness.size(nbytes)}, of Put and flush"
            yield compared(what, figures, "prepared", "Put")
            yield compared(f"{what}, not prepared", figures, "push", "Put")
    yield from puts(job, scale)


def puts(job: Job, scale: Scale) -> Rows:
    with job.store() as opened:
        for nbytes in scale.sizes:
            data = numbers(nbytes)
            with job.exposed(nbytes) as (_, address), job.target_is(STATES[0]):
                figures = scale.timed(
                    {
                        "put": harness.Action(
                            partial(opened.put, data, to=TARGET), after=opened.evict
                        ),
                        "Put": harness.Action(job.bare.put(TARGET, address, data.view("u1"))),
                    },
                )
            key = opened.put(data, to=TARGET)
            assert np.array_equal(opened.get(key), data), "other bytes were written"
            opened.evict(key)
            what = f"store.put of {harness.size(nbytes)} to another rank, of Put and flush"
            yield compared(what, figures, "put", "Put")
