"""Filters that many streams can use."""

from __future__ import annotations

import random
from typing import Any

from proxystore_hpc.exceptions import InvalidArgumentError


class NullFilter:
    """Lets every item through."""

    def __call__(self, metadata: dict[str, Any]) -> bool:
        """Whether to drop the item: never."""
        return False


class SamplingFilter:
    """Drops items at random.

    Args:
        p: Probability that an item is dropped, 0 to 1.

    Raises:
        InvalidArgumentError: `p` is no probability.
    """

    def __init__(self, p: float) -> None:
        if not 0 <= p <= 1:
            raise InvalidArgumentError(f"p: a probability lies in [0, 1], not {p}")
        self._p = p

    def __call__(self, metadata: dict[str, Any]) -> bool:
        """Whether to drop the item."""
        # random() is below 1, so that p=0 drops nothing and p=1 everything.
        return random.random() < self._p
