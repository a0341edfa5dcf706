"""What it costs to be there: starting up, memory, and what a computation beside an owner loses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from proxystore_hpc.bench.companion import Companion, module_path
from proxystore_hpc.bench.contestant import Burst, Kind, Operation
from proxystore_hpc.bench.data import pattern
from proxystore_hpc.bench.ours import ways

__all__ = ["Beside", "Process", "private_bytes"]

_HERE = "proxystore_hpc.bench.ours.processes"
_IMPORT = "import numpy"
_OPEN = "from proxystore_hpc import {0}; opened = {0}({1})"
_PROGRAMS = {
    "python+numpy": ("Python that imports numpy", _IMPORT),
    "store": ("and a store of 64 MiB", _OPEN.format("Store", "'bench', capacity=1 << 26")),
    "engine": ("and an engine of 64 MiB", _OPEN.format("Engine", "'shm', capacity=1 << 26")),
}
_TELL = "from pathlib import Path; print(Path('/proc/self/smaps_rollup').read_text())"


class Process:
    """A contestant: a new process of Python.

    Args:
        name: `"python+numpy"`, which is the limit of the others, `"store"` or `"engine"`.
    """

    operations = frozenset({Operation.START, Operation.MEMORY})
    most = None

    def __init__(self, name: str) -> None:
        about, self._program = _PROGRAMS[name]
        self.name = name
        self.about = f"a new process: {about}"
        bare = name == "python+numpy"
        self.kind = Kind.LIMIT if bare else Kind.OURS
        self.limit = None if bare else "python+numpy"

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        return {}

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return self._opened(operation)

    @contextmanager
    def _opened(self, operation: Operation) -> Iterator[Burst]:
        program = f"{_IMPORT}; {self._program}"

        def run(ending: str) -> tuple[float, str]:
            began = time.perf_counter()
            with subprocess.Popen(
                [sys.executable, "-c", f"{program}; print('ready', flush=True); {ending}"],
                env=_environment(),
                stdout=subprocess.PIPE,
                text=True,
            ) as process:
                assert process.stdout is not None
                line = process.stdout.readline()
                elapsed = time.perf_counter() - began
                told = process.stdout.read()
            if line != "ready\n" or process.returncode:
                raise ChildProcessError(f"{program!r} ended with {process.returncode}")
            return elapsed, told

        if operation is Operation.START:
            yield lambda: run("pass")[0]
        else:
            yield lambda: private_bytes(run(_TELL)[1])


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": module_path()}


def private_bytes(smaps: str) -> float:
    """Of a process, by its `smaps_rollup`: resident bytes that it shares with no other."""
    found = re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB$", smaps, re.MULTILINE)
    return 1024.0 * sum(map(int, found))


class Beside:
    """A contestant: a computation in a process whose store is being read, or has nothing to do.

    Args:
        busy: Whether another process gets its objects meanwhile, over UCX and TCP, as other nodes
            would.
    """

    kind = Kind.OURS
    operations = frozenset({Operation.SLOWDOWN})
    most = None

    def __init__(self, *, busy: bool) -> None:
        self._busy = busy
        self.name = "owner-read" if busy else "owner-idle"
        work = "that is read all the time over UCX and TCP" if busy else "that nobody reads"
        self.about = f"a computation in a process with a store {work}"

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        (way,) = (way for way in ways.ways() if way.name == "ucx-tcp")
        return ways.check(way)

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return self._opened(nbytes)

    @contextmanager
    def _opened(self, nbytes: int) -> Iterator[Burst]:
        (way,) = (way for way in ways.ways() if way.name == "ucx-tcp")
        role = f"{_HERE}:Computing"
        with (
            Companion(role, way=way, nbytes=nbytes) as alone,
            Companion(role, way=way, nbytes=nbytes) as computing,
        ):

            def slowdown() -> float:
                return float(computing.call("compute")) / base

            key, base = computing.call("open"), 1.0
            if not self._busy:

                def idle() -> float:
                    nonlocal base
                    base = alone.call("compute")
                    return slowdown()

                yield idle
                return
            with Companion(f"{_HERE}:Reader", way=way, nbytes=nbytes, key=key) as reader:

                def read() -> float:
                    nonlocal base
                    base = alone.call("compute")
                    reader.call("begin")
                    try:
                        return slowdown()
                    finally:
                        if not reader.call("end"):
                            raise ChildProcessError("the reader read nothing")

                yield read


class Computing:
    """Role: computes, and owns an array."""

    def __init__(self, way: ways.Way, nbytes: int) -> None:
        import numpy as np

        self._way, self._nbytes = way, nbytes
        self._field = np.random.default_rng(1).random((512, 512))
        self._store: Any = None

    def open(self) -> Any:
        """Opens the store; the key of an array in it."""
        self._store = self._way.open_store(ways.capacity_for(self._nbytes))
        return self._store.put(pattern(self._nbytes))

    def compute(self) -> float:
        """Seconds of a stencil, by turns in numpy and in Python."""
        field, began = self._field.copy(), time.perf_counter()
        for _ in range(40):
            field[1:-1, 1:-1] += 0.1 * (field[:-2, 1:-1] + field[2:, 1:-1] - 2 * field[1:-1, 1:-1])
            sum(range(2000))
        return time.perf_counter() - began

    def close(self) -> None:
        """Closes the store."""
        if self._store is not None:
            self._store.close()


class Reader:
    """Role: gets an array again and again while it is asked to."""

    def __init__(self, way: ways.Way, nbytes: int, key: Any) -> None:
        self._store = way.open_store(ways.capacity_for(nbytes))
        self._get: Callable[[], Any] = lambda: self._store.get_or_raise(key)
        self._get()
        self._thread: threading.Thread | None = None
        self._go = False
        self._gets = 0

    def begin(self) -> None:
        """Starts reading."""
        self._go, self._gets = True, 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        while self._gets == 0:
            time.sleep(1e-3)

    def _run(self) -> None:
        while self._go:
            self._get()
            self._gets += 1

    def end(self) -> int:
        """Ends reading; how often it did."""
        assert self._thread is not None
        self._go = False
        self._thread.join()
        return self._gets

    def close(self) -> None:
        """Closes the store."""
        self._store.close()
