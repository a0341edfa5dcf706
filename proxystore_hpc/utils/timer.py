"""A stopwatch."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TypeVar

TimerT = TypeVar("TimerT", bound="Timer")


class Timer:
    """Measures the time of a `with` block, or between `start` and `stop`."""

    def __init__(self) -> None:
        self._began = 0
        self._ended: int | None = 0

    def start(self: TimerT) -> TimerT:
        """Starts to measure, from zero; returns itself."""
        self._ended = None
        self._began = time.perf_counter_ns()
        return self

    def stop(self: TimerT) -> TimerT:
        """Ends the measurement; returns itself."""
        self._ended = time.perf_counter_ns()
        return self

    def __enter__(self: TimerT) -> TimerT:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def elapsed_ns(self) -> int:
        """The time in nanoseconds.

        Raises:
            RuntimeError: It is still being measured.
        """
        if self._ended is None:
            raise RuntimeError("the timer is running: stop it first")
        return self._ended - self._began

    @property
    def elapsed_ms(self) -> float:
        """The time in milliseconds. See `elapsed_ns`."""
        return self.elapsed_ns / 1e6

    @property
    def elapsed_s(self) -> float:
        """The time in seconds. See `elapsed_ns`."""
        return self.elapsed_ns / 1e9
