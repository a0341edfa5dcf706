from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc.bench.statistics import adjusted, mann_whitney, median_interval, summarize

SAMPLES = st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=50)


@given(SAMPLES)
def test_a_summary_is_that_of_numpy(samples):
    found = summarize(samples)
    assert found.median == found.p50 == pytest.approx(np.median(samples))
    assert found.p90 == pytest.approx(np.quantile(samples, 0.9))
    assert found.p99 == pytest.approx(np.quantile(samples, 0.99))
    assert (found.minimum, found.maximum) == (min(samples), max(samples))
    assert found.count == len(samples)


@given(SAMPLES)
def test_the_median_lies_in_its_interval(samples):
    found = median_interval(samples)
    assert min(samples) <= found.low <= found.value <= found.high <= max(samples)


def test_an_interval_is_as_wide_as_theory_says():
    # The median of n normal values has a standard deviation of 1.2533 / sqrt(n).
    values = np.random.default_rng(1).normal(100, 5, 400)
    found = median_interval(list(values))
    expected = 1.96 * 1.2533 * 5 / math.sqrt(400)
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.35)
    assert found.noise == pytest.approx((found.high - found.low) / 2 / found.value)
    assert median_interval(list(values)) == found


def test_intervals_cover_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        found = median_interval(list(generator.normal(1, 0.2, 30)), resamples=500)
        covered += found.low <= 1 <= found.high
    assert covered >= 176


def test_mann_whitney_of_a_known_example():
    # The tortoise and the hare: U = 11 of 36, p = 0.30 by the normal approximation.
    tortoises, hares = [1, 7, 8, 9, 10, 11], [2, 3, 4, 5, 6, 12]
    assert mann_whitney(tortoises, hares) == pytest.approx(0.2980, abs=2e-3)
    assert mann_whitney(hares, tortoises) == pytest.approx(mann_whitney(tortoises, hares))


@given(SAMPLES)
def test_equal_samples_do_not_differ(samples):
    assert mann_whitney(samples, samples) == pytest.approx(1.0)


@given(st.lists(st.floats(1, 10), min_size=8, max_size=30))
def test_separate_samples_differ(samples):
    assert mann_whitney(samples, [x + 100 for x in samples]) < 0.01


def test_chance_alone_is_rarely_taken_for_a_difference():
    generator = random.Random(3)
    found = [
        mann_whitney(
            [generator.gauss(0, 1) for _ in range(12)], [generator.gauss(0, 1) for _ in range(12)]
        )
        for _ in range(400)
    ]
    assert sum(p < 0.05 for p in found) <= 36
    assert all(p > 0.01 for p in adjusted(found))


def test_holms_correction():
    assert adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjusted([0.9, 0.8]) == [1.0, 1.0]
    assert adjusted([]) == []


@pytest.mark.parametrize("call", [summarize, median_interval, lambda x: mann_whitney(x, [1.0])])
def test_nothing_has_no_statistics(call):
    with pytest.raises(ValueError, match="at least one"):
        call([])
