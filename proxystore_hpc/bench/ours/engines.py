"""Our engines: calls, bulk transfers, and many clients."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from proxystore_hpc.bench.bursts import LONG_ENOUGH, Repeated, calibrated
from proxystore_hpc.bench.companion import PATIENCE, Companion
from proxystore_hpc.bench.contestant import Burst, Kind, Operation, UnavailableError
from proxystore_hpc.bench.data import expect, pattern
from proxystore_hpc.bench.ours import ways

__all__ = ["Calls"]

_SERVER = "proxystore_hpc.bench.ours.engines:Server"
_CLIENT = "proxystore_hpc.bench.ours.engines:Client"
_IN_FLIGHT = 64
_CLIENTS = 4
_OPERATIONS = frozenset(
    {
        *(Operation.ECHO, Operation.CALL, Operation.PIPELINE, Operation.CLIENTS),
        *(Operation.PULL, Operation.PUSH),
    }
)
_RINGS = ("ring",)


def _engine(way: ways.Way, nbytes: int) -> Any:
    """An engine whose messages and transfers go this way alone."""
    from proxystore_hpc.rpc import Engine

    options: dict[str, Any] = {"secret": ways.SECRET, "capacity": ways.capacity_for(nbytes)}
    if way.door == "ucx":
        options |= {"rings": False, "ucx": dict(way.ucx)}
    return Engine(way.door, bulk_door=way.door, **options)


class Calls:
    """A contestant: an engine that calls another one, and moves its memory.

    Args:
        way: `"shm"`, or one of UCX's: what messages and transfers go through.
    """

    kind = Kind.OURS
    operations = _OPERATIONS
    # An answer of so many bytes is not what calls are for: larger arrays go as bulk.
    most = 64 << 20

    def __init__(self, way: ways.Way) -> None:
        self._way = way
        self.name = f"engine-{way.name}"
        by = way.about if way.door == "ucx" else "rings in shared memory"
        self.about = f"calls and bulk by {by}; handlers in Python"
        self.reach = ("node",) if way.name in ("shm", "ucx-shm") else ("node", "fabric")
        if way.door == "ucx":
            # UCX's program stands beside all that UCX carries.
            called = moved = way.limit[Operation.GET]
        else:
            called, moved = "unix-socket", "memcpy"
        self.limit = {
            **dict.fromkeys((Operation.ECHO, Operation.CALL), called),
            **dict.fromkeys((Operation.PULL, Operation.PUSH), moved),
        }

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        return ways.check(self._way)

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return self._opened(operation, nbytes)

    @contextmanager
    def _opened(self, operation: Operation, nbytes: int) -> Iterator[Burst]:
        arguments: dict[str, Any] = {"way": self._way, "nbytes": nbytes}
        with ExitStack() as stack:
            server = stack.enter_context(Companion(_SERVER, **arguments))
            address = server.call("address")
            if operation is Operation.CLIENTS:
                clients = [
                    stack.enter_context(Companion(_CLIENT, address=address, **arguments))
                    for _ in range(_CLIENTS)
                ]
                yield _crowd(clients)
                return
            engine = stack.enter_context(_engine(self._way, nbytes))
            there = engine.lookup(address)
            ways.check_lanes(there.lanes, self._way.lanes or _RINGS)
            if operation in (Operation.PULL, Operation.PUSH):
                bulk = server.call("expose", nbytes)
                _check_door(engine, bulk, self._way.door)
                if operation is Operation.PULL:
                    yield _pull(engine, bulk, nbytes)
                else:
                    yield _push(engine, server, bulk, nbytes)
            elif operation is Operation.PIPELINE:
                yield _pipeline(engine.rpc("null").on(there))
            elif operation is Operation.ECHO:
                call, data = engine.rpc("echo", codec="raw").on(there), pattern(nbytes).tobytes()
                yield Repeated(lambda: call(data), lambda found: expect(found, nbytes))
            else:
                yield Repeated(engine.rpc("null").on(there), _expect_none)


def _check_door(engine: Any, bulk: Any, door: str) -> None:
    from proxystore_hpc import _core

    taken, _ = _core.move_bulk(engine._instance, bulk._handle, False, 0, None, None, PATIENCE)
    if taken != door:
        raise UnavailableError(f"the door {taken} was used")


def _expect_none(found: object) -> None:
    if found is not None:
        raise ValueError(f"a call of nothing gave {found!r}")


def _pull(engine: Any, bulk: Any, nbytes: int) -> Burst:
    import numpy as np

    target = np.zeros(nbytes, "u1")
    return Repeated(
        lambda: bulk.pull(engine, target),
        lambda _: expect(target, nbytes),
        before=lambda: target.fill(0),
    )


def _push(engine: Any, server: Companion, bulk: Any, nbytes: int) -> Burst:
    shift = 0
    data = pattern(nbytes)

    def change() -> None:
        nonlocal shift
        shift += 1
        data[:] = pattern(nbytes, shift)

    return Repeated(
        lambda: bulk.push(engine, data),
        lambda _: server.call("expect", nbytes, shift),
        before=change,
    )


def _pipeline(call: Any) -> Burst:
    def many(count: int) -> None:
        submit, flying = call.submit, deque[Any]()
        for _ in range(count):
            if len(flying) == _IN_FLIGHT:
                _expect_none(flying.popleft().result())
            flying.append(submit())
        for future in flying:
            _expect_none(future.result())

    count = 10 * _IN_FLIGHT

    def burst() -> float:
        began = time.perf_counter()
        many(count)
        return (time.perf_counter() - began) / count

    return burst


def _crowd(clients: list[Companion]) -> Burst:
    loops = max(client.call("calibrate") for client in clients)

    def burst() -> float:
        for client in clients:
            client.start("calls", 5 * loops)
        return float(sum(client.result() for client in clients) / len(clients))

    return burst


class Server:
    """Role: handlers, and memory to pull and push."""

    def __init__(self, way: ways.Way, nbytes: int) -> None:
        self.engine = _engine(way, nbytes)
        self.engine.register("null", lambda: None)
        self.engine.register("echo", lambda data: data, codec="raw")
        self._bulk: Any = None
        self._array: Any = None

    def address(self) -> str:
        """Where it is called."""
        return str(self.engine.address)

    def expose(self, nbytes: int) -> Any:
        """A handle of memory in the arena."""
        self._array = self.engine.empty(nbytes, "u1")
        self._array[:] = pattern(nbytes)
        self._bulk = self.engine.expose(self._array, "rw")
        return self._bulk

    def expect(self, nbytes: int, shift: int) -> None:
        """That the memory has been written."""
        expect(self._array, nbytes, shift)

    def close(self) -> None:
        """Ends it."""
        if self._bulk is not None:
            self._bulk.close()
        self.engine.close()


class Client:
    """Role: calls nothing, many times."""

    def __init__(self, way: ways.Way, nbytes: int, address: str) -> None:
        self.engine = _engine(way, nbytes)
        self._call = self.engine.rpc("null").on(self.engine.lookup(address))

    def calibrate(self) -> int:
        """Calls that take `LONG_ENOUGH`."""
        return calibrated(self._call, int(LONG_ENOUGH / 1e-7))

    def calls(self, count: int) -> float:
        """Seconds of one of so many calls."""
        call = self._call
        began = time.perf_counter()
        for _ in range(count):
            _expect_none(call())
        return (time.perf_counter() - began) / count

    def close(self) -> None:
        """Ends it."""
        self.engine.close()
