"""Ranks that do what rank 0 asks of them; what `mpi_rma.py` stands on.

Rank 0 measures, rank 1 is the target, further ranks only take part in what is collective. Between
two requests they sleep, so that their main threads make no progress for MPI.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import get_native_id
from typing import Any

import harness
import numpy as np
from mpi4py import MPI
from mpi_bare import BareWindows

from proxystore_hpc import Engine, Store
from proxystore_hpc.mpi import windows
from proxystore_hpc.rpc import Bulk
from proxystore_hpc.rpc.bulk import expose

TARGET = 1
REQUEST, ANSWER = 1, 2
DOZE = 1e-3
STATES = ("in a barrier", "computing")
ROOM = 256 << 20
IDLE = windows.IDLE


class Ranks:
    """Other ranks, whose `Side` is asked to do something; the `harness.Companion` of a job.

    Args:
        comm: A communicator for this alone, in which they `serve`.
        ranks: Which ones.
    """

    def __init__(self, comm: MPI.Intracomm, ranks: Sequence[int]) -> None:
        self._comm = comm
        self._ranks = ranks

    def start(self, method: str, *positional: Any, **arguments: Any) -> None:
        """Calls a method on each without waiting for it."""
        for rank in self._ranks:
            self._comm.send((method, positional, arguments), rank, REQUEST)

    def results(self, timeout: float = harness.PATIENCE) -> list[Any]:
        """What the method started last returned, rank by rank.

        Raises:
            CompanionError: It raised, or gave no answer in time.
        """
        end = time.monotonic() + timeout
        found = []
        for rank in self._ranks:
            while not self._comm.Iprobe(rank, ANSWER):
                if time.monotonic() > end:
                    raise harness.CompanionError(
                        f"rank {rank} gave no answer within {timeout:.0f} s"
                    )
                time.sleep(DOZE)
            failed, value = self._comm.recv(source=rank, tag=ANSWER)
            if failed:
                raise harness.CompanionError(f"rank {rank} raised\n{value}")
            found.append(value)
        return found

    def call(self, method: str, *positional: Any, **arguments: Any) -> Any:
        """Calls a method and waits for what the first of them returns."""
        self.start(method, *positional, **arguments)
        return self.results()[0]


def serve(comm: MPI.Intracomm, side: Side) -> None:
    """What the other ranks do until they are asked to `leave`."""
    while True:
        while not comm.Iprobe(0, REQUEST):
            time.sleep(DOZE)
        method, positional, arguments = comm.recv(source=0, tag=REQUEST)
        if method == "leave":
            return
        try:
            answer = False, getattr(side, method)(*positional, **arguments)
        except Exception:
            answer = True, traceback.format_exc()
        comm.send(answer, 0, ANSWER)


class Side:
    """What a rank has of what is measured: a store or an engine, and windows of mpi4py's own."""

    def __init__(self, world: MPI.Intracomm, largest: int) -> None:
        self.comm = world.Dup()
        # Rank 0 and the target.
        self.pair: Any = world.Split(0 if world.rank < 2 else MPI.UNDEFINED, world.rank)
        self.largest = largest
        self.bare = BareWindows(world, largest)
        self.engine: Engine | None = None
        self.store: Store | None = None
        self._exposed: list[Bulk] = []

    # Collective.

    def open_engine(self, progress: str, idle: float) -> None:
        """Engines over mpi; `progress` is that of the target, the others are adaptive."""
        windows.IDLE = idle
        self.engine = Engine.from_mpi(
            self.comm,
            "mpi",
            progress=progress if self.comm.rank == TARGET else "adaptive",
            capacity=2 * self.largest + ROOM,
        )
        self.engine.register("null", lambda: None)

    def open_store(self) -> None:
        windows.IDLE = IDLE
        self.store = Store.from_mpi(
            self.comm,
            "benchmark",
            doors=("mpi",),
            cache_size=0,
            capacity=16 * self.largest + ROOM,  # evicted blocks rest for a while
        )

    def gray_scott(self, by_hand: bool, options: Any) -> Any:
        """One run of the simulation; what this rank spent where."""
        import gray_scott_mpi

        if by_hand:
            return gray_scott_mpi.run_by_hand(self.comm, options)
        assert self.store is not None
        return gray_scott_mpi.run_example(self.comm, self.store, options)

    def close(self) -> None:
        """Closes what is open, once all have come here."""
        self.meet()
        while self._exposed:
            self._exposed.pop().close()
        self.bare.detach()
        for opened in (self.engine, self.store):
            if opened is not None:
                opened.close()
        self.engine = self.store = None
        self.meet()

    def meet(self) -> None:
        """A barrier that leaves the processor to the threads that serve."""
        everybody = self.comm.Ibarrier()
        while not everybody.Test():
            time.sleep(DOZE)

    # On the target.

    def expose(self, nbytes: int) -> tuple[Bulk, int]:
        """Memory with `numbers` in the arena: a handle of it, and where the bare window has it."""
        opened = self.engine or self.store
        assert opened is not None
        array = opened.empty(nbytes, "u1")
        array[:] = numbers(nbytes).view("u1")
        bulk = expose(opened._instance, array, "rw")
        self._exposed.append(bulk)
        self.bare.fill(array)
        return bulk, self.bare.attach(array)

    def unexpose(self) -> None:
        self._exposed.pop().close()
        self.bare.detach()

    def exposed_is(self, data: bytes) -> bool:
        """Whether the memory exposed last begins with these bytes."""
        return self.bare.holds(np.frombuffer(data, "u1"))

    def put(self, nbytes: int) -> Any:
        assert self.store is not None
        return self.store.put(numbers(nbytes))

    def objects(self) -> int:
        assert self.store is not None
        return int(self.store.stats()["objects"])

    def in_a_barrier(self) -> None:
        self.pair.Barrier()

    def computing(self, turn: int) -> None:
        """Python, with the GIL and without MPI, until rank 0 writes another number."""
        while self.bare.word() == turn:
            sum(range(1000))

    def feed(self, nbytes: int) -> None:
        """Sends an array whenever rank 0 asks, in the way that it names."""
        array = numbers(nbytes)
        way = np.zeros(1, "i4")
        while True:
            self.comm.Recv(way, 0)
            if way[0] == Feed.END:
                return
            if way[0] == Feed.PICKLED:
                self.comm.send(array, 0)
            elif way[0] == Feed.BUFFER:
                self.comm.Send(array, 0)
            else:
                assert self.store is not None
                self.comm.send(self.store.put(array), 0)

    def atomics(self, to: int, loops: int) -> float:
        """Seconds of a message written by hand: see `BareWindows.message`."""
        began = time.perf_counter()
        for _ in range(loops):
            self.bare.message(to)
        return (time.perf_counter() - began) / loops

    def idle_share(self, seconds: float) -> float:
        """What all threads but this one take of a core while it sleeps."""
        before, began = cpu_of_others(), time.perf_counter()
        time.sleep(seconds)
        return (cpu_of_others() - before) / (time.perf_counter() - began)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def numbers(nbytes: int) -> Any:
    """As `harness.pattern`, and not zero where that is one number alone."""
    return harness.pattern(nbytes) + 1


class Feed:
    """What `Side.feed` is asked for."""

    END, PICKLED, BUFFER, STORED = range(4)


def cpu_of_others() -> float:
    """Processor time in seconds of all threads of this process but the calling one."""
    total, me = 0, get_native_id()
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) != me:
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


class Job:
    """What rank 0 measures with."""

    def __init__(self, world: MPI.Intracomm, comm: MPI.Intracomm, side: Side) -> None:
        self.world = world
        self.side = side
        self.bare = side.bare
        self.target = Ranks(comm, [TARGET])
        self.others = Ranks(comm, range(1, comm.size))
        self._turn = 0

    def together(self, method: str, *positional: Any, **arguments: Any) -> list[Any]:
        """Calls a collective method on all ranks; returns what it returned, rank by rank."""
        self.others.start(method, *positional, **arguments)
        value = getattr(self.side, method)(*positional, **arguments)
        return [value, *self.others.results()]

    @contextmanager
    def engine(self, progress: str = "adaptive", idle: float = IDLE) -> Iterator[Engine]:
        """Engines over mpi on all ranks; see `Side.open_engine`."""
        self.together("open_engine", progress, idle)
        engine = self.side.engine
        assert engine is not None
        try:
            lanes = engine.lookup(TARGET).lanes
            assert lanes.startswith("mpi"), f"messages go over {lanes}"
            yield engine
        finally:
            self.together("close")

    @contextmanager
    def store(self) -> Iterator[Store]:
        """Stores over mpi on all ranks."""
        self.together("open_store")
        assert self.side.store is not None
        try:
            yield self.side.store
        finally:
            self.together("close")

    @contextmanager
    def target_is(self, state: str) -> Iterator[None]:
        """Has the target's main thread spend its time in one of `STATES`."""
        if state == "in a barrier":
            self.target.start("in_a_barrier")
            end: Callable[[], object] = self.side.pair.Barrier
        else:
            self._turn += 1
            self.bare.tell(TARGET, self._turn)
            self.target.start("computing", self._turn)
            end = partial(self.bare.tell, TARGET, 0)
        time.sleep(0.01)  # until it has come to it
        try:
            yield
        finally:
            end()
            self.target.results()

    @contextmanager
    def exposed(self, nbytes: int) -> Iterator[tuple[Bulk, int]]:
        """Memory of the target: a handle, and its place in the bare window."""
        exposed = self.target.call("expose", nbytes)
        try:
            yield exposed
        finally:
            self.target.call("unexpose")


def family() -> str:
    """Which MPI this is, such as `"Open MPI v5.0.11"`."""
    line = MPI.Get_library_version().splitlines()[0].split(",")[0]
    return " ".join(line.replace("Version:", "").replace("\0", "").split())


def describe(world: MPI.Intracomm) -> str:
    level = {MPI.THREAD_MULTIPLE: "any thread may call MPI"}.get(
        MPI.Query_thread(), "the main thread alone may call MPI"
    )
    return f"{family()}, {world.size} ranks, {level}, {os.uname().machine}"
