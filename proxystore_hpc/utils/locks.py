"""Locks that a forked child finds free.

Another thread of the parent may hold a lock at the fork; in the child nobody would ever release it.
What such a lock protects may then be in the middle of a change: in a child nothing may depend on
it but clearing it away.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

_locks: weakref.WeakSet[Any] = weakref.WeakSet()


def _free_all() -> None:
    for lock in _locks:
        # What the threading, logging and concurrent.futures modules do with theirs.
        lock._at_fork_reinit()


os.register_at_fork(after_in_child=_free_all)


def make_lock() -> Any:
    """A `threading.Lock` that is free in a forked child."""
    lock = threading.Lock()
    _locks.add(lock)
    return lock


def make_rlock() -> Any:
    """A `threading.RLock` that is free in a forked child."""
    lock = threading.RLock()
    _locks.add(lock)
    return lock
