"""How long a stored object lives, as immutable values that combine with `|`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from proxystore_hpc.exceptions import InvalidArgumentError

PINNED: Final = 1
EXPIRES: Final = 2
RAISED: Final = 4

_MAX_NS: Final = 2**63 - 1


class Policy:
    """What the owner does with an object, beyond keeping it until it is evicted.

    Attributes:
        flags: Bits for the core: `PINNED`, `EXPIRES`.
        ttl_ns: Time to live in nanoseconds from when the object is stored; 0 without one.
    """

    __slots__ = ("flags", "ttl_ns")

    flags: int
    ttl_ns: int

    def __init__(self) -> None:
        self._set(0, 0)

    def _set(self, flags: int, ttl_ns: int) -> None:
        object.__setattr__(self, "flags", flags)
        object.__setattr__(self, "ttl_ns", ttl_ns)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a policy cannot be changed: make a new one instead of {name!r}")

    def __delattr__(self, name: str) -> None:
        self.__setattr__(name, None)

    def __or__(self, other: Policy) -> Policy:
        if not isinstance(other, Policy):
            return NotImplemented
        both = self.flags & other.flags & EXPIRES
        if both and self.ttl_ns != other.ttl_ns:
            raise InvalidArgumentError(
                f"an object has one time to live, not {self.ttl_ns / 1e9:g} s and "
                f"{other.ttl_ns / 1e9:g} s"
            )
        result = Policy()
        result._set(self.flags | other.flags, self.ttl_ns or other.ttl_ns)
        return result

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Policy):
            return NotImplemented
        return (self.flags, self.ttl_ns) == (other.flags, other.ttl_ns)

    def __hash__(self) -> int:
        return hash((self.flags, self.ttl_ns))

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (self.flags, self.ttl_ns)

    def __repr__(self) -> str:
        parts = []
        if self.flags & PINNED:
            parts.append("Pinned()")
        if self.flags & EXPIRES:
            parts.append(f"TimeToLive({self.ttl_ns / 1e9:g})")
        return " | ".join(parts) or "Policy()"


class TimeToLive(Policy):
    """The object is evicted by its owner `seconds` after it was stored.

    A read that began before is finished; a view that lives longer keeps its memory.

    Raises:
        InvalidArgumentError: The time is not positive, or beyond 292 years.
    """

    __slots__ = ()

    def __init__(self, seconds: float) -> None:
        try:
            ttl_ns = round(seconds * 1e9)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidArgumentError(
                f"a time to live is a number of seconds, not {seconds!r}"
            ) from error
        if not 0 < ttl_ns <= _MAX_NS:
            raise InvalidArgumentError(
                f"a time to live is between a nanosecond and 292 years, not {seconds!r} s"
            )
        self._set(EXPIRES, ttl_ns)


class Pinned(Policy):
    """The object cannot be evicted, only end with its store or its time to live."""

    __slots__ = ()

    def __init__(self) -> None:
        self._set(PINNED, 0)


def combine(policy: Policy | Iterable[Policy] | None) -> Policy:
    """One policy of several; `None` gives the default one.

    Raises:
        InvalidArgumentError: Something else was given, or policies that contradict each other.
    """
    if policy is None:
        return _DEFAULT
    if isinstance(policy, Policy):
        return policy
    result = _DEFAULT
    try:
        for part in policy:
            result = result | part
    except TypeError as error:
        raise InvalidArgumentError(
            f"a policy is TimeToLive(seconds), Pinned(), or several of them, not {policy!r}"
        ) from error
    return result


def _restore(flags: int, ttl_ns: int) -> Policy:
    policy = Policy()
    policy._set(flags, ttl_ns)
    return policy


_DEFAULT: Final = Policy()
