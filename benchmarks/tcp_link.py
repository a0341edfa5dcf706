"""Gets over TCP through a link of a known rate, direct and through a gateway.

    python benchmarks/tcp_link.py [--rates 1gbit,100mbit] [--sizes 16MiB,64MiB] [--gets 3]

Two nodes as of ci/two_nodes, with a wire between them that is shaped (root, iproute2). The owner,
its server and the gateway are on one, the client on the other; all connections are encrypted but
for the bare one, a `sendall` and `recv_into`. A share is how much of the rate the object's bytes
get.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import harness

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ci" / "lib"))

import two_nodes
from proxystore_hpc import Store
from proxystore_hpc.serialize import loads
from proxystore_hpc.store.serving import Gateway
from proxystore_hpc.tcp.client import TcpClient
from proxystore_hpc.tcp.endpoints import TcpEndpoint
from proxystore_hpc.tcp.process import start

TARGET = 0.95
WAYS = ("bare", "direct", "gateway")
UNITS = {"kbit": 10**3, "mbit": 10**6, "gbit": 10**9}


class Owner:
    """Role: a store with a server, and a plain socket that sends bytes."""

    def __init__(self, address: str, state: str, capacity: int) -> None:
        self.store = Store("benchmark", capacity=capacity, interface=address)
        self.server = start(self.store.address, listen=f"{address}:0", state=state)
        self.listener = socket.create_server((address, 0))
        self.payload = memoryview(bytes(capacity))
        threading.Thread(target=self._send, daemon=True).start()

    def endpoint(self) -> TcpEndpoint:
        return self.server.endpoints[0]

    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def put(self, nbytes: int) -> bytes:
        return bytes(self.store.put(harness.pattern(nbytes)))

    def evict(self, key: bytes) -> None:
        self.store._instance.evict([key], True)

    def _send(self) -> None:
        connection, _ = self.listener.accept()
        while request := connection.recv(8):
            connection.sendall(self.payload[: int.from_bytes(request, "little")])

    def close(self) -> None:
        self.server.close()
        self.store.close()


class Client:
    """Role: who gets."""

    def __init__(self, endpoints: dict[str, TcpEndpoint], bare: tuple[str, int]) -> None:
        self.clients = {w: TcpClient(endpoints=[e], timeout=100) for w, e in endpoints.items()}
        self.raw = socket.create_connection(bare)
        self.memory = memoryview(bytearray(0))

    def get(self, way: str, key: bytes, nbytes: int) -> float:
        """Seconds of one get."""
        if way == "bare" and len(self.memory) != nbytes:
            self.memory = memoryview(bytearray(nbytes))
        began = time.perf_counter()
        if way == "bare":
            self.raw.sendall(nbytes.to_bytes(8, "little"))
            done = 0
            while done < nbytes:
                done += self.raw.recv_into(self.memory[done:])
        else:
            assert loads(self.clients[way].get(key)).nbytes == nbytes
        return time.perf_counter() - began


def bits(rate: str) -> float:
    """Bits per second of a rate as `tc` is told it."""
    unit = rate.lstrip("0123456789.")
    return float(rate[: -len(unit)]) * UNITS[unit]


def measure(run: harness.Run, rate: str, sizes: tuple[int, ...], gets: int, folder: str) -> None:
    """All sizes over one link."""
    pair = two_nodes.Nodes(f"bench{os.getpid()}")
    pair.up(rate, keep=[Path(folder)], lasting=False)
    here, there = (tuple(pair.command(number)) for number in two_nodes.NUMBERS)
    address = pair.address(two_nodes.NUMBERS[0])
    state = str(Path(folder, f"{rate}.json"))
    command = [*here, sys.executable, "-m", "proxystore_hpc", "gateway", "--json"]
    command += ["--listen", f"{address}:0", "--state", state]
    gateway: subprocess.Popen[bytes] | None = None
    capacity = max(sizes) + (64 << 20)
    try:
        with harness.Companion(
            "tcp_link:Owner", launcher=here, address=address, state=state, capacity=capacity
        ) as owner:
            gateway = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert gateway.stdout is not None
            told: dict[str, Any] = json.loads(gateway.stdout.readline())
            endpoints = {
                "direct": owner.call("endpoint"),
                "gateway": Gateway.parse(told).endpoint,
            }
            with harness.Companion(
                "tcp_link:Client",
                launcher=there,
                endpoints=endpoints,
                bare=(address, owner.call("port")),
            ) as client:
                for nbytes in sizes:
                    key = owner.call("put", nbytes)
                    times = harness.interleaved(
                        {way: partial(client.call, "get", way, key, nbytes) for way in WAYS},
                        seconds=0.0,
                        fewest=gets,
                        warm_up=1,
                    )
                    report(run, rate, nbytes, times)
                    owner.call("evict", key)
    finally:
        if gateway is not None:
            gateway.terminate()
            gateway.wait()
        pair.release()


def report(run: harness.Run, rate: str, nbytes: int, times: dict[str, harness.Stats]) -> None:
    """One line."""
    cells = []
    for way in WAYS:
        stats = times[way]
        share = nbytes * 8 / stats.median / bits(rate)
        run.add(f"{way} {harness.size(nbytes)} {rate}", stats, rate=rate, share=share)
        verdict = "" if way == "bare" else f" {'met' if share >= TARGET else 'MISSED'}"
        cells.append(f"{way} {share:.3f}{verdict}")
    print(f"{rate:>8} {harness.size(nbytes):>8}   {'   '.join(cells)}", flush=True)


def main() -> int:
    parser = harness.arguments(__doc__)
    parser.add_argument("--rates", default="1gbit,100mbit", help="default: %(default)s")
    parser.add_argument("--sizes", type=harness.parse_sizes, default=(16 << 20, 64 << 20))
    parser.add_argument("--gets", type=int, default=5, help="of each kind (default: %(default)s)")
    options = parser.parse_args()
    run = harness.Run("tcp_link")
    run.header()
    print("share of the link's rate (target: 0.95)")
    with tempfile.TemporaryDirectory() as folder:
        for rate in options.rates.split(","):
            measure(run, rate, options.sizes, options.gets, folder)
    run.finish(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
