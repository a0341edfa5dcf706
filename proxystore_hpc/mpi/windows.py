"""What the mpi door needs of MPI: a communicator and two windows, made by all ranks together.

They are not freed when a store ends: that would be collective, and ranks that close at different
times would wait for each other. The next store on the same ranks takes them over, and the end of
the process frees them, where all ranks come by.
"""

from __future__ import annotations

import itertools
import time
import warnings
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import DoorUnavailableError
from proxystore_hpc.mpi.alone import turn
from proxystore_hpc.mpi.arguments import LINGER
from proxystore_hpc.utils.locks import make_lock

if TYPE_CHECKING:
    from mpi4py import MPI

    from proxystore_hpc.mpi.meeting import Meeting

IDLE = 2e-3
"""Longest sleep in seconds of the thread that progresses MPI."""

_CONSTANTS = ("BYTE", "UINT64_T", "SUM", "REPLACE", "NO_OP")
_NUMBERS = ("ANY_SOURCE", "LOCK_SHARED", "MODE_NOCHECK")
# What is true of all that the door does with the window of messages. So is acc_single_intrinsic of
# Open MPI, but its osc/ucx then aborts in the first MPI_Rget_accumulate.
_MESSAGES_INFO = {"accumulate_ops": "same_op_no_op"}

_idle: list[Windows] = []
# By the communicator on which a meeting goes on: so two that go on at once never choose the same.
_offered: dict[int, list[Windows]] = {}
_serials = itertools.count()
_lock = make_lock()


class Windows:
    """The windows of one door on every rank. Collective.

    Args:
        comm: The ranks; duplicated.
        number: 16 bytes, the same on all ranks and new.

    Raises:
        DoorUnavailableError: This MPI is unknown, too old, or its windows are not of the unified
            memory model.
    """

    def __init__(self, comm: MPI.Intracomm, number: bytes) -> None:
        from mpi4py import MPI

        module = load_module()
        self.serial = next(_serials)
        self._patience = LINGER
        self.number = number
        self.comm = comm.Dup()
        self.comm.Set_errhandler(MPI.ERRORS_RETURN)
        info = MPI.Info.Create(_MESSAGES_INFO)
        self._messages = MPI.Win.Allocate(module.WINDOW_NBYTES, 1, info, self.comm)
        info.Free()
        self._memory = MPI.Win.Create_dynamic(comm=self.comm)
        # By rank: whether a door has locked it there.
        self._locked = bytearray(self.comm.size)
        for window in (self._messages, self._memory):
            window.Set_errhandler(MPI.ERRORS_RETURN)
            if window.model != MPI.WIN_UNIFIED:
                raise DoorUnavailableError(
                    "mpi", "this MPI keeps a separate copy of window memory (MPI_WIN_SEPARATE)"
                )
        self._messages.Lock_all(MPI.MODE_NOCHECK)

    def door(self, job: bytes) -> Any:
        """A new mpi door, as a capsule for `Instance.open_door`.

        Messages may be sent through it once all ranks have theirs.

        Args:
            job: 16 bytes, the same on all ranks and new for each door.

        Raises:
            DoorUnavailableError: Windows cannot be used.
        """
        from mpi4py import MPI

        return load_module().create_door(
            **check_mpi(),
            comm=handle_of(self.comm),
            messages=handle_of(self._messages),
            memory=handle_of(self._memory),
            base=self._messages.Get_attr(MPI.WIN_BASE),
            locked=self._locked,
            rank=self.comm.rank,
            ranks=self.comm.size,
            job=job,
            threads=thread_level(),
            idle=IDLE,
        )

    def free(self) -> None:
        """Ends them. Collective; not done if some rank does not come by."""
        if not self._all_are_here():
            return
        with turn():
            self._messages.Unlock_all()
            for rank, locked in enumerate(self._locked):
                if locked:
                    self._memory.Unlock(rank)
            self._messages.Free()
            self._memory.Free()
            self._drop_bells()
            self.comm.Free()

    def _all_are_here(self) -> bool:
        with turn():
            everybody = self.comm.Ibarrier()
        deadline = time.monotonic() + self._patience
        pause = 20e-6
        while True:
            with turn():
                if everybody.Test():
                    return True
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(1.5 * pause, 5e-3)

    def _drop_bells(self) -> None:
        """Receives what rang after the door had stopped: MPICH frees no communicator before."""
        from mpi4py import MPI

        while (bell := self.comm.Improbe(MPI.ANY_SOURCE, MPI.ANY_TAG)) is not None:
            bell.Recv([bytearray(0), MPI.BYTE])

    def retire(self, patience: float = LINGER) -> None:
        """The door has stopped here; the next one on the same ranks may use the windows.

        Args:
            patience: Seconds that their end may wait for other ranks.
        """
        self._patience = patience
        with _lock:
            _idle.append(self)


def free_idle() -> None:
    """Frees the windows that no door uses, in the order in which they were made. Collective."""
    with _lock:
        ended = sorted(_idle, key=lambda windows: windows.serial)
        _idle.clear()
    for windows in ended:
        windows.free()


def free_together(windows: Windows) -> None:
    """Frees windows, if no door uses them on any rank. Collective."""
    with _lock:
        idle = windows in _idle
        if idle:
            _idle.remove(windows)
    if all(windows.comm.allgather(idle)):
        windows.free()
    elif idle:
        windows.retire()


def offer_left_over(comm: MPI.Intracomm) -> tuple[bytes, ...]:
    """Numbers of the windows of the same ranks that no door uses.

    They are kept for these ranks until `open_windows`, or `withdraw_offer`.
    """
    from mpi4py import MPI

    with _lock:
        offer = [w for w in _idle if MPI.Comm.Compare(w.comm, comm) == MPI.CONGRUENT]
        _idle[:] = [windows for windows in _idle if windows not in offer]
        _offered[handle_of(comm)] = offer
    return tuple(windows.number for windows in offer)


def withdraw_offer(comm: MPI.Intracomm) -> None:
    """Lets others have what was offered, if it still is."""
    with _lock:
        _idle.extend(_offered.pop(handle_of(comm), ()))


def open_windows(comm: MPI.Intracomm, meeting: Meeting) -> Windows:
    """Windows that no door uses, new ones if need be. Collective.

    Args:
        comm: The ranks.
        meeting: What they have told.

    Raises:
        DoorUnavailableError: See `Windows`.
    """
    number = meeting.windows()
    if number is None:
        withdraw_offer(comm)
        return Windows(comm, meeting.number)
    with _lock:
        offer = _offered[handle_of(comm)]
        chosen = next(windows for windows in offer if windows.number == number)
        offer.remove(chosen)
    withdraw_offer(comm)
    return chosen


def check_mpi() -> dict[str, Any]:
    """What the extension module needs to know of MPI.

    Raises:
        DoorUnavailableError: It is unknown, too old, or may not be called by this thread.
    """
    from mpi4py import MPI

    library = str(MPI.__file__)
    constants = {name: handle_of(getattr(MPI, name)) for name in _CONSTANTS}
    for name in _NUMBERS:
        constants[name] = getattr(MPI, name) & 0xFFFFFFFF
    load_module().identify(library, constants)
    thread_level()
    return {"library": library, "constants": constants}


def handle_of(thing: Any) -> int:
    """MPI's handle of an object of mpi4py, as a number without a sign."""
    from mpi4py import MPI

    return int(MPI._handleof(thing)) & 0xFFFF_FFFF_FFFF_FFFF


def load_module() -> Any:
    """The extension module that talks to MPI.

    Raises:
        DoorUnavailableError: It was not built for this machine.
    """
    try:
        from proxystore_hpc import _mpi
    except ImportError as error:
        raise DoorUnavailableError(
            "mpi",
            f"the module for MPI cannot be loaded ({error}); it needs Linux and is built by "
            "'pip install proxystore_hpc' where a C++ compiler is present",
        ) from error
    return _mpi


def thread_level() -> str:
    """Which threads may call MPI: `"multiple"`, `"serialized"` or `"main"`.

    Raises:
        DoorUnavailableError: Only the main thread may, and this is another.
    """
    from mpi4py import MPI

    level = MPI.Query_thread()
    if level == MPI.THREAD_MULTIPLE:
        return "multiple"
    if level == MPI.THREAD_SERIALIZED:
        return "serialized"
    if not MPI.Is_thread_main():
        raise DoorUnavailableError(
            "mpi", "MPI was started for its main thread only, and this is another"
        )
    return "main"


def warn_of_thread_level(name: str) -> None:
    """Says what to expect where no thread of ours may call MPI."""
    level = thread_level()
    if level == "multiple":
        return
    who = "one thread at a time" if level == "serialized" else "the main thread only"
    warnings.warn(
        f"{name}: MPI may be called by {who}, so other ranks are served only while this one is in "
        "a call of this library; start MPI with MPI_THREAD_MULTIPLE (mpi4py.rc.thread_level)",
        stacklevel=4,
    )
