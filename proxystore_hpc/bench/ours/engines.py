"""Our engines: calls, bulk transfers, and many clients."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from proxystore_hpc.bench.bursts import LONG_ENOUGH, Repeated, calibrated
from proxystore_hpc.bench.companion import Companion
from proxystore_hpc.bench.contestant import Burst, Kind, Operation, UnavailableError
from proxystore_hpc.bench.data import expect, pattern
from proxystore_hpc.bench.ours import ways

__all__ = ["Calls"]

_SERVER = "proxystore_hpc.bench.ours.engines:Server"
_CLIENT = "proxystore_hpc.bench.ours.engines:Client"
_IN_FLIGHT = 64
_CLIENTS = 4
_MESSAGES = frozenset({Operation.ECHO, Operation.CALL, Operation.PIPELINE, Operation.CLIENTS})
_ABOUT = {
    "shm": "calls through rings in shared memory; handlers in Python",
    "ucx-tcp": "calls over UCX and TCP, loopback; handlers in Python",
}
_LIMITS = {"shm": "unix-socket", "ucx-tcp": "tcp-socket"}


def _engine(transport: str, nbytes: int) -> Any:
    from proxystore_hpc.rpc import Engine

    options: dict[str, Any] = {"secret": ways.SECRET, "capacity": ways.capacity_for(nbytes)}
    if transport == "ucx-tcp":
        return Engine("tcp", ucx={"net_devices": "lo"}, **options)
    return Engine(transport, **options)


class Calls:
    """A contestant: an engine that calls another one.

    Args:
        transport: `"shm"` or `"ucx-tcp"`.
    """

    kind = Kind.OURS
    # An answer of so many bytes is not what calls are for: larger arrays go as bulk.
    most = 64 << 20

    def __init__(self, transport: str) -> None:
        self._transport = transport
        self.name = f"engine-{transport}"
        self.about = _ABOUT[transport]
        self.reach = ("node",) if transport == "shm" else ("node", "fabric")
        limit = _LIMITS[transport]
        self.limit = {Operation.ECHO: limit, Operation.CALL: limit}
        self.operations = _MESSAGES
        if transport == "shm":
            # Between processes of a node bulk takes this way, whatever calls take.
            self.operations |= {Operation.PULL, Operation.PUSH}
            self.limit |= {Operation.PULL: "memcpy", Operation.PUSH: "memcpy"}

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        name = "ucx-tcp" if self._transport == "ucx-tcp" else "shm"
        (way,) = (way for way in ways.ways() if way.name == name)
        return ways.check(way)

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return self._opened(operation, nbytes)

    @contextmanager
    def _opened(self, operation: Operation, nbytes: int) -> Iterator[Burst]:
        arguments: dict[str, Any] = {"transport": self._transport, "nbytes": nbytes}
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
            engine = stack.enter_context(_engine(self._transport, nbytes))
            there = engine.lookup(address)
            self._check_lanes(there.lanes)
            if operation is Operation.PULL:
                yield _pull(engine, server.call("expose", nbytes), nbytes)
            elif operation is Operation.PUSH:
                yield _push(engine, server, server.call("expose", nbytes), nbytes)
            elif operation is Operation.PIPELINE:
                yield _pipeline(engine.rpc("null").on(there))
            elif operation is Operation.ECHO:
                call, data = engine.rpc("echo", codec="raw").on(there), pattern(nbytes).tobytes()
                yield Repeated(lambda: call(data), lambda found: expect(found, nbytes))
            else:
                yield Repeated(engine.rpc("null").on(there), _expect_none)

    def _check_lanes(self, lanes: str) -> None:
        expected = "ring" if self._transport == "shm" else "tcp"
        if not lanes.startswith(expected):
            raise UnavailableError(f"messages went over {lanes}")


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

    def __init__(self, transport: str, nbytes: int) -> None:
        self.engine = _engine(transport, nbytes)
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

    def __init__(self, transport: str, nbytes: int, address: str) -> None:
        self.engine = _engine(transport, nbytes)
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
