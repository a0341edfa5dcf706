"""What adapters have in common: what they need, and how they come to be measured."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from proxystore_hpc.bench.companion import CompanionError
from proxystore_hpc.bench.contestant import Burst, Kind, Operation, UnavailableError
from proxystore_hpc.bench.machine import version_of
from proxystore_hpc.bench.peers.kept import Kept
from proxystore_hpc.bench.peers.suspension import Suspension

__all__ = ["Peer", "find_program", "required_program"]

Opener = Callable[[Operation, int], AbstractContextManager[Burst]]


@dataclass(frozen=True)
class Peer:
    """A contestant that others made.

    Args:
        name: Short and unique.
        about: What it is, and over what it moves bytes.
        operations: What it can do.
        opener: Starts what an operation on so many bytes needs, as `Contestant.open` does.
        modules: What must be importable; by module, the distribution that pip installs, or a
            sentence with a blank.
        programs: What must be found; by program, what to do about it.
        most: Bytes of the largest payload.
        suspension: Stops its processes while others have a turn, if they spin all the time.
        kept: What stays from one comparison to the next, if anything does.
        slow: Whether it takes many seconds to start.
        reach: As `Entrant.reach`, for what has our part in it.
    """

    name: str
    about: str
    operations: frozenset[Operation]
    opener: Opener
    modules: Mapping[str, str] = field(default_factory=dict)
    programs: Mapping[str, str] = field(default_factory=dict)
    most: int | None = None
    kind: Kind = Kind.PEER
    suspension: Suspension | None = None
    kept: Kept | None = None
    slow: bool = False
    reach: tuple[str, ...] = ()

    def check(self) -> dict[str, str]:
        """See `Contestant.check`."""
        versions = {}
        for module, distribution in self.modules.items():
            if importlib.util.find_spec(module) is None:
                how = distribution if " " in distribution else f"pip install {distribution}"
                raise UnavailableError(f"not installed: {how}")
            name = distribution.partition("=")[0]
            versions[name] = version_of(name) or "unknown"
        for program in self.programs:
            required_program(program, self.programs[program])
        return versions

    @contextmanager
    def open(self, operation: Operation, nbytes: int) -> Iterator[Burst]:
        """See `Contestant.open`."""
        if operation not in self.operations:
            raise UnavailableError(f"{self.name} does not do {operation.value}")
        self.check()
        opening = self.opener(operation, nbytes)
        if self.suspension is not None:
            opening = _by_turns(opening, self.suspension)
        try:
            burst = opening.__enter__()
        except CompanionError as error:
            raise UnavailableError(f"does not start: {_last_line(error)}") from error
        try:
            yield burst
        except BaseException:
            if not opening.__exit__(*sys.exc_info()):
                raise
        else:
            opening.__exit__(None, None, None)

    def rest(self) -> None:
        """See `Contestant`."""
        if self.suspension is not None:
            self.suspension.close()
        if self.kept is not None:
            self.kept.close()

    close = rest


@contextmanager
def _by_turns(opening: AbstractContextManager[Burst], suspension: Suspension) -> Iterator[Burst]:
    """Its processes run while they start, end, or have a burst."""
    suspension.go_on()
    with ExitStack() as stack:
        stack.callback(suspension.stop)
        with suspension.started():
            burst = stack.enter_context(opening)
        stack.callback(suspension.go_on)
        suspension.stop()

        def turn() -> float:
            suspension.go_on()
            try:
                return burst()
            finally:
                suspension.stop()

        yield turn


def find_program(name: str) -> str | None:
    """Its path: beside this interpreter, else of PATH, or None."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(name)


def required_program(name: str, advice: str) -> str:
    """As `find_program`.

    Raises:
        UnavailableError: There is none; it gives the advice.
    """
    found = find_program(name)
    if found is None:
        raise UnavailableError(f"{name} was not found: {advice}")
    return found


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
