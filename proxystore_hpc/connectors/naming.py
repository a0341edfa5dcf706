"""Names of what a connector stores, from which it can tell later what is its own."""

from __future__ import annotations

import itertools
import os
import uuid


class Names:
    """Makes names that no other process makes. Thread-safe.

    All begin with `mark`, which a forked child does not share: what its parent stored is not its
    own to delete.
    """

    def __init__(self) -> None:
        self._pid = 0
        self._mark = ""
        self._numbers = itertools.count()

    @property
    def mark(self) -> str:
        """What the names of this process begin with."""
        if self._pid != os.getpid():
            # Two threads may come here at once: then some names have a mark that is forgotten, and
            # are nobody's to delete. They are unique all the same.
            self._mark = uuid.uuid4().hex
            self._pid = os.getpid()
        return self._mark

    def new(self) -> str:
        """A new name."""
        return f"{self.mark}-{next(self._numbers):x}"
