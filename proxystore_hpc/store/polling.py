"""Asking again and again, where nobody tells."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Polling:
    """How often to ask.

    Attributes:
        interval: Seconds before the second question.
        backoff_factor: By how much each interval is longer than the one before.
        interval_limit: Longest interval in seconds, `None` for no limit.
    """

    interval: float = 0.001
    backoff_factor: float = 1.5
    interval_limit: float | None = 0.1

    def tries(self, timeout: float | None) -> Iterator[None]:
        """Yields at once and then whenever it is time to ask, for the last time at the deadline.

        Args:
            timeout: Seconds until the deadline, `None` for none.
        """
        deadline = None if timeout is None or timeout == math.inf else time.monotonic() + timeout
        interval = self.interval
        while True:
            yield
            left = math.inf if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(interval, left))
            interval *= self.backoff_factor
            if self.interval_limit is not None:
                interval = min(interval, self.interval_limit)


POLLING = Polling()
"""The default: quick at first, and ten times a second in the long run."""
