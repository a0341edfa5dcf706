"""The end of a store that several ranks opened together.

Ranks leave at different times, and what one of them holds may be wanted by the others until the
last has left. So closing is local: it posts a non-blocking barrier and returns, while the core goes
on serving. Whether the barrier is through is looked at when this package is called with MPI at hand
(another store is opened or closed); where the process is about to end, at the interpreter's exit or
in the user's MPI_Finalize, it is waited for.

The wait lasts as long as all others live, for they may still need what lies here, and MPI_Finalize
would wait for them too. Once one is seen to have died, or if this process ends by an error, it is
bounded.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from proxystore_hpc.exceptions import InvalidArgumentError, ProxyStoreHpcError
from proxystore_hpc.mpi import alone
from proxystore_hpc.mpi.alone import turn
from proxystore_hpc.mpi.peers import Peers
from proxystore_hpc.mpi.windows import free_idle, free_together
from proxystore_hpc.utils.locks import make_rlock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpi4py import MPI

    from proxystore_hpc.mpi.windows import Windows

logger = logging.getLogger(__name__)

_THROUGH_S = 1.0
_POLL_FIRST_S = 50e-6
_POLL_LAST_S = 5e-3
_GIVEN_UP = 1  # tag of the message of a rank that ends without the others


class Participant(Protocol):
    """What ranks open together: a store or an engine."""

    _instance: Any  # it outlives the participant: others may still read

    @property
    def name(self) -> str:
        """Its name in messages."""

    def close(self) -> None:
        """Ends it in this process."""


class MpiJob:
    """The ranks of one store or engine. Implements `proxystore_hpc.store.core.Job`.

    Args:
        comm: A communicator of its own; freed when all have left.
        participant: The store or engine of this rank.
        addresses: `Store.address` of every rank.
        linger: Bound in seconds of the wait for ranks that may never close.
        windows: Those of the mpi door, if it has one.
    """

    def __init__(
        self,
        comm: MPI.Intracomm,
        participant: Participant,
        addresses: Sequence[bytes],
        linger: float,
        windows: Windows | None = None,
    ) -> None:
        self._comm = comm
        self._name = participant.name
        self.label = f"the {type(participant).__name__.lower()} {participant.name!r}"
        self._instance = participant._instance
        self._server = getattr(participant, "_server", None)
        self._participant = weakref.ref(participant)
        self._addresses = addresses
        self._linger = linger
        self._windows = windows
        self._left = False
        self._clear = False
        self._request: MPI.Request | None = None
        self._given_up: float | None = None
        self._peers = Peers(addresses)
        _endings.add(self)

    @property
    def windows(self) -> Windows | None:
        """Those of the mpi door, if it has one."""
        return self._windows

    def address_of(self, rank: int) -> bytes:
        """`Store.address` on a rank.

        Raises:
            InvalidArgumentError: There is no such rank.
        """
        if not 0 <= rank < len(self._addresses):
            raise InvalidArgumentError(
                f"to: there is no rank {rank}; the communicator of the store {self._name!r} has "
                f"ranks 0 to {len(self._addresses) - 1}"
            )
        return self._addresses[rank]

    def leave(self, *, clear: bool = False) -> None:
        """Goes on serving until all ranks have left, then closes the instance. Idempotent.

        Args:
            clear: Leave nothing to a keeper.
        """
        self._left = True
        self._clear = clear
        settle()

    def close_participant(self) -> None:
        """Closes the store or engine if nobody did."""
        participant = self._participant()
        if participant is not None:
            participant.close()
        self._left = True

    def advance(self) -> bool:
        """Whether all ranks have left; then nothing remains. Called where MPI may be used."""
        if not self._left:
            return False
        try:
            with turn():
                if self._request is None:
                    self._request = self._comm.Ibarrier()
                if not self._request.Test():
                    return False
            self._close_instance()
            if self._windows is not None:
                self._windows.retire(self._linger)
            # No rank waits for another here: implementations only drop a reference.
            with turn():
                self._comm.Free()
        except _mpi_error() as error:
            # Seen with fault-tolerant MPIs only: others end the job.
            logger.warning("%s: MPI failed while it closed: %s", self.label, error)
            self._close_instance()
        return True

    def _close_instance(self) -> None:
        if self._server is not None:
            self._server.close()
        self._instance.close(self._clear)

    def overdue(self, since: float, patient: bool) -> bool:
        """Whether to wait no longer.

        Args:
            since: When a wait that is bounded began (monotonic clock).
            patient: Only if a rank died.
        """
        deadline = since + self._linger
        if patient:
            ended = self._one_gave_up() or self._peers.one_ended()
            if ended is None:
                return False
            # Those who are through with the barrier end too, and then so are we in a moment.
            deadline = max(deadline, ended + _THROUGH_S)
        return time.monotonic() > deadline

    def _one_gave_up(self) -> float | None:
        if self._given_up is None:
            with turn():
                if self._comm.Iprobe(tag=_GIVEN_UP):
                    self._given_up = time.monotonic()
        return self._given_up

    def abandon(self, aloud: bool) -> None:
        """Ends although not all have left.

        Args:
            aloud: Tells the others, who may see no socket of this rank.
        """
        if aloud:
            with suppress(_mpi_error()), turn():
                for rank in range(self._comm.size):
                    self._comm.Isend(b"", rank, _GIVEN_UP).Free()
        logger.warning(
            "%s stops serving although not all ranks have closed it: one has died or "
            "did not close within %g s",
            self.label,
            self._linger,
        )
        self._close_instance()


@dataclass
class _Connection:
    """What was opened on a communicator that leads to another `MPI_COMM_WORLD`."""

    jobs: list[MpiJob] = field(default_factory=list)
    windows: dict[Windows, None] = field(default_factory=dict)  # in the order of their making


class _Endings:
    """The jobs of this process that have not ended, and the hooks that end them."""

    def __init__(self) -> None:
        self._jobs: list[MpiJob] = []
        self._lock = make_rlock()
        self._pid = 0
        self._keyval: int | None = None
        self._connection_keyval: int | None = None

    def add(self, job: MpiJob) -> None:
        with self._lock:
            self._jobs.append(job)
            if self._keyval is None:
                from mpi4py import MPI

                self._pid = os.getpid()
                # MPI_Finalize begins with deleting the attributes of COMM_SELF.
                self._keyval = MPI.Comm.Create_keyval(delete_fn=self._at_finalize)
                MPI.COMM_SELF.Set_attr(self._keyval, True)

    def end_with(self, comm: MPI.Comm, job: MpiJob) -> None:
        """Ends a job when the communicator is freed, if that leads to another `MPI_COMM_WORLD`.

        As long as anything connects the two, the processes of neither can end before the others.

        Args:
            comm: The communicator that the user passed in.
            job: What was opened on it.
        """
        if not _leaves_world(comm):
            return
        from mpi4py import MPI

        if self._connection_keyval is None:
            self._connection_keyval = MPI.Comm.Create_keyval(delete_fn=self._at_free)
        connection: Any = comm.Get_attr(self._connection_keyval)
        if connection is None:
            connection = _Connection()
            comm.Set_attr(self._connection_keyval, connection)
        connection.jobs = [*self._remaining(connection.jobs), job]
        if job.windows is not None:
            connection.windows[job.windows] = None

    def _at_free(self, comm: MPI.Comm, keyval: int, connection: _Connection) -> None:
        if self._keyval is None:
            return  # MPI ends, and so did all jobs
        self._end(self._remaining(connection.jobs))
        for windows in connection.windows:
            free_together(windows)

    def _at_finalize(self, *_: Any) -> None:
        if self._keyval is not None:
            self._keyval = None
            alone.begin()
            self.finish()

    def at_exit(self) -> None:
        """Ends all jobs; MPI is finalized after this, when no Python can run any more."""
        self.finish()
        if self._keyval is not None and self._usable():
            from mpi4py import MPI

            keyval, self._keyval = self._keyval, None
            MPI.COMM_SELF.Delete_attr(keyval)
            MPI.Comm.Free_keyval(keyval)

    def _usable(self) -> bool:
        """Whether this thread may call MPI now."""
        mpi: Any = sys.modules.get("mpi4py.MPI")
        if mpi is None or os.getpid() != self._pid:  # a forked child is no rank
            return False
        if not mpi.Is_initialized() or mpi.Is_finalized():
            return False
        return bool(mpi.Query_thread() >= mpi.THREAD_SERIALIZED or mpi.Is_thread_main())

    def settle(self) -> None:
        """Ends the jobs that all ranks have left; the others stay. Never waits."""
        with self._lock:
            if self._jobs and self._usable():
                self._jobs = [job for job in self._jobs if not job.advance()]

    def finish(self) -> None:
        """Closes every store and waits for the other ranks."""
        if os.getpid() != self._pid:
            return
        self._end(list(self._jobs))
        if self._usable() and not _will_abort():
            free_idle()

    def _end(self, ending: list[MpiJob]) -> None:
        """Closes some stores and waits for the other ranks to close theirs."""
        for job in ending:
            try:
                job.close_participant()
            except ProxyStoreHpcError:
                logger.exception("closing %s failed", job.label)
        try:
            self._wait(ending)
        finally:
            with self._lock:
                aloud = self._usable() and not _will_abort()
                for job in self._remaining(ending):
                    job.abandon(aloud)
                    self._jobs.remove(job)

    def _remaining(self, ending: list[MpiJob]) -> list[MpiJob]:
        return [job for job in self._jobs if job in ending]

    def _wait(self, ending: list[MpiJob]) -> None:
        self.settle()
        if not self._remaining(ending) or not self._usable() or _will_abort():
            return
        patient = not _ends_by_error()
        since = time.monotonic()
        pause = _POLL_FIRST_S
        while remaining := self._remaining(ending):
            time.sleep(pause)
            pause = min(1.5 * pause, _POLL_LAST_S)
            self.settle()
            remaining = self._remaining(ending)
            if remaining and all(job.overdue(since, patient) for job in remaining):
                return


def _ends_by_error() -> bool:
    """Whether others may wait for this rank in vain, so that they will not close.

    Under 'python -m mpi4py', sys.exit(1) counts as an error, which only the runner knows of.
    """
    return getattr(sys, "last_value", None) is not None or "mpi4py.run" in sys.modules


def _leaves_world(comm: MPI.Comm) -> bool:
    """Whether processes of other `MPI_COMM_WORLD`s are in a communicator."""
    from mpi4py import MPI

    theirs, ours = comm.Get_group(), MPI.COMM_WORLD.Get_group()
    strangers = MPI.Group.Difference(theirs, ours)
    number = strangers.size
    for group in (strangers, theirs, ours):
        group.Free()
    return bool(number)


def _will_abort() -> bool:
    """Whether the job is about to be aborted because of an exception, as the runner does."""
    return getattr(sys, "last_value", None) is not None and "mpi4py.run" in sys.modules


def _mpi_error() -> type[Exception]:
    mpi: Any = sys.modules["mpi4py.MPI"]
    error: type[Exception] = mpi.Exception
    return error


_endings = _Endings()
settle = _endings.settle
finish = _endings.finish
end_with = _endings.end_with
# After the handler that closes other stores was registered, so it runs before that.
atexit.register(_endings.at_exit)
