"""Ranks of an MPI job: rank 0 leads what rank 1 does, and further ranks wait."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from proxystore_hpc.bench.bursts import Repeated
from proxystore_hpc.bench.companion import PATIENCE, CompanionError
from proxystore_hpc.bench.contestant import Burst, Operation
from proxystore_hpc.bench.data import expect, pattern
from proxystore_hpc.bench.ours import moving
from proxystore_hpc.bench.ours.owner import Holder
from proxystore_hpc.bench.ours.ways import Way, check_doors

if TYPE_CHECKING:
    from mpi4py import MPI

__all__ = ["CASES", "Leader", "follow"]

TARGET = 1
_REQUEST, _ANSWER, _PING = 1, 2, 3
_DOZE = 1e-3
_ROOM = 256 << 20
# An evicted object rests before its memory is used again.
_OBJECTS = 8
CASES = ("mpi", "MPI_Get", "MPI-ping-pong")
"""What `Leader.open` can be asked for."""


class Side:
    """What a rank has: a store, a window, and the methods that rank 0 calls."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.comm = comm
        self.store: Any = None
        self.window: Any = None
        self._holder: Holder | None = None
        self._memory: Any = None

    # Collective.

    def open_store(self, nbytes: int) -> None:
        """Opens a store over mpi alone."""
        from proxystore_hpc.store import Store

        self.store = Store.from_mpi(
            self.comm,
            "bench-mpi",
            doors=("mpi",),
            cache_size=0,
            capacity=_OBJECTS * nbytes + _ROOM,
        )
        self._holder = Holder(self.store)

    def close_store(self) -> None:
        """Closes it."""
        self._meet()
        self.store.close()
        self.store = self._holder = None
        self._meet()

    def open_window(self, nbytes: int) -> None:
        """Makes a window of `MPI_Win_allocate`; the target's memory has the pattern."""
        import numpy as np
        from mpi4py import MPI

        self.window = MPI.Win.Allocate(nbytes, 1, comm=self.comm)
        self._memory = np.frombuffer(self.window.tomemory(), "u1")
        self._memory[:] = pattern(nbytes) if self.comm.rank == TARGET else 0
        self.window.Lock_all(MPI.MODE_NOCHECK)
        self._meet()

    def close_window(self) -> None:
        """Frees it."""
        self._meet()
        self._memory = None
        self.window.Unlock_all()
        self.window.Free()
        self.window = None

    def _meet(self) -> None:
        everybody = self.comm.Ibarrier()
        while not everybody.Test():
            time.sleep(_DOZE)

    # On the target.

    def hold(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the `Holder`."""
        assert self._holder is not None
        return getattr(self._holder, method)(*arguments)

    def pong(self, nbytes: int) -> None:
        """Answers one byte by `nbytes`, until a byte is 0."""
        import numpy as np

        asked, data = np.zeros(1, "u1"), pattern(nbytes)
        while True:
            self.comm.Recv(asked, 0, _PING)
            if not asked[0]:
                return
            self.comm.Send(data, 0, _PING)


class _Target:
    """Rank 1, asked from rank 0. Implements `moving.Asked` for its `Holder`."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self._comm = comm

    def start(self, method: str, *arguments: Any) -> None:
        for rank in range(1, self._comm.size):
            if rank == TARGET or method in _COLLECTIVE:
                self._comm.send((method, arguments), rank, _REQUEST)

    def result(self, method: str = "") -> Any:
        found = None
        for rank in range(1, self._comm.size):
            if rank != TARGET and method not in _COLLECTIVE:
                continue
            end = time.monotonic() + PATIENCE
            while not self._comm.Iprobe(rank, _ANSWER):
                if time.monotonic() > end:
                    raise CompanionError(f"rank {rank} gave no answer within {PATIENCE:.0f} s")
                time.sleep(_DOZE / 4)
            failed, value = self._comm.recv(source=rank, tag=_ANSWER)
            if failed:
                raise CompanionError(f"rank {rank} raised\n{value}")
            found = value if rank == TARGET else found
        return found

    def call(self, method: str, *arguments: Any) -> Any:
        self.start("hold", method, *arguments)
        return self.result()


_COLLECTIVE = ("open_store", "close_store", "open_window", "close_window", "leave")


def follow(world: MPI.Intracomm) -> None:
    """What ranks other than 0 do until rank 0 has them leave."""
    comm, requests = world.Dup(), world.Dup()
    side = Side(comm)
    while True:
        while not requests.Iprobe(0, _REQUEST):
            time.sleep(_DOZE)
        method, arguments = requests.recv(source=0, tag=_REQUEST)
        if method == "leave":
            requests.send((False, None), 0, _ANSWER)
            break
        try:
            answer = False, getattr(side, method)(*arguments)
        except Exception:
            answer = True, traceback.format_exc()
        requests.send(answer, 0, _ANSWER)
    comm.Free()
    requests.Free()


class Leader:
    """What rank 0 measures with."""

    def __init__(self, world: MPI.Intracomm) -> None:
        self._world = world
        self._comm, self._requests = world.Dup(), world.Dup()
        self._side = Side(self._comm)
        self._target = _Target(self._requests)
        self._bursts: dict[str, Burst] = {}
        self._ends: dict[str, Callable[[], object]] = {}

    def describe(self) -> tuple[int, str]:
        """How many ranks there are, and of which MPI."""
        from mpi4py import MPI

        line = MPI.Get_library_version().splitlines()[0].split(",")[0]
        return self._world.size, " ".join(line.replace("\0", "").split())

    def open(self, case: str, operation: str, nbytes: int) -> None:
        """Starts one of `CASES`."""
        opening = {"mpi": self._open_mpi, "MPI_Get": self._open_get}.get(case, self._open_ping)
        self._bursts[case], self._ends[case] = opening(Operation(operation), nbytes)

    def burst(self, case: str) -> float:
        """One burst of a case that is open."""
        return self._bursts[case]()

    def end(self, case: str) -> None:
        """Ends a case."""
        self._bursts.pop(case)
        self._ends.pop(case)()

    def close(self) -> None:
        """Lets the other ranks go."""
        self._target.start("leave")
        self._target.result("leave")
        self._comm.Free()
        self._requests.Free()

    def _together(self, method: str, *arguments: Any) -> None:
        self._target.start(method, *arguments)
        try:
            getattr(self._side, method)(*arguments)
        finally:
            self._target.result(method)

    def _open_mpi(self, operation: Operation, nbytes: int) -> tuple[Burst, Callable[[], object]]:
        self._together("open_store", nbytes)
        store, way = self._side.store, Way("mpi", "mpi", "", {})

        def check(key: Any) -> None:
            check_doors(store, way, key)

        make = moving.get if operation is Operation.GET else moving.exchange
        return make(store, self._target, nbytes, check), lambda: self._together("close_store")

    def _open_get(self, _: Operation, nbytes: int) -> tuple[Burst, Callable[[], object]]:
        import numpy as np
        from mpi4py import MPI

        self._together("open_window", nbytes)
        window, into = self._side.window, np.zeros(nbytes, "u1")
        place = (0, nbytes, MPI.BYTE)

        def get() -> None:
            window.Get([into, nbytes, MPI.BYTE], TARGET, place)
            window.Flush(TARGET)

        burst = Repeated(get, lambda _: expect(into, nbytes), before=lambda: into.fill(0))
        return burst, lambda: self._together("close_window")

    def _open_ping(self, _: Operation, nbytes: int) -> tuple[Burst, Callable[[], object]]:
        import numpy as np

        ping, stop, into = np.ones(1, "u1"), np.zeros(1, "u1"), np.zeros(nbytes, "u1")
        comm, target = self._comm, self._target

        def ask() -> None:
            comm.Send(ping, TARGET, _PING)
            comm.Recv(into, TARGET, _PING)

        repeated = Repeated(ask, lambda _: expect(into, nbytes), before=lambda: into.fill(0))

        def burst() -> float:
            # It answers only meanwhile: a rank that waits in MPI takes a core.
            target.start("pong", nbytes)
            try:
                return repeated()
            finally:
                comm.Send(stop, TARGET, _PING)
                target.result()

        return burst, lambda: None
