"""Our proxies in one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from proxystore_hpc.bench.bursts import Repeated
from proxystore_hpc.bench.contestant import Burst, Kind, Operation
from proxystore_hpc.bench.ours import ways

__all__ = ["Proxies"]

_OBJECT = [1, 2, 3]
_CREATED = 200


class Proxies:
    """A contestant: a small list through a resolved proxy, or as it is.

    Args:
        through: Whether there is a proxy; without one it is the limit of the other.
    """

    most = None

    def __init__(self, *, through: bool) -> None:
        self._through = through
        self.name = "proxy" if through else "object"
        self.kind = Kind.OURS if through else Kind.LIMIT
        self.about = "a small list through a proxy" if through else "the list itself"
        self.limit = {Operation.USE: "object"} if through else None
        own = {Operation.CREATE} if through else set()
        self.operations = frozenset({Operation.USE} | own)

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        return ways.check(ways.ways()[0])

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return self._opened(operation)

    @contextmanager
    def _opened(self, operation: Operation) -> Iterator[Burst]:
        from proxystore_hpc.store import Store

        if not self._through:
            yield _used(_OBJECT)
            return
        with Store("bench-proxies", capacity=ways.ROOM, register=True) as store:
            if operation is Operation.USE:
                proxy: Any = store.proxy(_OBJECT)
                yield _used(proxy)
                return
            made: list[Any] = []

            def create() -> None:
                made.append(store.proxy(_OBJECT))

            repeated = Repeated(create, most=_CREATED)

            def burst() -> float:
                made.clear()
                sample = repeated()
                if any(proxy != _OBJECT for proxy in made):
                    raise ValueError("a proxy has another target than it was made of")
                return sample

            yield burst


def _used(thing: Any) -> Burst:
    def use() -> Any:
        return thing[1]

    def verify(found: Any) -> None:
        if found != _OBJECT[1]:
            raise ValueError(f"the item is {found!r}")

    return Repeated(use, verify)
