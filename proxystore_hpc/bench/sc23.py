"""The paper's experiment: put on one node, get on another, by every connector that can cross.

SC'23, Fig. 5 has 1 B to 1 GB. What takes part is a `Crossing`; all of one size take turns, but for
what is so large that they could not be open at once.
"""

from __future__ import annotations

import importlib.util
import secrets
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from proxystore_hpc.bench.companion import Companion, CompanionError
from proxystore_hpc.bench.contestant import UnavailableError
from proxystore_hpc.bench.data import WrongBytesError
from proxystore_hpc.bench.peers.endpoints import endpoint, relay
from proxystore_hpc.bench.peers.job import Job
from proxystore_hpc.bench.peers.server import redis_server
from proxystore_hpc.bench.peers.sides import HOST, Side, exchange, times_of

__all__ = ["CROSSINGS", "SIZES", "Crossing", "Nodes", "Place", "Times", "measure"]

SIZES = tuple(10**power for power in range(10))
TOGETHER = 10**7
"""Larger arrays are exchanged by one after the other."""
ROOM = 256 << 20
PORT = 38213
REDIS_PORT = 38214
ENDPOINT_PORT = 38215
RELAY_PORT = 38216
OURS = f"{__name__}:OurSide"
_ALSO_NEEDED = {
    "zmq": {"proxystore_ex": "proxystore-ex"},
    "endpoint": {"aiortc": "'proxystore[endpoints]'"},
}
THEIRS = "proxystore_hpc.bench.peers.proxystore:ProxyStoreSide"

Exchange = Callable[[], tuple[float, float]]
"""Seconds of a put and of the get; raises `WrongBytesError`."""


@dataclass(frozen=True)
class Place:
    """A node.

    Args:
        launcher: Starts a command there, with the open files of this process.
        address: Of its network interface towards the other one.
    """

    launcher: Sequence[str]
    address: str


@dataclass(frozen=True)
class Nodes:
    """Two nodes.

    Args:
        holder: Where arrays are put.
        asker: Where they are got.
        folder: Seen from both, and from here.
        mpirun: Starts a command as two ranks, the first on the holder; None if there is no MPI.
    """

    holder: Place
    asker: Place
    folder: str
    mpirun: Sequence[str] | None = None


@dataclass
class Times:
    """Seconds of each put and get."""

    puts: list[float] = field(default_factory=list)
    gets: list[float] = field(default_factory=list)


class OurSide(Side):
    """A store of ours with one way out.

    Args:
        nbytes: See `Side`.
        peer: See `Side`.
        way: `"ucx"`, `"tcp"` or `"tls"`.
        address: Of this node.
        secret: Of the job.
        folder: For a key of TLS.
    """

    def __init__(
        self, nbytes: int, peer: Any, way: str, address: str, secret: bytes, folder: str
    ) -> None:
        super().__init__(nbytes, peer)
        from proxystore_hpc import Store

        warnings.simplefilter("ignore")  # of what is served without encryption, as is meant here
        self.door = "ucx" if way == "ucx" else "tcp"
        options: dict[str, Any] = {"doors": (self.door,), "interface": address}
        if self.door == "tcp" and not peer:
            serving = {"listen": f"{address}:0", "tls": way == "tls"}
            options["tcp"] = {**serving, "state": f"{folder}/{way}.pem"}
        self.store = Store(
            "sc23",
            cache_size=0,
            secret=secret,
            capacity=_capacity(nbytes),
            **options,
        )

    def put(self, data: Any) -> Any:
        """A key."""
        return self.store.put(data)

    def get(self, ticket: Any) -> Any:
        """The array."""
        return self.store.get_or_raise(ticket)

    def release(self, ticket: Any) -> None:
        """Looks whether the bytes came the way that they were to."""
        doors = set(self.store.metrics.doors)
        if doors != {self.door}:
            raise AssertionError(f"the doors {sorted(doors)} were used, not {self.door}")

    def drop(self, ticket: Any) -> None:
        """Evicts it."""
        self.store.evict(ticket)

    def close(self) -> None:
        """Closes the store."""
        self.store.close()


@contextmanager
def _pair(
    nodes: Nodes, nbytes: int, side: str, here: dict[str, Any], there: dict[str, Any]
) -> Iterator[Exchange]:
    with (
        Companion(HOST, launcher=nodes.holder.launcher, side=side, nbytes=nbytes, **here) as holder,
        Companion(
            HOST, launcher=nodes.asker.launcher, side=side, nbytes=nbytes, peer=True, **there
        ) as asker,
    ):
        yield partial(exchange, holder, asker, times_of(nbytes))


@contextmanager
def ours(way: str, nodes: Nodes, nbytes: int) -> Iterator[Exchange]:
    """Stores of ours, with keys of their own."""
    with tempfile.TemporaryDirectory(dir=nodes.folder) as folder:
        common = {"way": way, "secret": secrets.token_bytes(16), "folder": folder}
        here = {**common, "address": nodes.holder.address}
        there = {**common, "address": nodes.asker.address}
        with _pair(nodes, nbytes, OURS, here, there) as act:
            yield act


@contextmanager
def over_mpi(nodes: Nodes, nbytes: int) -> Iterator[Exchange]:
    """A store of a job with a rank on each node."""
    if nodes.mpirun is None:
        raise UnavailableError("no mpirun: pip install 'proxystore_hpc[mpi]'")
    module = "proxystore_hpc.bench.sc23_mpi"
    job = Job(
        nodes.mpirun, module, f"{module}:Rank", folder=nodes.folder, capacity=_capacity(nbytes)
    )
    times = times_of(nbytes)

    def act() -> tuple[float, float]:
        put_s, get_s, complaint = job.call("exchange", nbytes, times)
        if complaint:
            raise WrongBytesError(complaint)
        return put_s, get_s

    with job:
        yield act


def _capacity(nbytes: int) -> int:
    return ROOM + 3 * nbytes * times_of(nbytes)


@contextmanager
def _theirs(connector: str, here: str, there: str, nodes: Nodes, nbytes: int) -> Iterator[Exchange]:
    needed = {"proxystore": "proxystore", **_ALSO_NEEDED.get(connector, {})}
    for module, distribution in needed.items():
        if importlib.util.find_spec(module) is None:
            raise UnavailableError(f"not installed: pip install {distribution}")
    places = ({"connector": connector, "place": place} for place in (here, there))
    with _pair(nodes, nbytes, THEIRS, *places) as act:
        yield act


@contextmanager
def theirs_redis(nodes: Nodes, nbytes: int) -> Iterator[Exchange]:
    """A server on the holder's node."""
    host = nodes.holder.address
    with redis_server(
        host, port=REDIS_PORT, launcher=nodes.holder.launcher, folder=nodes.folder
    ) as server:
        where = f"{host}:{server.port}"
        with _theirs("redis", where, where, nodes, nbytes) as act:
            yield act


@contextmanager
def theirs_zmq(nodes: Nodes, nbytes: int) -> Iterator[Exchange]:
    """A server on each node, which the first store there starts."""
    here, there = (f"{node.address}:{PORT}" for node in (nodes.holder, nodes.asker))
    with _theirs("zmq", here, there, nodes, nbytes) as act:
        yield act


@contextmanager
def theirs_endpoint(nodes: Nodes, nbytes: int) -> Iterator[Exchange]:
    """An endpoint on each node, connected by WebRTC; the relay is beside the put."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=nodes.folder))
        launcher, host = nodes.holder.launcher, nodes.holder.address
        meeting = stack.enter_context(relay(host, RELAY_PORT, launcher=launcher, folder=folder))
        here, there = (
            stack.enter_context(
                endpoint(
                    node.address,
                    ENDPOINT_PORT,
                    meeting,
                    launcher=node.launcher,
                    folder=tempfile.mkdtemp(dir=folder),
                )
            )
            for node in (nodes.holder, nodes.asker)
        )
        yield stack.enter_context(_theirs("endpoint", here, there, nodes, nbytes))


@contextmanager
def theirs_file(nodes: Nodes, nbytes: int) -> Iterator[Exchange]:
    """A folder that both nodes see."""
    with (
        tempfile.TemporaryDirectory(dir=nodes.folder) as folder,
        _theirs("file", folder, folder, nodes, nbytes) as act,
    ):
        yield act


@dataclass(frozen=True)
class Crossing:
    """A way from node to node."""

    name: str
    about: str
    opener: Callable[[Nodes, int], AbstractContextManager[Exchange]]


CROSSINGS = {
    crossing.name: crossing
    for crossing in (
        Crossing("ucx-tcp", "ours, UCX over TCP", partial(ours, "ucx")),
        Crossing("tcp", "ours, the server for other clusters, plain", partial(ours, "tcp")),
        Crossing("tcp-tls", "the same, encrypted", partial(ours, "tls")),
        Crossing("mpi", "ours, MPI windows of a job", over_mpi),
        Crossing("redis", "ProxyStore's RedisConnector, server beside the put", theirs_redis),
        Crossing("zmq", "ProxyStore's ZeroMQConnector (proxystore-ex)", theirs_zmq),
        Crossing("endpoint", "ProxyStore's EndpointConnector, over WebRTC", theirs_endpoint),
        Crossing("file", "ProxyStore's FileConnector, a folder of one disk", theirs_file),
    )
}


def measure(
    nodes: Nodes,
    sizes: Sequence[int] = SIZES,
    *,
    only: Sequence[str] = tuple(CROSSINGS),
    rounds: int = 5,
) -> Iterator[tuple[int, dict[str, Times], dict[str, str]]]:
    """Exchanges arrays by each of them; the first round warms up.

    Args:
        nodes: Between what.
        sizes: Bytes of the arrays.
        only: Names of those that take part.
        rounds: How often, as the paper's five.

    Yields:
        A size; times by name; why others have none.

    Raises:
        WrongBytesError: Other bytes arrived.
    """
    for nbytes in sizes:
        times: dict[str, Times] = {}
        missing: dict[str, str] = {}
        groups = [list(only)] if nbytes <= TOGETHER else [[name] for name in only]
        for group in groups:
            with ExitStack() as stack:
                ready: dict[str, Exchange] = {}
                for name in group:
                    try:
                        opened = CROSSINGS[name].opener(nodes, nbytes)
                        ready[name] = stack.enter_context(opened)
                    except (UnavailableError, CompanionError) as error:
                        missing[name] = str(error).strip().splitlines()[-1]
                for number in range(rounds + 1):
                    for name, act in list(ready.items()):
                        try:
                            put_s, get_s = act()
                        except CompanionError as error:
                            missing[name] = str(error).strip().splitlines()[-1]
                            times.pop(name, None)
                            del ready[name]
                            continue
                        if number:
                            found = times.setdefault(name, Times())
                            found.puts.append(put_s)
                            found.gets.append(get_s)
        yield nbytes, times, missing
