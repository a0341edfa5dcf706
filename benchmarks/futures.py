"""How soon a consumer has the result of a future that another process of the node sets.

Both clocks are the machine's monotonic one: the time goes from before `set_result` in the producer
to after `result` in the consumer, which waits already.

    python benchmarks/futures.py [--seconds S] [--json FILE]
"""

from __future__ import annotations

import pickle
import sys
import time
from typing import Any

import harness

from proxystore_hpc import Store

SIZES = (8, 1024)
TARGET = 100e-6
# So that the consumer waits when the result is set.
PAUSE = 0.002


class Producer:
    """Role: sets results of futures that it got as pickles, or of its own."""

    def __init__(self) -> None:
        self.store = Store("futures", register=True, capacity="64MiB")
        self.futures: list[Any] = []

    def make(self, count: int) -> list[bytes]:
        self.futures = [self.store.future() for _ in range(count)]
        return [pickle.dumps(future) for future in self.futures]

    def take(self, packed: list[bytes]) -> None:
        self.futures = [pickle.loads(each) for each in packed]
        self.store.exists(self.futures[0]._factory.key)  # the first contact is not what is timed

    def set_all(self, value: Any) -> list[float]:
        began = []
        for future in self.futures:
            time.sleep(PAUSE)
            began.append(time.monotonic())
            future.set_result(value)
        return began

    def close(self) -> None:
        self.store.close()


def measure(producer: harness.Companion, futures: list[Any], value: Any) -> harness.Stats:
    """Seconds from each `set_result` to the end of `result`."""
    producer.start("set_all", value)
    ended = []
    for future in futures:
        future.result(30)
        ended.append(time.monotonic())
    began = producer.result()
    return harness.Stats(tuple(e - b for b, e in zip(began, ended, strict=True)))


def main() -> int:
    options = harness.arguments(__doc__).parse_args()
    rounds = max(10, int(options.seconds / (2 * PAUSE)))
    run = harness.Run("futures")
    run.header()
    print(f"target: a median of {harness.duration(TARGET)}")
    store = Store("futures", register=True, capacity="64MiB")
    with store, harness.Companion("futures:Producer") as producer:
        for size in SIZES:
            theirs = [pickle.loads(each) for each in producer.call("make", rounds)]
            store.exists(theirs[0]._factory.key)
            report(run, "producer", size, measure(producer, theirs, bytes(size)))
            mine = [store.future() for _ in range(rounds)]
            producer.call("take", [pickle.dumps(each) for each in mine])
            report(run, "consumer", size, measure(producer, mine, bytes(size)))
    run.finish(options.json)
    return 0


def report(run: harness.Run, owner: str, size: int, stats: harness.Stats) -> None:
    name = f"{harness.size(size)} owned by the {owner}"
    run.add(name, stats, owner=owner, nbytes=size, target_s=TARGET)
    print(
        f"{name:>34}: {harness.duration(stats.median):>9}, p99 {harness.duration(stats.p99):>9}, "
        f"at least {harness.duration(stats.minimum):>9}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
