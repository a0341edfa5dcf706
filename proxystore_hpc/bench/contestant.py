"""What takes part in a comparison: a door of ours, a limit of the machine, or a peer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum
from typing import Protocol

__all__ = ["Burst", "Contestant", "Kind", "Operation", "UnavailableError"]

Burst = Callable[[], float]
"""Does the operation a few times and returns the seconds that one took.

What arrived is verified after the clock has stopped; a burst raises if it is not what was sent.
"""


class Kind(str, Enum):
    """Why something takes part."""

    OURS = "ours"
    LIMIT = "limit"
    PEER = "peer"


class Operation(str, Enum):
    """What contestants do. Payloads are arrays of bytes that `bench.data.pattern` makes."""

    EXCHANGE = "exchange"
    """An array is stored in one process and becomes an array in another: both parts together.

    A peer that passes messages is asked for the array by the receiver, and the clock runs there
    from the request until the array can be used.
    """
    GET = "get"
    """An array that is stored already becomes one in another process."""
    PUT = "put"
    """An array is stored where another process could get it."""
    ECHO = "echo"
    """Bytes go to a procedure of another process and come back."""
    STREAM = "stream"
    """Items pass from a producer to a consumer in another process; seconds of one item."""
    FUTURE = "future"
    """A result is set in one process until another one that waits for it has it."""
    TASK = "task"
    """A no-op is run by an executor with an array as its argument, until its result is back."""


class UnavailableError(Exception):
    """A contestant cannot take part; the message says why, and what to do about it if anything."""


class Contestant(Protocol):
    """One line of a plot."""

    @property
    def name(self) -> str:
        """Short and unique, such as `"shm"` or `"redis"`."""

    @property
    def kind(self) -> Kind:
        """Why it takes part."""

    @property
    def about(self) -> str:
        """One line for the report: what it is, and over what it moves bytes."""

    @property
    def operations(self) -> frozenset[Operation]:
        """What it can do."""

    @property
    def most(self) -> int | None:
        """The largest payload in bytes that it can move, None without a limit."""

    def check(self) -> dict[str, str]:
        """Looks whether it can take part here, cheaply: imports and programs, nothing is started.

        Returns:
            Versions by name, for the report.

        Raises:
            UnavailableError: It cannot.
        """

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """Starts what the operation needs; the end of the context ends it.

        Raises:
            UnavailableError: It turned out only now that it cannot.
        """
