"""What starts slowly, a cluster or a job, and so stays from one comparison to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from proxystore_hpc.bench.companion import Companion, CompanionError
from proxystore_hpc.bench.contestant import Burst, Operation

__all__ = ["USUAL", "Companions", "Kept"]

USUAL = 128 << 20
"""Bytes of the largest payloads that it is started for, if those of the first one are smaller."""
Companions = tuple[Companion, ...]


class Kept:
    """Companions that are started when they are first needed, and then used again until `close`.

    Each has `prepare(nbytes)`, called before a comparison, and `rest()`, called after it, which
    frees what depends on the size. After a burst that failed they are ended, as nobody knows what
    they are in the middle of; the next comparison starts new ones.

    Args:
        start: Starts them for payloads of at most so many bytes; what ends them goes into the
            stack.
        bursts: Makes the burst of an operation of them.
    """

    def __init__(
        self,
        start: Callable[[ExitStack, int], Companions],
        bursts: Callable[[Companions, Operation, int], Burst],
    ) -> None:
        self._start = start
        self._bursts = bursts
        self._stack = ExitStack()
        self._companions: Companions = ()
        self._most = 0
        self._whole = True

    @contextmanager
    def open(self, operation: Operation, nbytes: int) -> Iterator[Burst]:
        """As `Contestant.open`.

        Raises:
            CompanionError: They do not start.
        """
        try:
            self._prepare(nbytes)
            burst = self._bursts(self._companions, operation, nbytes)

            def watched() -> float:
                self._whole = False
                sample = burst()
                self._whole = True
                return sample

            yield watched
            if self._whole:
                for companion in self._companions:
                    companion.call("rest")
        except BaseException:
            self.close()
            raise
        if not self._whole:
            self.close()

    def close(self) -> None:
        """Ends them; they can be started again."""
        stack, self._stack, self._companions = self._stack, ExitStack(), ()
        self._whole = True
        stack.close()

    def _prepare(self, nbytes: int) -> None:
        if self._companions and nbytes <= self._most:
            try:
                self._call_prepare(nbytes)
                return
            except CompanionError:
                pass  # it ended meanwhile, so a new one is tried
        self.close()
        self._most = max(nbytes, USUAL)
        with ExitStack() as stack:
            self._companions = self._start(stack, self._most)
            self._stack = stack.pop_all()
        self._call_prepare(nbytes)

    def _call_prepare(self, nbytes: int) -> None:
        for companion in self._companions:
            companion.call("prepare", nbytes)
