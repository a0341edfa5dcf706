"""What the workflow examples share: executors by name, and a look at what they carry."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from proxystore_hpc import Store
from proxystore_hpc.proxy import Proxy, get_factory
from proxystore_hpc.store import get_key
from proxystore_hpc.store.executor import ProxyLarger, StoreExecutor

EXECUTORS = ("processes", "dask", "parsl", "colmena")
LARGE = 10_000
"""Bytes from which on arguments and results travel as proxies."""


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--executor", choices=EXECUTORS, default="processes")
    parser.add_argument("--workers", type=int, default=2)
    return parser


@contextmanager
def pool(name: str, workers: int) -> Iterator[Any]:
    """An executor of a library; see EXECUTORS."""
    if name == "processes":
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as executor:
            yield executor
    elif name == "dask":
        from distributed import Client, LocalCluster

        with (
            tempfile.TemporaryDirectory() as folder,
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                dashboard_address=None,
                local_directory=folder,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
    elif name == "colmena":
        from colmena_pool import ColmenaPool

        with ColmenaPool(workers) as executor:
            yield executor
    else:
        from parsl.concurrent import ParslPoolExecutor
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.providers import LocalProvider

        # Its workers are started by a script, and import this module.
        scripts, here = Path(sys.executable).parent, Path(__file__).resolve().parent
        os.environ["PATH"] = f"{scripts}:{os.environ['PATH']}"
        os.environ["PYTHONPATH"] = f"{here}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")
        with tempfile.TemporaryDirectory() as folder:
            config = Config(
                executors=[
                    HighThroughputExecutor(
                        address="127.0.0.1",
                        loopback_address="127.0.0.1",
                        max_workers_per_node=workers,
                        provider=LocalProvider(init_blocks=1, max_blocks=1),
                    )
                ],
                run_dir=folder,
                initialize_logging=False,
            )
            with ParslPoolExecutor(config) as executor:
                yield executor


class Carried:
    """An executor whose tasks' arguments and results are added up in `nbytes`, as pickles.

    Tasks of one function carry the same amount, so one of each is pickled for it.
    """

    def __init__(self, executor: Any, options: dict[str, Any]) -> None:
        self._executor = executor
        self._options = options
        self._nbytes: dict[Callable[..., Any], int] = {}
        self.nbytes = 0

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """As the executor's."""
        return self._executor.submit(function, *args, **self._options)

    def count(self, function: Callable[..., Any], arguments: tuple[Any, ...], result: Any) -> None:
        """Notes what a task was given, and gave."""
        if function not in self._nbytes:
            store = getattr(self._executor, "store", None)
            self._nbytes[function] = sum(size_of(each, store) for each in (*arguments, result))
        self.nbytes += self._nbytes[function]


def size_of(thing: Any, store: Store | None) -> int:
    """Bytes that an executor carries for an argument or result; with a store, by a proxy."""
    if store is None:
        return len(pickle.dumps(thing, 5))
    if not issubclass(type(thing), Proxy):
        if not ProxyLarger(LARGE)(thing):
            return len(pickle.dumps(thing, 5))
        proxy = store.proxy(thing)
        store.evict(get_key(proxy))
        return len(pickle.dumps(proxy, 5))
    # A reference is not pickled for this: that would give it away.
    return len(pickle.dumps(get_factory(thing), 5))


def compare(
    options: argparse.Namespace,
    capacity: int,
    workload: Callable[[Carried], Any],
) -> dict[str, Any]:
    """Runs a workload without and with proxies; prints time and bytes, returns both results."""
    results: dict[str, Any] = {}
    for how in ("pickles", "proxies"):
        with pool(options.executor, options.workers) as executor:
            plain = {"pure": False} if options.executor == "dask" else {}
            if how == "pickles":
                results[how] = timed(how, workload, Carried(executor, plain))
                continue
            with Store("workflow", capacity=capacity, register=True) as store:
                wrapped = StoreExecutor(
                    executor,
                    store,
                    ProxyLarger(LARGE),
                    ownership=options.executor != "dask",
                    close_store=False,
                )
                results[how] = timed(how, workload, Carried(wrapped, {}))
    return results


def nothing(_: Any) -> Any:
    """Takes long enough for each worker to get one."""
    time.sleep(0.2)
    return np.zeros(LARGE)


def timed(how: str, workload: Callable[[Carried], Any], carried: Carried) -> Any:
    # What workers do at their first task is not measured.
    futures = [carried.submit(nothing, np.zeros(LARGE)) for _ in range(8)]
    for future in futures:
        future.result()
    del futures
    began = time.perf_counter()
    result = workload(carried)
    seconds = time.perf_counter() - began
    print(f"{how}: {seconds:.2f} s, {carried.nbytes:,} bytes through the executor", flush=True)
    return result
