"""Which connector of several an object goes to."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict

from proxystore_hpc.utils.environment import hostname


class PolicyDict(TypedDict):
    """A `Policy` as plain values, which JSON can hold."""

    priority: int
    host_pattern: list[str] | str | None
    min_size_bytes: int
    max_size_bytes: int
    subset_tags: list[str]
    superset_tags: list[str]


@dataclass
class Policy:
    """What a connector takes.

    Attributes:
        priority: Of several that fit, the highest is taken.
        host_pattern: Regular expressions, one of which the host's name has to match as a whole;
            any host if `None`.
        min_size_bytes: Least length of an object.
        max_size_bytes: Greatest length.
        subset_tags: Tags of which those that a call names have to be a subset.
        superset_tags: Tags of which those that a call names have to be a superset.
    """

    priority: int = 0
    host_pattern: Iterable[str] | str | None = None
    min_size_bytes: int = 0
    max_size_bytes: int = sys.maxsize
    subset_tags: list[str] = field(default_factory=list)
    superset_tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # An iterator could be asked only once.
        if not (self.host_pattern is None or isinstance(self.host_pattern, str)):
            self.host_pattern = list(self.host_pattern)
        self.subset_tags = list(self.subset_tags)
        self.superset_tags = list(self.superset_tags)

    def is_valid(
        self,
        *,
        size_bytes: int | None = None,
        subset_tags: Iterable[str] | None = None,
        superset_tags: Iterable[str] | None = None,
    ) -> bool:
        """Whether the connector takes an object here. What is `None` is not looked at.

        Args:
            size_bytes: Length of the object.
            subset_tags: Tags that have to be a subset of the policy's.
            superset_tags: Tags that have to be a superset of the policy's.
        """
        if size_bytes is not None and not self.min_size_bytes <= size_bytes <= self.max_size_bytes:
            return False
        if subset_tags is not None and not set(subset_tags) <= set(self.subset_tags):
            return False
        if superset_tags is not None and not set(superset_tags) >= set(self.superset_tags):
            return False
        return self.is_valid_on_host()

    def is_valid_on_host(self) -> bool:
        """Whether the connector is for this host."""
        if self.host_pattern is None:
            return True
        patterns = [self.host_pattern] if isinstance(self.host_pattern, str) else self.host_pattern
        return any(re.fullmatch(pattern, hostname()) for pattern in patterns)

    def as_dict(self) -> PolicyDict:
        """The policy as plain values: `Policy(**policy.as_dict()) == policy`."""
        pattern = self.host_pattern
        return PolicyDict(
            priority=self.priority,
            host_pattern=pattern if pattern is None or isinstance(pattern, str) else list(pattern),
            min_size_bytes=self.min_size_bytes,
            max_size_bytes=self.max_size_bytes,
            subset_tags=list(self.subset_tags),
            superset_tags=list(self.superset_tags),
        )
