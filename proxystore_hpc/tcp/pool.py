"""Connections that are kept between requests."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Sequence

from proxystore_hpc.exceptions import (
    AccessDeniedError,
    DoorUnavailableError,
    OwnerUnreachedError,
    ProxyStoreHpcError,
)
from proxystore_hpc.tcp.connection import Connection
from proxystore_hpc.tcp.endpoints import MAP_VARIABLE, TcpEndpoint
from proxystore_hpc.utils.locks import make_lock
from proxystore_hpc.utils.network import loopback_tag

_ATTEMPT = 10.0
_AVOID = 5.0
_KEPT = 16
QUIET = 1.0
"""Seconds for which an idle connection needs no second look."""


_pools: weakref.WeakSet[ConnectionPool] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for pool in _pools:
        pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


class UnreachableError(Exception):
    """No endpoint could be connected to; others may be more patient than we are here."""

    def __init__(self, endpoints: Sequence[TcpEndpoint], errors: Sequence[OSError]) -> None:
        super().__init__(str(errors[-1]))
        self._endpoints = endpoints
        self._errors = errors

    def final(self) -> ProxyStoreHpcError:
        """What to tell who does not want to wait any longer."""
        tried = "; ".join(
            f"{endpoint}: {error}"
            for endpoint, error in zip(self._endpoints, self._errors, strict=True)
        )
        refused = all(isinstance(error, ConnectionRefusedError) for error in self._errors)
        if refused and all(map(_is_beside_owner, self._endpoints)):
            return OwnerUnreachedError(
                f"nobody listens any more where the object was served ({tried}): the process that "
                "owned it has ended, or its server is being started again",
                peer=str(self._endpoints[0]),
            )
        if refused and all(e.on_loopback and not e.gateway for e in self._endpoints):
            return DoorUnavailableError(
                "tcp",
                f"nobody listens on this machine where the key leads ({tried}): the owner's server "
                "or the tunnel has ended; or the owner is on another machine: forward the port to "
                f"it with ssh -L, and say so with {MAP_VARIABLE}",
            )
        return DoorUnavailableError(
            "tcp", f"nobody answers ({tried}); is the gateway, the network or the tunnel up?"
        )


def _is_beside_owner(endpoint: TcpEndpoint) -> bool:
    """Whether a server ends with the owner, so far as can be told.

    The end of a gateway or of a tunnel says nothing of the owner, nor does this machine's loopback,
    unless the key says that the owner is on it.
    """
    forwarded = endpoint.mapped or endpoint.name not in {"", endpoint.host}
    elsewhere = endpoint.on_loopback and endpoint.loopback != (loopback_tag() or None)
    return not (endpoint.gateway or forwarded or elsewhere)


class ConnectionPool:
    """Connections by endpoint. Thread-safe; each is used by one thread at a time.

    Args:
        stall: Seconds without a byte after which a connection counts as broken.
        cafile: Certificates of authorities that are trusted instead of the machine's.
    """

    def __init__(self, stall: float, cafile: str | None) -> None:
        self._stall = stall
        self._cafile = cafile
        self._idle: dict[TcpEndpoint, list[tuple[float, Connection]]] = {}
        self._failed: dict[TcpEndpoint, float] = {}
        self._round_trips: dict[TcpEndpoint, float] = {}
        self._lock = make_lock()
        self._closed = False
        _pools.add(self)

    def take(self, endpoints: Sequence[TcpEndpoint], deadline: float) -> Connection:
        """A connection to the first endpoint that answers.

        Raises:
            UnreachableError: None does.
            AccessDeniedError: Somebody else answers.
            DoorUnavailableError: What answers cannot be used.
        """
        now = time.monotonic()
        # Those that failed a moment ago come last.
        order = sorted(endpoints, key=lambda e: now - self._failed.get(e, -_AVOID) < _AVOID)
        if len(order) > 1 or not self._idle.get(order[0]):
            refusals: list[ProxyStoreHpcError] = []
            failures: list[tuple[TcpEndpoint, OSError]] = []
            for endpoint in order:
                try:
                    return self._take(endpoint, deadline)
                except ProxyStoreHpcError as error:
                    refusals.append(error)
                except OSError as error:
                    failures.append((endpoint, error))
                self._failed[endpoint] = time.monotonic()
            refusals.sort(key=lambda error: not isinstance(error, AccessDeniedError))
            if refusals:
                raise refusals[0]
            raise UnreachableError([e for e, _ in failures], [error for _, error in failures])
        try:
            return self._take(order[0], deadline)
        except OSError as error:
            if isinstance(error, ProxyStoreHpcError):
                raise
            raise UnreachableError(order, [error]) from error

    def at_hand(self, route: Sequence[TcpEndpoint]) -> list[tuple[float, Connection]]:
        """The idle connections to the first endpoint, and since when each of them is.

        Those idle for less than `QUIET` may be popped by whoever appends them again.
        """
        with self._lock:
            return self._idle.setdefault(route[0], [])

    def _take(self, endpoint: TcpEndpoint, deadline: float) -> Connection:
        while True:
            with self._lock:
                idle = self._idle.get(endpoint)
                if not idle:
                    break
                since, connection = idle.pop()
            if time.monotonic() - since < QUIET or connection.usable():
                return connection
            connection.close()
        left = deadline - time.monotonic()
        limit = min(max(left, 0.0), _ATTEMPT, self._stall)
        connection = Connection(endpoint, limit, self._stall, self._cafile)
        self._round_trips[endpoint] = connection.round_trip
        self._failed.pop(endpoint, None)
        return connection

    def give(self, connection: Connection) -> None:
        """Takes back a connection, and closes it if a reply is outstanding."""
        with self._lock:
            idle = self._idle.setdefault(connection.endpoint, [])
            ours = connection.process == os.getpid()  # not the parent's
            usable = connection.settled and not self._closed and ours
            if usable and len(idle) < _KEPT:
                idle.append((time.monotonic(), connection))
                return
        connection.close()

    def round_trip(self, endpoints: Sequence[TcpEndpoint], deadline: float) -> float:
        """Seconds of a round trip to where `take` leads."""
        connection = self.take(endpoints, deadline)
        self.give(connection)
        return connection.round_trip

    def forget(self) -> None:
        """In a forked child, closes what is the parent's."""
        for kept in self._idle.values():
            kept.clear()

    def close(self) -> None:
        """Closes the connections that are not in use; the others when they are given back."""
        with self._lock:
            self._closed = True
        for connections in self._idle.values():
            while connections:
                connections.pop()[1].close()
