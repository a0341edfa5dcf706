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
from typing import TYPE_CHECKING, Any, Protocol

from proxystore_hpc.exceptions import InvalidArgumentError, ProxyStoreHpcError
from proxystore_hpc.mpi.peers import Peers
from proxystore_hpc.mpi.windows import free_idle
from proxystore_hpc.utils.locks import make_rlock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpi4py import MPI

    from proxystore_hpc.mpi.windows import Windows

logger = logging.getLogger(__name__)

_THROUGH_S = 1.0
_POLL_FIRST_S = 50e-6
_POLL_LAST_S = 5e-3


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
        self._participant = weakref.ref(participant)
        self._addresses = addresses
        self._linger = linger
        self._windows = windows
        self._left = False
        self._request: MPI.Request | None = None
        self._peers = Peers(addresses)
        _endings.add(self)

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

    def leave(self) -> None:
        """Goes on serving until all ranks have left, then closes the instance. Idempotent."""
        self._left = True
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
            if self._request is None:
                self._request = self._comm.Ibarrier()
            if not self._request.Test():
                return False
            self._instance.close()
            if self._windows is not None:
                self._windows.retire(self._linger)
            # No rank waits for another here: implementations only drop a reference.
            self._comm.Free()
        except _mpi_error() as error:
            # Seen with fault-tolerant MPIs only: others end the job.
            logger.warning("%s: MPI failed while it closed: %s", self.label, error)
            self._instance.close()
        return True

    def overdue(self, since: float, patient: bool) -> bool:
        """Whether to wait no longer.

        Args:
            since: When a wait that is bounded began (monotonic clock).
            patient: Only if a rank died.
        """
        deadline = since + self._linger
        if patient:
            ended = self._peers.one_ended()
            if ended is None:
                return False
            # Those who are through with the barrier end too, and then so are we in a moment.
            deadline = max(deadline, ended + _THROUGH_S)
        return time.monotonic() > deadline

    def abandon(self) -> None:
        """Ends although not all have left."""
        logger.warning(
            "%s stops serving although not all ranks have closed it: one has died or "
            "did not close within %g s",
            self.label,
            self._linger,
        )
        self._instance.close()


class _Endings:
    """The jobs of this process that have not ended, and the hooks that end them."""

    def __init__(self) -> None:
        self._jobs: list[MpiJob] = []
        self._lock = make_rlock()
        self._pid = 0
        self._keyval: int | None = None

    def add(self, job: MpiJob) -> None:
        with self._lock:
            self._jobs.append(job)
            if self._keyval is None:
                from mpi4py import MPI

                self._pid = os.getpid()
                # MPI_Finalize begins with deleting the attributes of COMM_SELF.
                self._keyval = MPI.Comm.Create_keyval(delete_fn=self._at_finalize)
                MPI.COMM_SELF.Set_attr(self._keyval, True)

    def _at_finalize(self, *_: Any) -> None:
        if self._keyval is not None:
            self._keyval = None
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
        for job in list(self._jobs):
            try:
                job.close_participant()
            except ProxyStoreHpcError:
                logger.exception("closing %s at the end of the process failed", job.label)
        try:
            self._wait()
        finally:
            with self._lock:
                for job in self._jobs:
                    job.abandon()
                self._jobs.clear()
        if self._usable() and not _will_abort():
            free_idle()

    def _wait(self) -> None:
        self.settle()
        if not self._jobs or not self._usable() or _will_abort():
            return
        patient = not _ends_by_error()
        since = time.monotonic()
        pause = _POLL_FIRST_S
        while self._jobs:
            time.sleep(pause)
            pause = min(1.5 * pause, _POLL_LAST_S)
            self.settle()
            if self._jobs and all(job.overdue(since, patient) for job in self._jobs):
                return


def _ends_by_error() -> bool:
    """Whether others may wait for this rank in vain, so that they will not close.

    Under 'python -m mpi4py', sys.exit(1) counts as an error, which only the runner knows of.
    """
    return getattr(sys, "last_value", None) is not None or "mpi4py.run" in sys.modules


def _will_abort() -> bool:
    """Whether the job is about to be aborted because of an exception, as the runner does."""
    return getattr(sys, "last_value", None) is not None and "mpi4py.run" in sys.modules


def _mpi_error() -> type[Exception]:
    mpi: Any = sys.modules["mpi4py.MPI"]
    error: type[Exception] = mpi.Exception
    return error


_endings = _Endings()
settle = _endings.settle
# After the handler that closes other stores was registered, so it runs before that.
atexit.register(_endings.at_exit)
