"""Hooks that see the stages of calls, handlers and transfers begin and end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, NamedTuple

logger = logging.getLogger(__name__)


class Event(NamedTuple):
    """One end of one stage.

    Attributes:
        stage: `"call"` at the caller, `"handler"` in the process that answers, `"transfer"` of
            `Bulk` memory.
        phase: `"start"` or `"end"`.
        name: Name of the procedure, or of the transfer (`"pull"`, `"push"`).
        provider: Provider id.
        peer: Address of the other process.
        nbytes: Bytes sent by then at the start, received at the end.
        seconds: How long the stage took, 0 at its start.
        error: What it ended with, `None` if well.
    """

    stage: Literal["call", "handler", "transfer"]
    phase: Literal["start", "end"]
    name: str
    provider: int
    peer: str
    nbytes: int = 0
    seconds: float = 0.0
    error: BaseException | None = None


Hook = Callable[[Event], None]


class Hooks:
    """Those who want to see events. `active` is false, and costs no more, where there are none."""

    __slots__ = ("_hooks", "active")

    def __init__(self) -> None:
        self._hooks: tuple[Hook, ...] = ()
        self.active = False

    def add(self, hook: Hook) -> Callable[[], None]:
        """Adds a hook; returns a function that takes it away again."""
        self._hooks += (hook,)
        self.active = True

        def remove() -> None:
            self._hooks = tuple(other for other in self._hooks if other is not hook)
            self.active = bool(self._hooks)

        return remove

    def emit(self, event: Event) -> None:
        """Tells all hooks. What they raise is logged and goes no further."""
        for hook in self._hooks:
            try:
                hook(event)
            except Exception:
                logger.exception("a hook for events failed on %r", event)
