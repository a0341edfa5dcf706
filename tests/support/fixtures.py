"""Fixtures for tests with several processes; a conftest imports those that it needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support import procfs
from support.peer import Peer
from support.ranks import RankPeer, ThisSide
from support.ways import over

MakePeer = Callable[..., Peer]


@contextmanager
def peers(in_job: bool) -> Iterator[MakePeer]:
    """Makes peers. In the end all must end well and leave nothing behind.

    Args:
        in_job: They are on rank 1 of this job; `local` ones are in this process.
    """
    made: list[Any] = []
    shared_memory = set(os.listdir("/dev/shm"))

    def make(*, launcher: tuple[str, ...] = (), local: bool = False, **options: object) -> Any:
        if in_job:
            made.append(ThisSide() if local else RankPeer())
        else:
            made.append(Peer(launcher))
        return made[-1].open(**options) if options else made[-1]

    yield make
    wrong = [problem for peer in reversed(made) if (problem := peer.clean_up())]
    assert not wrong
    addresses = [address for peer in made for address in peer.addresses]
    procfs.wait_until(lambda: not procfs.open_node_sockets(addresses), "all sockets are closed")
    ours = [name for name in set(os.listdir("/dev/shm")) - shared_memory if "pshpc" in name]
    assert not ours


@pytest.fixture
def make_peer(pytestconfig: pytest.Config) -> Iterator[MakePeer]:
    """`make_peer(**options)` makes a peer, with a store if there are options for one."""
    with peers(over(pytestconfig) == "mpi") as make:
        yield make


@pytest.fixture(scope="module")
def make_lasting_peer(pytestconfig: pytest.Config) -> Iterator[MakePeer]:
    """As `make_peer`, for peers that serve all tests of a module."""
    with peers(over(pytestconfig) == "mpi") as make:
        yield make


@pytest.fixture
def owner(make_peer: MakePeer) -> Peer:
    """A process with a store that may use every door."""
    return make_peer(name="store", capacity="64MiB")


@pytest.fixture
def reader(make_peer: MakePeer) -> Peer:
    """A process with a store that reads through shared memory only."""
    return make_peer(name="store", doors=("shm",), capacity="64MiB")
