"""What a run leaves: every sample, and what figures depend on, as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from proxystore_hpc.bench.contestant import Kind, Operation, unit_of
from proxystore_hpc.bench.statistics import Interval, median_interval
from proxystore_hpc.exceptions import InvalidArgumentError

__all__ = ["Absence", "Comparison", "Entrant", "Record", "Series"]

FORMAT = "proxystore_hpc benchmark"
SCHEMA = 1


@dataclass
class Series:
    """The samples of one contestant, and the rounds that they are of."""

    contestant: str
    rounds: list[int] = field(default_factory=list)
    samples: list[float] = field(default_factory=list)


@dataclass
class Comparison:
    """One operation with one size, by all who took part.

    Attributes:
        group: The part of the suite.
        operation: What was done.
        nbytes: Size of the array, 0 where there is none.
        series: Samples in `unit_of(operation)`.
    """

    group: str
    operation: Operation
    nbytes: int
    series: list[Series] = field(default_factory=list)

    @property
    def unit(self) -> str:
        """That of the samples."""
        return unit_of(self.operation)

    def of(self, contestant: str) -> Series | None:
        """The samples of a contestant, None if it did not take part."""
        return next((s for s in self.series if s.contestant == contestant), None)

    def ratio(self, contestant: str, other: str) -> Interval | None:
        """How many times as long a contestant takes as another one.

        The median of the ratios round by round, so that what slows a round counts for both. None if
        they shared no round.
        """
        mine, theirs = self.of(contestant), self.of(other)
        if mine is None or theirs is None:
            return None
        by_round = dict(zip(theirs.rounds, theirs.samples, strict=True))
        ratios = [
            sample / by_round[round_]
            for round_, sample in zip(mine.rounds, mine.samples, strict=True)
            if by_round.get(round_)
        ]
        return median_interval(ratios) if ratios else None


@dataclass
class Entrant:
    """A contestant as the report knows it.

    Attributes:
        name: Short and unique.
        kind: Why it takes part.
        about: What it is.
        versions: Of what it is made of.
        limits: Names of the limits that it is held against, by operation.
        reach: How far it leads: some of `"node"`, `"fabric"` and `"outside"`.
        opening_s: Seconds that it took to be opened and closed, in all comparisons together.
        turns_s: Seconds that its turns took.
    """

    name: str
    kind: Kind
    about: str
    versions: dict[str, str] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)
    reach: list[str] = field(default_factory=list)
    opening_s: float = 0.0
    turns_s: float = 0.0


@dataclass
class Absence:
    """Who did not take part, in what, and why; in nothing at all if no operation is named."""

    contestant: str
    reason: str
    operation: str | None = None
    nbytes: int | None = None


@dataclass
class Record:
    """One run of the suite."""

    command: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    clock: dict[str, float] = field(default_factory=dict)
    pace: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    finished: bool = False
    entrants: list[Entrant] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    absences: list[Absence] = field(default_factory=list)

    def entrant(self, name: str) -> Entrant:
        """By its name.

        Raises:
            KeyError: There is none.
        """
        for entrant in self.entrants:
            if entrant.name == name:
                return entrant
        raise KeyError(name)

    def limit(self, comparison: Comparison, contestant: str) -> str | None:
        """The limit of a contestant, if it took part in this comparison."""
        limit = self.entrant(contestant).limits.get(comparison.operation.value)
        return limit if limit is not None and comparison.of(limit) is not None else None

    def share(self, comparison: Comparison, contestant: str) -> Interval | None:
        """The speed of a contestant as a share of its limit's; None if that did not take part."""
        limit = self.limit(comparison, contestant)
        return None if limit is None else comparison.ratio(limit, contestant)

    def to_json(self) -> str:
        """The document."""
        return json.dumps({"format": FORMAT, "schema": SCHEMA, **asdict(self)}) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Reads a document.

        Raises:
            InvalidArgumentError: It is none, or of another version.
        """
        try:
            values = json.loads(text)
            if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
                raise InvalidArgumentError("this is no JSON that `proxystore-hpc bench` wrote")
            if (schema := values.pop("schema", None)) != SCHEMA:
                raise InvalidArgumentError(
                    f"it has version {schema} of the format, this program reads {SCHEMA}: "
                    "measure once more with one version of both"
                )
            return cls(
                **{
                    **values,
                    "entrants": [_entrant(each) for each in values["entrants"]],
                    "comparisons": [_comparison(each) for each in values["comparisons"]],
                    "absences": [Absence(**each) for each in values["absences"]],
                }
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidArgumentError(f"the results cannot be read: {error}") from error

    @classmethod
    def load(cls, path: Path) -> Record:
        """Reads a file.

        Raises:
            InvalidArgumentError: As `from_json`.
            OSError: The file cannot be read.
        """
        try:
            return cls.from_json(path.read_text("utf-8"))
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"{path}: {error}") from error


def _entrant(values: Mapping[str, Any]) -> Entrant:
    return Entrant(**{**values, "kind": Kind(values["kind"])})


def _comparison(values: Mapping[str, Any]) -> Comparison:
    series: Sequence[Mapping[str, Any]] = values["series"]
    return Comparison(
        **{
            **values,
            "operation": Operation(values["operation"]),
            "series": [Series(**each) for each in series],
        }
    )
