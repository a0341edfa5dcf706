"""Dragon's distributed dictionary: put by a process of its own, got by the program's first one."""

from __future__ import annotations

import multiprocessing
import sys
import time
from contextlib import ExitStack
from typing import Any

from proxystore_hpc.bench.contestant import Operation
from proxystore_hpc.bench.data import pattern
from proxystore_hpc.bench.peers.job import Job, connect
from proxystore_hpc.bench.peers.kept import Companions, Kept
from proxystore_hpc.bench.peers.peer import Peer, required_program
from proxystore_hpc.bench.peers.sides import Outcome, looked_at, measuring, part_of, times_of
from proxystore_hpc.bench.peers.suspension import Suspension

__all__ = ["CONTESTANTS", "Reader"]

ADVICE = "it comes with dragonhpc"
ROOM = 512 << 20
PATIENCE = 60.0


class Reader:
    """Role: a dictionary, and a process that puts into it."""

    owner: Any = None

    def prepare(self, nbytes: int) -> None:
        """Starts both for this size."""
        from dragon.data.ddict import DDict

        self.dictionary: Any = DDict(1, 1, ROOM + 4 * nbytes * times_of(nbytes))
        self.orders: Any = multiprocessing.Queue()
        self.done: Any = multiprocessing.Queue()
        self.owner = multiprocessing.Process(
            target=own, args=(self.dictionary, nbytes, self.orders, self.done)
        )
        self.owner.start()

    def measure(self, operation: Operation, nbytes: int, times: int) -> Outcome:
        """Puts there and gets here."""
        self.orders.put(times)
        put_s = self.done.get(timeout=PATIENCE)
        get_s, complaint = 0.0, ""
        for number in range(times):
            began = time.perf_counter()
            found = self.dictionary[number]
            get_s += time.perf_counter() - began
            complaint = complaint or looked_at(found, nbytes)
        for number in range(times):
            del self.dictionary[number]
        get_s /= times
        return part_of(operation, put_s, get_s), complaint

    def rest(self) -> None:
        """Ends both."""
        if self.owner is not None:
            self.orders.put(0)
            self.owner.join()
            self.dictionary.destroy()
            self.owner = None

    close = rest


def own(dictionary: Any, nbytes: int, orders: Any, done: Any) -> None:
    """Puts as often as it is told to, until that is never; tells the seconds of one."""
    data = pattern(nbytes)
    while times := orders.get():
        began = time.perf_counter()
        for number in range(times):
            dictionary[number] = data
        done.put((time.perf_counter() - began) / times)


def start(stack: ExitStack, most: int) -> Companions:
    """A runtime of one node."""
    command = [required_program("dragon", ADVICE), "--single-node-override"]
    return (stack.enter_context(Job(command, __name__, f"{__name__}:Reader")),)


def main(path: str, role: str) -> None:
    """The program's first process."""
    import dragon  # noqa: F401

    multiprocessing.set_start_method("dragon")
    connect(path, role)


KEPT = Kept(start, measuring)
CONTESTANTS = (
    Peer(
        "dragon",
        "Dragon's DDict with one manager, on one node: put by another process, got by the first",
        frozenset({Operation.EXCHANGE, Operation.PUT, Operation.GET}),
        KEPT.open,
        {"dragon": "dragonhpc"},
        {"dragon": ADVICE},
        suspension=Suspension(),
        kept=KEPT,
        slow=True,
    ),
)

if __name__ == "__main__":
    # By its proper name, else what other processes unpickle would not be found.
    from proxystore_hpc.bench.peers.dragon import main as proper

    proper(*sys.argv[1:])
