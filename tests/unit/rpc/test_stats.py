"""Counters that many threads count with."""

from __future__ import annotations

import sys
import threading

import pytest

from proxystore_hpc.rpc.stats import CallCounters, CallStats, Histogram


@pytest.fixture
def hasty():
    """Threads that are switched as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_a_histogram():
    histogram = Histogram()
    for ns in (0, 1, 100, 1000, 1001, 2_000_000):
        histogram.add(ns)
    seen = histogram.snapshot()
    assert seen["count"] == 6
    assert seen["seconds"] == pytest.approx(2_002_102e-9)
    assert seen["largest"] == pytest.approx(2e-3)
    assert list(seen["buckets"].values()) == [1, 1, 1, 2, 1]
    assert seen["p50"] == pytest.approx(128e-9)
    assert 2e-3 <= seen["p99"] < 4.2e-3
    assert Histogram().snapshot()["p99"] == 0


def test_counts_are_exact(hasty):
    stats, histogram = CallStats(), Histogram()

    def count():
        for _ in range(20_000):
            stats.began(3)
            stats.ended(100, 5)
            stats.called(70)
            histogram.add(9)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = stats.snapshot()
    assert seen["calls"] == seen["latency"]["count"] == 160_000
    assert (seen["bytes_out"], seen["bytes_in"]) == (240_000, 400_000)
    assert histogram.snapshot()["count"] == 80_000
    assert histogram.snapshot()["seconds"] == pytest.approx(720_000e-9)


def test_counters_by_name():
    counters = CallCounters()
    assert counters.of("a") is counters.of("a")
    counters.of("a").began(0)
    counters.of("b")
    assert list(counters.snapshot()) == ["a"]
