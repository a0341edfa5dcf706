"""The mpi door against what mpi4py does by itself, on the ranks of one job.

    ci/mpirun -n 2 python -m benchmarks.mpi_rma [--only reads,null] [--json FILE] [--quick]

Rank 0 measures, rank 1 is the target, others sleep. Arms that are compared take turns in one run,
between the same ranks, on the same memory of the target, which is attached to the door's window and
to one of mpi4py's. What arrived is looked at afterwards.

A read of a dynamic window waits until the target calls MPI, so the figures depend on who does
there. In both arms these are the target's main thread, if it is in `MPI_Barrier`, and the thread of
the engine, which lives all the time. That one sleeps up to 2 ms unless somebody rings, which the
door does as part of a read and a program of mpi4py does not. Two ways to make that even:

- `polling`: the target's engine has `progress="polling"`, so its thread never sleeps, in no arm.
  It needs a core of its own, and one for the target's main thread.
- `adaptive`, the default of an engine: an untimed read of 8 bytes through the door comes before
  each action of each arm, after which the thread polls for a millisecond. So it rings for the bare
  arm, too. A bare read that takes longer while the target computes is left alone by then: its ratio
  is given, but judged under `polling` only.

The origin's own thread is adaptive in all arms, and the origin's main thread waits in MPI or in the
door. When the target computes, it does so in Python and makes no call of MPI.
"""

from __future__ import annotations

import io
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from typing import Any

import harness
import numpy as np
from mpi4py import MPI
from mpi_job import IDLE, TARGET, Job, Side, describe, serve
from mpi_reads import exchange, flights, reads, store
from mpi_scale import QUICK, Figures, Scale, compared, numbers_of
from rpc_engines import Batch
from targets import Rows, Verdict, choose, report

JobPart = Callable[[Job, Scale], Rows]


class FromTheTarget(harness.Action):
    """Something that the target times."""

    def time(self) -> float:
        return float(self.run())


def null(job: Job, scale: Scale) -> Rows:
    """Null calls against messages by hand: ticket, record and flag, there and back."""
    loops = scale.batch
    for progress in ("adaptive", "polling"):
        with job.engine(progress) as engine:
            there = engine.lookup(TARGET)
            native = engine.rpc("pshpc.ping", codec="raw").on(there)
            python = engine.rpc("null").on(there)
            assert native() == b""
            assert python() is None

            def in_cpp(there: Any = there) -> float:
                _, nanoseconds = there._core.probe(loops, 1)
                return 1e-9 * float(nanoseconds)

            # The target sleeps after each look back; an untimed call wakes it.
            back = FromTheTarget(partial(job.target.call, "atomics", 0, loops))
            figures = scale.timed(
                {
                    "C++": Batch(in_cpp, before=native, calls=loops),
                    "handler in C++": harness.Action(native, before=native, loops=loops),
                    "handler in Python": harness.Action(python, before=native, loops=loops),
                    "there": harness.Action(partial(job.bare.message, TARGET), loops=loops),
                    "back": back,
                },
            )
        rounds = zip(figures["there"].samples, figures["back"].samples, strict=True)
        figures["by hand"] = harness.Stats(tuple(a + b for a, b in rounds))
        limits = {"handler in C++": 3.0, "C++": None, "handler in Python": None}
        for name, limit in limits.items():
            two = {which: figures[which] for which in (name, "by hand", "there", "back")}
            what = f"null call, {progress}, {name}, of messages by hand"
            yield compared(what, two, name, "by hand", limit)


def backoff(job: Job, scale: Scale) -> Rows:
    """What a longer sleep of the progress thread saves, and what it costs the first access."""
    for idle in scale.idles:
        with job.engine(idle=idle) as engine, job.exposed(8) as (bulk, address):
            into = np.zeros(8, "u1")
            bulk.pull(engine, into)
            get = job.bare.get(TARGET, address, np.zeros(8, "u1"))
            # It sleeps the longer, the longer nothing came: for an eighth of that.
            settled = 10 * max(idle, 2e-3)
            job.target.start("idle_share", settled)
            time.sleep(settled)
            job.target.results()
            job.target.start("idle_share", scale.asleep)
            time.sleep(scale.asleep)
            (share,) = job.target.results()
            figures = first_accesses(
                job, scale, settled, {"door": partial(bulk.pull, engine, into), "Get": get}
            )
        name = harness.duration(idle)
        detail = ", ".join(
            f"first access by {n}: median {harness.duration(s.median)}, p90 "
            f"{harness.duration(sorted(s.samples)[int(0.9 * len(s.samples))])}"
            for n, s in figures.items()
        )
        chosen = " (the default)" if idle == IDLE else ""
        yield Verdict(
            f"sleeps of {name} at most{chosen}: share of a core, idle",
            "",
            f"{100 * share:.2f} %",
            None,
            detail,
            {**numbers_of(figures), "idle": {"share": share}},
        )


def first_accesses(
    job: Job, scale: Scale, settled: float, arms: dict[str, Callable[[], Any]]
) -> Figures:
    """Accesses to a target that has slept for a while, all its threads."""
    samples: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(scale.pauses):
        for name, access in arms.items():
            job.target.start("sleep", settled + 0.1)
            # At any point of its sleep.
            time.sleep(settled + 0.02 + random.uniform(0, 0.01))
            began = time.perf_counter()
            access()
            samples[name].append(time.perf_counter() - began)
            job.target.results()
    return {name: harness.Stats(tuple(times)) for name, times in samples.items()}


def gray_scott(job: Job, scale: Scale) -> Rows:
    """What a simulation spends in the library, against the same exchange written by hand."""
    try:
        import gray_scott_mpi
    except ImportError as missing:
        yield Verdict("Gray-Scott over mpi", "<= 1.5x", "-", None, str(missing))
        return
    yield from gray_scott_mpi.compare(job, scale.cells, scale.steps, scale.every, scale.rounds)


PARTS: dict[str, JobPart] = {
    "reads": reads,
    "store": store,
    "exchange": exchange,
    "flights": flights,
    "null": null,
    "backoff": backoff,
    "gray-scott": gray_scott,
}


def parse(world: MPI.Intracomm) -> tuple[Any, Mapping[str, JobPart]]:
    """The options, and the parts that they name; a mistake is told once and ends all ranks."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--only", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only to see that it runs")
    parser.add_argument("--sizes", type=harness.parse_sizes, help="such as 8,1KiB,64MiB")
    with ExitStack() as quiet:
        # Where the launcher sees one rank fail it ends the others: let rank 0 speak first.
        quiet.callback(world.Barrier)
        if world.rank != 0:
            quiet.enter_context(redirect_stdout(io.StringIO()))
            quiet.enter_context(redirect_stderr(io.StringIO()))
        options = parser.parse_args()
        chosen = choose(parser, options.only, PARTS)
        if world.size < 2:
            parser.error("one rank alone has nobody to read from: mpirun -n 2 ...")
    return options, chosen


@contextmanager
def job_on(world: MPI.Intracomm, largest: int) -> Iterator[Job | None]:
    """On rank 0 what it measures with; the others do as they are asked, and get nothing."""
    side = Side(world, largest)
    comm = world.Dup()
    if world.rank == 0:
        job = Job(world, comm, side)
        yield job
        job.others.start("leave")
    else:
        serve(comm, side)
        yield None
    side.bare.free()
    comm.Free()


def main() -> int:
    world: MPI.Intracomm = MPI.COMM_WORLD
    options, parts = parse(world)
    scale = QUICK if options.quick else Scale(seconds=3 * options.seconds)
    if options.sizes:
        scale.sizes = options.sizes
    with job_on(world, scale.largest) as job:
        if job is None:
            return 0
        run = harness.Run("mpi_rma")
        run.machine["mpi"] = describe(world)
        run.header()
        print(describe(world))
        report(run, {name: partial(part, job) for name, part in parts.items()}, scale)
        run.finish(options.json)
    return 0


if __name__ == "__main__":
    try:
        status = main()
    except Exception:
        # The other ranks would wait for this one, for ever.
        traceback.print_exc()
        MPI.COMM_WORLD.Abort(1)
    else:
        sys.exit(status)
