"""Which comparisons are run."""

from __future__ import annotations

import pytest

from proxystore_hpc.bench.contestant import Operation
from proxystore_hpc.bench.suite import GROUPS, PACES, contestants, matches, too_slow
from proxystore_hpc.exceptions import InvalidArgumentError

QUICK = PACES["quick"]


def test_a_tier_leaves_operations_out_unless_they_are_named():
    everything = {match.operation for match in matches(QUICK)}
    assert everything == {Operation.EXCHANGE, Operation.GET}
    (put,) = matches(QUICK, ["doors/put"], [8])
    assert (put.group, put.operation, put.nbytes) == ("doors", Operation.PUT, 8)


def test_every_operation_has_somebody_who_does_it():
    done = {operation for each in contestants("all") for operation in each.operations}
    assert {operation for group in GROUPS.values() for operation in group} <= done
    assert len({each.name for each in contestants("all")}) == len(contestants("all"))


def test_who_starts_slowly_is_left_out_of_the_quick_tier_unless_named():
    offered = contestants("all")
    names = {each.name for each in too_slow(QUICK, offered, "all", ())}
    assert {"ray", "dask", "dragon"} <= names
    assert not {"shm", "redis", "memcpy"} & names
    assert "ray" not in {each.name for each in too_slow(QUICK, offered, "ray,redis", ())}
    assert "ray" not in {each.name for each in too_slow(QUICK, offered, "all", ("ray",))}
    assert not too_slow(PACES["default"], offered, "all", ())


def test_groups_and_operations_can_be_mixed():
    found = matches(QUICK, ["proxy", "doors/get"], [8, 64])
    assert [match.operation for match in found] == [*GROUPS["proxy"], Operation.GET, Operation.GET]


@pytest.mark.parametrize("name", ["nothing", "doors/nothing", "doors/call"])
def test_an_unknown_name_tells_what_there_is(name):
    with pytest.raises(InvalidArgumentError, match=r"rpc|exchange"):
        matches(QUICK, [name])
