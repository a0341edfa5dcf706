"""Time limits for code that may hang."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["GRACE", "TooSlowError", "deadline"]

GRACE = 20.0
"""Seconds after a deadline that code without a look at Python's signals is still waited for."""


class TooSlowError(Exception):
    """Something did not end in time."""


@contextmanager
def deadline(
    seconds: float, what: str, stuck: Callable[[str], object] | None = None
) -> Iterator[None]:
    """Raises in what it encloses when the time is over.

    A signal does it, so it must be in the main thread; elsewhere only `stuck` helps.

    Args:
        seconds: From now.
        what: For the message: what should have ended.
        stuck: Called in a thread with the message if it hangs in C where no signal is looked at,
            `GRACE` after the deadline. All it can do is to save what there is and end the process.

    Raises:
        TooSlowError: It did not end in time.
    """
    message = f"{what} did not end within {seconds:.0f} s"

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise TooSlowError(message)

    timer: threading.Timer | None = None
    if stuck is not None:
        timer = threading.Timer(seconds + GRACE, stuck, (message,))
        timer.daemon = True
        timer.start()
    in_main = threading.current_thread() is threading.main_thread()
    if in_main:
        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        if in_main:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        if timer is not None:
            timer.cancel()
