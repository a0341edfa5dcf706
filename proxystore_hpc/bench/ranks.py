"""Ranks of an MPI job: rank 0 leads what the others do, rank 1 in most cases; who is idle dozes."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from proxystore_hpc.bench.bursts import Repeated
from proxystore_hpc.bench.companion import PATIENCE, CompanionError
from proxystore_hpc.bench.contestant import Burst, Operation
from proxystore_hpc.bench.data import expect, pattern
from proxystore_hpc.bench.mpi_settings import chosen_components
from proxystore_hpc.bench.opening import OPENINGS
from proxystore_hpc.bench.ours import moving
from proxystore_hpc.bench.ours.crowds import (
    gathering,
    members_of,
    owners_of,
    share_of,
    who_reads_whom,
)
from proxystore_hpc.bench.ours.owner import Holder
from proxystore_hpc.bench.ours.rank_member import RankMember
from proxystore_hpc.bench.ours.ways import Way, check_doors

if TYPE_CHECKING:
    from mpi4py import MPI

__all__ = ["CASES", "Leader", "follow"]

TARGET = 1
_REQUEST, _ANSWER, _PING = 1, 2, 3
_DOZE, _LONGEST_DOZE = 1e-3, 5e-3
_ROOM = 256 << 20
# An evicted object rests before its memory is used again.
_OBJECTS = 8
_GETS = {"MPI_Get": "allocated", "MPI_Get-dynamic": "dynamic", "MPI_Get-created": "created"}
CASES = ("mpi", *_GETS, "MPI-ping-pong")
"""What `Leader.open` can be asked for."""


class Side:
    """What a rank has: a store, a window, and the methods that rank 0 calls."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.comm = comm
        self.store: Any = None
        self.windows: dict[str, Any] = {}
        self._holder: Holder | None = None
        self._memory: dict[str, Any] = {}
        self._members: dict[str, RankMember] = {}

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

    def open_window(self, nbytes: int, flavour: str) -> int:
        """Makes a window; the target's memory has the pattern.

        Args:
            nbytes: Of each rank.
            flavour: Whether the memory is MPI's (`"allocated"`), or ours and known to all ranks
                when the window is made (`"created"`), or attached to it (`"dynamic"`).

        Returns:
            Where others find the memory of this rank.
        """
        import numpy as np
        from mpi4py import MPI

        at = 0
        if flavour == "allocated":
            window: Any = MPI.Win.Allocate(nbytes, 1, comm=self.comm)
            memory = np.frombuffer(window.tomemory(), "u1")
        else:
            memory = np.empty(nbytes, "u1")
        memory[:] = pattern(nbytes) if self.comm.rank == TARGET else 0
        if flavour == "created":
            window = MPI.Win.Create(memory, 1, comm=self.comm)
        elif flavour == "dynamic":
            window = MPI.Win.Create_dynamic(comm=self.comm)
            window.Attach(memory)
            at = MPI.Get_address(memory)
        window.Lock_all(MPI.MODE_NOCHECK)
        self.windows[flavour], self._memory[flavour] = window, memory
        self._meet()
        return at

    def close_window(self, flavour: str) -> None:
        """Frees it."""
        self._meet()
        window = self.windows.pop(flavour)
        window.Unlock_all()
        if flavour == "dynamic":
            window.Detach(self._memory[flavour])
        window.Free()
        del self._memory[flavour]

    def _meet(self) -> None:
        everybody = self.comm.Ibarrier()
        while not everybody.Test():
            time.sleep(_DOZE)

    # On those that are asked to.

    def chosen(self, frameworks: list[str]) -> list[frozenset[str] | None]:
        """Of each framework of Open MPI, `mpi_settings.chosen_components`."""
        return [chosen_components(framework) for framework in frameworks]

    def opened(self, what: str) -> float:
        """Seconds of one of `OPENINGS`; collective over all ranks."""
        return OPENINGS[what](self.comm)

    def open_member(self, case: str, members: list[int], readers: list[int], nbytes: int) -> None:
        """Takes part in a crowd; collective over its members."""
        self._members[case] = RankMember(f"bench {case}", self.comm, members, readers, nbytes)

    def close_member(self, case: str) -> None:
        """Leaves it; collective over its members."""
        self._members.pop(case).close()

    def member(self, case: str, method: str, *arguments: Any) -> Any:
        """Calls a method of the `RankMember`."""
        return getattr(self._members[case], method)(*arguments)

    # On the target.

    def hold(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the `Holder`."""
        assert self._holder is not None
        return getattr(self._holder, method)(*arguments)

    def wait_in_mpi(self) -> None:
        """Sends a byte, then serves what needs this rank in a call of MPI until one comes."""
        import numpy as np

        self.comm.Send(np.zeros(1, "u1"), 0, _PING)
        self.comm.Recv(np.zeros(1, "u1"), 0, _PING)

    def pong(self, nbytes: int) -> None:
        """Answers one byte by `nbytes`, until a byte is 0."""
        import numpy as np

        asked, data = np.zeros(1, "u1"), pattern(nbytes)
        while True:
            self.comm.Recv(asked, 0, _PING)
            if not asked[0]:
                return
            self.comm.Send(data, 0, _PING)


class Follower:
    """One of the other ranks, asked from rank 0. Implements `moving.Asked` for its `Holder`."""

    def __init__(self, comm: MPI.Intracomm, rank: int) -> None:
        self._comm, self._rank = comm, rank

    def start(self, method: str, *arguments: Any) -> None:
        """Calls a method of its `Side` without waiting for it."""
        self._comm.send((method, arguments), self._rank, _REQUEST)

    def result(self) -> Any:
        """What that returned.

        Raises:
            CompanionError: It raised, or gives no answer.
        """
        end = time.monotonic() + PATIENCE
        while not self._comm.Iprobe(self._rank, _ANSWER):
            if time.monotonic() > end:
                raise CompanionError(f"rank {self._rank} gave no answer within {PATIENCE:.0f} s")
            time.sleep(_DOZE / 4)
        failed, value = self._comm.recv(source=self._rank, tag=_ANSWER)
        if failed:
            raise CompanionError(f"rank {self._rank} raised\n{value}")
        return value

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method of its `Holder`."""
        self.start("hold", method, *arguments)
        return self.result()


def follow(world: MPI.Intracomm) -> None:
    """What ranks other than 0 do until rank 0 has them leave."""
    comm, requests = world.Dup(), world.Dup()
    side = Side(comm)
    while True:
        doze = _DOZE
        while not requests.Iprobe(0, _REQUEST):
            time.sleep(doze)
            # A large job that waits for its turn must not be what the others are measured beside.
            doze = min(_LONGEST_DOZE, 1.05 * doze)
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
        self._others = [Follower(self._requests, rank) for rank in range(1, world.size)]
        self._target = self._others[TARGET - 1]
        self._bursts: dict[str, Burst] = {}
        self._ends: dict[str, Callable[[], object]] = {}

    def describe(self) -> tuple[int, str]:
        """How many ranks there are, and of which MPI."""
        from mpi4py import MPI

        line = MPI.Get_library_version().splitlines()[0].split(",")[0]
        return self._world.size, " ".join(line.replace("\0", "").split())

    def chosen(self, frameworks: list[str]) -> list[list[frozenset[str] | None]]:
        """For each rank, `Side.chosen`."""
        return self._asked(range(self._world.size), "chosen", frameworks)

    def open(self, case: str, operation: str, nbytes: int) -> None:
        """Starts one of `CASES`."""
        openings: dict[str, Callable[[Operation, int], tuple[Burst, Callable[[], object]]]] = {
            "mpi": self._open_mpi,
            "MPI-ping-pong": self._open_ping,
            **{get: partial(self._open_get, flavour) for get, flavour in _GETS.items()},
        }
        self._bursts[case], self._ends[case] = openings[case](Operation(operation), nbytes)

    def open_crowd(self, case: str, operation: str, count: int, nbytes: int) -> None:
        """Starts an operation of several ranks at once.

        Args:
            case: A name of your choice, for `burst` and `end`.
            operation: One of `crowds.operations_of(count)`.
            count: As for `crowds.Crowd`; the job must have twice as many ranks.
            nbytes: Of an array.
        """
        what = Operation(operation)
        readings = who_reads_whom(what, count)
        members, readers = members_of(readings), sorted(readings)
        each = share_of(what, count, nbytes)
        self._asked(members, "open_member", case, members, readers, each)
        self._ends[case] = lambda: self._asked(members, "close_member", case)
        try:
            keys = {
                owner: self._asked([owner], "member", case, "key")[0]
                for owner in owners_of(readings)
            }
            for reader, owners in readings.items():
                theirs = [keys[owner] for owner in owners]
                self._asked([reader], "member", case, "prepare", theirs)
        except Exception:
            self.end(case)
            raise
        together = gathering(what)
        self._bursts[case] = lambda: together(self._asked(readers, "member", case, "read_together"))

    def open_all(self, case: str, what: str) -> None:
        """Starts one of `OPENINGS`, under a name of your choice."""
        everybody = range(self._world.size)
        self._bursts[case] = lambda: float(max(self._asked(everybody, "opened", what)))
        self._ends[case] = lambda: None

    def burst(self, case: str) -> float:
        """One burst of a case that is open."""
        return self._bursts[case]()

    def end(self, case: str) -> None:
        """Ends a case."""
        self._bursts.pop(case, None)
        self._ends.pop(case)()

    def close(self) -> None:
        """Lets the other ranks go."""
        for other in self._others:
            other.start("leave")
        for other in self._others:
            other.result()
        self._comm.Free()
        self._requests.Free()

    def _asked(self, ranks: Sequence[int], method: str, *arguments: Any) -> list[Any]:
        """Has some ranks do the same at once; what they return, in the order of the ranks."""
        others = [self._others[rank - 1] for rank in ranks if rank]
        for other in others:
            other.start(method, *arguments)
        answers: list[Callable[[], Any]] = [other.result for other in others]
        if 0 in ranks:
            answers.insert(0, partial(getattr(self._side, method), *arguments))
        found, failures = [], []
        for ask in answers:
            # All answers are taken, else the next call would get them.
            try:
                found.append(ask())
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return found

    def _together(self, method: str, *arguments: Any) -> list[Any]:
        return self._asked(range(self._world.size), method, *arguments)

    def _open_mpi(self, operation: Operation, nbytes: int) -> tuple[Burst, Callable[[], object]]:
        self._together("open_store", nbytes)
        store, way = self._side.store, Way("mpi", "mpi", "", {})

        def check(key: Any) -> None:
            check_doors(store, way, key)

        make = moving.get if operation is Operation.GET else moving.exchange
        return make(store, self._target, nbytes, check), lambda: self._together("close_store")

    def _open_get(
        self, flavour: str, _: Operation, nbytes: int
    ) -> tuple[Burst, Callable[[], object]]:
        import numpy as np
        from mpi4py import MPI

        at = self._together("open_window", nbytes, flavour)[TARGET]
        window, into = self._side.windows[flavour], np.zeros(nbytes, "u1")
        place = (at, nbytes, MPI.BYTE)

        def get() -> None:
            window.Get([into, nbytes, MPI.BYTE], TARGET, place)
            window.Flush(TARGET)

        repeated = Repeated(get, lambda _: expect(into, nbytes), before=lambda: into.fill(0))
        if flavour == "allocated":
            return repeated, partial(self._together, "close_window", flavour)

        def burst() -> float:
            # A window that is not in shared memory needs its target in MPI.
            self._target.start("wait_in_mpi")
            # It may doze until now.
            self._comm.Recv(np.zeros(1, "u1"), TARGET, _PING)
            try:
                return repeated()
            finally:
                self._comm.Send(np.zeros(1, "u1"), TARGET, _PING)
                self._target.result()

        return burst, partial(self._together, "close_window", flavour)

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
                ask()  # it may have dozed until now
                return repeated()
            finally:
                comm.Send(stop, TARGET, _PING)
                target.result()

        return burst, lambda: None
