"""References of this process, as their owners count them."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import ReferenceInvalidError
from proxystore_hpc.key import Key

if TYPE_CHECKING:
    from proxystore_hpc.store.base import Store

__all__ = ["Hold", "Mode"]


class Mode(IntEnum):
    """What a reference entitles to; the numbers are those of the protocol."""

    OWN = 1
    SHARED = 2
    EXCLUSIVE = 3


class Hold:
    """One reference, counted by the process that holds the object.

    It ends when it is dropped, which waits for nobody. It is not copied: `lend` sends it on its way
    to another process, where `take` takes it over.

    Attributes:
        key: Key of the object.
        mode: What it entitles to.
        number: Its number at the object.
        held: Whether it is this process' own, and has not ended.
    """

    __slots__ = ("_release", "held", "key", "mode", "number")

    def __init__(
        self, release: Callable[[Any, int], None], key: Key, mode: Mode, number: int
    ) -> None:
        self._release = release
        self.key = key
        self.mode = mode
        self.number = number
        self.held = True

    @classmethod
    def make(cls, store: Store, key: Key, mode: Mode) -> Hold:
        """A new reference.

        Raises:
            MutableBorrowError: Others are in the way.
            ObjectEvictedError, OwnerGoneError: There is no object.
        """
        number = int.from_bytes(os.urandom(8), "little") or 1
        store._hold(key, number, mode, fresh=True)
        return cls(store._releaser, key, mode, number)

    @classmethod
    def take(cls, store: Store, key: Key, mode: Mode, number: int) -> Hold:
        """Takes over a reference that another process lent.

        Raises:
            ReferenceInvalidError: Somebody else has taken it over, or it has ended.
            ObjectEvictedError, OwnerGoneError: There is no object any more.
        """
        try:
            store._hold(key, number, mode, fresh=False)
        except ReferenceInvalidError:
            if mode is not Mode.SHARED:
                raise
            # Of these there may be any number: the same pickle was loaded before.
            return cls.make(store, key, mode)
        return cls(store._releaser, key, mode, number)

    def lend(self, store: Store) -> None:
        """Sends it on its way; it ends if nobody takes it over within the store's lease.

        Raises:
            ReferenceInvalidError: It has ended, or was lent.
            OwnerGoneError: The object is gone.
        """
        if not self.held:
            raise ReferenceInvalidError("the reference is not this process' any more")
        store._hold(self.key, self.number, self.mode, fresh=False, lease=store.lease)
        self.held = False

    def release(self) -> None:
        """Ends it, wherever it is now. Idempotent, and never waits."""
        self.held = False
        self._release(self.key, self.number)

    def __del__(self) -> None:
        # `held` is missing if the constructor was left early.
        if getattr(self, "held", False):
            self.release()
