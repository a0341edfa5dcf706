"""What is measured: groups of operations, and the sizes of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from proxystore_hpc.bench.contestant import Contestant, Operation, limit_of
from proxystore_hpc.bench.runner import Match, Pace
from proxystore_hpc.exceptions import InvalidArgumentError

__all__ = ["GROUPS", "PACES", "Tier", "chosen", "contestants", "matches", "too_slow"]


@dataclass(frozen=True)
class Tier:
    """How much is measured.

    Attributes:
        pace: How long things take.
        sizes: Of arrays that travel.
        few: Of operations for which three sizes tell as much.
        groups: What is run unless groups are named.
        left_out: Operations that are not run.
        budget: Seconds after which no comparison is begun.
        patient: Whether those take part who take many seconds to start.
        extras: Whether contestants that say `extra` take part without being named.
    """

    pace: Pace
    sizes: tuple[int, ...]
    few: tuple[int, ...]
    groups: tuple[str, ...]
    left_out: frozenset[Operation] = frozenset()
    budget: float = math.inf
    patient: bool = True
    extras: bool = False


KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# Operations by group, with what sizes they have: all, few, or these.
ALL, FEW = "all", "few"
GROUPS: dict[str, dict[Operation, str | tuple[int, ...]]] = {
    "doors": {
        Operation.EXCHANGE: ALL,
        Operation.GET: ALL,
        Operation.PUT: ALL,
        Operation.PUT_THERE: ALL,
    },
    "store": {
        Operation.RESOLVE: FEW,
        Operation.BATCH: FEW,
        Operation.EXISTS: (KIB,),
        Operation.EVICT: (KIB,),
        Operation.MANY_TO_ONE: FEW,
        Operation.ONE_TO_MANY: FEW,
        Operation.ALL_TO_ALL: FEW,
        Operation.WEAK: FEW,
        Operation.STRONG: FEW,
    },
    "rpc": {
        Operation.CALL: (0,),
        Operation.PIPELINE: (0,),
        Operation.CLIENTS: (0,),
        Operation.ECHO: (8, KIB, 64 * KIB, MIB, 16 * MIB),
        Operation.PULL: FEW,
        Operation.PUSH: FEW,
    },
    "proxy": {Operation.CREATE: (0,), Operation.USE: (0,)},
    "futures": {Operation.FUTURE: (8, KIB, MIB)},
    "streams": {Operation.STREAM: (KIB, 64 * KIB, MIB, 16 * MIB)},
    "tasks": {Operation.TASK: FEW},
    "startup": {Operation.START: (0,), Operation.MEMORY: (0,), Operation.OPEN: (0,)},
    "interference": {Operation.SLOWDOWN: (MIB,)},
}
_EVERYTHING = tuple(GROUPS)

PACES: dict[str, Tier] = {
    "quick": Tier(
        Pace(seconds=0.1, fewest=5, most=30, warm_up=1),
        (KIB, MIB),
        (KIB, MIB),
        ("doors",),
        frozenset({Operation.PUT, Operation.PUT_THERE}),
        budget=80.0,
        patient=False,
    ),
    "default": Tier(
        Pace(),
        (8, KIB, 64 * KIB, MIB, 16 * MIB, 64 * MIB),
        (KIB, MIB, 64 * MIB),
        _EVERYTHING,
        budget=45 * 60.0,
    ),
    "full": Tier(
        Pace(seconds=2.0, fewest=7, most=400),
        (8, 128, KIB, 8 * KIB, 64 * KIB, 512 * KIB, MIB, 8 * MIB, 100_000_000, 256 * MIB, GIB),
        (8, KIB, 64 * KIB, MIB, 16 * MIB, 128 * MIB),
        _EVERYTHING,
        extras=True,
    ),
}


def matches(tier: Tier, groups: Sequence[str] = (), sizes: Sequence[int] = ()) -> list[Match]:
    """What is to be run.

    Args:
        tier: How much.
        groups: Names of groups, or of single operations as `"doors/get"`, instead of the tier's.
        sizes: Bytes of arrays, instead of the tier's.

    Raises:
        InvalidArgumentError: There is no such group or operation.
    """
    found = []
    for name in groups or tier.groups:
        group, _, alone = name.partition("/")
        if group not in GROUPS:
            raise InvalidArgumentError(
                f"there is no group {group!r}; the groups are {', '.join(GROUPS)}"
            )
        names = [operation.value for operation in GROUPS[group]]
        if alone and alone not in names:
            raise InvalidArgumentError(
                f"{group} has no operation {alone!r}; it has {', '.join(names)}"
            )
        for operation, which in GROUPS[group].items():
            if operation in tier.left_out if not alone else operation.value != alone:
                continue
            if isinstance(which, tuple):
                these: Iterable[int] = which
            else:
                these = sizes or (tier.sizes if which == ALL else tier.few)
            found += [Match(group, operation, nbytes) for nbytes in these]
    return found


def contestants(chosen_peers: str = "all", leader: Any = None) -> list[Contestant]:
    """Who may take part.

    Args:
        chosen_peers: `"all"`, `"none"`, or names of peers with commas.
        leader: The `ranks.Leader` if this process is rank 0 of a job.

    Raises:
        InvalidArgumentError: There is no such peer.
    """
    from proxystore_hpc.bench import faas
    from proxystore_hpc.bench.limits import limits
    from proxystore_hpc.bench.ours import ours
    from proxystore_hpc.bench.peers import peers

    found = [*limits(), *ours(leader)]
    if chosen_peers == "none":
        return found
    offered = {peer.name: peer for peer in (*peers(), *faas.CONTESTANTS)}
    if chosen_peers == "all":
        return [*found, *offered.values()]
    for name in chosen_peers.split(","):
        if name not in offered:
            raise InvalidArgumentError(
                f"there is no peer {name!r}; the peers are {', '.join(offered) or '(none)'}"
            )
        found.append(offered[name])
    return found


def too_slow(
    tier: Tier, offered: Sequence[Contestant], chosen_peers: str, names: Sequence[str]
) -> list[Contestant]:
    """Whom the tier has no time for; nobody who was named."""
    named = {*chosen_peers.split(","), *names}
    return [
        contestant
        for contestant in offered
        if getattr(contestant, "slow", False) and not tier.patient and contestant.name not in named
    ]


def chosen(
    offered: Sequence[Contestant], names: Sequence[str], *, extras: bool = True
) -> list[Contestant]:
    """Those that are named, and the limits that they are held against; all if none is.

    Args:
        offered: Who may take part.
        names: Of contestants.
        extras: Whether "all" includes those with a true attribute `extra`: variants of others,
            which few need.

    Raises:
        InvalidArgumentError: There is no such contestant.
    """
    if not names:
        return [each for each in offered if extras or not getattr(each, "extra", False)]
    by_name = {contestant.name: contestant for contestant in offered}
    for name in names:
        if name not in by_name:
            raise InvalidArgumentError(
                f"there is no contestant {name!r}; there are {', '.join(by_name)}"
            )
    wanted = set(names)
    for name in names:
        for operation in by_name[name].operations:
            wanted.add(limit_of(by_name[name], operation) or name)
    return [contestant for contestant in offered if contestant.name in wanted]
