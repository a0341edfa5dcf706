"""Two ranks of a job as the two sides of a suite: rank 0 is the test, rank 1 its peer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import cloudpickle

from support.peer import PeerDiedError, Pending, Side, packed_call, value_of
from support.program import Here, outcome_of, packed

POLL_S = 0.0005
_wire: list[Any] = []


def wire() -> Any:
    """The communicator of requests and answers. Its first call is collective."""
    if not _wire:
        from mpi4py import MPI

        _wire.append(MPI.COMM_WORLD.Dup())
    return _wire[0]


def serve() -> None:
    """What rank 1 does until rank 0 calls `dismiss`."""
    sides: dict[int, Here] = {}
    while True:
        number, call = receive(None)
        if call is None:
            return
        function, args = cloudpickle.loads(call)
        outcome = outcome_of(sides.setdefault(number, Here()), function, args)
        del function, args
        wire().send((number, packed(outcome)), 0)
        del outcome


def dismiss() -> None:
    """Lets rank 1 come to its end."""
    wire().send((-1, None), 1)


def receive(timeout: float | None) -> Any:
    """The next message of the other rank. It is polled for: a rank that waits in MPI spins.

    Raises:
        TimeoutError: It did not come within `timeout` seconds.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while not wire().iprobe():
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(POLL_S)
    return wire().recv()


class RankPeer(Side):
    """Something of its own on rank 1; several share that process."""

    _made = 0
    _broken = False

    def __init__(self) -> None:
        self.addresses: list[bytes] = []
        self._number = RankPeer._made
        RankPeer._made += 1

    def start(self, function: Callable[..., Any], *args: Any) -> Pending:
        if RankPeer._broken:
            raise PeerDiedError("rank 1 did not answer before")
        wire().send((self._number, packed_call(function, args)), 1)
        return Pending(self)

    def _receive(self, timeout: float) -> Any:
        try:
            number, outcome = receive(timeout)
        except TimeoutError:
            RankPeer._broken = True
            raise AssertionError(f"rank 1 did not answer within {timeout} s") from None
        assert number == self._number
        return value_of(cloudpickle.loads(outcome), "rank 1")

    def clean_up(self) -> str | None:
        self.addresses.clear()  # served until both ranks have closed
        try:
            self(close)
        except (AssertionError, PeerDiedError) as error:
            return str(error)
        return None


class ThisSide(Side):
    """The test's own process."""

    def __init__(self) -> None:
        self.addresses: list[bytes] = []
        self._here = Here()
        self._outcome: tuple[bool, Any] = (True, None)

    def start(self, function: Callable[..., Any], *args: Any) -> Pending:
        self._outcome = outcome_of(self._here, function, args)
        return Pending(self)

    def _receive(self, timeout: float) -> Any:
        return value_of(self._outcome, f"process {os.getpid()}")

    def clean_up(self) -> str | None:
        self.addresses.clear()
        self(close)
        return None


def close(here: Here) -> None:
    """Closes what was opened."""
    for name in ("engine", "store"):
        if hasattr(here, name):
            getattr(here, name).close()
