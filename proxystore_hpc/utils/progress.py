"""How far a transfer is: the callable that is told, and a bar on the terminal."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TextIO, TypeAlias

from proxystore_hpc.utils.sizes import format_size

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the bytes that have arrived and those there will be; from any thread, not too often,
with growing numbers."""

LEAST = 64 << 20
"""Smaller transfers, in bytes, are over before anybody reads a bar."""

_INTERVAL = 0.1
_SETTLED = 0.5


class Bar:
    """One line on a terminal that is written over and over. Thread-safe.

    Args:
        what: What is transferred.
        file: The terminal.
    """

    def __init__(self, what: str, file: TextIO | None = None) -> None:
        self._what = what
        self._file = sys.stderr if file is None else file
        self._lock = threading.Lock()
        self._began = self._written = time.monotonic()
        self._base: int | None = None
        self._width = 0

    def __call__(self, done: int, total: int) -> None:
        """Writes the line anew, unless that was done a moment ago."""
        with self._lock:
            if self._base is None:
                self._base, self._began = done, time.monotonic()
            now = time.monotonic()
            if done < total and now - self._written < _INTERVAL:
                return
            self._written = now
            self._write(self._line(done, total, now - self._began))

    def _line(self, done: int, total: int, seconds: float) -> str:
        share = done / total if total else 1.0
        rate = (done - (self._base or 0)) / seconds if seconds > 0 else 0.0
        text = f" {share:4.0%}  {format_size(done)} of {format_size(total)}"
        if rate > 0 and seconds > _SETTLED:
            text += f"  {format_size(int(rate))}/s"
            if done < total:
                text += f"  {_duration((total - done) / rate)} left"
        columns = shutil.get_terminal_size().columns - 1
        room = columns - len(self._what) - len(text) - 3
        if room < 8:
            return f"{self._what}{text}"[:columns]
        full = round(room * min(share, 1.0))
        return f"{self._what} [{'#' * full}{'.' * (room - full)}]{text}"

    def _write(self, line: str) -> None:
        self._file.write("\r" + line.ljust(self._width))
        self._file.flush()
        self._width = len(line)

    def close(self) -> None:
        """Goes on to the next line, if anything was written."""
        with self._lock:
            if self._width:
                self._width = 0
                self._file.write("\n")
                self._file.flush()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def progress_of(
    wanted: bool | Progress, nbytes: int, what: str, file: TextIO | None = None
) -> AbstractContextManager[Progress | None]:
    """What a transfer should tell, for the time of a `with`.

    Args:
        wanted: True for a bar, or a callable of the caller's own.
        nbytes: Length of the transfer. Less than `LEAST` shows no bar.
        what: Stands before the bar.
        file: The terminal, `sys.stderr` by default. If it is none, nothing is ever written to it.
    """
    if callable(wanted):
        return nullcontext(wanted)
    file = sys.stderr if file is None else file
    if not wanted or nbytes < LEAST or file is None or not file.isatty():
        return nullcontext()
    return Bar(what, file)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
