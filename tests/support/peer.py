"""Another process that runs functions of the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle

from support import procfs, wire

T = TypeVar("T")

TESTS = Path(__file__).resolve().parents[1]
LIMIT = 30.0
"""Seconds that a call takes at most."""


class PeerDiedError(Exception):
    """The peer ended before it answered."""


class Pending:
    """A call that is under way."""

    def __init__(self, side: Side) -> None:
        self._side = side

    def result(self, timeout: float = LIMIT) -> Any:
        return self._side._receive(timeout)


class Side:
    """Who runs functions of the test. `side(function, ...)` runs `function(here, ...)` there.

    What they assign to attributes of `here` stays there. Their exceptions are raised in the test.
    With `open` it has a store, `here.store`.
    """

    addresses: list[bytes]

    def open(self, name: str = "store", **options: Any) -> Any:
        """Gives it a store."""
        self.addresses.append(self(lambda here: here.open(name, **options)))
        return self

    def __call__(self, function: Callable[..., T], *args: Any, timeout: float = LIMIT) -> T:
        return self.start(function, *args).result(timeout)

    def start(self, function: Callable[..., Any], *args: Any) -> Pending:
        """Begins a call; its result is to be asked for before the next one."""
        raise NotImplementedError

    def _receive(self, timeout: float) -> Any:
        raise NotImplementedError

    def clean_up(self) -> str | None:
        """Ends it in any case; what was wrong about its end, if something was."""
        raise NotImplementedError


def packed_call(function: Callable[..., Any], args: Any) -> bytes:
    """Functions travel by value, with what they refer to."""
    module = sys.modules.get(function.__module__)
    if module is not None and module.__name__ != "__main__":
        cloudpickle.register_pickle_by_value(module)
    return cloudpickle.dumps((function, args))


def value_of(outcome: tuple[bool, Any], who: str) -> Any:
    """What the function returned; raises what it raised."""
    good, value = outcome
    if good:
        return value
    error, where = value
    error.add_note(f"in {who}:\n{where}") if hasattr(error, "add_note") else None
    raise error


class Peer(Side):
    """A Python process of its own.

    Args:
        launcher: Command that starts the command which is appended to it.
    """

    def __init__(self, launcher: Sequence[str] = ()) -> None:
        theirs, self._requests = os.pipe()
        self._replies, theirs_too = os.pipe()
        path = f"{TESTS.parent}:{TESTS}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")
        self._process = subprocess.Popen(
            [
                *launcher,
                sys.executable,
                *("-X", "faulthandler", "-m", "support.program", str(theirs), str(theirs_too)),
            ],
            pass_fds=(theirs, theirs_too),
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(theirs_too)
        self.addresses: list[bytes] = []
        self.ends_badly = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, function: Callable[..., Any], *args: Any) -> Pending:
        try:
            wire.send(self._requests, packed_call(function, args))
        except wire.ClosedError as error:
            raise PeerDiedError(f"peer {self.pid} is gone") from error
        return Pending(self)

    def _receive(self, timeout: float) -> Any:
        try:
            outcome = wire.receive(self._replies, timeout)
        except wire.ClosedError as error:
            raise PeerDiedError(f"peer {self.pid} ended with {self.wait()}") from error
        except TimeoutError:
            # faulthandler prints where it hangs.
            os.kill(self.pid, signal.SIGABRT)
            raise AssertionError(f"peer {self.pid} did not answer within {timeout} s") from None
        return value_of(outcome, f"peer {self.pid}")

    def stop(self) -> None:
        """Suspends it; returns when it stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        procfs.wait_until(lambda: procfs.state(self.pid) in "Tt", "the peer stands still")

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def signal(self, number: int) -> int:
        """Sends a signal that ends it; returns how it ended, as `wait`."""
        self.ends_badly = True
        os.kill(self.pid, number)
        return self.wait()

    def kill(self) -> int:
        return self.signal(signal.SIGKILL)

    def wait(self, timeout: float = LIMIT) -> int:
        """Its exit status; negative: the signal that ended it."""
        return self._process.wait(timeout)

    def end(self, timeout: float = LIMIT) -> int:
        """Lets it run to its normal end; returns its exit status."""
        if self._requests >= 0:
            os.close(self._requests)
            self._requests = -1
        return self.wait(timeout)

    def clean_up(self) -> str | None:
        wrong = None
        if self._process.poll() is None:
            self.resume()
            try:
                self.end()
            except subprocess.TimeoutExpired:
                os.kill(self.pid, signal.SIGABRT)
                time.sleep(0.5)
                self._process.kill()
                self.wait()
                wrong = f"peer {self.pid} did not end by itself"
        for fd in (self._requests, self._replies):
            if fd >= 0:
                os.close(fd)
        self._requests = self._replies = -1
        status = self._process.returncode
        if wrong is None and status != 0 and not self.ends_badly:
            wrong = f"peer {self.pid} ended with status {status}"
        return wrong
