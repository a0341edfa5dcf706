"""Forked children of tests."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable


def in_child(function: Callable[[], object]) -> tuple[str, int]:
    """Runs `function` in a forked child.

    Returns:
        What it returned, as text, or the name of its exception's type; and the child's status.
    """
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(readable)
        try:
            answer = repr(function())
        except BaseException as error:
            answer = type(error).__name__
        os.write(writable, answer.encode())
        os._exit(0)
    os.close(writable)
    with open(readable, "rb") as pipe:
        answer = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    return answer, status
