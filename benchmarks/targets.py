"""Every target of the project that is a number: what it should be, and what it is on this machine.

    python benchmarks/targets.py [--only put,get] [--json FILE]

Ratios are between things that took turns in one run. Owner and reader are two processes, one door
is allowed in each row and the metrics must name it. Absolute times are worth what the machine's
load lets them be worth: it is printed before and after. What happens in one thread and never waits
is measured in processor time.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import harness
import numpy as np
import proxy as proxy_benchmark

from proxystore_hpc import Store, get_factory
from proxystore_hpc.bench.ours.ways import INTERFACE, Way, check_doors, ways
from proxystore_hpc.exceptions import DoorUnavailableError, ProxyStoreHpcError

US = 1e-6
# Long enough for every spin to have ended.
PAUSE = partial(time.sleep, 0.005)
FORBIDDEN_IMPORTS = ("numpy", "mpi4py", "proxystore_hpc._ucx", "proxystore_hpc._core")


@dataclass
class Scale:
    """Sizes and times; the small ones only show that everything runs."""

    large: int = 64 << 20
    huge: int = 1 << 30
    seconds: float = 3.0
    idle: float = 10.0
    hold: float = 5.0
    proxy_rounds: int = 200


SMALL = Scale(large=1 << 20, huge=4 << 20, seconds=0.05, idle=0.2, hold=0.5, proxy_rounds=5)


@dataclass
class Verdict:
    """One line of the table; `met` is `None` where nothing could be measured.

    `figures` are what it was made of, by name as `Stats.as_dict` has them; for the JSON document.
    """

    what: str
    target: str
    measured: str
    met: bool | None
    detail: str = ""
    figures: dict[str, dict[str, float]] = field(default_factory=dict)


Rows = Iterator[Verdict]
Part = Callable[[Any], Rows]
Parts = Mapping[str, Part]
T = TypeVar("T")


def at_most(what: str, limit: float, stats: harness.Stats, detail: str = "") -> Verdict:
    """A time that must not exceed a limit in seconds: its median."""
    return Verdict(
        what,
        f"<= {harness.duration(limit)}",
        harness.duration(stats.median),
        stats.median <= limit,
        detail or f"min {harness.duration(stats.minimum)}, p99 {harness.duration(stats.p99)}",
    )


def at_least(
    what: str, limit: float, figures: dict[str, harness.Stats], name: str, other: str, nbytes: int
) -> Verdict:
    """A speed that must reach a share of another, in rounds of both."""
    share = harness.ratio(figures, other, name)
    best = figures[other].minimum / figures[name].minimum
    speeds = ", ".join(
        f"{which} {nbytes / figures[which].median / 1e9:.2f} GB/s" for which in (name, other)
    )
    return Verdict(
        what, f">= {limit:g}", f"{share:.2f}", share >= limit, f"{speeds}; of the best {best:.2f}"
    )


def put(scale: Scale) -> Rows:
    """Put against memcpy, both into warm memory."""
    for nbytes in (scale.large, scale.huge):
        data, target = harness.pattern(nbytes), harness.pattern(nbytes)
        # Evicted blocks rest for the grace period: room for those that are put meanwhile.
        room = 4 * nbytes + (64 << 20)
        with Store("benchmark", capacity=room + (64 << 20)) as store:
            store._instance.warm(room)
            figures = harness.interleaved(
                {
                    "put": harness.Action(partial(store.put, data), after=store.evict),
                    "memcpy": partial(np.copyto, target, data),
                },
                seconds=scale.seconds,
            )
            key = store.put(data)
            assert np.array_equal(store.get(key), data)
            assert set(store.metrics.doors) == {"self"}
        yield at_least(
            f"put of {harness.size(nbytes)} float64, of memcpy's speed",
            0.9,
            figures,
            "put",
            "memcpy",
            nbytes,
        )


def empty(scale: Scale) -> Rows:
    """Put of arrays that lie in the arena already."""
    count = 8
    with Store("benchmark", capacity=3 * count * scale.large + (64 << 20)) as store:
        for nbytes in (8, 1 << 20, scale.large):
            fresh = FreshArrays(store, nbytes // 8, count)
            action = harness.Action(
                fresh.put_next,
                before=fresh.allocate,
                after=fresh.evict,
                loops=count,
                clock=time.thread_time,
            )
            stats = harness.timed(action, seconds=scale.seconds / 3, most=2000, warm_up=20)
            yield at_most(f"put of an array of {harness.size(nbytes)} from empty()", 20 * US, stats)


class FreshArrays:
    """Arrays from `Store.empty`, allocated and evicted together, put one by one."""

    def __init__(self, store: Store, length: int, count: int) -> None:
        self.store, self.length, self.count = store, length, count

    def allocate(self) -> None:
        self.arrays = [self.store.empty(self.length) for _ in range(self.count)]
        for array in self.arrays:
            array[0] = 1.5
        self.keys: list[Any] = []

    def put_next(self) -> None:
        self.keys.append(self.store.put(self.arrays[len(self.keys)]))

    def evict(self, _: object) -> None:
        self.arrays.clear()
        self.store.evict_batch(self.keys)


def way_of(door: str) -> Way:
    """That of the suite: one door alone."""
    interface = os.environ.get(INTERFACE, "")
    if interface and door == "ucx-tcp":
        door = f"ucx-{interface}"
    (found,) = (way for way in ways() if way.name == door)
    return found


def key_of(pickled: bytes) -> Any:
    factory: Any = get_factory(pickle.loads(pickled))
    return factory.key


def resolve(pickled: bytes) -> Callable[[], Any]:
    """A function that resolves a proxy as it arrived from elsewhere."""

    def run() -> Any:
        proxy = pickle.loads(pickled)
        assert proxy.shape
        return proxy

    return run


@contextmanager
def pair(door: str, capacity: int) -> Iterator[tuple[Store, harness.Companion]]:
    """A reading store here and an owner elsewhere, with one door between them."""
    with (
        way_of(door).open_store(capacity, register=True) as store,
        harness.Companion("targets:Owner", door=door, capacity=capacity) as owner,
    ):
        yield store, owner


class Owner:
    """Role: holds objects, and can be kept from running Python."""

    def __init__(self, door: str, capacity: int) -> None:
        self.store = way_of(door).open_store(capacity)

    def put(self, nbytes: int) -> bytes:
        proxy = self.store.proxy(harness.pattern(nbytes), populate_target=False)
        return pickle.dumps(proxy)

    def close(self) -> None:
        self.store.close()

    def put_many(self, count: int) -> None:
        self.many = [self.store.put(np.arange(100.0) + i) for i in range(count)]

    def hold_gil(self, seconds: float) -> float:
        """Sleeps in C with the GIL; returns when it let go."""
        # PyDLL, unlike CDLL, keeps the GIL during calls.
        ctypes.PyDLL(None).usleep(int(1e6 * seconds))
        return time.monotonic()


def same_node(scale: Scale) -> Rows:
    """Resolve in another process, of objects in segments that are mapped; and the first mapping."""
    with pair("shm", 2 * scale.huge) as (store, owner):
        small, huge = owner.call("put", 1 << 20), owner.call("put", scale.huge)
        figures = harness.interleaved(
            {"1 MiB": resolve(small), "huge": resolve(huge)}, seconds=scale.seconds, warm_up=20
        )
        assert np.array_equal(store.get(key_of(huge)), harness.pattern(scale.huge))
        check_doors(store, way_of("shm"), key_of(huge))
        yield at_most("resolve of 1 MiB on the same node, mapped", 50 * US, figures["1 MiB"])
        name = harness.size(scale.huge)
        yield at_most(f"resolve of {name} on the same node, mapped", 50 * US, figures["huge"])
        times = harness.ratio(figures, "huge", "1 MiB")
        yield Verdict(f"resolve of {name}, of that of 1 MiB", "<= 2x", f"{times:.2f}x", times <= 2)
        store.close()

        # Only a new reader has not mapped the segment yet; it knows the owner already.
        key, readers = key_of(huge), list[Store]()

        def greet() -> None:
            readers.append(way_of("shm").open_store(64 << 20))
            assert readers[0].exists(key)

        def part(_: object) -> None:
            check_doors(readers[0], way_of("shm"), key)
            readers.pop().close()

        action = harness.Action(lambda: readers[0].get_or_raise(key), greet, part)
        stats = harness.timed(action, seconds=scale.seconds / 2)
        yield at_most(f"first mapping of a segment, of {name}", 1000 * US, stats)


def ucx(scale: Scale) -> Rows:
    """Large gets over UCX against the fastest that could be."""
    nbytes = scale.large
    for name, limit in (("ucx-shm", 0.8), ("ucx-tcp", 0.9)):
        with pair(name, 4 * nbytes + (64 << 20)) as (store, owner):
            key = key_of(owner.call("put", nbytes))
            with harness.plain_stream(nbytes) as stream:
                reference = {
                    "ucx-shm": ("memcpy", harness.memcpy(nbytes)),
                    "ucx-tcp": ("plain stream", stream),
                }[name]
                figures = harness.interleaved(
                    {"get": partial(store.get_or_raise, key), reference[0]: reference[1]},
                    seconds=scale.seconds,
                )
            assert np.array_equal(store.get(key), harness.pattern(nbytes))
            check_doors(store, way_of(name), key)
            lanes = store._instance.channels(key.packed)["ucx"]["lanes"]
        verdict = at_least(
            f"get of {harness.size(nbytes)} by {name}, of the speed of a {reference[0]}",
            limit,
            figures,
            "get",
            reference[0],
            nbytes,
        )
        verdict.detail += f"; {lanes}"
        yield verdict


def latency(scale: Scale) -> Rows:
    """Small gets over UCX: right after another, and after a pause in which all slept."""
    with pair("ucx-shm", 64 << 20) as (store, owner):
        key = key_of(owner.call("put", 1024))
        get = partial(store.get_or_raise, key)
        spinning = harness.timed(get, seconds=scale.seconds, warm_up=100)
        with harness.plain_stream(1024) as stream:
            asleep = harness.interleaved(
                {"get": harness.Action(get, PAUSE), "socket": harness.Action(stream, PAUSE)},
                seconds=scale.seconds,
            )
        assert np.array_equal(store.get(key), harness.pattern(1024))
        check_doors(store, way_of("ucx-shm"), key)
    yield at_most("get of 1 KiB by ucx-shm, one after the other", 15 * US, spinning)
    yield at_most("get of 1 KiB by ucx-shm, from sleep", 80 * US, asleep["get"])
    yield from floors(scale, asleep["socket"])


def floors(scale: Scale, through_socket: harness.Stats) -> Rows:
    """What waking up costs on this machine, whatever carries the bytes."""
    what = "1 KiB from sleep over a plain socket, for comparison"
    yield Verdict(what, "", harness.duration(through_socket.median), None)
    with pair("shm", 64 << 20) as (store, owner):
        key = key_of(owner.call("put", 1024))
        get = harness.Action(partial(store.get_or_raise, key), PAUSE)
        alone = harness.timed(get, seconds=scale.seconds)
        check_doors(store, way_of("shm"), key)
    what = "get of 1 KiB by shm from sleep: nobody else wakes up"
    yield Verdict(what, "", harness.duration(alone.median), None)


def importing(scale: Scale) -> Rows:
    """The import, in fresh processes."""
    program = (
        "import sys, time; t = time.perf_counter(); import proxystore_hpc; "
        "t = time.perf_counter() - t; maps = open('/proc/self/maps').read(); "
        f"bad = [m for m in {FORBIDDEN_IMPORTS!r} if m in sys.modules]; "
        "bad += [l for l in ('libucp', 'libmpi') if l in maps]; print(t, *bad)"
    )
    samples, loaded = [], set[str]()
    for _ in range(max(3, round(5 * scale.seconds))):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        elapsed, *bad = done.stdout.decode().split()
        samples.append(float(elapsed))
        loaded.update(bad)
    yield at_most("import proxystore_hpc", 0.1, harness.Stats(tuple(samples)))
    yield Verdict(
        "loaded by it of numpy, mpi4py, UCX", "none", ", ".join(loaded) or "none", not loaded
    )


def proxies(scale: Scale) -> Rows:
    """What a resolved proxy costs, as `benchmarks/proxy.py` measures it."""
    for operation in proxy_benchmark.OPERATIONS:
        if operation.limit is not None:
            result = proxy_benchmark.measure(operation, scale.proxy_rounds)
            yield Verdict(
                f"resolved proxy: {operation.name}, of the raw object",
                f"<= {operation.limit:g}x",
                f"{result.ratio:.2f}x",
                result.ratio <= operation.limit,
                f"{result.proxy:.0f} ns, raw {result.raw:.0f} ns",
            )


def creating(scale: Scale) -> Rows:
    """Making a proxy of something small, and sending it."""
    with Store("benchmark", capacity=256 << 20, register=True) as store:
        small, made = [1, 2, 3], list[Any]()

        def clear(_: object) -> None:
            store.evict_batch([proxy_key(p) for p in made])
            made.clear()

        action = harness.Action(
            lambda: made.append(store.proxy(small)), after=clear, loops=200, clock=time.thread_time
        )
        stats = harness.timed(action, seconds=scale.seconds)
        yield at_most("Store.proxy of a small list", 10 * US, stats)
        proxy = store.proxy(small)
        action = harness.Action(lambda: pickle.dumps(proxy), loops=1000, clock=time.thread_time)
        stats = harness.timed(action, seconds=scale.seconds)
        nbytes = len(pickle.dumps(proxy))
        yield at_most("pickling its proxy", 3 * US, stats)
        yield Verdict("size of the pickled proxy", "<= 300 B", f"{nbytes} B", nbytes <= 300)


def proxy_key(proxy: Any) -> Any:
    return proxy.__proxy_factory__.key


def idle(scale: Scale) -> Rows:
    """Processor time of an owner that nobody asks for anything, with a peer connected."""
    for door in ("shm", "ucx-shm"):
        what = f"idle owner of 1000 objects, door {door}: of a core"
        try:
            with pair(door, 64 << 20) as (store, owner):
                owner.call("put_many", 1000)
                assert store.exists(key_of(owner.call("put", 1024)))
                time.sleep(min(1.0, scale.idle))
                before, began = cpu_seconds(owner.pid), time.monotonic()
                time.sleep(scale.idle)
                used = cpu_seconds(owner.pid) - before
                share = used / (time.monotonic() - began)
        except DoorUnavailableError as error:
            yield Verdict(what, "< 0.5 %", "-", None, str(error))
            continue
        yield Verdict(what, "< 0.5 %", f"{100 * share:.3f} %", share < 0.005)


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads; to the nanosecond, unlike /proc/PID/stat."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def busy_owner(scale: Scale) -> Rows:
    """Gets from an owner whose main thread holds the GIL, against an idle owner."""
    for door in ("shm", "ucx-shm", "ucx-tcp"):
        what = f"get of {harness.size(scale.large)} by {door} from an owner that holds the GIL"
        try:
            with pair(door, 4 * scale.large + (64 << 20)) as (store, owner):
                key = key_of(owner.call("put", scale.large))
                get = partial(store.get_or_raise, key)
                share = 0.5 * scale.hold
                quiet = list(harness.timed(get, seconds=share, most=500).samples)
                owner.start("hold_gil", scale.hold)
                time.sleep(0.1 * scale.hold)
                held = harness.timed(get, seconds=share, fewest=1, most=500, warm_up=0)
                ended = time.monotonic()
                let_go = owner.result()
                assert let_go > ended, "the owner let the GIL go before the last get"
                quiet += harness.timed(get, seconds=share, most=500).samples
                assert np.array_equal(store.get(key), harness.pattern(scale.large))
                check_doors(store, way_of(door), key)
        except DoorUnavailableError as error:
            yield Verdict(what, "<= 2x", "-", None, str(error))
            continue
        idle_median = harness.Stats(tuple(quiet)).median
        times = held.median / idle_median
        detail = f"{harness.duration(held.median)}, idle {harness.duration(idle_median)}"
        yield Verdict(what, "<= 2x", f"{times:.2f}x", times <= 2, detail)


PARTS: Parts = {
    "put": put,
    "empty": empty,
    "same-node": same_node,
    "ucx": ucx,
    "latency": latency,
    "import": importing,
    "proxies": proxies,
    "creating": creating,
    "idle": idle,
    "busy-owner": busy_owner,
}


def print_verdict(verdict: Verdict) -> None:
    word = {True: "met", False: "MISSED", None: ""}[verdict.met]
    print(
        f"{verdict.what:62}{verdict.target:>10}{verdict.measured:>11}  {word:7} {verdict.detail}",
        flush=True,
    )


def choose(
    parser: argparse.ArgumentParser, only: str | None, parts: Mapping[str, T]
) -> Mapping[str, T]:
    """The parts that `--only` names, all by default; ends with the parser's error if one is not."""
    names = only.split(",") if only else list(parts)
    for name in names:
        if name not in parts:
            parser.error(f"there is no part {name!r}; the parts are {', '.join(parts)}")
    return {name: parts[name] for name in names}


def report(run: harness.Run, parts: Parts, scale: Any) -> None:
    """Measures parts, and prints and notes their verdicts with a closing count."""
    print(f"{'':62}{'target':>10}{'measured':>11}")
    verdicts: list[Verdict] = []
    for name, part in parts.items():
        try:
            for verdict in part(scale):
                verdicts.append(verdict)
                run.add(f"{name}: {verdict.what}", **asdict(verdict))
                print_verdict(verdict)
        except (ProxyStoreHpcError, harness.CompanionError) as error:
            met = None if isinstance(error, DoorUnavailableError) else False
            verdicts.append(Verdict(name, "measured", "-", met, str(error)))
            run.add(f"{name}: cannot be measured", **asdict(verdicts[-1]))
            print_verdict(verdicts[-1])
    missed = sum(v.met is False for v in verdicts)
    unknown = sum(v.met is None and v.target != "" for v in verdicts)
    print(f"{sum(v.met is True for v in verdicts)} met, {missed} missed, {unknown} not measured")


def main() -> int:
    parser = harness.arguments(__doc__)
    parser.add_argument("--only", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--small", action="store_true", help="tiny sizes: only to see that it runs")
    parser.add_argument("--interface", help="network interface for UCX over TCP")
    options = parser.parse_args()
    if options.interface is not None:
        os.environ[INTERFACE] = options.interface
    parts = choose(parser, options.only, PARTS)
    run = harness.Run("targets")
    run.header()
    report(run, parts, SMALL if options.small else Scale(seconds=3 * options.seconds))
    run.finish(options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
