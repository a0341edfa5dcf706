"""What a run tells of itself: a progress bar, and what it cost."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO


@dataclass
class Tally:
    """What a rank spent: seconds by kind of call, objects and bytes stored."""

    inside: dict[str, float] = field(default_factory=dict)
    objects: int = 0
    nbytes: int = 0
    seconds: float = 0.0

    @contextmanager
    def of(self, call: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.inside[call] = self.inside.get(call, 0.0) + time.perf_counter() - began

    def share(self, *calls: str) -> float:
        """Share of the run that was spent in some calls, in percent."""
        return 100 * sum(self.inside.get(call, 0.0) for call in calls) / (self.seconds or 1.0)


class Progress:
    """A bar on the terminal that this job was started from; nothing where there is none."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._began = time.monotonic()
        self._stream: TextIO | None = sys.stderr if sys.stderr.isatty() else None
        if self._stream is None and sys.stdout.isatty():
            # A launcher joins ranks to pipes and pseudo-terminals: look for the real one.
            with suppress(OSError):
                self._stream = Path("/dev/tty").open("w")  # noqa: SIM115 (closed below)

    def show(self, step: int) -> None:
        if self._stream is None:
            return
        done = step / self._steps
        bar = "━" * round(32 * done)
        seconds = time.monotonic() - self._began
        left = f"{seconds / done - seconds:4.0f} s left" if 0 < done < 1 else ""
        self._stream.write(f"\r{bar:<32} {100 * done:3.0f} %  step {step}/{self._steps} {left:12}")
        self._stream.flush()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.write("\n")
            self._stream.flush()
            if self._stream is not sys.stderr:
                self._stream.close()
            self._stream = None


def megabytes(nbytes: int) -> str:
    return f"{nbytes / 2**20:>9.1f} MiB"
