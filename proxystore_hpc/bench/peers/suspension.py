"""Processes that spin even when nobody asks them for anything: stopped while others have a turn."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Suspension"]

_VARIABLE = "PROXYSTORE_HPC_BENCHMARK_TURN"
# Continues them if this process ends without doing so, however that comes.
_GUARDIAN = """
read _
for found in $(grep -l -a -s -F "$0" /proc/[0-9]*/environ); do
    process=${found#/proc/}
    kill -CONT "${process%/environ}"
done
"""


class Suspension:
    """All processes that are started within `started`, and what they start in turn.

    They are known by a variable of their environment, as launchers leave their children to init.
    """

    def __init__(self) -> None:
        self._mark = f"{_VARIABLE}={os.urandom(8).hex()}"
        self._guardian: subprocess.Popen[bytes] | None = None

    @contextmanager
    def started(self) -> Iterator[None]:
        """Whatever starts meanwhile belongs to them."""
        name, _, value = self._mark.partition("=")
        os.environ[name] = value
        try:
            yield
        finally:
            del os.environ[name]

    def stop(self) -> None:
        """They get no more of the processors."""
        if self._guardian is None or self._guardian.poll() is not None:
            self._guardian = subprocess.Popen(
                ["sh", "-c", _GUARDIAN, self._mark],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        """They run again."""
        self._send(signal.SIGCONT)

    def close(self) -> None:
        """They run again, and nobody watches over them any more."""
        self.go_on()
        if self._guardian is not None:
            self._guardian.communicate()
            self._guardian = None

    def processes(self) -> list[int]:
        """Their numbers, as long as there are any."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # it has ended, or is another user's
                    if self._mark.encode() in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
        return found

    def _send(self, number: signal.Signals) -> None:
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
