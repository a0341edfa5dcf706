"""No-op tasks with an array as their input, by executors, with and without proxies.

SC'23 measured such round trips through Globus Compute, a cloud service. Here the executors are
those that run without an account: Python's process pool, Dask and Parsl, with one worker each.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from proxystore_hpc.bench.companion import Companion, CompanionError
from proxystore_hpc.bench.contestant import Burst, Kind, Operation, UnavailableError
from proxystore_hpc.bench.data import pattern
from proxystore_hpc.bench.peers.peer import Peer
from proxystore_hpc.bench.peers.sides import Outcome, looked_at, measured, times_of
from proxystore_hpc.bench.timing import Stats

__all__ = ["CONTESTANTS", "SIZES", "Runner", "measure"]

SIZES = tuple(10**power for power in range(1, 9))
ROOM = 256 << 20
PATIENCE = 60.0

_kept: Any = None


def noop(array: Any) -> int:
    """The task: has its input, and keeps it for `look`."""
    global _kept
    _kept = array
    return int(array.nbytes)


def look(nbytes: int) -> str:
    """What was wrong with the input of the last task of this worker."""
    import numpy as np

    global _kept
    complaint = looked_at(np.asarray(_kept), nbytes)
    _kept = None
    return complaint


def _pool(stack: ExitStack, folder: str) -> Any:
    # Forked, the worker would have this process's store.
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def _dask(stack: ExitStack, folder: str) -> Any:
    import dask.config
    import distributed

    dask.config.set({"temporary-directory": folder})
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    cluster = distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        memory_limit=0,
        local_directory=folder,
    )
    stack.callback(cluster.close)
    return distributed.Client(cluster, set_as_default=False)


def _parsl(stack: ExitStack, folder: str) -> Any:
    from parsl.concurrent import ParslPoolExecutor
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    # Its scripts are looked for in PATH.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    executor = HighThroughputExecutor(
        address="127.0.0.1",
        loopback_address="127.0.0.1",
        max_workers_per_node=1,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
    )
    return ParslPoolExecutor(Config(executors=[executor], run_dir=folder, initialize_logging=False))


EXECUTORS = {"pool": _pool, "dask": _dask, "parsl": _parsl}


class Runner:
    """Role: an executor with one worker.

    Args:
        executor: One of `EXECUTORS`.
        proxied: Whether inputs travel as proxies, through a store of this process.
        nbytes: Size of the inputs.
        folder: For what the executor writes.
    """

    def __init__(self, executor: str, proxied: bool, nbytes: int, folder: str) -> None:
        warnings.simplefilter("ignore")
        self.data = pattern(nbytes)
        self.stack = ExitStack()
        self.executor: Any = EXECUTORS[executor](self.stack, folder)
        if proxied:
            import numpy as np

            from proxystore_hpc import Store
            from proxystore_hpc.store.executor import ProxyType, StoreExecutor

            store = Store("faas", cache_size=0, capacity=ROOM + 4 * nbytes * times_of(nbytes))
            # Results are numbers; Dask may not own any.
            self.executor = StoreExecutor(
                self.executor, store, ProxyType(np.ndarray), ownership=False
            )
        # Dask would give the result of an equal task again.
        self.options = {"pure": False} if executor == "dask" and not proxied else {}
        self._run(noop, self.data)  # until the worker is there

    def _run(self, function: Any, argument: Any) -> Any:
        return self.executor.submit(function, argument, **self.options).result(timeout=PATIENCE)

    def measure(self, operation: Operation, nbytes: int, times: int) -> Outcome:
        """Tasks, one after the other; the input of the last one is looked at."""
        began = time.perf_counter()
        for _ in range(times):
            if self._run(noop, self.data) != nbytes:
                return 0.0, "the input has another size"
        seconds = (time.perf_counter() - began) / times
        return seconds, self._run(look, nbytes)

    def close(self) -> None:
        """Ends the executor."""
        if hasattr(self.executor, "shutdown"):
            self.executor.shutdown()
        else:
            self.executor.close()
        self.stack.close()


@contextmanager
def opener(executor: str, proxied: bool, operation: Operation, nbytes: int) -> Iterator[Burst]:
    """An executor in a process of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        runner = Companion(
            f"{__name__}:Runner", executor=executor, proxied=proxied, nbytes=nbytes, folder=folder
        )
        with measured(runner, operation, nbytes) as burst:
            yield burst


def _contestants() -> Iterator[Peer]:
    needs = {"pool": {}, "dask": {"distributed": "distributed"}, "parsl": {"parsl": "parsl"}}
    names = {"pool": "ProcessPoolExecutor", "dask": "Dask distributed", "parsl": "Parsl"}
    for executor, modules in needs.items():
        for proxied in (False, True):
            how = "as proxies by StoreExecutor" if proxied else "as the executor sends them"
            yield Peer(
                f"{executor}+proxies" if proxied else f"{executor}-tasks",
                f"{names[executor]} with one worker; inputs travel {how}",
                frozenset({Operation.TASK}),
                partial(opener, executor, proxied),
                modules,
                # Pickles inside of Dask's and Parsl's messages.
                most=None if proxied else 1 << 30,
                kind=Kind.OURS if proxied else Kind.PEER,
                slow=executor != "pool",
                reach=("node", "fabric") if proxied else (),
            )


CONTESTANTS = tuple(_contestants())


def measure(nbytes: int, rounds: int = 5) -> tuple[dict[str, Stats], dict[str, str]]:
    """Round trips by all of them, by turns; the first round warms up.

    Args:
        nbytes: Size of the inputs.
        rounds: How many bursts of each.

    Returns:
        Times by name, and why others have none.

    Raises:
        WrongBytesError: Other bytes arrived.
    """
    missing: dict[str, str] = {}
    samples: dict[str, list[float]] = {}
    with ExitStack() as stack:
        ready: dict[str, Burst] = {}
        for contestant in CONTESTANTS:
            try:
                contestant.check()
                opened = contestant.open(Operation.TASK, nbytes)
                ready[contestant.name] = stack.enter_context(opened)
            except (UnavailableError, CompanionError) as error:
                missing[contestant.name] = str(error)
        for number in range(rounds + 1):
            for name, burst in ready.items():
                seconds = burst()
                if number:
                    samples.setdefault(name, []).append(seconds)
    return {name: Stats(tuple(found)) for name, found in samples.items()}, missing
