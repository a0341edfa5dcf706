"""Run by test_endings.py on every rank: opens a store and ends in the way that its argument names.

Each rank writes its process id and address to rank.<n>, and what it found to found.<n>.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ENDINGS: dict[str, Callable[[Any, Any, list[Any]], None]] = {}
PAUSE_S = 1.0
DOORS = (os.environ.get("DOOR", "shm"),)


def ending(function: Callable[[Any, Any, list[Any]], None]) -> Callable[..., None]:
    ENDINGS[function.__name__] = function
    return function


def found(world: Any, text: object) -> None:
    Path(f"found.{world.rank}").write_text(str(text))


def sum_of_others(world: Any, proxies: list[Any]) -> float:
    return sum(float(p.mean()) for rank, p in enumerate(proxies) if rank != world.rank)


def sleep_for_ever() -> None:
    while True:
        time.sleep(60)


@ending
def never_closed(world: Any, store: Any, proxies: list[Any]) -> None:
    if world.rank == 0:
        time.sleep(PAUSE_S)  # the others are at their end by now
        found(world, sum_of_others(world, proxies))


@ending
def finalize(world: Any, store: Any, proxies: list[Any]) -> None:
    import pytest
    from mpi4py import MPI

    from proxystore_hpc.exceptions import InvalidArgumentError, StoreClosedError

    if world.rank == 0:
        time.sleep(PAUSE_S)
        found(world, sum_of_others(world, proxies))
    MPI.Finalize()
    with pytest.raises(StoreClosedError):
        store.put(1)
    with pytest.raises(InvalidArgumentError, match="finalized already"):
        type(store).from_mpi(world, "after")
    store.close()


@ending
def finalize_while_others_read(world: Any, store: Any, proxies: list[Any]) -> None:
    """From two stores of every rank, all bytes looked at."""
    import numpy as np
    from mpi4py import MPI

    second = type(store).from_mpi(world, "second", doors=DOORS)
    mine = [opened.put(np.full(10_000, world.rank)) for opened in (store, second)]
    keys = world.allgather(mine)
    if world.rank == 0:
        time.sleep(PAUSE_S)  # the others are in MPI_Finalize by now
        wrong = 0
        for _ in range(500):
            for rank in range(1, world.size):
                for opened, key in zip((store, second), keys[rank], strict=True):
                    wrong += np.count_nonzero(opened.get(key) != rank)
        found(world, wrong)
    MPI.Finalize()


@ending
def some_finalize(world: Any, store: Any, proxies: list[Any]) -> None:
    from mpi4py import MPI

    if world.rank == 0:
        time.sleep(PAUSE_S)
        found(world, sum_of_others(world, proxies))
    elif world.rank == 1:
        MPI.Finalize()
    else:
        store.close()


@ending
def several_stores(world: Any, store: Any, proxies: list[Any]) -> None:
    half = world.Split(world.rank % 2)
    second = type(store).from_mpi(half, "second", doors=DOORS)
    third = type(store).from_mpi(world, "third", doors=DOORS)
    keys = world.allgather(third.put(world.rank))
    if world.rank == 1:
        second.close()
    if world.rank == 0:
        time.sleep(PAUSE_S)
        found(world, sum(third.get(key) for key in keys))


@ending
def raises(world: Any, store: Any, proxies: list[Any]) -> None:
    with store:
        if world.rank == 1:
            raise RuntimeError("rank 1 lost its way")
        time.sleep(PAUSE_S)
        found(world, sum_of_others(world, proxies))


@ending
def raises_while_others_wait(world: Any, store: Any, proxies: list[Any]) -> None:
    with store:
        if world.rank == 1:
            raise RuntimeError("rank 1 lost its way")
        world.Barrier()  # which rank 1 never reaches


@ending
def killed(world: Any, store: Any, proxies: list[Any]) -> None:
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    sleep_for_ever()


@ending
def aborts(world: Any, store: Any, proxies: list[Any]) -> None:
    """While rank 0 waits in the store, with an engine open, and the others wait in MPI."""
    from proxystore_hpc import Engine

    engine = Engine.from_mpi(world, *(["mpi"] if "mpi" in DOORS else []), capacity="32MiB")
    engine.register("sleep", sleep_for_ever)
    found(world, "\n".join(in_shared_memory()))
    world.Barrier()
    if world.rank == 1:
        time.sleep(PAUSE_S)
        Path("aborted").write_text(str(time.monotonic()))
        world.Abort(7)
    elif world.rank == 0:
        engine.lookup(1).call("sleep", timeout=1000)
    world.Barrier()


def in_shared_memory() -> list[str]:
    """Files of /dev/shm that this process has open or mapped, and that have a name."""
    mapped = [line.split(maxsplit=5)[5:] for line in Path("/proc/self/maps").open()]
    opened = [[str(path.readlink())] for path in Path("/proc/self/fd").iterdir() if path.exists()]
    names = {name[0].strip() for name in (*mapped, *opened) if name}
    return sorted(n for n in names if n.startswith("/dev/shm/") and not n.endswith("(deleted)"))


@ending
def stops_serving(world: Any, store: Any, proxies: list[Any]) -> None:
    """Rank 1 dies, as far as the others can see, and its launcher lets them live."""
    if world.rank == 1:
        store._instance.close()
        time.sleep(4 * PAUSE_S)


@ending
def terminated(world: Any, store: Any, proxies: list[Any]) -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    found(world, "ready")
    sleep_for_ever()


@ending
def forks(world: Any, store: Any, proxies: list[Any]) -> None:
    child = os.fork()
    if child == 0:
        store.close()
        atexit._run_exitfuncs()  # ours must not touch MPI, nor the parent's store
        os._exit(0)  # past mpi4py, which would call MPI_Finalize in the child
    _, status = os.waitpid(child, 0)
    assert status == 0
    world.Barrier()
    found(world, sum_of_others(world, proxies))


@ending
def other_thread(world: Any, store: Any, proxies: list[Any]) -> None:
    """Closed in a thread, which may not call MPI at the levels below `serialized`."""
    import threading

    from mpi4py import MPI

    thread = threading.Thread(target=store.close)
    thread.start()
    thread.join()
    world.Barrier()
    found(world, MPI.Query_thread())


def tell_the_end(opened: float) -> None:
    rank = os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK"))
    Path(f"end.{rank}").write_text(str(time.monotonic() - opened))


def main() -> None:
    # Registered first, so it runs last, but before MPI_Finalize.
    atexit.register(tell_the_end, time.monotonic())
    import mpi4py

    mpi4py.rc.thread_level = os.environ.get("THREAD_LEVEL", "multiple")
    from mpi4py import MPI

    from proxystore_hpc import Store

    world = MPI.COMM_WORLD
    linger = float(os.environ.get("LINGER", "30"))
    store = Store.from_mpi(world, "ends", doors=DOORS, timeout=20, linger=linger)
    unfinished = Path(f"part.{world.rank}")
    unfinished.write_text(f"{os.getpid()} {store.address.hex()}")
    unfinished.rename(f"rank.{world.rank}")
    array = store.empty(10_000)
    array[:] = world.rank
    proxies = world.allgather(store.proxy(array))
    ENDINGS[sys.argv[1]](world, store, proxies)


if __name__ == "__main__":
    main()
