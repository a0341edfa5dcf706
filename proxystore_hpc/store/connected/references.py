"""References to objects that a connector keeps: the process that holds them counts.

There is no owner that all processes could ask, so the rules of borrowing hold within a process. A
reference that is pickled goes to another process, which counts it from then on.
"""

from __future__ import annotations

import atexit
import contextlib
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from proxystore_hpc.exceptions import (
    BaseRefProxyError,
    MutableBorrowError,
    ReferenceInvalidError,
)
from proxystore_hpc.store.connected.expiry import Expiry
from proxystore_hpc.store.holding import Mode
from proxystore_hpc.utils.locks import make_rlock


@dataclass
class _Claims:
    """References to one object, by number.

    Attributes:
        modes: Those that count here. Borrowed ones that went elsewhere stay until their lease ends.
        owned: The object ends when none is left; not so if its owner is in another process.
    """

    modes: dict[int, Mode] = field(default_factory=dict)
    owned: bool = False


class References:
    """Counts the references of a process to objects of one store. Thread-safe.

    Objects that are not referred to any more are evicted by a thread: references may be dropped
    anywhere, also by the garbage collector in the middle of the connector's code.

    Args:
        evict: Evicts keys; a method of the store, which is not kept alive.
    """

    def __init__(self, evict: Callable[[list[Any]], None]) -> None:
        self._evict = weakref.WeakMethod(evict)
        self._claims: dict[Any, _Claims] = {}
        self._ended = Expiry(evict)
        self._leases = Expiry(self._end_leases)
        # Reentrant, as the garbage collector may drop a reference while it is held.
        self._lock = make_rlock()
        _all.add(self)

    def hold(self, key: Any, number: int, mode: Mode, *, fresh: bool, lease: float) -> None:
        """Counts a reference, see `Hold`.

        Args:
            key: Key of the object.
            number: The reference's number.
            mode: What it entitles to.
            fresh: It is new; otherwise it came from another process, or goes there.
            lease: Seconds that it may be on its way, if it goes.

        Raises:
            MutableBorrowError: Others are in the way.
            ReferenceInvalidError: It goes, but has ended.
        """
        with self._lock:
            claims = self._claims.setdefault(key, _Claims())
            if lease:
                self._lend(claims, key, number, mode, lease)
            elif fresh or number not in claims.modes:
                self._check(claims, mode)
                claims.modes[number] = mode
                claims.owned |= mode is Mode.OWN
            else:
                self._leases.set([(key, number)], None)  # it came back
            self._tidy(key, claims)

    def _lend(self, claims: _Claims, key: Any, number: int, mode: Mode, lease: float) -> None:
        if number not in claims.modes:
            raise ReferenceInvalidError("the reference has ended")
        if mode is Mode.OWN:
            if len(claims.modes) > 1:
                raise BaseRefProxyError(
                    "the owner cannot go to another process while its object is borrowed: there is "
                    "nobody who could count for both"
                )
            del claims.modes[number]
            claims.owned = False
        elif claims.owned:
            self._leases.set([(key, number)], lease)
        else:
            del claims.modes[number]

    def _check(self, claims: _Claims, mode: Mode) -> None:
        there = claims.modes.values()
        if mode is Mode.OWN and Mode.OWN in there:
            raise MutableBorrowError("the object has an owner")
        if mode is Mode.SHARED and Mode.EXCLUSIVE in there:
            raise MutableBorrowError("the object is borrowed mutably")
        if mode is Mode.EXCLUSIVE and {Mode.SHARED, Mode.EXCLUSIVE} & set(there):
            raise MutableBorrowError("the object is borrowed")

    def check_update(self, key: Any, number: int) -> None:
        """Whether a reference may change its object.

        Raises:
            MutableBorrowError: It is the owner, and borrowed.
        """
        with self._lock:
            modes = self._claims[key].modes
            if modes.get(number) is Mode.OWN and len(modes) > 1:
                raise MutableBorrowError("the object is borrowed: its owner cannot change it")

    def release(self, key: Any, number: int) -> None:
        """Ends a reference; the last one ends its object."""
        with self._lock:
            claims = self._claims.get(key)
            if claims is None or claims.modes.pop(number, None) is None:
                return
            ended = claims.owned and not claims.modes
            self._tidy(key, claims)
        if ended:
            self._ended.set([key], 0.0)

    def _tidy(self, key: Any, claims: _Claims) -> None:
        if not claims.modes:
            del self._claims[key]

    def _end_leases(self, lent: list[tuple[Any, int]]) -> None:
        for key, number in lent:
            self.release(key, number)

    def close(self) -> None:
        """Evicts all objects whose owner is here, and those that are about to be."""
        self._leases.clear()
        with self._lock:
            keys = [key for key, claims in self._claims.items() if claims.owned]
            self._claims.clear()
        keys += self._ended.clear()
        evict = self._evict()
        if keys and evict is not None:
            evict(keys)


_all: weakref.WeakSet[References] = weakref.WeakSet()


# A process that ends does not drop its references, one by one, for sure.
@atexit.register
def _end_all() -> None:
    for references in list(_all):
        with contextlib.suppress(Exception):
            references.close()
