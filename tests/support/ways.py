"""Ways in which the two sides of a suite meet: which processes they are, and what lies between.

By default the peer is a process on this machine. With `--over mpi` it is rank 1 of this job and the
test is rank 0; with `--over nodes` the test runs on node 1 of ci/two_nodes and the peer on node 2.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.doors import REMOTE_DOORS, require_door
from support.engines import open_engine, serve_all
from support.peer import Side

MakePeer = Callable[..., Any]
Serve = Callable[[Any], None]

CAPACITY = "64MiB"


@dataclass
class Meeting:
    """An engine of the test, and one of a peer that serves all."""

    engine: Any
    there: Any
    server: Side


@dataclass(frozen=True)
class Way:
    """Two processes, and the door or the lane between them.

    Attributes:
        name: Part of the tests' names.
        lane: What the messages of engines must go through, of all that `Endpoint.lanes` names.
        door: What every transfer of a store must go through.
        both: Options on both sides.
        ours: Further ones of the test's side.
        theirs: Further ones of the peer's side.
        launcher: Starts the peer.
    """

    name: str
    lane: str = ""
    door: str = ""
    both: dict[str, Any] = field(default_factory=dict)
    ours: dict[str, Any] = field(default_factory=dict)
    theirs: dict[str, Any] = field(default_factory=dict)
    launcher: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    def require(self) -> None:
        """Skips the test where this way cannot be had."""
        if self.door not in {"", "mpi"}:
            require_door(self.door)

    @contextlib.contextmanager
    def engines(
        self, make: MakePeer, serve: Serve = serve_all, **options: Any
    ) -> Iterator[Meeting]:
        """An engine here and one at a peer. In the end it must have been the right lane.

        Args:
            make: Makes peers.
            serve: Registers what the peer serves.
            options: Further ones of the peer's engine.
        """
        from proxystore_hpc import Engine

        peer = make(launcher=self.launcher)
        address = open_engine(peer, serve, **self.both, **self.theirs, **options)
        with Engine(capacity=CAPACITY, **self.both, **self.ours) as engine:
            there = engine.lookup(address)
            yield Meeting(engine, there, peer)
            assert self.lane in there.lanes

    def stores(self, make: MakePeer, **options: Any) -> tuple[Any, Any]:
        """An owner and a reader. The owner is the peer that may be elsewhere.

        Args:
            make: Makes peers.
            options: Further ones of both stores.
        """
        options = {"name": "store", "doors": (self.door,), **self.both, **options}
        owner = make(launcher=self.launcher, **self.theirs, **options)
        return owner, make(cache_size=0, **self.ours, **options)


class OverRanks(Way):
    """Rank 0 and rank 1, over windows of MPI."""

    @contextlib.contextmanager
    def engines(
        self, make: MakePeer, serve: Serve = serve_all, **options: Any
    ) -> Iterator[Meeting]:
        from mpi4py import MPI

        from proxystore_hpc import Engine

        def run(here: Any) -> None:
            from mpi4py import MPI

            from proxystore_hpc import Engine

            here.engine = Engine.from_mpi(
                MPI.COMM_WORLD, "mpi", **{"capacity": CAPACITY, **options}
            )
            serve(here)

        peer = make()
        opened = peer.start(run)
        with Engine.from_mpi(MPI.COMM_WORLD, "mpi", capacity=CAPACITY) as engine:
            opened.result()
            there = engine.lookup(1)
            yield Meeting(engine, there, peer)
            assert self.lane in there.lanes

    def stores(self, make: MakePeer, **options: Any) -> tuple[Any, Any]:
        def run(here: Any, **more: Any) -> bytes:
            from mpi4py import MPI

            from proxystore_hpc import Store

            here.store = Store.from_mpi(MPI.COMM_WORLD, "store", doors=("mpi",), **more, **options)
            return here.store.address

        owner, reader = make(), make(local=True)
        opened = owner.start(run)
        reader.addresses.append(reader(lambda here: run(here, cache_size=0)))
        owner.addresses.append(opened.result())
        return owner, reader


SECRET = b"both nodes' own."


def of_calls(config: pytest.Config) -> list[Way]:
    """The ways of suites of engines."""
    if over(config) == "mpi":
        return [OverRanks("windows", lane="mpi")]
    if over(config) == "nodes":
        pair = this_pair()
        ours, theirs = ({"listen": f"{pair.interface(number)}:0"} for number in (1, 2))
        both = {"address": "tcp", "secret": SECRET}
        return [Way("tcp", "tcp", "ucx", both, ours, theirs, tuple(pair.command(2)))]
    return [
        Way("shm", lane="ring", both={"address": "shm"}),
        Way("ucx", door="ucx", both={"address": "ucx", "rings": False}),
    ]


def of_bulk(config: pytest.Config) -> list[Way]:
    """The ways of suites of bulk handles."""
    if over(config) is not None:
        return of_calls(config)
    return [
        Way("shm", both={"address": "shm"}),
        Way("tcp", lane="tcp", door="ucx", both={"address": "tcp"}),
    ]


def of_doors(config: pytest.Config) -> list[Way]:
    """The ways of suites of stores."""
    if over(config) == "mpi":
        return [OverRanks("windows", door="mpi")]
    if over(config) == "nodes":
        pair = this_pair()
        ours, theirs = ({"interface": pair.interface(number)} for number in (1, 2))
        launcher = tuple(pair.command(2))
        listening = {"listen": f"{pair.address(2)}:0"}
        return [
            *(
                Way(door, "", door, {"secret": SECRET}, ours, theirs, launcher)
                for door in ("socket", "ucx")
            ),
            served(listening, launcher),
        ]
    return [*(Way(door, door=door) for door in REMOTE_DOORS), served({"listen": "127.0.0.1:0"})]


def served(tcp: dict[str, Any], launcher: tuple[str, ...] = ()) -> Way:
    """A store that is served over TCP, and one that may use nothing else."""
    token = "c0ffee" * 5
    theirs = {"tcp": {**tcp, "put_token": token}}
    return Way("tcp", "", "tcp", {}, {"options": {"put_token": token}}, theirs, launcher)


def this_pair() -> Any:
    """The nodes of which this process is on the first."""
    import two_nodes  # which peers, who import this module too, do without

    return two_nodes.Nodes(os.environ[two_nodes.NAMED_BY])


def over(config: pytest.Config) -> str | None:
    """What `--over` says."""
    chosen: str | None = config.getoption("--over")
    return chosen
