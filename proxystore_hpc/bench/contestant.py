"""What takes part in a comparison: a door of ours, a limit of the machine, or a peer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from enum import Enum
from typing import Protocol

__all__ = [
    "Burst",
    "Contestant",
    "Kind",
    "Operation",
    "UnavailableError",
    "arrays_of",
    "limit_of",
    "unit_of",
]

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
    PUT_THERE = "put-there"
    """An array is stored in the memory of another process."""
    RESOLVE = "resolve"
    """A proxy that arrived as a pickle is unpickled and used."""
    EXISTS = "exists"
    """Another process is asked whether it has an object."""
    EVICT = "evict"
    """An object of this process is thrown away."""
    BATCH = "batch"
    """Arrays of another process are got in one call; seconds of one array."""
    MANY_TO_ONE = "many-to-one"
    """One process gets arrays of several owners in turn; seconds of one array."""
    ONE_TO_MANY = "one-to-many"
    """Several processes get the array of one owner at once; seconds of one get at one of them."""
    ALL_TO_ALL = "all-to-all"
    """Each of several processes gets the array of each other; seconds of one array at one."""
    WEAK = "weak"
    """As many pairs as the name says get an array at once, of the full size in each pair."""
    STRONG = "strong"
    """As many pairs as the name says share the bytes; seconds until all have arrived."""
    CALL = "call"
    """A procedure of another process that does nothing is called."""
    PIPELINE = "pipeline"
    """The same with many calls in flight; seconds of one call."""
    CLIENTS = "clients"
    """As many clients as the name says call one server at once; seconds of one call at one."""
    PULL = "pull"
    """Memory that another process exposes is read into memory of this one."""
    PUSH = "push"
    """Memory of this process is written into memory that another process exposes."""
    CREATE = "create"
    """A small object is stored and a proxy of it is made."""
    USE = "use"
    """An item is read from a small object that is there already."""
    START = "start"
    """A new process starts until it could use what is named."""
    MEMORY = "memory"
    """Resident bytes of a process that holds what is named, without what it shares with others."""
    OPEN = "open"
    """All ranks of a job open what is named together, after they have met; seconds."""
    SLOWDOWN = "slowdown"
    """How many times as long a computation takes beside what is named as alone."""


_UNITS = {Operation.MEMORY: "B", Operation.SLOWDOWN: "x"}


def unit_of(operation: Operation) -> str:
    """What bursts of an operation return: `"s"`, for few `"B"` (bytes) or `"x"` (a ratio)."""
    return _UNITS.get(operation, "s")


def arrays_of(operation: Operation) -> int:
    """How many arrays of its size an operation moves at once."""
    return 16 if operation is Operation.BATCH else 1


class UnavailableError(Exception):
    """A contestant cannot take part; the message says why, and what to do about it if anything."""


class Contestant(Protocol):
    """One line of a plot.

    It may also have `rest()`, which ends what it keeps from one comparison to the next and is
    called before one that it has no part in, and `close()`, which does so for good.
    """

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


def limit_of(contestant: Contestant, operation: Operation) -> str | None:
    """The name of the limit that a contestant is held against, if it has one.

    That is its attribute `limit`, which it need not have: a name, or names by operation.
    """
    limit: str | Mapping[Operation, str] | None = getattr(contestant, "limit", None)
    return limit.get(operation) if isinstance(limit, Mapping) else limit
