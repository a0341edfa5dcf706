"""Two processes between which an adapter's bytes go: one holds or serves, the other one asks.

An adapter is a `Side`, opened in each of two companions; the clock runs in the process that acts.
Where a library brings processes of its own, an adapter measures itself: see `measured`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from proxystore_hpc.bench.companion import Companion
from proxystore_hpc.bench.contestant import Burst, Operation
from proxystore_hpc.bench.data import WrongBytesError, expect, pattern

__all__ = [
    "HOST",
    "Host",
    "Outcome",
    "Side",
    "asked",
    "burst_of",
    "exchange",
    "looked_at",
    "measured",
    "measuring",
    "pair",
    "part_of",
    "stored",
    "storing",
    "times_of",
]

Outcome = tuple[float, str]
"""Seconds that one took, and what was wrong with the bytes, if anything."""
HOST = f"{__name__}:Host"
"""Role of both processes."""
MANY, BATCH = 20, 1 << 20


class Side:
    """One of the two processes' part of an adapter; what it cannot do, it leaves out.

    Args:
        nbytes: Size of the payloads.
        peer: What `address` of the holding side gave; None in the holding process itself.
    """

    def __init__(self, nbytes: int, peer: Any) -> None:
        self.nbytes = nbytes
        self.peer = peer

    def address(self) -> Any:
        """What the asking side needs to know."""
        return True

    def put(self, data: Any) -> Any:
        """Stores an array; returns how to get it."""
        raise NotImplementedError

    def attend(self) -> None:
        """All is put, and will be got until the first `drop`. In the holding process."""

    def get(self, ticket: Any) -> Any:
        """The array of a ticket."""
        raise NotImplementedError

    def drop(self, ticket: Any) -> None:
        """Takes what was put away. In the holding process."""

    def release(self, ticket: Any) -> None:
        """What `get` gave of it is no longer used. In the asking process."""

    def fetch(self) -> Any:
        """Has the other side send its array."""
        raise NotImplementedError

    def echo(self, data: Any) -> Any:
        """Bytes there and back."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends it."""


class Host:
    """Role: has a side of an adapter, and the clock.

    Args:
        side: `"module:Class"`.
        nbytes: Size of the payloads.
        peer: See `Side`.
        options: More for its constructor.
    """

    def __init__(self, side: str, nbytes: int, peer: Any = None, **options: Any) -> None:
        module, _, name = side.partition(":")
        kind = getattr(importlib.import_module(module), name)
        self.side: Side = kind(nbytes=nbytes, peer=peer, **options)
        self.nbytes = nbytes

    @cached_property
    def data(self) -> Any:
        """The array; a side that only gets needs none."""
        return pattern(self.nbytes)

    def address(self) -> Any:
        """Of the side."""
        return self.side.address()

    def prepare(self, nbytes: int) -> None:
        """Payloads are of another size from now on."""
        self.rest()
        self.nbytes = self.side.nbytes = nbytes

    def rest(self) -> None:
        """Frees the array."""
        self.__dict__.pop("data", None)

    def put(self, times: int) -> tuple[float, list[Any]]:
        """Seconds of one, and how to get them."""
        put, data, tickets = self.side.put, self.data, []
        began = time.perf_counter()
        for _ in range(times):
            tickets.append(put(data))
        seconds = (time.perf_counter() - began) / times
        self.side.attend()
        return seconds, tickets

    def get(self, tickets: list[Any]) -> Outcome:
        """Gets each; what was got is looked at after the clock has stopped."""
        seconds, complaint = 0.0, ""
        for ticket in tickets:
            began = time.perf_counter()
            found = self.side.get(ticket)
            seconds += time.perf_counter() - began
            complaint = complaint or looked_at(found, self.nbytes)
            del found
            self.side.release(ticket)
        return seconds / len(tickets), complaint

    def drop(self, tickets: list[Any]) -> None:
        """Takes them away."""
        for ticket in tickets:
            self.side.drop(ticket)

    def ask(self, echo: bool, times: int) -> Outcome:
        """Asks the other side some times, for its array or to echo ours."""
        seconds, complaint = 0.0, ""
        payload = self.data.tobytes() if echo else b""
        for _ in range(times):
            began = time.perf_counter()
            found = self.side.echo(payload) if echo else self.side.fetch()
            seconds += time.perf_counter() - began
            complaint = complaint or looked_at(found, self.nbytes)
            del found
        return seconds / times, complaint

    def close(self) -> None:
        """Ends the side."""
        self.side.close()


def looked_at(found: Any, nbytes: int) -> str:
    """What is wrong with bytes that arrived; empty if nothing is."""
    try:
        expect(found, nbytes)
    except WrongBytesError as error:
        return str(error)
    return ""


def times_of(nbytes: int) -> int:
    """How often a burst does what it does: a few times for what is small."""
    return max(1, min(MANY, BATCH // max(1, nbytes)))


def burst_of(act: Callable[[], Outcome]) -> Burst:
    """A burst that raises `WrongBytesError` for what others complain of."""

    def burst() -> float:
        seconds, complaint = act()
        if complaint:
            raise WrongBytesError(complaint)
        return seconds

    return burst


def exchange(holder: Companion, asker: Companion, times: int) -> tuple[float, float]:
    """Seconds of a put there, and of the get here, each the mean of so many.

    Raises:
        WrongBytesError: Other bytes arrived.
    """
    put_s, tickets = holder.call("put", times)
    get_s, complaint = asker.call("get", tickets)
    holder.call("drop", tickets)
    if complaint:
        raise WrongBytesError(complaint)
    return put_s, get_s


def part_of(operation: Operation, put_s: float, get_s: float) -> float:
    """Which of them is the operation's; an exchange is both."""
    return {Operation.PUT: put_s, Operation.GET: get_s}.get(operation, put_s + get_s)


@contextmanager
def pair(side: str, nbytes: int, **options: Any) -> Iterator[tuple[Companion, Companion]]:
    """Who holds and who asks, each a `Host`; the second one knows the first one's address."""
    with (
        Companion(HOST, side=side, nbytes=nbytes, **options) as holder,
        Companion(HOST, side=side, nbytes=nbytes, peer=holder.call("address"), **options) as asker,
    ):
        yield holder, asker


@contextmanager
def stored(side: str, operation: Operation, nbytes: int, **options: Any) -> Iterator[Burst]:
    """Puts in one process and gets in another; an exchange is the sum of both."""
    with pair(side, nbytes, **options) as both:
        yield storing(both, operation, nbytes)


def storing(both: Sequence[Companion], operation: Operation, nbytes: int) -> Burst:
    """The burst of `stored` of two that run: who holds, and who gets."""
    holder, asker = both
    times = times_of(nbytes)

    def burst() -> float:
        put_s, get_s = exchange(holder, asker, times)
        return part_of(operation, put_s, get_s)

    return burst


@contextmanager
def asked(side: str, operation: Operation, nbytes: int, **options: Any) -> Iterator[Burst]:
    """Messages: the clock runs from a request until its answer can be used."""
    times = times_of(nbytes)
    with pair(side, nbytes, **options) as (_, asker):
        yield burst_of(lambda: asker.call("ask", operation is Operation.ECHO, times))


@contextmanager
def measured(companion: Companion, operation: Operation, nbytes: int) -> Iterator[Burst]:
    """An adapter with processes of its own: its `measure` gives an `Outcome`."""
    with companion:
        yield measuring((companion,), operation, nbytes)


def measuring(companions: Sequence[Companion], operation: Operation, nbytes: int) -> Burst:
    """The burst of `measured` of one that runs."""
    (companion,) = companions
    times = times_of(nbytes)
    return burst_of(lambda: companion.call("measure", operation, nbytes, times))
