"""How long opening a store and an engine over mpi takes, against the number of ranks.

    python -m benchmarks.mpi_startup [--ranks 2,4,8,16] [--jobs 3] [--json FILE]

Starts jobs by `ci/mpirun`. In each, all ranks meet, open, and meet again; a time is that of the
slowest rank. The first opening makes windows, later ones on the same ranks take those over. Beside
them stand MPI's own collective calls that the first one needs: `Dup`, `Win_allocate` of the same
size, and `Win_create_dynamic`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness

MARK = "startup: "
LIMIT_S = 120
NAMES = ("MPI alone", "store, first", "store, again", "engine, first", "engine, again", "job")


def of_rank() -> None:
    """One rank of a job; rank 0 prints what it took."""
    from mpi4py import MPI

    from proxystore_hpc import Engine, Store
    from proxystore_hpc.mpi.windows import load_module

    world = MPI.COMM_WORLD
    nbytes = load_module().WINDOW_NBYTES

    def windows() -> Any:
        comm = world.Dup()
        made = MPI.Win.Allocate(nbytes, 1, comm=comm), MPI.Win.Create_dynamic(comm=comm)
        for window in made:
            window.Lock_all(MPI.MODE_NOCHECK)
        return comm, made

    def free(made: Any) -> None:
        for window in made[1]:
            window.Unlock_all()
            window.Free()
        made[0].Free()

    def store() -> Any:
        return Store.from_mpi(world, "startup", doors=("mpi",), capacity="64MiB")

    def engine() -> Any:
        return Engine.from_mpi(world, "mpi", capacity="64MiB")

    def close(opened: Any) -> None:
        opened.close()
        world.Barrier()

    def took(make: Callable[[], Any], end: Callable[[Any], None]) -> float:
        world.Barrier()
        began = time.perf_counter()
        made = make()
        seconds: float = world.allreduce(time.perf_counter() - began, MPI.MAX)
        end(made)
        return seconds

    figures = {"MPI alone": took(windows, free)}
    figures["store, first"] = took(store, close)
    figures["store, again"] = took(store, close)
    held = store()  # the windows are its own: the engine needs others
    figures["engine, first"] = took(engine, close)
    figures["engine, again"] = took(engine, close)
    close(held)
    if world.rank == 0:
        print(f"\n{MARK}{json.dumps(figures)}", flush=True)


def job(ranks: int) -> dict[str, float]:
    """One job; its figures in seconds, and its whole time."""
    launcher = harness.HERE.parent / "ci" / "mpirun"
    path = f"{harness.HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    began = time.perf_counter()
    done = subprocess.run(
        [launcher, "-n", str(ranks), sys.executable, str(Path(__file__).resolve()), "--rank"],
        env={
            **os.environ,
            "PYTHONPATH": path,
            "PYTHON": sys.executable,
            "MPIRUN_LIMIT_S": str(LIMIT_S),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    told = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode != 0 or not told:
        raise harness.CompanionError(
            f"the job of {ranks} ranks failed:\n{done.stdout}{done.stderr}"
        )
    return {**json.loads(told[0].removeprefix(MARK)), "job": seconds}


def main() -> int:
    if sys.argv[1:] == ["--rank"]:
        of_rank()
        return 0
    parser = harness.arguments(__doc__)
    parser.add_argument("--ranks", default="2,4,8,16", help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=3, help="of each size (%(default)s)")
    options = parser.parse_args()
    run = harness.Run("mpi_startup")
    run.header()
    print("ranks" + "".join(f"{name:>16}" for name in NAMES))
    for ranks in map(int, options.ranks.split(",")):
        found = [job(ranks) for _ in range(options.jobs)]
        cells = ""
        for name in NAMES:
            stats = harness.Stats(tuple(one[name] for one in found))
            run.add(f"{ranks} ranks, {name}", stats, ranks=ranks)
            cells += f"{harness.duration(stats.median):>16}"
        print(f"{ranks:5}{cells}", flush=True)
    run.finish(options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
