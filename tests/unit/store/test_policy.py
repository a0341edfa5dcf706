from __future__ import annotations

import pickle

import pytest

from proxystore_hpc.exceptions import InvalidArgumentError
from proxystore_hpc.store.policy import EXPIRES, PINNED, Pinned, Policy, TimeToLive, combine


def test_policies_are_compact():
    assert (Policy().flags, Policy().ttl_ns) == (0, 0)
    assert (Pinned().flags, Pinned().ttl_ns) == (PINNED, 0)
    assert (TimeToLive(1.5).flags, TimeToLive(1.5).ttl_ns) == (EXPIRES, 1_500_000_000)


def test_they_combine():
    both = Pinned() | TimeToLive(2)
    assert (both.flags, both.ttl_ns) == (PINNED | EXPIRES, 2 * 10**9)
    assert both == TimeToLive(2) | Pinned() == combine((Pinned(), TimeToLive(2)))
    assert combine(None) == combine([]) == Policy()
    assert combine(both) is both
    assert TimeToLive(2) | TimeToLive(2.0) == TimeToLive(2)
    assert len({both, Pinned(), Pinned(), TimeToLive(2)}) == 3
    assert repr(both) == "Pinned() | TimeToLive(2)"
    assert eval(repr(both)) == both


def test_they_do_not_change():
    policy = TimeToLive(1)
    with pytest.raises(AttributeError, match="cannot be changed"):
        policy.flags = 0
    with pytest.raises(AttributeError, match="cannot be changed"):
        del policy.ttl_ns
    with pytest.raises(AttributeError):
        policy.other = 1


def test_they_can_be_pickled():
    for policy in (Policy(), Pinned(), TimeToLive(3), Pinned() | TimeToLive(3)):
        assert pickle.loads(pickle.dumps(policy)) == policy


@pytest.mark.parametrize("seconds", [0, -1, 1e-10, 1e12, float("nan"), float("inf"), "soon", None])
def test_times_that_are_none(seconds):
    with pytest.raises(InvalidArgumentError, match="time to live"):
        TimeToLive(seconds)


def test_two_times_contradict_each_other():
    with pytest.raises(InvalidArgumentError, match="one time to live, not 1 s and 2 s"):
        _ = TimeToLive(1) | TimeToLive(2)


@pytest.mark.parametrize("wrong", [5, "pinned", [1], Pinned])
def test_other_things_are_refused(wrong):
    with pytest.raises(InvalidArgumentError, match="a policy is"):
        combine(wrong)
