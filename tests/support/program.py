"""The program of a peer: runs the functions that the test sends, one after the other.

Arguments: the descriptors to read from and to write to.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

import cloudpickle

from support import wire


class Here:
    """The peer as its functions see it: what they put into its attributes stays."""

    store: Any

    def open(self, name: str, **options: Any) -> bytes:
        """Opens `store`; returns its address."""
        from proxystore_hpc import Store

        self.store = Store(name, **options)
        return self.store.address

    @property
    def doors(self) -> dict[str, int]:
        """Operations by door."""
        return {door: stats.operations for door, stats in self.store.metrics.doors.items()}


def outcome_of(here: Here, function: Any, args: Any) -> tuple[bool, Any]:
    """Whether a function returned, and what; or its exception and where that came from."""
    try:
        return True, function(here, *args)
    except Exception as error:
        error.__cause__ = error.__context__ = None
        return False, (error, traceback.format_exc())


def packed(outcome: tuple[bool, Any]) -> bytes:
    try:
        return cloudpickle.dumps(outcome)
    except Exception as error:
        return cloudpickle.dumps((False, (TypeError(f"the result cannot be sent: {error!r}"), "")))


def main(requests: int, replies: int) -> None:
    here = Here()
    while True:
        try:
            function, args = wire.receive(requests)
        except wire.ClosedError:
            return
        outcome = outcome_of(here, function, args)
        del function, args
        try:
            wire.send(replies, packed(outcome))
        except wire.ClosedError:
            return
        del outcome


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
