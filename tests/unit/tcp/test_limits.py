"""Rates, and memory for what is on its way."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import procfs

from proxystore_hpc.exceptions import StoreFullError
from proxystore_hpc.tcp.limits import ClientPace, Limits, Staging, TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=200))
def test_a_bucket_lets_its_rate_pass_and_one_quantum_at_once(sizes):
    clock = Clock()
    bucket = TokenBucket(100_000, clock, clock.sleep)
    for size in sizes:
        bucket.take(size)
    total = sum(sizes)
    assert clock.now <= total / 100_000
    assert total <= 100_000 * clock.now + bucket.quantum + 5000


def test_a_pause_saves_up_no_more_than_a_quantum():
    clock = Clock()
    bucket = TokenBucket(100_000, clock, clock.sleep)
    clock.now = 1000.0
    for _ in range(100):
        bucket.take(1000)
    assert clock.now - 1000.0 == pytest.approx((100_000 - bucket.quantum) / 100_000, abs=0.02)


def test_who_takes_too_little_is_noticed(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    pace = ClientPace(None, Limits(slowest=100))
    clock.now = 11.0
    pace.after(2000)
    clock.now = 22.0
    with pytest.raises(TimeoutError, match="slowly"):
        pace.after(10)


def test_an_object_is_not_held_for_long_by_who_takes_a_little_of_it(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    pace = ClientPace(None, Limits(slowest=1, average=1000))
    with pytest.raises(TimeoutError, match="slowly"):
        for _ in range(1000):
            pace.before(500)
            clock.now += 1.0
            pace.after(500)
    assert 100 < clock.now < 150
    # What passes between pieces is not the client's doing.
    pace = ClientPace(None, Limits(slowest=1, average=1000))
    for _ in range(1000):
        clock.now += 10.0
        pace.before(1000)
        clock.now += 1.0
        pace.after(1000)


def test_staging_is_bounded_and_waited_for():
    staging = Staging(100)
    staging.take(80, 0.0)
    with pytest.raises(StoreFullError) as caught:
        staging.take(30, 0.01)
    assert (caught.value.requested, caught.value.capacity, caught.value.used) == (30, 100, 80)
    with pytest.raises(StoreFullError):
        staging.take(101, 10.0)
    taken = threading.Event()
    thread = threading.Thread(target=lambda: (staging.take(30, 10.0), taken.set()))
    thread.start()
    staging.give(80)
    procfs.wait_until(taken.is_set, "the memory is taken")
    thread.join()
