"""How long a run will take is told from what it took so far."""

from __future__ import annotations

import pytest

from proxystore_hpc.bench.contestant import Operation
from proxystore_hpc.bench.forecast import Forecast
from proxystore_hpc.bench.text import rough

GET, PUT = Operation.GET, Operation.PUT


def test_a_guess_grows_with_contestants_sizes_and_time() -> None:
    forecast = Forecast(seconds=0.5, rounds=7)
    one = forecast.expected(["a"], GET, 8)
    assert one > 0.5
    assert forecast.expected(["a", "b"], GET, 8) == pytest.approx(2 * one)
    assert forecast.expected(["a"], GET, 1 << 30) > 2 * one
    assert Forecast(seconds=2.0, rounds=7).expected(["a"], GET, 8) > one
    assert forecast.expected([], GET, 8) == 0


def test_what_was_measured_counts_and_the_nearest_of_it_most() -> None:
    forecast = Forecast(seconds=0.5, rounds=7)
    forecast.learn("a", GET, 8, 1.0, 4.0)
    forecast.learn("a", PUT, 8, 1.0, 9.0)
    forecast.learn("a", GET, 1 << 20, 1.0, 6.0)
    assert forecast.expected(["a"], GET, 8) == pytest.approx(5.0)
    assert forecast.expected(["a"], PUT, 8) == pytest.approx(10.0)
    assert forecast.expected(["a"], GET, 2 << 20) == pytest.approx(7.0, rel=0.1)
    assert forecast.expected(["a"], Operation.ECHO, 16) in (pytest.approx(5.0), pytest.approx(10.0))


def test_what_starts_once_is_not_expected_to_start_each_time() -> None:
    forecast = Forecast(seconds=0.5, rounds=7)
    for opening in (30.0, 0.0, 0.0):
        forecast.learn("kept", GET, 8, opening, 1.0)
    assert forecast.expected(["kept"], GET, 8) == pytest.approx(11.0)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (2700, "45 min"), (7500, "2 h 5 min")],
)
def test_long_times_are_told_roughly(seconds: float, told: str) -> None:
    assert rough(seconds) == told
