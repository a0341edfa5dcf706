"""What a simulation loses while its server has 500 silent clients and 50 that get objects.

    python benchmarks/tcp_load.py [--silent 500] [--busy 50] [--rate 125000000] [--seconds 30]

A kernel (a stencil of NumPy and a loop of Python, a few milliseconds each) runs in the owner's main
thread, over and over. Clients are let loose and held back by turns, so that what else the machine
does hits both alike. The owner, with all its threads, is pinned to the first core, the server and
the clients to the others: they would take cores of their own, or another machine, where this
matters. The target is held against what serving costs the owner's core through memory, caches and
the owner's own threads: the CPU time of the kernel and that of those threads. Wall time stands
beside it; on a machine that others use, the line "nothing" shows what it is worth.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np

from proxystore_hpc import Store
from proxystore_hpc.tcp import wire
from proxystore_hpc.tcp.client import TcpClient
from proxystore_hpc.tcp.endpoints import TcpEndpoint
from proxystore_hpc.tcp.process import start

TARGET = 0.05
NBYTES = 4 << 20
SETTLING = 0.5


class Owner:
    """Role: a store with a server, and a kernel that its main thread computes."""

    def __init__(self, rate: int, connections: int, core: int, others: list[int]) -> None:
        os.sched_setaffinity(0, {core})
        self.store = Store("benchmark", capacity="64MiB")
        limits = {"rate": rate, "connections": 2 * connections + 64}
        self.server = start(self.store.address, tls=False, limits=limits)
        for task in Path(f"/proc/{self.server.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), others)
        self.grid = np.random.default_rng(1).random((1000, 1000))

    def endpoint(self) -> tuple[TcpEndpoint, int]:
        return self.server.endpoints[0], self.server.pid

    def put(self) -> bytes:
        return bytes(self.store.put(harness.pattern(NBYTES)))

    def compute(self, seconds: float) -> dict[str, float]:
        """Runs the kernel for a while; medians of wall and CPU seconds, and the others' share."""
        wall, own = [], []
        end = time.perf_counter() + seconds
        began, whole, mine = time.perf_counter(), time.process_time(), time.thread_time()
        while time.perf_counter() < end:
            t, c = time.perf_counter(), time.thread_time()
            self._kernel()
            wall.append(time.perf_counter() - t)
            own.append(time.thread_time() - c)
        elapsed = time.perf_counter() - began
        others = (time.process_time() - whole) - (time.thread_time() - mine)
        return {
            "wall": statistics.median(wall),
            "cpu": statistics.median(own),
            "others": others / elapsed,
        }

    def _kernel(self) -> float:
        g = self.grid
        g[1:-1, 1:-1] += 0.1 * (g[:-2, 1:-1] + g[2:, 1:-1] - 2 * g[1:-1, 1:-1])
        total = 0.0
        for i in range(20_000):
            total += i
        return total

    def close(self) -> None:
        self.server.close()
        self.store.close()


class Clients:
    """Role: clients in a process of their own, many silent and some busy."""

    def __init__(self, endpoint: TcpEndpoint, key: bytes, busy: int, cores: list[int]) -> None:
        os.sched_setaffinity(0, cores)
        self.endpoint, self.key = endpoint, key
        self.silent: list[socket.socket] = []
        self.bytes = 0
        self._go = threading.Event()
        for _ in range(busy):
            threading.Thread(target=self._work, daemon=True).start()

    def connect(self, count: int) -> None:
        """Connects silent clients, which each have shown a valid key."""
        for number in range(count):
            raw = socket.create_connection((self.endpoint.host, self.endpoint.port))
            raw.sendall(wire.encode_hello(0, 0))
            raw.recv(wire.HELLO.size, socket.MSG_WAITALL)
            ask = wire.encode_batch(wire.Batch([self.key], False, 5.0))
            raw.sendall(wire.encode_request(wire.EXISTS, number, ask))
            raw.recv(100)
            self.silent.append(raw)

    def disconnect(self) -> None:
        while self.silent:
            self.silent.pop().close()

    def work(self, go: bool) -> int:
        """Lets the busy ones work, or holds them back; the bytes that they have got so far."""
        (self._go.set if go else self._go.clear)()
        return self.bytes

    def _work(self) -> None:
        with TcpClient(endpoints=[self.endpoint], streams=1) as client:
            target = bytearray(NBYTES)
            while True:
                self._go.wait()
                client.read_into(self.key, 0, target)
                self.bytes += NBYTES


def private(pid: int) -> int:
    """Bytes of a process that are its own and resident."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def by_turns(
    owner: harness.Companion, seconds: float, switch: Any, rounds: int
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The kernel without and with what `switch` turns on, which alternate."""
    without, with_it = [], []
    for _ in range(rounds):
        for on, figures in ((False, without), (True, with_it)):
            switch(on)
            time.sleep(SETTLING)
            figures.append(owner.call("compute", seconds / (2 * rounds)))
    switch(False)
    return without, with_it


def report(run: harness.Run, what: str, without: Any, with_it: Any, **more: Any) -> None:
    """One line."""
    slower = {
        kind: statistics.median(b[kind] / a[kind] for a, b in zip(without, with_it, strict=True))
        - 1.0
        for kind in ("wall", "cpu")
    }
    others = [statistics.median(f["others"] for f in figures) for figures in (without, with_it)]
    row = run.add(what, None, slower=slower, others=others, **more)
    cost = (1 + slower["cpu"]) * (1 + others[1] - others[0]) - 1
    row["cost"] = cost
    print(
        f"{what:>20}: {cost:+6.2%} ({'met' if cost < TARGET else 'MISSED'}): kernel "
        f"{slower['cpu']:+.2%} CPU, the owner's other threads {others[0]:.2%} -> {others[1]:.2%} "
        f"of its core; {slower['wall']:+.1%} wall",
        flush=True,
    )


def main() -> int:
    parser = harness.arguments(__doc__)
    parser.set_defaults(seconds=30.0)
    parser.add_argument("--silent", type=int, default=500)
    parser.add_argument("--busy", type=int, default=50)
    parser.add_argument("--rate", type=int, default=125_000_000, help="bytes a second for all")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("two cores are needed: one for the owner, one for its server and clients")
    run = harness.Run("tcp_load")
    run.header()
    with harness.Companion(
        "tcp_load:Owner",
        rate=options.rate,
        connections=options.silent + options.busy,
        core=cores[0],
        others=cores[1:],
    ) as owner:
        endpoint, pid = owner.call("endpoint")
        with harness.Companion(
            "tcp_load:Clients",
            endpoint=endpoint,
            key=owner.call("put"),
            busy=options.busy,
            cores=cores[1:],
        ) as clients:
            owner.call("compute", 2.0)  # warm-up

            def silent(on: bool) -> None:
                clients.call(*(("connect", options.silent) if on else ("disconnect",)))

            # Nothing against nothing: what this machine makes of it.
            report(
                run, "nothing", *by_turns(owner, options.seconds, lambda _: None, options.rounds)
            )
            pairs = by_turns(owner, options.seconds, silent, options.rounds)
            report(run, f"{options.silent} silent clients", *pairs)
            clients.call("connect", options.silent)
            before, got = private(pid), clients.call("work", False)
            peak, ended = before, threading.Event()

            def watch() -> None:
                nonlocal peak
                while not ended.wait(0.1):
                    peak = max(peak, private(pid))

            watcher = threading.Thread(target=watch)
            watcher.start()

            worked = since = 0.0

            def busy(on: bool) -> None:
                nonlocal worked, since
                now = time.perf_counter()
                worked += now - since if since else 0.0
                since = now if on else 0.0
                clients.call("work", on)

            pairs = by_turns(owner, options.seconds, busy, options.rounds)
            ended.set()
            watcher.join()
            speed = (clients.call("work", False) - got) / worked
            report(run, f"and {options.busy} busy ones", *pairs, bytes_per_second=speed)
    print(
        f"the busy ones got about {speed / 1e6:.0f} MB/s; the server's own memory grew by at most "
        f"{(peak - before) / (1 << 20):.1f} MiB"
    )
    run.finish(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
