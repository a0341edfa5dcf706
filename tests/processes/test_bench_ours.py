"""Everything of ours that the benchmarks measure, and the limits: opened, and two bursts each.

A burst verifies what arrived, so it raises if it is not what was sent.
"""

from __future__ import annotations

import pytest

from proxystore_hpc.bench import suite
from proxystore_hpc.bench.contestant import Kind, Operation, UnavailableError, limit_of
from proxystore_hpc.bench.ours.mpi import Mpi, MpiCrowd, MpiOpening
from proxystore_hpc.bench.ours.ranks_starting import Ranks
from proxystore_hpc.bench.report.words import ABOUT

CONTESTANTS = {contestant.name: contestant for contestant in suite.contestants("none")}
# Those that tests/jobs measures.
OF_JOBS = {
    name
    for name, each in CONTESTANTS.items()
    if isinstance(each, (Mpi, MpiCrowd, MpiOpening, Ranks))
}
NO_ARRAY = {
    *(Operation.CALL, Operation.PIPELINE, Operation.CLIENTS, Operation.CREATE, Operation.USE),
    *(Operation.START, Operation.MEMORY, Operation.OPEN),
}


@pytest.mark.parametrize("name", [name for name in CONTESTANTS if name not in OF_JOBS])
def test_each_does_what_it_says(name: str) -> None:
    contestant = CONTESTANTS[name]
    try:
        contestant.check()
    except UnavailableError as error:
        pytest.skip(str(error))
    for operation in sorted(contestant.operations):
        with contestant.open(operation, 0 if operation in NO_ARRAY else 70_000) as burst:
            assert 0 < burst() < 1e12
            assert 0 < burst() < 1e12


def test_every_operation_is_described_and_every_limit_is_there() -> None:
    assert set(ABOUT) == set(Operation)
    for contestant in CONTESTANTS.values():
        for operation in contestant.operations:
            limit = limit_of(contestant, operation)
            if limit is not None:
                assert CONTESTANTS[limit].kind is Kind.LIMIT
                assert operation in CONTESTANTS[limit].operations


def test_every_contestant_of_ours_is_measured_in_a_group() -> None:
    measured = {operation for group in suite.GROUPS.values() for operation in group}
    for contestant in CONTESTANTS.values():
        if contestant.kind is Kind.OURS:
            assert contestant.operations <= measured, contestant.name
