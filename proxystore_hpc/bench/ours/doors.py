"""Our stores through one door each."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from proxystore_hpc.bench.companion import Companion
from proxystore_hpc.bench.contestant import Burst, Kind, Operation
from proxystore_hpc.bench.ours import handling, moving, ways
from proxystore_hpc.bench.ours.owner import Holder

__all__ = ["Door", "owner_of"]

OWNER = "proxystore_hpc.bench.ours.owner:Owner"

REACH = {
    "shm": ("node",),
    "socket": ("node",),
    "ucx": ("node", "fabric"),
    "mpi": ("node", "fabric"),
    "tcp": ("fabric", "outside"),
}
"""How far a door leads, for the table of doors."""
_HANDLED = ("shm", "ucx-shm", "ucx-tcp", "tcp")
_HANDLING = {Operation.RESOLVE, Operation.EXISTS, Operation.EVICT, Operation.BATCH}


def _reach(way: ways.Way) -> tuple[str, ...]:
    if way.name == "ucx-shm":
        return ("node",)
    return ("outside",) if way.gateway else REACH.get(way.door, ())


class Door:
    """A contestant: stores that have one door alone."""

    kind = Kind.OURS
    most = None

    def __init__(self, way: ways.Way) -> None:
        self.way = way
        self.name = way.name
        self.about = way.about
        self.operations = way.operations
        self.limit = dict(way.limit)
        if way.name in _HANDLED:
            self.operations |= _HANDLING
            asked = "tcp-socket" if "tcp" in way.name else "unix-socket"
            moved = way.limit[Operation.GET]
            self.limit |= {Operation.EXISTS: asked}
            self.limit |= dict.fromkeys((Operation.RESOLVE, Operation.BATCH), moved)
        self.reach = _reach(way)

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        return ways.check(self.way)

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return self._opened(operation, nbytes)

    @contextmanager
    def _opened(self, operation: Operation, nbytes: int) -> Iterator[Burst]:
        way, capacity = self.way, ways.capacity_for(_objects(operation) * nbytes)
        with ExitStack() as stack:
            store = stack.enter_context(way.open_store(capacity, register=True))
            owner: moving.Asked
            if way.alone:
                owner = moving.Here(Holder(store))
            else:
                owner = stack.enter_context(owner_of(way, capacity))

            def check(key: Any) -> None:
                ways.check_doors(store, way, key)

            if operation is Operation.GET:
                yield moving.get(store, owner, nbytes, check)
            elif operation is Operation.PUT:
                yield moving.put(store, None if way.alone else owner, nbytes)
            elif operation is Operation.RESOLVE:
                yield handling.resolve(owner, nbytes)
            elif operation is Operation.EXISTS:
                yield handling.exists(store, owner, nbytes)
            elif operation is Operation.EVICT:
                yield handling.evict(store, nbytes)
            elif operation is Operation.BATCH:
                yield handling.batch(store, owner, nbytes, check)
            elif operation is Operation.PUT_THERE:
                yield moving.put_there(store, owner, owner.call("address"), nbytes, check)
            else:
                yield moving.exchange(store, owner, nbytes, check)


def _objects(operation: Operation) -> int:
    """Capacity is for some objects of a size; these need more."""
    return 8 if operation is Operation.BATCH else 1


@contextmanager
def owner_of(way: ways.Way, capacity: int) -> Iterator[Companion]:
    """A process with a store of this way, and a gateway if it takes one."""
    with ExitStack() as stack:
        arguments: dict[str, Any] = {"way": way, "capacity": capacity}
        if way.tls:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            arguments["state"] = str(Path(folder, "state.json"))
        if way.gateway:
            arguments["gateway"] = {"address": stack.enter_context(_gateway()), "plain": True}
        yield stack.enter_context(Companion(OWNER, **arguments))


@contextmanager
def _gateway() -> Iterator[str]:
    """Address of a gateway on loopback, as the shell starts it."""
    command = [sys.executable, "-m", "proxystore_hpc", "gateway", "--json", "--plain"]
    process = subprocess.Popen([*command, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["address"]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
