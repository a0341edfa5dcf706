from __future__ import annotations

import importlib.util
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from proxystore_hpc.bench.bursts import Repeated
from proxystore_hpc.bench.contestant import Kind, Operation, UnavailableError
from proxystore_hpc.bench.data import WrongBytesError, expect, pattern
from proxystore_hpc.bench.deadline import TooSlowError, deadline
from proxystore_hpc.bench.record import Record
from proxystore_hpc.bench.runner import Match, Pace, Runner

_spec = importlib.util.spec_from_file_location(
    "stand_ins", Path(__file__).with_name("stand_ins.py")
)
stand_ins = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(stand_ins)
StandIn, spin = stand_ins.StandIn, stand_ins.spin

PACE = Pace(seconds=0.0, fewest=5, most=20, warm_up=1, patience=5.0)
MATCH = Match("doors", Operation.GET, 8)


def run(*contestants, pace=PACE, match=MATCH, **options):
    record = Record()
    runner = Runner(contestants, pace, record, **options)
    runner.check()
    comparison = runner.run(match)
    runner.close()
    return record, comparison


def test_an_injected_delay_is_found_and_of_the_right_size():
    """The harness measures what it says: by the clock of the thread, so that load does no harm."""

    def clocked(seconds):
        began = time.thread_time()
        spin(seconds)
        return time.thread_time() - began

    quick = StandIn("quick", partial(clocked, 2e-3), kind=Kind.LIMIT)
    slow = StandIn("slow", partial(clocked, 6e-3), limit="quick")
    record, comparison = run(slow, quick)
    ratio = comparison.ratio("slow", "quick")
    assert ratio.value == pytest.approx(3, rel=0.2)
    assert ratio.low <= 3.2
    assert ratio.high >= 2.8
    assert record.share(comparison, "slow").value == pytest.approx(1 / 3, rel=0.2)


def test_a_burst_gives_the_time_of_one_operation(monkeypatch):
    calls = []
    burst = Repeated(lambda: calls.append(spin(1e-4)))
    burst()
    assert burst.loops > 1
    # A clock that advances a second for each operation, whatever the machine does meanwhile.
    monkeypatch.setattr(time, "perf_counter", lambda: float(len(calls)))
    before = len(calls)
    assert burst() == pytest.approx(1.0)
    assert len(calls) - before == burst.loops


def test_verifying_is_not_timed():
    burst = Repeated(lambda: spin(1e-3), lambda _: time.sleep(0.2))
    burst()
    began = time.perf_counter()
    sample = burst() * burst.loops
    assert time.perf_counter() - began >= 0.2
    assert sample < 0.2 or burst.loops > 1


def test_all_take_part_in_each_round_in_changing_order():
    order = []

    def burst(name):
        order.append(name)
        return 1.0

    names = "abcd"
    _, comparison = run(*(StandIn(name, partial(burst, name)) for name in names))
    rounds = [order[i : i + 4] for i in range(0, len(order), 4)]
    assert all(sorted(each) == list(names) for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    for name in names:
        assert comparison.of(name).rounds == list(range(PACE.fewest))


def test_who_has_used_up_its_time_sits_out():
    def slow():
        time.sleep(0.03)
        return 0.03

    pace = Pace(seconds=0.05, fewest=2, most=50, warm_up=0)
    _, comparison = run(StandIn("slow", slow), StandIn("quick", lambda: 1e-3), pace=pace)
    assert len(comparison.of("slow").rounds) <= 3
    assert len(comparison.of("quick").rounds) == 50
    assert comparison.ratio("slow", "quick") is not None


def test_wrong_bytes_are_refused():
    def wrong():
        found = pattern(1000)
        found[500] ^= 1
        expect(found, 1000)
        return 1.0

    record, comparison = run(StandIn("wrong", wrong), StandIn("right", lambda: 1.0))
    assert [series.contestant for series in comparison.series] == ["right"]
    (absence,) = record.absences
    assert absence.contestant == "wrong"
    assert "WrongBytesError" in absence.reason
    assert (absence.operation, absence.nbytes) == ("get", 8)


@pytest.mark.parametrize("where", [0, 3])
def test_who_raises_is_dropped_and_the_rest_goes_on(where):
    fails = StandIn("fails", lambda: 1.0)

    def burst():
        if fails.bursts > where:
            raise RuntimeError("it broke")
        return 1.0

    fails._burst = burst
    stays = StandIn("stays", lambda: 1.0)
    record, comparison = run(fails, stays)
    assert comparison.of("fails") is None
    assert len(comparison.of("stays").samples) == PACE.fewest
    assert record.absences[0].reason == "RuntimeError: it broke"
    assert (fails.ended, stays.ended) == (1, 1)


def test_who_hangs_is_dropped():
    pace = Pace(seconds=0, fewest=2, most=2, warm_up=0, patience=0.3)

    def hang():
        time.sleep(30)
        return 1.0

    record, comparison = run(StandIn("hangs", hang), StandIn("stays", lambda: 1.0), pace=pace)
    assert comparison.of("hangs") is None
    assert len(comparison.of("stays").samples) == 2
    assert "did not end within" in record.absences[0].reason


def test_who_is_unavailable_says_why_and_is_never_opened():
    def refuse():
        raise UnavailableError("pip install it")

    record, comparison = run(
        StandIn("absent", lambda: 1.0, checking=refuse),
        StandIn("closed", lambda: 1.0, opening=refuse),
        StandIn("there", lambda: 1.0),
    )
    assert [series.contestant for series in comparison.series] == ["there"]
    absent, closed = record.absences
    assert (absent.contestant, absent.reason, absent.operation) == (
        "absent",
        "pip install it",
        None,
    )
    assert (closed.contestant, closed.operation) == ("closed", "get")
    assert [entrant.name for entrant in record.entrants] == ["absent", "closed", "there"]


@pytest.mark.parametrize("sample", [0.0, -1.0, float("nan")])
def test_a_time_that_cannot_be_is_refused(sample):
    record, comparison = run(StandIn("odd", lambda: sample), StandIn("there", lambda: 1.0))
    assert comparison.of("odd") is None
    assert "no result of a burst" in record.absences[0].reason


def test_sizes_beyond_what_it_takes_are_left_out():
    record, comparison = run(StandIn("small", lambda: 1.0, most=4), StandIn("any", lambda: 1.0))
    assert comparison.of("small") is None
    assert "at most 4 bytes" in record.absences[0].reason


def test_little_memory_splits_them_and_limits_go_with_whom_they_limit():
    limit = StandIn("limit", lambda: 1.0, kind=Kind.LIMIT)
    several = [StandIn(name, lambda: 2.0, limit="limit") for name in "abcdef"]
    match = Match("doors", Operation.GET, 1 << 20)
    record, comparison = run(limit, *several, match=match, memory=lambda: 40 << 20)
    assert limit.ended > 1
    for each in several:
        assert each.ended == 1
        share = record.share(comparison, each.name)
        assert share.value == pytest.approx(0.5)
    rounds = [round_ for each in several for round_ in comparison.of(each.name).rounds]
    assert len(set(rounds)) > PACE.fewest


@pytest.mark.parametrize(("operation", "heats"), [(Operation.GET, 1), (Operation.BATCH, 3)])
def test_who_holds_many_arrays_needs_the_memory_of_all(operation, heats):
    several = [StandIn(name, lambda: 1.0, operations=frozenset({operation})) for name in "abcdef"]
    match = Match("store", operation, 1 << 20)
    _, comparison = run(*several, match=match, memory=lambda: 100 << 20)
    first_rounds = {comparison.of(each.name).rounds[0] for each in several}
    assert len(first_rounds) == heats


def test_peers_meet_one_of_ours_in_each_heat():
    """Else those of other heats than ours would have nothing that they are compared with."""
    ours = StandIn("ours", lambda: 1.0, reach=("node",))
    others = [StandIn(name, lambda: 9.0) for name in ("self", "registered")]
    peers = [StandIn(name, lambda: 3.0, kind=Kind.PEER) for name in "abcd"]
    match = Match("doors", Operation.GET, 1 << 20)
    _, comparison = run(*others, ours, *peers, match=match, memory=lambda: 40 << 20)
    for peer in peers:
        assert peer.ended == 1
        assert comparison.ratio(peer.name, "ours").value == pytest.approx(3.0)
    assert 1 < ours.ended < len(peers)
    # What clusters keep would take the memory of the next heat.
    assert all(peer.rests for peer in peers)


def test_nobody_takes_part_twice_in_a_round():
    ours = StandIn("ours", lambda: 1.0, reach=("node",))
    peer = StandIn("peer", lambda: 3.0, kind=Kind.PEER)
    _, comparison = run(peer, ours)
    assert ours.ended == peer.ended == 1
    assert comparison.of("ours").rounds == list(range(PACE.fewest))


def test_who_has_no_part_in_what_follows_rests():
    get, put = Match("doors", Operation.GET, 8), Match("doors", Operation.PUT, 8)
    both = StandIn("both", lambda: 1.0, operations=frozenset({Operation.GET, Operation.PUT}))
    small = StandIn("small", lambda: 1.0, most=8)
    record = Record()
    runner = Runner([both, small], PACE, record)
    runner.check()
    runner.run(get)
    runner.rest(get)
    assert (both.rests, small.rests) == (0, 0)
    runner.rest(Match("doors", Operation.GET, 16))
    assert (both.rests, small.rests) == (0, 1)
    runner.rest(put)
    assert (both.rests, small.rests) == (0, 2)
    runner.rest(None)
    assert (both.rests, small.rests) == (1, 3)


def test_who_hangs_again_and_again_is_left_out():
    pace = Pace(seconds=0, fewest=1, most=1, warm_up=0, patience=0.2)

    def hang():
        time.sleep(30)
        return 1.0

    hangs = StandIn("hangs", hang)
    record = Record()
    runner = Runner([hangs, StandIn("stays", lambda: 1.0)], pace, record)
    runner.check()
    for _ in range(4):
        runner.run(MATCH)
    assert hangs.bursts == 2
    assert [each.reason[:8] for each in record.absences] == ["TooSlowE"] * 2 + ["left out"] * 2


def test_who_can_never_be_opened_is_tried_twice_and_told_of_once():
    tries = []

    def refuse():
        tries.append(1)
        raise UnavailableError("no network")

    lines = []
    record = Record()
    closed = StandIn("closed", lambda: 1.0, opening=refuse)
    runner = Runner([closed, StandIn("there", lambda: 1.0)], PACE, record, lines.append)
    runner.check()
    for _ in range(4):
        assert [each.contestant for each in runner.run(MATCH).series] == ["there"]
    assert len(tries) == 2
    assert [each.reason[:8] for each in record.absences] == ["no netwo"] * 2 + ["left out"] * 2
    left_out = "closed get: left out since it could not be opened for 2 comparisons"
    assert lines == ["closed get: no network", left_out]


def test_who_opened_once_is_tried_again():
    tries = []

    def refuse_larger():
        tries.append(1)
        if len(tries) > 1:
            raise UnavailableError("too large")

    record = Record()
    runner = Runner([StandIn("small", lambda: 1.0, opening=refuse_larger)], PACE, record)
    runner.check()
    for _ in range(4):
        runner.run(MATCH)
    assert len(tries) == 4
    assert [each.reason for each in record.absences] == ["too large"] * 3


def test_time_is_counted_and_what_is_to_come_expected():
    def slow():
        time.sleep(0.05)
        return 1.0

    slow_one = StandIn("slow", slow, opening=lambda: time.sleep(0.3))
    record = Record()
    runner = Runner([slow_one], PACE, record)
    runner.check()
    guess = runner.expected(MATCH)
    runner.run(MATCH)
    entrant = record.entrant("slow")
    assert entrant.opening_s >= 0.3
    assert entrant.turns_s >= 0.05 * (PACE.fewest + PACE.warm_up)
    assert runner.expected(MATCH) == pytest.approx(entrant.opening_s + entrant.turns_s)
    assert runner.expected(MATCH) != guess
    assert runner.expected(Match("doors", Operation.PUT, 8)) == 0


def test_what_lay_there_before_is_not_taken_for_what_was_sent():
    stale = pattern(300, shift=1)
    expect(stale, 300, shift=1)
    with pytest.raises(WrongBytesError):
        expect(stale, 300, shift=2)
    assert not np.array_equal(pattern(300, 1), pattern(300, 2))


def test_a_deadline_leaves_no_alarm_behind():
    with pytest.raises(TooSlowError, match="a nap did not end"), deadline(0.05, "a nap"):
        time.sleep(5)
    with deadline(0.2, "nothing"):
        pass
    time.sleep(0.3)
