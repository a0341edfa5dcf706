"""Put, get, resolve and exists through every door, for 8 bytes to 1 GiB, beside a memcpy.

    python benchmarks/doors.py [--doors shm,ucx-tcp] [--sizes 8,1MiB,1GiB] [--json FILE]
                               [--interface eth0]

Owner and reader are two processes (for `self`, of course, one); each row allows one door only, and
the store's metrics must name that door alone. What arrived is compared with what was sent, outside
of the measured time. Beside TCP stands a plain socket stream into warm memory. TCP goes over
loopback, unless an interface is named (UCX 1.19 and 1.20 cannot connect over loopback).
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import harness
import numpy as np

from proxystore_hpc import Store, get_factory
from proxystore_hpc.exceptions import DoorUnavailableError
from proxystore_hpc.key import Key

SIZES = (8, 1 << 10, 64 << 10, 1 << 20, 64 << 20, 1 << 30)
# Both processes read it.
INTERFACE = "PROXYSTORE_HPC_BENCHMARK_INTERFACE"
SECRET = b"0123456789abcdef"


@dataclass(frozen=True)
class Door:
    """A row of the table: the door allowed, and what carries its bytes."""

    name: str
    door: str
    tls: str = ""
    transports: tuple[str, ...] = ()

    def open_store(self, capacity: int, **options: Any) -> Store:
        """A store with this door alone, and no cache that would spare transfers."""
        ucx = {"tls": self.tls, "interface": os.environ.get(INTERFACE, "")}
        return Store(
            "benchmark",
            doors=(self.door,),
            capacity=capacity,
            cache_size=0,
            secret=SECRET,
            options={"ucx": {n: v for n, v in ucx.items() if v}} if self.tls else {},
            **options,
        )


DOORS = {
    door.name: door
    for door in (
        Door("self", "self"),
        Door("shm", "shm"),
        Door("ucx-shm", "ucx", "sm,self", ("posix", "sysv", "cma", "knem", "xpmem")),
        Door("ucx-tcp", "ucx", "tcp,self", ("tcp",)),
    )
}


class Owner:
    """Role: holds one object of each size. In the reader's process if it is given a store."""

    def __init__(self, door: str, capacity: int, store: Store | None = None) -> None:
        self.store = store or DOORS[door].open_store(capacity)

    def address(self) -> bytes:
        return self.store.address

    def put(self, nbytes: int) -> bytes:
        proxy = self.store.proxy(harness.pattern(nbytes), populate_target=False)
        return pickle.dumps(proxy)

    def close(self) -> None:
        self.store.close()


def key_of(pickled: bytes) -> Key:
    factory: Any = get_factory(pickle.loads(pickled))
    key: Key = factory.key
    return key


def resolve(pickled: bytes) -> Callable[[], Any]:
    """A function that resolves a proxy as it arrived from elsewhere."""

    def run() -> Any:
        proxy = pickle.loads(pickled)
        assert proxy.shape
        return proxy

    return run


def check_doors(store: Store, door: Door, key: Key) -> str:
    """That the door was taken and no other; returns the transports, if it is UCX's."""
    used = store.metrics.doors
    assert set(used) == {door.door}, f"{door.name}: the doors {sorted(used)} were used"
    assert used[door.door].operations > 0
    if not door.transports:
        return ""
    lanes: str = store._instance.channels(key.packed)["ucx"]["lanes"]
    chosen = {lane.split("/")[0] for lane in lanes.split()}
    assert chosen <= set(door.transports), f"{door.name}: UCX chose {lanes}"
    return lanes


def measure(run: harness.Run, door: Door, sizes: tuple[int, ...], seconds: float) -> None:
    """All rows of one door."""
    capacity = 3 * max(sizes) + (256 << 20)
    with ExitStack() as stack:
        store = stack.enter_context(door.open_store(capacity, register=True))
        to: bytes | None = None
        if door.door == "self":
            put = Owner(door.name, capacity, store).put
        else:
            owner = stack.enter_context(
                harness.Companion("doors:Owner", door=door.name, capacity=capacity)
            )
            put, to = partial(owner.call, "put"), owner.call("address")
        for nbytes in sizes:
            expected = harness.pattern(nbytes)
            pickled = put(nbytes)
            key = key_of(pickled)
            actions: dict[str, harness.Action | Callable[[], Any]] = {
                "get": partial(store.get_or_raise, key),
                "resolve": resolve(pickled),
                "exists": partial(store.exists, key),
                "put": harness.Action(partial(store.put, expected, to=to), after=store.evict),
                "memcpy": harness.memcpy(nbytes),
            }
            with ExitStack() as references:
                if door.name == "ucx-tcp":
                    actions["stream"] = references.enter_context(harness.plain_stream(nbytes))
                figures = harness.interleaved(actions, seconds=seconds)
            assert store.exists(key)
            assert np.array_equal(store.get_or_raise(key), expected), "other bytes arrived"
            lanes = check_doors(store, door, key)
            reference = "stream" if "stream" in figures else "memcpy"
            for name, stats in figures.items():
                run.add(
                    f"{door.name} {name} {harness.size(nbytes)}",
                    stats,
                    door=door.name,
                    operation=name,
                    nbytes=nbytes,
                    speed_of_reference=harness.ratio(figures, reference, name),
                    reference=reference,
                    lanes=lanes,
                )
            print_line(door.name, nbytes, figures, reference)


COLUMNS = ("put", "get", "resolve", "exists", "memcpy", "stream")


def print_head() -> None:
    names = "".join(f"{name:>11}" for name in COLUMNS)
    print(f"{'median':9}{'':>8}{names}{'GB/s':>9}{'of reference':>14}")


def print_line(door: str, nbytes: int, figures: dict[str, harness.Stats], reference: str) -> None:
    """One size; speed and ratio are those of get."""
    medians = {name: stats.median for name, stats in figures.items()}
    cells = "".join(f"{harness.duration(medians.get(name)):>11}" for name in COLUMNS)
    speed = nbytes / medians["get"] / 1e9
    share = harness.ratio(figures, reference, "get")
    print(
        f"{door:9}{harness.size(nbytes):>8}{cells}{speed:9.2f}{share:9.2f} {reference}", flush=True
    )


def main() -> int:
    parser = harness.arguments(__doc__)
    parser.add_argument("--doors", default=",".join(DOORS), help="default: %(default)s")
    parser.add_argument(
        "--sizes", type=harness.parse_sizes, default=SIZES, help="such as 8,64KiB,1GiB"
    )
    parser.add_argument("--interface", help="network interface for UCX over TCP")
    options = parser.parse_args()
    if options.interface is not None:
        os.environ[INTERFACE] = options.interface
    names = options.doors.split(",")
    for name in names:
        if name not in DOORS:
            parser.error(f"there is no door {name!r}; the doors are {', '.join(DOORS)}")
    run = harness.Run("doors")
    run.header()
    print_head()
    status = 0
    for name in names:
        try:
            measure(run, DOORS[name], options.sizes, options.seconds)
        except (DoorUnavailableError, harness.CompanionError) as error:
            print(f"{name:9} CANNOT BE MEASURED: {error}", flush=True)
            run.add(name, error=str(error))
            status = 1
    run.finish(options.json)
    return status


if __name__ == "__main__":
    sys.exit(main())
