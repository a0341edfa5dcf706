"""Memory for what is received.

Pages that are touched for the first time cost many times a copy, so memory is used again once
nothing refers to what was received into it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys

from proxystore_hpc.utils.locks import make_lock

_SMALL = 128 << 10
_LARGE = 4 << 20


class _Alone:
    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 1)


def _references(holder: _Alone | _Entry) -> int:
    memory = holder.memory
    return sys.getrefcount(memory)


class _Entry:
    __slots__ = ("memory", "nbytes")

    def __init__(self, memory: mmap.mmap, nbytes: int) -> None:
        self.memory = memory
        self.nbytes = nbytes


# Interpreters count local names, and the arguments of a call, differently.
_FREE = _references(_Alone())


class ReceivePool:
    """Hands out writable memory. Thread-safe.

    Args:
        capacity: Bytes that are kept for later use, at most.
    """

    def __init__(self, capacity: int = 256 << 20) -> None:
        self._capacity = capacity
        self._kept: list[_Entry] = []
        self._held = 0
        self._process = os.getpid()
        self._lock = make_lock()

    def take(self, nbytes: int) -> memoryview:
        """Memory of `nbytes` bytes with undefined contents.

        It is used again when no view of it is left.
        """
        if nbytes < _SMALL:
            return memoryview(bytearray(nbytes))
        with self._lock:
            if self._process != os.getpid():  # the pages are shared with the parent
                self._kept, self._held, self._process = [], 0, os.getpid()
            best: _Entry | None = None
            for entry in self._kept:
                fits = nbytes <= entry.nbytes <= (2 * nbytes if best is None else best.nbytes)
                if fits and _references(entry) == _FREE:
                    best = entry
            if best is not None:
                return memoryview(best.memory)[:nbytes]
            rounded = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
            memory = mmap.mmap(-1, rounded, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if rounded >= _LARGE and hasattr(mmap, "MADV_HUGEPAGE"):
                with contextlib.suppress(OSError):
                    memory.madvise(mmap.MADV_HUGEPAGE)
            self._make_room(rounded)
            if self._held + rounded <= self._capacity:
                self._kept.append(_Entry(memory, rounded))
                self._held += rounded
            return memoryview(memory)[:nbytes]

    def _make_room(self, nbytes: int) -> None:
        for entry in list(self._kept):
            if self._held + nbytes <= self._capacity:
                return
            if _references(entry) == _FREE:
                self._kept.remove(entry)
                self._held -= entry.nbytes

    def clear(self) -> None:
        """Gives everything back; what is in use stays where it is."""
        with self._lock:
            self._kept.clear()
            self._held = 0
