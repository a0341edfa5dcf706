"""Program: owns or reads the objects that a door is measured with.

`own PLAN` stores them, prints their keys as a line of JSON and waits for the end of its standard
input; `read PLAN KEYS` measures and prints its figures. A line with `failed` says why not.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from proxystore_hpc import Store

_SMALL = 8
_LARGE = 64 << 20
_STORE = "proxystore-hpc-info"
_PATIENCE = 20.0
_LATENCY_BUDGET = 0.5
_BANDWIDTH_BUDGET = 1.0
_MOST_SAMPLES = 5000
_FEWEST_SAMPLES = 5
# Processes that lost their parent must not stay.
_LIFETIME = 90.0


@dataclass(frozen=True)
class Plan:
    """One row of `proxystore-hpc info --measure`.

    Attributes:
        door: The only door that may be used.
        how: What carries the bytes, for people.
        live: Whether registered memory is read, instead of stored objects.
        tls: Transports that UCX may use.
        net_devices: Network devices that UCX may use.
    """

    door: str
    how: str
    live: bool = False
    tls: str = ""
    net_devices: str = ""

    def open_store(self) -> Store:
        """A store with that door alone."""
        from proxystore_hpc import Store

        ucx = {"tls": self.tls, "net_devices": self.net_devices}
        chosen = {name: value for name, value in ucx.items() if value}
        return Store(
            _STORE,
            doors=(self.door,),
            capacity=4 * _LARGE,
            timeout=_PATIENCE,
            cache_size=0,
            options={"ucx": chosen} if chosen else {},
        )


def pattern(nbytes: int) -> NDArray[Any]:
    """The bytes that both sides expect; of numbers, so that shifted ones are noticed."""
    import numpy as np

    return np.arange(nbytes // 8, dtype="u8").view("u1")


def own(plan: Plan) -> None:
    """Stores a small and a large object until standard input ends."""
    with plan.open_store() as store:
        small, large = pattern(_SMALL), pattern(_LARGE)
        if plan.live:
            handles = [store.register(small), store.register(large)]
            keys = [handle.key for handle in handles]
        else:
            handles, keys = [], [store.put(small), store.put(large)]
        print(json.dumps({"keys": [bytes(key).hex() for key in keys]}), flush=True)
        sys.stdin.read()
        for handle in handles:
            handle.close()


def read(plan: Plan, keys: list[bytes]) -> dict[str, Any]:
    """Measures; the bytes are compared outside of the measured time."""
    import numpy as np

    from proxystore_hpc.key import Key

    with plan.open_store() as store:
        small, large = map(Key, keys)
        latencies = sample(lambda: store.get_or_raise(small), _LATENCY_BUDGET)
        # Written once, so that its pages are there.
        warm = np.ones(_LARGE, "u1")
        times = sample(lambda: store.get_into(large, warm), _BANDWIDTH_BUDGET)
        figures: dict[str, Any] = {
            "latency_us": 1e6 * statistics.median(latencies),
            "latency_min_us": 1e6 * min(latencies),
            "bandwidth": _LARGE / statistics.median(times),
        }
        if plan.door == "shm" and not plan.live:
            views = sample(lambda: store.get_or_raise(large), _LATENCY_BUDGET)
            figures["mapped_us"] = 1e6 * statistics.median(views)
        channels = store._instance.channels(small.packed, _PATIENCE)
        if plan.door in channels:
            figures["detail"] = describe_lanes(channels[plan.door])
        if not (warm == pattern(_LARGE)).all():
            return {"failed": "other bytes arrived than were stored"}
        used = set(store.metrics.doors)
        if used != {plan.door}:
            return {"failed": f"other doors were used: {', '.join(sorted(used))}"}
    return figures


def describe_lanes(channel: dict[str, Any]) -> str:
    """Which transports UCX chose, without what each is used for."""
    lanes = dict.fromkeys(lane.split("(")[0] for lane in channel["lanes"].split())
    return f"{' '.join(lanes)}; {'one-sided' if channel['one_sided'] else 'sent by the owner'}"


def sample(action: Callable[[], object], budget: float) -> list[float]:
    """Durations in seconds of as many calls as fit into the budget, after two that do not count."""
    action()
    action()
    times: list[float] = []
    end = time.perf_counter() + budget
    while len(times) < _FEWEST_SAMPLES or (
        time.perf_counter() < end and len(times) < _MOST_SAMPLES
    ):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return times


def main(arguments: list[str]) -> int:
    """Runs the role that the command line names."""
    from proxystore_hpc.exceptions import ProxyStoreHpcError

    timer = threading.Timer(_LIFETIME, os._exit, (3,))
    timer.daemon = True
    timer.start()
    role, plan = arguments[0], Plan(**json.loads(arguments[1]))
    try:
        if role == "own":
            own(plan)
        else:
            keys = [bytes.fromhex(key) for key in json.loads(arguments[2])["keys"]]
            print(json.dumps(read(plan, keys)), flush=True)
    except ProxyStoreHpcError as error:
        print(json.dumps({"failed": str(error)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
