"""One run from the options of the command line to the files that it leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from proxystore_hpc.bench import compare, suite, table
from proxystore_hpc.bench.clock import clock_figures
from proxystore_hpc.bench.contestant import Contestant, Kind
from proxystore_hpc.bench.job import ranks_of_this_job
from proxystore_hpc.bench.machine import describe_machine, environment_that_matters
from proxystore_hpc.bench.record import Absence, Entrant, Record
from proxystore_hpc.bench.report import render
from proxystore_hpc.bench.runner import Match, Runner
from proxystore_hpc.bench.text import rough, size
from proxystore_hpc.exceptions import InvalidArgumentError

__all__ = ["Options", "run", "run_alone"]

_STUCK = 70


@dataclass(frozen=True)
class Options:
    """What the command line says; see its help."""

    tier: str = "default"
    only: Sequence[str] = ()
    sizes: Sequence[int] = ()
    seconds: float | None = None
    peers: str = "all"
    contestants: Sequence[str] = ()
    compare: Path | None = None
    json: Path | None = None
    html: Path | None = None
    list: bool = False


def run(options: Options, note: Callable[[str], object], tell: Callable[[str], object]) -> int:
    """As `run_alone`; of several ranks the first one does it, and the others as it asks."""
    if ranks_of_this_job() == 1:
        return run_alone(options, note, tell)
    from mpi4py import MPI

    from proxystore_hpc.bench.ranks import Leader, follow

    if MPI.COMM_WORLD.size == 1:  # a launcher of another MPI
        raise InvalidArgumentError(
            "the launcher is not that of mpi4py's MPI: its ranks do not find each other"
        )
    if MPI.COMM_WORLD.rank != 0:
        follow(MPI.COMM_WORLD)
        return 0
    leader = Leader(MPI.COMM_WORLD)
    try:
        return run_alone(options, note, tell, leader)
    finally:
        leader.close()


def run_alone(
    options: Options,
    note: Callable[[str], object],
    tell: Callable[[str], object],
    leader: Any = None,
) -> int:
    """Measures, prints and writes.

    Args:
        options: What to do.
        note: Gets lines of progress.
        tell: Gets lines of results.
        leader: The `ranks.Leader` if this process is rank 0 of a job.

    Returns:
        The exit status: 1 if nothing at all could be measured.

    Raises:
        InvalidArgumentError: A group or a peer is unknown, or the old results cannot be read.
        OSError: A file cannot be read or written.
    """
    if leader is not None:
        ranks, mpi = leader.describe()
        note(f"{mpi}, {ranks} ranks")
    for path in (options.json, options.html):
        # Not after an hour of measuring.
        if path is not None and not os.access(path.absolute().parent, os.W_OK):
            raise InvalidArgumentError(f"{path}: nothing can be written into that folder")
    before = None if options.compare is None else Record.load(options.compare)
    tier = suite.PACES[options.tier]
    matches = suite.matches(tier, options.only, options.sizes)
    pace = tier.pace
    if options.seconds is not None:
        pace = replace(pace, seconds=options.seconds)
    wanted = {match.operation for match in matches}
    able = suite.chosen(
        suite.contestants(options.peers, leader),
        options.contestants,
        extras=tier.extras or options.list,
    )
    entrants = [contestant for contestant in able if contestant.operations & wanted]
    slow = suite.too_slow(tier, entrants, options.peers, options.contestants)
    record = Record(
        command=["proxystore-hpc", *sys.argv[1:]],
        machine={**describe_machine(), **({"mpi": mpi, "ranks": ranks} if leader else {})},
        environment=environment_that_matters(),
        clock=clock_figures(),
        pace=asdict(pace),
    )

    # That the socket door is slow, for one, is what the run is about to show.
    os.environ.setdefault("PROXYSTORE_HPC_LOG", "off")

    def stuck(message: str) -> None:
        note(f"{message} and cannot be interrupted: the run ends here")
        _write(record, options)
        os._exit(_STUCK)

    runner = Runner([e for e in entrants if e not in slow], pace, record, note, stuck)
    runner.check()
    for contestant in slow:
        record.entrants.append(Entrant(contestant.name, contestant.kind, contestant.about))
        why = f"starts slowly: left out of --{options.tier} unless --peers names it"
        record.absences.append(Absence(contestant.name, why))
    if options.list:
        _list(record, entrants, tell)
        return 0
    _measure(runner, matches, tier.budget, note)
    for line in table.table(record):
        tell(line)
    _tell_time(record, tell)
    _tell_absences(record, tell)
    if before is not None:
        for line in compare.lines(compare.changes(before, record)):
            tell(line)
    _write(record, options, before)
    for path in (options.json, options.html):
        if path is not None:
            note(f"wrote {path}")
    return 0 if record.comparisons else 1


def _measure(
    runner: Runner, matches: Sequence[Match], budget: float, note: Callable[[str], object]
) -> None:
    record, began = runner.record, time.perf_counter()
    try:
        with _ended_like_interrupted():
            _measure_each(runner, matches, budget, note, began)
        record.finished = True
    except KeyboardInterrupt:
        note("interrupted: what there is will be shown")
    finally:
        runner.close()
    record.seconds = time.perf_counter() - began
    record.machine["load_after"] = os.getloadavg()[0]


@contextlib.contextmanager
def _ended_like_interrupted() -> Iterator[None]:
    """Batch systems and `timeout` send SIGTERM: what was measured until then must not be lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _measure_each(
    runner: Runner,
    matches: Sequence[Match],
    budget: float,
    note: Callable[[str], object],
    began: float,
) -> None:
    for done, match in enumerate(matches, 1):
        what = f"{match.group} {match.operation.value}"
        if match.nbytes:
            what += f" {size(match.nbytes)}"
        passed = time.perf_counter() - began
        if passed > budget:
            note(f"left out after {rough(passed)}: {what}")
            continue
        left = sum(map(runner.expected, matches[done - 1 :]))
        left = min(left, max(budget - passed, runner.expected(match)))
        note(f"[{done}/{len(matches)}, {rough(passed)}, about {rough(left)} left] {what}")
        runner.run(match)
        runner.rest(matches[done] if done < len(matches) else None)


def _list(record: Record, entrants: Sequence[Contestant], tell: Callable[[str], object]) -> None:
    missing = {each.contestant: each.reason for each in record.absences}
    for kind in Kind:
        tell(f"{kind.value}:")
        for contestant in entrants:
            if contestant.kind is kind:
                why = missing.get(contestant.name)
                state = "no " if why else "yes"
                tell(f"  {state} {contestant.name:22} {why or contestant.about}")


def _tell_time(record: Record, tell: Callable[[str], object]) -> None:
    turns = sum(entrant.turns_s for entrant in record.entrants)
    opening = sum(entrant.opening_s for entrant in record.entrants)
    slowest = sorted(record.entrants, key=lambda each: -each.opening_s)[:3]
    most = ", ".join(f"{each.name} {rough(each.opening_s)}" for each in slowest)
    tell(
        f"\nit took {rough(record.seconds)}: {rough(turns)} for turns, {rough(opening)} for "
        f"opening and closing, of which {most}"
    )


def _tell_absences(record: Record, tell: Callable[[str], object]) -> None:
    if record.absences:
        tell("\nnot measured:")
    told: dict[tuple[str, str], list[str]] = {}
    for each in record.absences:
        where = ""
        if each.operation is not None:
            where = f"{each.operation} {size(each.nbytes)}" if each.nbytes else each.operation
        told.setdefault((each.contestant, each.reason.splitlines()[-1]), []).append(where)
    for (name, reason), places in told.items():
        which = f" ({', '.join(filter(None, places))})" if any(places) else ""
        tell(f"  {name}{which}: {reason}")


def _write(record: Record, options: Options, before: Record | None = None) -> None:
    if options.json is not None:
        options.json.write_text(record.to_json(), "utf-8")
    if options.html is not None:
        options.html.write_text(render(record, before), "utf-8")
