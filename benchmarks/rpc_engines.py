"""Two engines that measure calls between them; what `rpc.py` stands on."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import harness
import numpy as np

from proxystore_hpc.rpc import BoundCall, Bulk, Engine

SECRET = b"0123456789abcdef"
# Both processes read it.
INTERFACE = "PROXYSTORE_HPC_BENCHMARK_INTERFACE"
MIB = 1 << 20


@dataclass
class Scale:
    """Sizes and times; the small ones only show that everything runs."""

    seconds: float = 3.0
    batch: int = 200
    window: int = 64
    pipelined: int = 20_000
    large: int = 64 * MIB
    total: int = 10_000_000
    rounds: int = 5


SMALL = Scale(
    seconds=0.1,
    batch=5,
    pipelined=500,
    large=2 * MIB,
    total=5_000,
    rounds=1,
)


@dataclass(frozen=True)
class Batch(harness.Action):
    """An action that makes many calls by itself; its time is that of one."""

    calls: int = 1

    def time(self) -> float:
        return super().time() / self.calls


# Two engines.


def options_of(transport: str) -> dict[str, Any]:
    """Arguments that both engines are made with, for `"shm"`, `"tcp"` or `"ucx-shm"`."""
    options: dict[str, Any] = {"address": transport, "secret": SECRET, "capacity": 1 << 30}
    interface = os.environ.get(INTERFACE, "")
    if transport == "tcp" and interface:
        options["ucx"] = {"interface": interface}
    if transport == "ucx-shm":
        options |= {"address": "ucx", "rings": False, "ucx": {"tls": "shm,self"}}
    return options


class Server:
    """Role: an engine with handlers, and with memory to pull."""

    def __init__(self, transport: str, progress: str) -> None:
        self.engine = Engine(progress=progress, **options_of(transport))
        self.engine.register("null", lambda: None)
        self.engine.register("echo", lambda data: data)
        self.engine.register("raw echo", lambda data: data, codec="raw")
        self.exposed: list[Bulk] = []

    def address(self) -> str:
        return self.engine.address

    def expose(self, nbytes: int, *, arena: bool) -> tuple[Bulk, int]:
        """Memory filled with `pattern`, in the engine's arena or not, and where it lies."""
        array = self.engine.empty(nbytes, "u1") if arena else np.empty(nbytes, "u1")
        array[:] = harness.pattern(nbytes).view("u1")
        bulk = self.engine.expose(array)
        self.exposed.append(bulk)
        return bulk, array.ctypes.data

    def let_read(self) -> None:
        """Allows any process of this user to read this one, where the kernel asks."""
        pr_set_ptracer, anybody = 0x59616D61, ctypes.c_ulong(-1)
        ctypes.CDLL(None).prctl(pr_set_ptracer, anybody, 0, 0, 0)

    def usage(self) -> tuple[int, int]:
        return usage()

    def close(self) -> None:
        for bulk in self.exposed:
            bulk.close()
        self.engine.close()


@dataclass
class Pair:
    """An engine here and what it calls."""

    engine: Engine
    server: harness.Companion
    transport: str

    def __post_init__(self) -> None:
        self.there = self.engine.lookup(self.server.call("address"))
        if self.transport == "shm":
            assert self.lanes.startswith("ring"), f"messages go over {self.lanes}"
        elif self.transport == "tcp":
            assert self.lanes.startswith("tcp"), f"UCX chose {self.lanes}"
        else:
            assert "ring" not in self.lanes, f"messages go over {self.lanes}"

    @property
    def lanes(self) -> str:
        return self.there.lanes

    def cpp_handler(self) -> BoundCall:
        """A null call of a handler in C++, one of the library's own."""
        return self.engine.rpc("pshpc.ping", codec="raw").on(self.there)

    def call(self, name: str, codec: str = "pickle") -> BoundCall:
        return self.engine.rpc(name, codec=codec).on(self.there)

    def probe(self, calls: int, window: int = 1) -> float:
        """Seconds that so many null calls in C++ take."""
        _, nanoseconds = self.there._core.probe(calls, window)
        return 1e-9 * nanoseconds

    def in_cpp(self, calls: int, window: int = 1) -> Batch:
        return Batch(partial(self.probe, calls, window), calls=calls)


@contextmanager
def pair(transport: str = "shm", progress: str = "adaptive") -> Iterator[Pair]:
    """A server in a process of its own, and an engine here that has looked it up."""
    with (
        harness.Companion("rpc_engines:Server", transport=transport, progress=progress) as server,
        Engine(**options_of(transport)) as engine,
    ):
        yield Pair(engine, server, transport)


def repeated(call: Callable[[], Any], scale: Scale) -> harness.Action:
    return harness.Action(call, loops=scale.batch)


def usage() -> tuple[int, int]:
    """Resident bytes of this process, and its open descriptors."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))
