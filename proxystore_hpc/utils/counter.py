"""Counting from several threads."""

from __future__ import annotations

from proxystore_hpc.utils.locks import make_lock


class AtomicCounter:
    """Gives each caller another number, from 0 on. Thread-safe.

    Args:
        size: How many numbers there are; `None` for no end.
    """

    def __init__(self, size: int | None = None) -> None:
        self._size = size
        self._next = 0
        self._lock = make_lock()

    def increment(self) -> int:
        """The next number.

        Raises:
            ValueError: All were given.
        """
        with self._lock:
            if self._size is not None and self._next >= self._size:
                raise ValueError(f"all {self._size} numbers of this counter were given")
            self._next += 1
            return self._next - 1
