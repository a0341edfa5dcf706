"""This package against ProxyStore 1.1, both in one run, caches off.

    python benchmarks/vs_proxystore.py [--only objects,batch] [--json FILE]

Needs proxystore==1.1.0; its connectors for Redis (a redis-server in PATH, started
here on loopback) and ZeroMQ (proxystore-ex) are measured where they can be had. A put
takes place in one process and the get in another; what arrived is compared outside of the measured
time. Arms take turns within a round.
"""

from __future__ import annotations

import functools
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import numpy as np
from targets import Parts, Rows, Verdict, choose, report

from proxystore_hpc import Store

OURS = "ours"


@dataclass(frozen=True)
class Scale:
    """Sizes and repetitions; the small ones only show that everything runs."""

    seconds: float = 3.0
    sizes: tuple[int, ...] = (1_000, 1_000_000, 100_000_000)
    batch: int = 1000
    rounds: int = 5


SMALL = Scale(seconds=0.05, sizes=(1_000, 100_000), batch=20, rounds=1)

# By size: how many times faster than which of their connectors.
TARGETS = {
    1_000: {"redis": 8.0, "zmq": 30.0, "file": None},
    1_000_000: {"redis": 5.0, "zmq": 5.0, "file": 5.0},
    100_000_000: {"redis": 20.0, "zmq": 20.0, "file": 20.0},
}


def open_store(arm: str, place: str) -> Any:
    """A store of this process.

    Args:
        arm: `"ours"`, or one of ProxyStore's connectors.
        place: A folder, or the port of a server.
    """
    name = f"versus-{os.getpid()}"
    if arm == OURS:
        return Store(name, cache_size=0, capacity="1GiB", populate_target=False)
    from proxystore.store import Store as TheirStore

    return TheirStore(name, connector_of(arm, place), cache_size=0, populate_target=False)


def connector_of(arm: str, place: str) -> Any:
    if arm == "file":
        from proxystore.connectors.file import FileConnector

        return FileConnector(place, clear=False)
    if arm == "redis":
        from proxystore.connectors.redis import RedisConnector

        return RedisConnector("127.0.0.1", int(place))
    from proxystore_ex.connectors.dim.zmq import ZeroMQConnector

    return ZeroMQConnector(port=int(place), address="127.0.0.1")


class Owner:
    """Role: the process that puts."""

    def __init__(self, arm: str, place: str) -> None:
        self.store = open_store(arm, place)

    def put(self, nbytes: int) -> tuple[float, bytes]:
        """Seconds, and the key."""
        data = harness.pattern(nbytes)
        began = time.perf_counter()
        key = self.store.put(data)
        return time.perf_counter() - began, pickle.dumps(key)

    def put_batch(self, nbytes: int, count: int) -> tuple[float, bytes]:
        """Seconds, and the keys."""
        data = [harness.pattern(nbytes) for _ in range(count)]
        began = time.perf_counter()
        keys = self.store.put_batch(data)
        return time.perf_counter() - began, pickle.dumps(keys)

    def evict(self, pickled: bytes) -> None:
        key_or_keys = pickle.loads(pickled)
        for key in key_or_keys if isinstance(key_or_keys, list) else [key_or_keys]:
            self.store.evict(key)

    def close(self) -> None:
        self.store.close()


class Pair:
    """One arm: a process that puts, and a store here that gets."""

    def __init__(self, arm: str, place: str, stack: ExitStack) -> None:
        self.arm = arm
        self.owner = stack.enter_context(
            harness.Companion("vs_proxystore:Owner", arm=arm, place=place)
        )
        self.store = open_store(arm, place)
        stack.callback(self.store.close)

    def object(self, nbytes: int) -> tuple[float, float]:
        """Seconds of a put there and of the get here."""
        put_s, pickled = self.owner.call("put", nbytes)
        key = pickle.loads(pickled)
        began = time.perf_counter()
        found = self.store.get(key)
        get_s = time.perf_counter() - began
        assert np.array_equal(found, harness.pattern(nbytes)), f"{self.arm}: other bytes"
        del found
        self.owner.call("evict", pickled)
        return put_s, get_s

    def batch(self, nbytes: int, count: int) -> tuple[float, float]:
        """The same of many at once, as far as the store has such calls."""
        put_s, pickled = self.owner.call("put_batch", nbytes, count)
        keys = pickle.loads(pickled)
        get_batch = getattr(self.store, "get_batch", None)
        began = time.perf_counter()
        found = get_batch(keys) if get_batch else [self.store.get(key) for key in keys]
        get_s = time.perf_counter() - began
        expected = harness.pattern(nbytes)
        assert len(found) == count
        assert all(np.array_equal(array, expected) for array in found)
        del found
        self.owner.call("evict", pickled)
        return put_s, get_s


def free_port() -> int:
    """A port of loopback that nobody listens at just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def redis_server() -> Iterator[int | None]:
    """The port of a server of our own on loopback, `None` if it cannot be had."""
    program = shutil.which("redis-server")
    try:
        import redis  # noqa: F401
    except ImportError:
        program = None
    if program is None:
        yield None
        return
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([program, *options], cwd=folder, stdout=subprocess.DEVNULL) as process,
    ):
        try:
            end = time.monotonic() + 10
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.02)
            yield port
        finally:
            process.terminate()


@contextmanager
def pairs() -> Iterator[list[Pair]]:
    """All arms that can be had here, ours first."""
    with ExitStack() as stack:
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=shm, prefix="versus-"))
        arms = [Pair(OURS, "", stack), Pair("file", str(Path(folder, "objects")), stack)]
        port = stack.enter_context(redis_server())
        if port is not None:
            arms.append(Pair("redis", str(port), stack))
        try:
            import proxystore_ex.connectors.dim.zmq  # noqa: F401
        except ImportError:
            pass
        else:
            arms.append(Pair("zmq", str(free_port()), stack))
        yield arms


Measure = Callable[[Pair], tuple[float, float]]


def by_turns(arms: list[Pair], measure: Measure, scale: Scale) -> dict[str, harness.Stats]:
    """Seconds of put and get together."""
    for arm in arms:
        measure(arm)
    samples: dict[str, list[float]] = {arm.arm: [] for arm in arms}
    end, rounds = time.perf_counter() + scale.seconds, 0
    while rounds < scale.rounds or time.perf_counter() < end:
        for arm in arms:
            samples[arm.arm].append(sum(measure(arm)))
        rounds += 1
    return {name: harness.Stats(tuple(times)) for name, times in samples.items()}


def faster(
    what: str, figures: dict[str, harness.Stats], other: str, target: float | None
) -> Verdict:
    """How many times as long theirs takes."""
    times = harness.ratio(figures, other, OURS)
    detail = ", ".join(f"{n} {harness.duration(figures[n].median)}" for n in (OURS, other))
    return Verdict(
        f"{what}, against {other}",
        "" if target is None else f">= {target:g}x",
        f"{times:.1f}x",
        None if target is None else times >= target,
        detail,
        {name: figures[name].as_dict() for name in (OURS, other)},
    )


def objects(scale: Scale) -> Rows:
    """Put in one process, get in another."""
    with pairs() as arms:
        for nbytes in scale.sizes:
            figures = by_turns(arms, lambda arm, n=nbytes: arm.object(n), scale)
            what = f"ndarray of {nbytes:,} B, put and get"
            for arm in arms[1:]:
                target = TARGETS.get(nbytes, {}).get(arm.arm)
                yield faster(what, figures, arm.arm, target)


def batch(scale: Scale) -> Rows:
    """Many small objects at once."""
    with pairs() as arms:
        figures = by_turns(arms, lambda arm: arm.batch(1_000, scale.batch), scale)
        for arm in arms[1:]:
            what = f"batch of {scale.batch} ndarrays of 1,000 B, put and get"
            yield faster(what, figures, arm.arm, 10.0)


def proxies(scale: Scale) -> Rows:
    """Pickled proxies: their length, and the time to dump and load one."""
    with redis_server() as port, ExitStack() as stack:
        arm, place = ("file", tempfile.mkdtemp()) if port is None else ("redis", str(port))
        if arm == "file":
            stack.callback(shutil.rmtree, place, ignore_errors=True)
        data = np.zeros(100)
        mine, theirs = open_store(OURS, ""), open_store(arm, place)
        stack.callback(mine.close)
        stack.callback(theirs.close)
        ours, other = mine.proxy(data), theirs.proxy(data)
        figures = {}
        for name, proxy in ((OURS, ours), (arm, other)):
            pickled = pickle.dumps(proxy)
            clock = time.thread_time
            figures[name] = harness.Action(
                functools.partial(_dump_and_load, proxy, pickled), loops=200, clock=clock
            )
        measured = harness.interleaved(figures, seconds=scale.seconds)
        nbytes = len(pickle.dumps(ours))
        detail = f"theirs {len(pickle.dumps(other))} B"
        yield Verdict("pickled proxy", "<= 300 B", f"{nbytes} B", nbytes <= 300, detail)
        yield faster("proxy dumped and loaded", measured, arm, 5.0)


def _dump_and_load(proxy: Any, pickled: bytes) -> None:
    pickle.dumps(proxy)
    pickle.loads(pickled)


class SlowConnector:
    """Any connector structure: 10 ms for whatever it gets."""

    def __init__(self) -> None:
        self.objects: dict[int, bytes] = {}
        self.lock = threading.Lock()

    def put(self, obj: Any) -> tuple[int]:
        with self.lock:
            number = len(self.objects)
            self.objects[number] = bytes(obj)
        return (number,)

    def put_batch(self, objs: Any) -> list[tuple[int]]:
        return [self.put(obj) for obj in objs]

    def get(self, key: Any) -> bytes | None:
        time.sleep(0.01)
        return self.objects.get(key[0])

    def get_batch(self, keys: Any) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def exists(self, key: Any) -> bool:
        return key[0] in self.objects

    def evict(self, key: Any) -> None:
        self.objects.pop(key[0], None)

    def config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SlowConnector:
        return cls(**config)

    def close(self) -> None:
        self.objects.clear()


def threads(scale: Scale) -> Rows:
    """Eight threads that get through a connector that takes 10 ms, against one."""
    from concurrent.futures import ThreadPoolExecutor

    from proxystore.store import Store as TheirStore

    figures = {}
    for name, kind in (("ours", Store), ("theirs", TheirStore)):
        store = kind("slow", SlowConnector(), cache_size=0)
        keys = [store.put(np.arange(100)) for _ in range(80)]

        def all_of(count: int, store: Any = store, keys: Any = keys) -> None:
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(store.get, keys[: 10 * count]))

        measured = harness.interleaved(
            {str(n): harness.Action(functools.partial(all_of, n)) for n in (1, 8)},
            seconds=scale.seconds,
            fewest=3 if scale.rounds > 1 else 1,
            warm_up=1 if scale.rounds > 1 else 0,
        )
        figures[name] = 8 / harness.ratio(measured, "8", "1")
        store.close()
    yield Verdict(
        "8 threads, each 10 gets of 10 ms",
        ">= 7x",
        f"{figures['ours']:.1f}x",
        figures["ours"] >= 7,
        f"of one thread's rate; theirs {figures['theirs']:.1f}x",
    )


PARTS: Parts = {"objects": objects, "batch": batch, "proxies": proxies, "threads": threads}


def main() -> int:
    parser = harness.arguments(__doc__)
    parser.add_argument("--only", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--small", action="store_true", help="tiny sizes: only to see that it runs")
    options = parser.parse_args()
    parts = choose(parser, options.only, PARTS)
    try:
        import proxystore
    except ImportError:
        print("ProxyStore is not installed: pip install 'proxystore_hpc[compat]'", file=sys.stderr)
        return 1
    run = harness.Run("vs_proxystore")
    run.machine["proxystore"] = proxystore.__version__
    run.header()
    report(run, parts, SMALL if options.small else Scale(seconds=3 * options.seconds))
    run.finish(options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
