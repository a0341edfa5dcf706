"""Gets over TCP, plain, encrypted and through a gateway, beside bare sockets written for this.

    python benchmarks/tcp.py [--sizes 1KiB,64MiB,1GiB] [--ways plain,tls,gateway] [--json FILE]

The owner is another process with a server beside it, as `Store(..., tcp=...)` starts one. The bare
pair is `sendall` and `recv_into` into warm memory over loopback, once plain and once through `ssl`;
all of one size take turns. A get includes building the array; those of pyzmq and Redis, where they
are installed, do so too. Beside the medians stands what share of the bare pair's speed is reached.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import harness
import numpy as np

from proxystore_hpc import Store
from proxystore_hpc.serialize import loads, plan
from proxystore_hpc.tcp import tls
from proxystore_hpc.tcp.client import TcpClient
from proxystore_hpc.tcp.endpoints import TcpEndpoint
from proxystore_hpc.tcp.identity import load_or_create
from proxystore_hpc.tcp.process import start

SIZES = (1 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20, 1 << 30)
WAYS = ("plain", "tls", "gateway")
# What a way is compared with, and the share of its speed that it should reach with large objects.
TARGETS = {"plain": ("bare", 0.9), "tls": ("bare-tls", 0.85), "gateway": ("plain", 0.7)}
LARGE = 64 << 20
REDIS_LARGEST = 256 << 20  # a value has 512 MB at most
SMALL = 1 << 10
SMALL_TARGET = 1.5
BUILT = "+build"


def serialized(obj: Any) -> bytes:
    """What a store keeps of an object."""
    layout = plan(obj)
    packed = bytearray(layout.nbytes)
    for offset, segment in layout.segments():
        packed[offset : offset + len(segment)] = segment
    return bytes(packed)


class Owner:
    """Role: a store with its servers."""

    def __init__(self, capacity: int, state: str) -> None:
        self.store = Store("benchmark", capacity=capacity)
        self.servers = {
            "plain": start(self.store.address, tls=False),
            "tls": start(self.store.address, tls=True, state=state),
        }

    def endpoints(self) -> dict[str, TcpEndpoint]:
        return {name: server.endpoints[0] for name, server in self.servers.items()}

    def put(self, nbytes: int) -> bytes:
        return bytes(self.store.put(harness.pattern(nbytes)))

    def evict(self, key: bytes) -> None:
        self.store._instance.evict([key], True)

    def close(self) -> None:
        for server in self.servers.values():
            server.close()
        self.store.close()


class TlsSender(harness.StreamSender):
    """Role: sends bytes through TLS when it is asked to."""

    def __init__(self, nbytes: int, state: str) -> None:
        self.context = tls.server_context(load_or_create(state).pems)
        super().__init__(nbytes)

    def _run(self) -> None:
        raw, _ = self.listener.accept()
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.context.wrap_socket(raw, server_side=True) as connection:
            while request := connection.recv(8):
                connection.sendall(self.payload[: int.from_bytes(request, "little")])


@contextmanager
def tls_stream(nbytes: int, state: str) -> Iterator[Callable[[], int]]:
    """As `harness.plain_stream`, through TLS."""
    target = memoryview(bytearray(b"\0") * nbytes)
    request = nbytes.to_bytes(8, "little")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        harness.Companion("tcp:TlsSender", nbytes=nbytes, state=state) as sender,
        socket.create_connection(("127.0.0.1", sender.call("port"))) as raw,
        context.wrap_socket(raw) as connection,
    ):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def receive() -> int:
            connection.sendall(request)
            done = 0
            while done < nbytes:
                done += connection.recv_into(target[done:])
            return done

        yield receive


class ZmqSender:
    """Role: answers requests with a serialized array."""

    def __init__(self, nbytes: int) -> None:
        import zmq

        self.payload = serialized(harness.pattern(nbytes))
        self.socket = zmq.Context.instance().socket(zmq.REP)
        self.number = self.socket.bind_to_random_port("tcp://127.0.0.1")
        threading.Thread(target=self._run, daemon=True).start()

    def port(self) -> int:
        return int(self.number)

    def _run(self) -> None:
        while True:
            self.socket.recv()
            self.socket.send(self.payload, copy=False)


@contextmanager
def zmq_stream(nbytes: int) -> Iterator[Callable[[], Any]]:
    """A function that gets an array by pyzmq."""
    import zmq

    with (
        harness.Companion("tcp:ZmqSender", nbytes=nbytes) as sender,
        zmq.Context.instance().socket(zmq.REQ) as requester,
    ):
        requester.linger = 0
        requester.connect(f"tcp://127.0.0.1:{sender.call('port')}")

        def receive() -> Any:
            requester.send(b"get")
            return loads(requester.recv(copy=False).buffer)

        yield receive


@contextmanager
def redis_server(nbytes: int) -> Iterator[Callable[[], Any]]:
    """A function that gets an array from a Redis on loopback."""
    import redis

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as client:
            while True:
                try:
                    client.set("key", serialized(harness.pattern(nbytes)))
                    break
                except redis.exceptions.BusyLoadingError:
                    time.sleep(0.05)
                except redis.exceptions.ConnectionError:
                    if server.poll() is not None:
                        raise
                    time.sleep(0.05)
            yield lambda: loads(client.get("key"))
    finally:
        server.terminate()
        server.wait()


@contextmanager
def gateway() -> Iterator[TcpEndpoint]:
    """A gateway on loopback, as the shell starts it."""
    import json

    command = [sys.executable, "-m", "proxystore_hpc", "gateway", "--json", "--plain"]
    process = subprocess.Popen([*command, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        host, port = json.loads(process.stdout.readline())["address"].split(":")
        yield TcpEndpoint(host, int(port), gateway=True)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def get(client: TcpClient, key: bytes) -> Any:
    return loads(client.get(key))


def have(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def measure(
    run: harness.Run, sizes: tuple[int, ...], ways: tuple[str, ...], seconds: float
) -> None:
    """All rows."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        state = str(Path(folder, "state.json"))
        capacity = max(sizes) + (256 << 20)
        owner = stack.enter_context(harness.Companion("tcp:Owner", capacity=capacity, state=state))
        endpoints = owner.call("endpoints")
        if "gateway" in ways:
            endpoints["gateway"] = stack.enter_context(gateway())
        for way in ways:
            assert endpoints[way].tls == (way == "tls"), f"{way} is not what it is called"
        clients = {
            way: stack.enter_context(
                TcpClient(endpoints=[endpoints[way]], timeout=120.0, pool_capacity=capacity)
            )
            for way in ways
        }
        for nbytes in sizes:
            key = owner.call("put", nbytes)
            expected = harness.pattern(nbytes)
            length = len(clients[ways[0]].get(key))
            actions: dict[str, Callable[[], Any]] = {}
            with ExitStack() as references:
                actions["bare"] = references.enter_context(harness.plain_stream(length))
                if "tls" in ways:
                    actions["bare-tls"] = references.enter_context(tls_stream(length, state))
                if nbytes <= SMALL:
                    packed = serialized(expected)
                    for name, bare in list(actions.items()):
                        actions[f"{name}{BUILT}"] = partial(receive_and_build, bare, packed)
                if have("zmq"):
                    actions["pyzmq"] = references.enter_context(zmq_stream(nbytes))
                if have("redis") and shutil.which("redis-server") and nbytes <= REDIS_LARGEST:
                    actions["redis"] = references.enter_context(redis_server(nbytes))
                for way, client in clients.items():
                    assert np.array_equal(get(client, key), expected), "other bytes arrived"
                    actions[way] = partial(get, client, key)
                # Small ones several times in a row, or each would pay for the caches of the others.
                loops = 20 if nbytes <= 64 << 10 else 1
                figures = harness.interleaved(
                    {name: harness.Action(run_, loops=loops) for name, run_ in actions.items()},
                    seconds=seconds,
                )
            report(run, nbytes, figures)
            owner.call("evict", key)


def receive_and_build(bare: Callable[[], int], packed: bytes) -> Any:
    """What a get does beyond the transfer, done where a get does it.

    In a loop of its own building takes a third of that: the processor forgets while it waits.
    """
    bare()
    return loads(packed)


COLUMNS = ("bare", "plain", "gateway", "bare-tls", "tls", "pyzmq", "redis")


def report(run: harness.Run, nbytes: int, figures: dict[str, harness.Stats]) -> None:
    """One size."""
    cells = "".join(
        f"{harness.duration(figures[name].median) if name in figures else '-':>11}"
        for name in COLUMNS
    )
    remarks = []
    for name, stats in figures.items():
        row = run.add(f"{name} {harness.size(nbytes)}", stats, way=name, nbytes=nbytes)
        if name not in TARGETS:
            continue
        reference, share = TARGETS[name]
        if reference not in figures:
            continue
        if nbytes <= SMALL and name != "gateway":
            row["times_allowed"] = of_allowed(figures, name, reference)
            bare, both = figures[reference].p10, figures[f"{reference}{BUILT}"].p10
            best = stats.p10 / (SMALL_TARGET * bare + max(both - bare, 0.0))
            row["times_allowed_p10"] = best
            remarks.append(
                f"{name} {row['times_allowed']:.2f}, best tenth {best:.2f} of the time allowed"
            )
        else:
            row["share"] = harness.ratio(figures, reference, name)
            row["share_p10"] = figures[reference].p10 / stats.p10
            aim = f" ({share})" if nbytes >= LARGE else ""
            remarks.append(
                f"{name} {row['share']:.2f}, best tenth {row['share_p10']:.2f} of {reference}{aim}"
            )
    print(f"{harness.size(nbytes):>8}{cells}   {'; '.join(remarks)}", flush=True)


def of_allowed(figures: dict[str, harness.Stats], name: str, reference: str) -> float:
    """How many times as long as it may a small get takes: the median over the rounds."""
    rounds = zip(
        figures[name].samples,
        figures[reference].samples,
        figures[f"{reference}{BUILT}"].samples,
        strict=True,
    )
    return statistics.median(
        get / (SMALL_TARGET * bare + max(both - bare, 0.0)) for get, bare, both in rounds
    )


def main() -> int:
    parser = harness.arguments(__doc__)
    parser.add_argument(
        "--sizes", type=harness.parse_sizes, default=SIZES, help="such as 1KiB,64MiB"
    )
    parser.add_argument("--ways", default=",".join(WAYS), help="default: %(default)s")
    options = parser.parse_args()
    ways = tuple(options.ways.split(","))
    if not set(ways) <= set(WAYS):
        parser.error(f"the ways are {', '.join(WAYS)}")
    run = harness.Run("tcp")
    run.header()
    print(f"{'':>8}" + "".join(f"{name:>11}" for name in COLUMNS) + "   share of speed (target)")
    began = time.monotonic()
    measure(run, options.sizes, ways, options.seconds)
    run.machine["seconds"] = time.monotonic() - began
    run.finish(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
