"""Cost of using an object through a resolved proxy, against the object itself.

    python benchmarks/proxy.py [--rounds N] [--json FILE]

Every operation is timed on the raw object, on our proxy of it, and on ProxyStore's if that is
installed. They take turns within a round and the fastest round counts; processor time, so that
other work on the machine matters little. `ratio` compares the statements as `timeit` runs them;
`net` has the empty loop, which all of them contain, subtracted from each.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pickle
import platform
import sys
import time
import timeit
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from proxystore_hpc.factory import SimpleFactory
from proxystore_hpc.proxy import Proxy, unpickle

try:
    from proxystore.proxy import Proxy as ReferenceProxy
except ImportError:
    ReferenceProxy = None

LOOPS = 2_000
TIMER = time.process_time


class Particle:
    """A small Python object with an attribute, a method and a call."""

    def __init__(self) -> None:
        self.mass = 1.5

    def energy(self) -> float:
        return self.mass

    def __call__(self) -> None:
        return None


def empty_function() -> None:
    return None


class KeyFactory:
    """The shape of a store's factory: a key, and one function that makes factory and proxy."""

    def __init__(self, key: bytes) -> None:
        self.key = key

    def __call__(self) -> list[int]:
        return [1, 2, 3]

    def __reduce_proxy__(self, *defaults: Any) -> tuple[Any, ...]:
        return proxy_of_key, (self.key, *defaults)


def proxy_of_key(key: bytes, *defaults: Any) -> Proxy[list[int]]:
    return unpickle(KeyFactory(key), *defaults)


@dataclass(frozen=True)
class Operation:
    """A statement about `o`, and the ratio to the raw object that it must stay within."""

    name: str
    statement: str
    target: Any
    limit: float | None = None


@dataclass
class Result:
    """Nanoseconds an operation, the empty loop included."""

    name: str
    empty: float
    raw: float
    proxy: float
    proxystore: float | None
    limit: float | None

    @property
    def ratio(self) -> float:
        return self.proxy / self.raw

    @property
    def net_ratio(self) -> float:
        return (self.proxy - self.empty) / (self.raw - self.empty)


OPERATIONS = (
    Operation("attribute", "o.mass", Particle(), 3.0),
    Operation("method call", "o.energy()", Particle()),
    Operation("list item", "o[1]", [1, 2, 3], 2.0),
    Operation("dict item", "o['a']", {"a": 1}, 2.0),
    Operation("array item", "o[1]", np.arange(3.0), 2.0),
    Operation("len", "len(o)", [1, 2, 3], 2.0),
    Operation("call object", "o()", Particle(), 1.5),
    Operation("call type", "o()", list, 1.5),
    Operation("call partial", "o()", functools.partial(empty_function), 1.5),
    Operation("call function", "o()", empty_function),
    Operation("float + int", "o + 1", 1.5),
    Operation("int == int", "o == 1", 1),
    Operation("array + float", "o + 1.0", np.arange(3.0)),
    Operation("isinstance", "isinstance(o, list)", [1, 2, 3]),
    Operation("bool", "bool(o)", [1, 2, 3]),
    Operation("hash", "hash(o)", "text"),
    Operation("str", "str(o)", 12),
    Operation("iterate 3", "for _ in o: pass", [1, 2, 3]),
    Operation("np.asarray", "asarray(o)", np.arange(128.0)),
    Operation("np.sum", "sum_(o)", np.arange(128.0)),
)


def resolved(proxy_type: Callable[..., Any], target: Any) -> Any:
    proxy = proxy_type(SimpleFactory(target))
    _ = proxy.__proxy_wrapped__
    return proxy


def fastest(timers: list[timeit.Timer | None], rounds: int) -> list[float | None]:
    """Nanoseconds of one execution of each, by the fastest round; they take turns."""
    best = [float("inf")] * len(timers)
    for _ in range(rounds):
        for i, timer in enumerate(timers):
            if timer is not None:
                best[i] = min(best[i], timer.timeit(LOOPS) / LOOPS * 1e9)
    return [None if t is None else b for t, b in zip(timers, best, strict=True)]


def timer(statement: str, **names: Any) -> timeit.Timer:
    names |= {"asarray": np.asarray, "sum_": np.sum}
    return timeit.Timer(statement, timer=TIMER, globals=names)


def measure(operation: Operation, rounds: int) -> Result:
    """One row."""
    reference = ReferenceProxy and resolved(ReferenceProxy, operation.target)
    empty, raw, proxy, other = fastest(
        [
            timer("pass"),
            timer(operation.statement, o=operation.target),
            timer(operation.statement, o=resolved(Proxy, operation.target)),
            timer(operation.statement, o=reference) if ReferenceProxy else None,
        ],
        rounds,
    )
    assert empty is not None
    assert raw is not None
    assert proxy is not None
    return Result(operation.name, empty, raw, proxy, other, operation.limit)


def life_cycle(rounds: int) -> dict[str, dict[str, float | None]]:
    """Creating, resolving, pickling and unpickling, in nanoseconds, ours and ProxyStore's."""
    statements = {
        "create": "P(f)",
        "create with defaults": "P(f, cache_defaults=True, target=target)",
        "create and resolve": "len(P(f))",
        "pickle": "dumps(proxy, 5)",
        "unpickle": "loads(data)",
        "extract": "proxy.__proxy_wrapped__",
    }
    target = [1, 2, 3]
    factory = SimpleFactory(target)

    def names(proxy_type: Any) -> dict[str, Any]:
        proxy = proxy_type(factory)
        return {
            "P": proxy_type,
            "f": factory,
            "target": target,
            "proxy": proxy,
            "data": pickle.dumps(proxy, 5),
            "dumps": pickle.dumps,
            "loads": pickle.loads,
        }

    rows = {}
    for name, statement in statements.items():
        ours, other = fastest(
            [
                timer(statement, **names(Proxy)),
                timer(statement, **names(ReferenceProxy)) if ReferenceProxy else None,
            ],
            rounds,
        )
        rows[name] = {"proxy": ours, "proxystore": other}

    flat = Proxy(KeyFactory(b"k" * 170), cache_defaults=True, target=target)
    data = pickle.dumps(flat, 5)
    dumping, loading = fastest(
        [
            timer("dumps(proxy, 5)", proxy=flat, dumps=pickle.dumps),
            timer("loads(data)", data=data, loads=pickle.loads),
        ],
        rounds,
    )
    rows["pickle, as a store's"] = {"proxy": dumping, "proxystore": None}
    rows["unpickle, as a store's"] = {"proxy": loading, "proxystore": None}
    return rows


def cell(value: float | None, width: int = 9) -> str:
    return f"{'-' if value is None else f'{value:.1f}':>{width}}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300, help="repetitions, the fastest counts")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()

    print(f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}; ns per operation")
    print(
        f"{'':16}{'raw':>9}{'proxy':>9}{'ratio':>8}{'limit':>8}{'net':>8}{'ProxyStore':>12}"
        f"{'ratio':>8}"
    )
    results = []
    for operation in OPERATIONS:
        result = measure(operation, options.rounds)
        results.append(result)
        limit = "" if result.limit is None else f"{result.limit:.1f}x"
        other = None if result.proxystore is None else result.proxystore / result.raw
        print(
            f"{result.name:16}{cell(result.raw)}{cell(result.proxy)}{result.ratio:7.2f}x{limit:>8}"
            f"{result.net_ratio:7.2f}x{cell(result.proxystore, 12)}"
            f"{'' if other is None else f'{other:7.1f}x'}",
            flush=True,
        )
    cycle = life_cycle(options.rounds)
    print(f"\n{'':24}{'proxy':>9}{'ProxyStore':>12}")
    for name, row in cycle.items():
        print(f"{name:24}{cell(row['proxy'])}{cell(row['proxystore'], 12)}")
    print(f"{'heap of one proxy':24}{sys.getsizeof(Proxy(empty_function)):9} B")

    if options.json:
        document = {
            "python": platform.python_version(),
            "load": os.getloadavg()[0],
            "rounds": options.rounds,
            "operations": [
                asdict(result) | {"ratio": result.ratio, "net_ratio": result.net_ratio}
                for result in results
            ],
            "life_cycle": cycle,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    missed = [r.name for r in results if r.limit is not None and r.ratio > r.limit]
    if missed:
        print(f"over their limit: {', '.join(missed)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
