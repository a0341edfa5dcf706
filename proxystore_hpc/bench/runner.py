"""Runs comparisons: who takes part takes turns, and who fails costs nobody else anything."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

from proxystore_hpc.bench.contestant import (
    Burst,
    Contestant,
    Kind,
    Operation,
    UnavailableError,
    arrays_of,
)
from proxystore_hpc.bench.contestant import limit_of as limit_name
from proxystore_hpc.bench.deadline import TooSlowError, deadline
from proxystore_hpc.bench.forecast import Forecast
from proxystore_hpc.bench.machine import available_memory
from proxystore_hpc.bench.record import Absence, Comparison, Entrant, Record, Series

__all__ = ["Match", "Pace", "Runner"]

COPIES = 5
"""How many times its bytes a contestant may hold: what it sends, receives, keeps and verifies."""
_HANGS = 2
"""Comparisons in which a contestant may hang before it is left out of the further ones."""
_REFUSALS = 2
"""Comparisons in which who never opened may find that it cannot, before it is no longer tried."""
_SEED = 7


@dataclass(frozen=True)
class Match:
    """An operation with a size, for all contestants who can do it."""

    group: str
    operation: Operation
    nbytes: int


@dataclass(frozen=True)
class Pace:
    """How long things take.

    Attributes:
        seconds: For each contestant of a comparison, bursts and what belongs to them together.
        fewest: Rounds that are run whatever the time.
        most: Rounds after which a comparison ends whatever the time.
        warm_up: Rounds before, which do not count.
        patience: Seconds after which a contestant that opens, closes or bursts is given up.
    """

    seconds: float = 0.5
    fewest: int = 5
    most: int = 100
    warm_up: int = 2
    patience: float = 60.0


@dataclass
class _Turn:
    """A contestant that is open."""

    contestant: Contestant
    burst: Burst
    stack: ExitStack
    series: Series
    opening: float
    used: float = 0.0
    turns: float = 0.0


@dataclass
class Runner:
    """Runs matches and notes what comes of them.

    Attributes:
        contestants: Who may take part.
        pace: How long things take.
        record: Where results go.
        note: Gets a line of progress.
        stuck: Called in a thread if a contestant hangs where no signal reaches it; it should save
            the record and end the process.
    """

    contestants: Sequence[Contestant]
    pace: Pace
    record: Record
    note: Callable[[str], object] = lambda _: None
    stuck: Callable[[str], object] | None = None
    memory: Callable[[], int] = available_memory
    _ready: list[Contestant] = field(default_factory=list)
    _hangs: Counter[str] = field(default_factory=Counter)
    _refusals: Counter[str] = field(default_factory=Counter)
    _opened: set[str] = field(default_factory=set)
    _noted: set[tuple[str, str]] = field(default_factory=set)
    _forecast: Forecast = field(init=False)
    _order: random.Random = field(default_factory=lambda: random.Random(_SEED))

    def __post_init__(self) -> None:
        self._forecast = Forecast(self.pace.seconds, self.pace.fewest + self.pace.warm_up)

    def check(self) -> None:
        """Asks all who they are and whether they can take part."""
        for contestant in self.contestants:
            limits = {
                operation.value: limit
                for operation in sorted(contestant.operations)
                if (limit := limit_name(contestant, operation)) is not None
            }
            entrant = Entrant(contestant.name, contestant.kind, contestant.about, limits=limits)
            entrant.reach = list(getattr(contestant, "reach", ()))
            self.record.entrants.append(entrant)
            try:
                with self._deadline(f"the check of {contestant.name}"):
                    entrant.versions = dict(contestant.check())
            except Exception as error:
                self.record.absences.append(Absence(contestant.name, _reason(error)))
            else:
                self._ready.append(contestant)

    def run(self, match: Match) -> Comparison:
        """One comparison; who cannot take part is noted with the reason."""
        comparison = Comparison(match.group, match.operation, match.nbytes)
        for contestant in self._ready:
            if match.operation in contestant.operations:
                why = self._left_out(contestant, match)
                if why is not None:
                    self._absent(contestant, match, why)
        first_round = 0
        heats = _heats(self._able(match), match, self.memory())
        for heat in heats:
            first_round = self._heat(match, heat, comparison, first_round)
            if len(heats) > 1:  # what it keeps would take the next one's memory
                self._end_all(heat, "rest")
        if comparison.series:
            self.record.comparisons.append(comparison)
        return comparison

    def expected(self, match: Match) -> float:
        """Seconds that a comparison will take: a guess at first, then by what others took."""
        names = [contestant.name for contestant in self._able(match)]
        return self._forecast.expected(names, match.operation, match.nbytes)

    def rest(self, following: Match | None) -> None:
        """Ends what contestants keep who have no part in the match that follows.

        Idle clusters take their share of the processors, and the others would have to bear it.
        """
        able = [] if following is None else self._able(following)
        self._end_all([each for each in self._ready if each not in able], "rest")

    def close(self) -> None:
        """Ends what contestants keep between matches, where they have a `close`."""
        self._end_all(self._ready, "close")
        self._ready.clear()

    def _end_all(self, contestants: Iterable[Contestant], method: str) -> None:
        for contestant in contestants:
            end = getattr(contestant, method, None)
            if end is None:
                continue
            began = time.perf_counter()
            try:
                with self._deadline(f"{contestant.name} being closed"):
                    end()
            except Exception as error:
                self.note(f"{contestant.name}: {_reason(error)}")
            self.record.entrant(contestant.name).opening_s += time.perf_counter() - began

    def _able(self, match: Match) -> list[Contestant]:
        return [
            contestant
            for contestant in self._ready
            if match.operation in contestant.operations
            and self._left_out(contestant, match) is None
        ]

    def _left_out(self, contestant: Contestant, match: Match) -> str | None:
        if contestant.most is not None and match.nbytes > contestant.most:
            return f"takes at most {contestant.most} bytes"
        if self._hangs[contestant.name] >= _HANGS:
            return f"left out since it hung in {_HANGS} comparisons"
        if self._refusals[contestant.name] >= _REFUSALS:
            return f"left out since it could not be opened for {_REFUSALS} comparisons"
        return None

    def _deadline(self, what: str) -> AbstractContextManager[None]:
        return deadline(self.pace.patience, what, self.stuck)

    def _heat(
        self, match: Match, heat: Iterable[Contestant], comparison: Comparison, first_round: int
    ) -> int:
        turns: list[_Turn] = []
        try:
            for contestant in heat:
                self._open(match, contestant, turns)
            for _ in range(self.pace.warm_up):
                self._round(match, turns, None)
            for round_ in range(self.pace.most):
                # Who has used up its time sits out, so that the slow do not starve the quick.
                playing = [
                    turn
                    for turn in turns
                    if round_ < self.pace.fewest or turn.used < self.pace.seconds
                ]
                if not playing:
                    break
                self._round(match, turns, first_round + round_, playing)
        finally:
            for turn in turns:
                self._end(match, turn)
        for turn in turns:
            earlier = comparison.of(turn.contestant.name)
            if earlier is None:
                comparison.series.append(turn.series)
            else:
                earlier.rounds += turn.series.rounds
                earlier.samples += turn.series.samples
        return first_round + self.pace.most

    def _open(self, match: Match, contestant: Contestant, turns: list[_Turn]) -> None:
        stack, began = ExitStack(), time.perf_counter()
        try:
            with self._deadline(f"{contestant.name} being opened"):
                burst = stack.enter_context(contestant.open(match.operation, match.nbytes))
        except Exception as error:
            # Who opened once may do less than it says; who never did will not later either.
            if isinstance(error, UnavailableError) and contestant.name not in self._opened:
                self._refusals[contestant.name] += 1
            self._failed(contestant, match, error)
            self._took(contestant, match, time.perf_counter() - began, 0.0)
        else:
            self._opened.add(contestant.name)
            opening = time.perf_counter() - began
            turns.append(_Turn(contestant, burst, stack, Series(contestant.name), opening))

    def _round(
        self, match: Match, turns: list[_Turn], round_: int | None, playing: Sequence[_Turn] = ()
    ) -> None:
        for turn in self._order.sample(playing or turns, len(playing or turns)):
            began = time.perf_counter()
            try:
                sample = self._burst(turn)
            except Exception as error:
                turn.turns += time.perf_counter() - began
                self._failed(turn.contestant, match, error)
                turns.remove(turn)
                self._end(match, turn)
            else:
                taken = time.perf_counter() - began
                turn.turns += taken
                if round_ is not None:
                    turn.used += taken
                    turn.series.rounds.append(round_)
                    turn.series.samples.append(sample)

    def _burst(self, turn: _Turn) -> float:
        with self._deadline(f"a burst of {turn.contestant.name}"):
            sample = turn.burst()
        if not sample > 0:
            raise ArithmeticError(f"{sample} is no result of a burst")
        return sample

    def _end(self, match: Match, turn: _Turn) -> None:
        began = time.perf_counter()
        try:
            with self._deadline(f"{turn.contestant.name} being closed"):
                turn.stack.close()
        except Exception as error:
            self.note(f"{turn.contestant.name} {match.operation.value}: {_reason(error)}")
        opening = turn.opening + time.perf_counter() - began
        self._took(turn.contestant, match, opening, turn.turns)

    def _took(self, contestant: Contestant, match: Match, opening_s: float, turns_s: float) -> None:
        entrant = self.record.entrant(contestant.name)
        entrant.opening_s += opening_s
        entrant.turns_s += turns_s
        self._forecast.learn(contestant.name, match.operation, match.nbytes, opening_s, turns_s)

    def _failed(self, contestant: Contestant, match: Match, error: Exception) -> None:
        self._hangs[contestant.name] += isinstance(error, TooSlowError)
        self._absent(contestant, match, _reason(error))

    def _absent(self, contestant: Contestant, match: Match, reason: str) -> None:
        self.record.absences.append(
            Absence(contestant.name, reason, match.operation.value, match.nbytes)
        )
        # Once is enough for what holds at every size.
        line = f"{contestant.name} {match.operation.value}", reason.splitlines()[-1]
        if line not in self._noted:
            self._noted.add(line)
            self.note(": ".join(line))


def _heats(able: Sequence[Contestant], match: Match, memory: int) -> list[list[Contestant]]:
    """Splits who does not fit into memory together.

    Limits go with whoever is held against them, and the first of ours that leads to another process
    with peers, so that nobody lacks what it is compared with.
    """
    limits = {each.name: each for each in able if each.kind is Kind.LIMIT}
    reference = [
        each for each in able if each.kind is Kind.OURS and "node" in getattr(each, "reach", ())
    ][:1]
    others = [each for each in able if each.kind is not Kind.LIMIT]
    held = COPIES * match.nbytes * arrays_of(match.operation)
    room = max(2, int(memory / 2 / (held + 1)))
    heats: list[list[Contestant]] = []
    for contestant in others:
        name = limit_name(contestant, match.operation)
        needed = [limits[name]] if name in limits else []
        if contestant.kind is Kind.PEER:
            needed += reference
        if heats and contestant in heats[-1]:  # as the reference of a peer before it
            continue
        if heats:
            missing = [each for each in needed if each not in heats[-1]]
            if len(heats[-1]) + len(missing) < room:
                heats[-1] += [*missing, contestant]
                continue
        heats.append([*needed, contestant])
    # Limits that nobody is held against are shown all the same.
    placed = {each.name for heat in heats for each in heat}
    idle = [each for each in limits.values() if each.name not in placed]
    if heats and len(heats) == 1 and len(heats[0]) + len(idle) <= room:
        heats[0] += idle
    elif idle:
        heats.append(idle)
    return heats


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, UnavailableError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
