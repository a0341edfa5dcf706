"""Ray's object store: an actor puts, its driver gets."""

from __future__ import annotations

import logging
import secrets
import tempfile
import time
from contextlib import ExitStack
from typing import Any

from proxystore_hpc.bench.companion import Companion
from proxystore_hpc.bench.contestant import Operation
from proxystore_hpc.bench.data import pattern
from proxystore_hpc.bench.peers.kept import Companions, Kept
from proxystore_hpc.bench.peers.peer import Peer
from proxystore_hpc.bench.peers.sides import Outcome, looked_at, measuring, part_of

__all__ = ["CONTESTANTS", "Driver"]

ROOM = 256 << 20


class Holder:
    """The actor."""

    def __init__(self) -> None:
        self.prepare(0)

    def prepare(self, nbytes: int) -> None:
        """The array is of this size from now on."""
        self.data = pattern(nbytes)
        self.references: list[Any] = []

    def put(self, times: int) -> tuple[float, list[Any]]:
        """Seconds of one, and references."""
        import ray

        self.references = []
        began = time.perf_counter()
        for _ in range(times):
            self.references.append(ray.put(self.data))
        return (time.perf_counter() - began) / times, self.references

    def drop(self) -> None:
        """Lets the objects go."""
        self.references = []

    def echo(self, data: bytes) -> bytes:
        """What it was given."""
        return data


class Driver:
    """Role: a cluster of this machine alone with one actor, for arrays of at most so many bytes."""

    def __init__(self, most: int, folder: str) -> None:
        import ray

        self.ray: Any = ray
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # What was dropped goes a little later.
            object_store_memory=ROOM + 4 * most,
            _temp_dir=folder,
        )
        self.actor = ray.remote(Holder).remote()
        self.prepare(0)

    def prepare(self, nbytes: int) -> None:
        """Payloads are of this size from now on."""
        self.payload = pattern(nbytes).tobytes()
        self.ray.get(self.actor.prepare.remote(nbytes))

    def rest(self) -> None:
        """Frees them."""
        self.prepare(0)

    def measure(self, operation: Operation, nbytes: int, times: int) -> Outcome:
        """Puts there and gets here, or calls of the actor."""
        if operation is Operation.ECHO:
            return self._echo(nbytes, times)
        put_s, references = self.ray.get(self.actor.put.remote(times))
        get_s, complaint = 0.0, ""
        for reference in references:
            began = time.perf_counter()
            found = self.ray.get(reference)
            get_s += time.perf_counter() - began
            complaint = complaint or looked_at(found, nbytes)
            del found
        get_s /= times
        del references, reference
        self.ray.get(self.actor.drop.remote())
        return part_of(operation, put_s, get_s), complaint

    def _echo(self, nbytes: int, times: int) -> Outcome:
        seconds, complaint = 0.0, ""
        for _ in range(times):
            began = time.perf_counter()
            found = self.ray.get(self.actor.echo.remote(self.payload))
            seconds += time.perf_counter() - began
            complaint = complaint or looked_at(found, nbytes)
        return seconds / times, complaint

    def close(self) -> None:
        """Ends the cluster."""
        self.ray.shutdown()


def start(stack: ExitStack, most: int) -> Companions:
    """A cluster."""
    # In the default place, for it makes paths of sockets below, which must be short.
    folder = stack.enter_context(
        tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True)
    )
    environment = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else it makes a file in the home directory
    }
    role = f"{__name__}:Driver"
    driver = Companion(role, environment=environment, most=most, folder=folder)
    return (stack.enter_context(driver),)


KEPT = Kept(start, measuring)
CONTESTANTS = (
    Peer(
        "ray",
        "Ray's object store: ray.put in an actor, ray.get in its driver (a view); its echo is a "
        "call of the actor",
        frozenset({Operation.EXCHANGE, Operation.PUT, Operation.GET, Operation.ECHO}),
        KEPT.open,
        {"ray": "ray"},
        kept=KEPT,
        slow=True,
    ),
)
