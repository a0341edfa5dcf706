"""How long comparisons will take, by what those before took."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from proxystore_hpc.bench.contestant import Operation

__all__ = ["Forecast"]

# Where nothing is known yet: most start two processes, and move a gigabyte in half a second.
_OPENING_S = 1.5
_SECONDS_PER_BYTE = 0.5e-9


@dataclass
class Forecast:
    """Learns what contestants take, and guesses what they will take.

    Attributes:
        seconds: Of the turns of a contestant in a comparison, where they are short.
        rounds: That are run whatever the time, and those of the warm-up.
    """

    seconds: float
    rounds: int
    _openings: dict[str, list[float]] = field(default_factory=dict)
    _turns: dict[str, list[tuple[Operation, int, float]]] = field(default_factory=dict)

    def learn(
        self, name: str, operation: Operation, nbytes: int, opening_s: float, turns_s: float
    ) -> None:
        """Notes what a contestant took to be opened and closed, and for its turns."""
        self._openings.setdefault(name, []).append(opening_s)
        self._turns.setdefault(name, []).append((operation, nbytes, turns_s))

    def expected(self, names: Iterable[str], operation: Operation, nbytes: int) -> float:
        """Seconds of a comparison of these."""
        return sum(self._one(name, operation, nbytes) for name in names)

    def _one(self, name: str, operation: Operation, nbytes: int) -> float:
        openings = self._openings.get(name, [_OPENING_S])
        # What is kept starts once, so the mean says more than the last one.
        opening = sum(openings) / len(openings)
        guess = self._guess(nbytes)
        known = self._turns.get(name)
        if not known:
            return opening + guess

        def distance(turn: tuple[Operation, int, float]) -> tuple[bool, float]:
            return turn[0] is not operation, abs(math.log2((turn[1] + 1) / (nbytes + 1)))

        _, size, took = min(known, key=distance)
        return opening + took * guess / self._guess(size)

    def _guess(self, nbytes: int) -> float:
        return max(self.seconds, 0.05) + self.rounds * nbytes * _SECONDS_PER_BYTE
