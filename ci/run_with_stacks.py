#!/usr/bin/env python3
"""Runs a command under a time limit; on a hang, prints the stacks of all its processes.

    ci/run_with_stacks.py SECONDS COMMAND [ARGUMENT ...]

Ends with the command's status, 124 after a hang, or 1 if the command succeeded but left processes
behind. It adopts orphans, so that none escapes, and ends every process that it started, by id.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

import process_stacks

PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 5.0


def say(text: str) -> None:
    """Prints to standard error, unbuffered."""
    print(text, file=sys.stderr, flush=True)


def run(limit_s: float, command: list[str]) -> int:
    """Runs `command`; see the module's description."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="proxystore_hpc-ci-", dir=fast_directory()) as scratch:
        # A killed Open MPI leaves its segments in /dev/shm; in a directory of ours they go with it.
        segments = {f"OMPI_MCA_btl_{name}_backing_directory": scratch for name in ("sm", "vader")}
        return run_with(limit_s, command, {"PYTHONFAULTHANDLER": "1", **segments, **os.environ})


def fast_directory() -> str | None:
    """Where files lie in memory, if there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def run_with(limit_s: float, command: list[str], environment: dict[str, str]) -> int:
    """Runs `command` in `environment`."""
    try:
        process = subprocess.Popen(command, env=environment, start_new_session=True)
    except OSError as error:
        say(f"error: cannot run {command[0]}: {error.strerror}")
        return 127

    def on_signal(number: int, _: FrameType | None) -> None:
        end_all()
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        status = process.wait(timeout=limit_s)
    except subprocess.TimeoutExpired:
        say(f"=== HANG: no end after {limit_s:g} s: {' '.join(command)}")
        process_stacks.dump(process_stacks.descendants(os.getpid()), say)
        end_all()
        return 124
    left = leftovers()
    if left:
        say(f"=== LEFT BEHIND {GRACE_S:g} s after the end of: {' '.join(command)}")
        for pid in left:
            say(f"    {process_stacks.describe(pid)}")
        end_all()
        return status or 1
    return status if status >= 0 else 128 - status


def leftovers() -> list[int]:
    """Processes that still run after a grace period, in which they may end by themselves."""
    deadline = time.monotonic() + GRACE_S
    while True:
        reap()
        left = [p for p in process_stacks.descendants(os.getpid()) if process_stacks.is_running(p)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def end_all() -> None:
    """Kills everything below this process, until nothing new appears."""
    for _ in range(20):
        running = [
            p for p in process_stacks.descendants(os.getpid()) if process_stacks.is_running(p)
        ]
        if not running:
            break
        process_stacks.kill(running)
        time.sleep(0.05)
        reap()


def reap() -> None:
    """Collects adopted orphans that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(run(float(sys.argv[1]), sys.argv[2:]))
