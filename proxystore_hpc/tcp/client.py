"""Objects over TCP, as the native core's instance has them. Standard library only."""

from __future__ import annotations

import itertools
import os
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from proxystore_hpc.exceptions import (
    DoorUnavailableError,
    InvalidArgumentError,
    OperationTimeoutError,
    ProtocolError,
    ProxyStoreHpcError,
    StoreClosedError,
)
from proxystore_hpc.key import Key
from proxystore_hpc.tcp import wire
from proxystore_hpc.tcp.buffers import ReceivePool
from proxystore_hpc.tcp.connection import Connection
from proxystore_hpc.tcp.download import Download, Progress, Retry, attempt, download_in_parts
from proxystore_hpc.tcp.endpoints import MAP_VARIABLE, TcpEndpoint, of_user, rewrite, unpack
from proxystore_hpc.tcp.pool import QUIET, ConnectionPool
from proxystore_hpc.tcp.sending import Sending

T = TypeVar("T")

STREAMS = 4
_STREAMS_FROM = 8 << 20
_LONG_ROUND_TRIP = 5e-3
_WAIT_SLICE = 20.0
_PIPELINED = 1 << 20
_WINDOW = 32
_SMALL = 96 << 10
# Places in a packed key.
_KEY_HEAD = struct.Struct("<xB26xQ").unpack_from  # flags and length
_ADDRESS = slice(52, None)


class TcpClient:
    """Gets objects from the servers that their keys name. Thread-safe.

    Connections are kept between requests, and a request whose connection breaks goes on through
    another one where it stopped. All methods take packed keys, end by their timeout, and raise what
    the native doors raise for the same reasons.

    Args:
        timeout: Seconds after which an operation gives up, unless its call says otherwise.
        endpoints: Servers to ask, whatever the keys say; through `ssh -L` for example.
        streams: Connections for one large object at a time; by default 4 where a round trip takes
            long, else one.
        stall: Seconds without a byte of an object after which its connection counts as broken.
        cafile: Certificates of authorities (PEM) that are trusted instead of the machine's.
        pool_capacity: Bytes of memory that are kept to be received into, at most.
    """

    def __init__(
        self,
        *,
        timeout: float = 60.0,
        endpoints: Sequence[TcpEndpoint] | None = None,
        streams: int | None = None,
        stall: float = 15.0,
        cafile: str | None = None,
        pool_capacity: int = 256 << 20,
    ) -> None:
        self._timeout = timeout
        self._endpoints = None if endpoints is None else tuple(endpoints)
        self._streams = streams
        self._pool = ConnectionPool(stall, cafile)
        self._memory = ReceivePool(pool_capacity)
        self._routes: dict[bytes, tuple[TcpEndpoint, ...]] = {}
        self._at_hand: dict[bytes, list[tuple[float, Connection]]] = {}
        self._closed = False

    def close(self) -> None:
        """Closes the connections. What was received stays valid. Idempotent."""
        self._closed = True
        self._routes.clear()
        self._at_hand.clear()
        self._pool.close()
        self._memory.clear()

    def __enter__(self) -> TcpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading.

    def get(
        self,
        key: bytes,
        writable: bool = False,
        timeout: float | None = None,
        *,
        progress: Progress | None = None,
    ) -> memoryview:
        """The serialized object.

        Args:
            key: Its packed key.
            writable: Give memory that may be written; it is the caller's own in any case.
            timeout: Seconds, instead of the client's.
            progress: Called now and then, from any thread, with the bytes that have arrived and
                with their number in the end.

        Raises:
            ObjectMissingError, ObjectEvictedError: It is not there.
            OwnerGoneError: The process that held it has ended.
            OperationTimeoutError: It did not arrive in time.
            AccessDeniedError: The key is not valid, or the server is not who it should be.
            DoorUnavailableError: No server can be reached.
        """
        small = self._get_quickly(key, timeout)
        if small is None:
            received = self._read(key, 0, None, None, timeout, progress)
            return received if writable else received.toreadonly()
        if writable:
            return memoryview(bytearray(small))
        view = memoryview(small)
        return view if view.readonly else view.toreadonly()

    # After a wait the interpreter runs several times slower than in a loop, as the processor has
    # forgotten it: what counts here are instructions, and few calls.
    def _get_quickly(self, packed: bytes, timeout: float | None) -> bytes | bytearray | None:
        """A small object, through a connection that is at hand; `None` if it takes more."""
        idle = self._at_hand.get(packed[_ADDRESS])
        if not idle:
            return None
        flags, nbytes = _KEY_HEAD(packed)
        if flags or nbytes > _SMALL:
            return None
        now = time.monotonic()
        try:
            since, connection = idle.pop()
        except IndexError:  # another thread took it
            return None
        if now - since > QUIET:
            idle.append((since, connection))
            return None
        limit = self._timeout if timeout is None else max(timeout, 1e-3)
        try:
            received = connection.get_small(packed, nbytes, limit)
        except TimeoutError as error:
            connection.close()
            raise OperationTimeoutError(
                f"get of {Key(packed)!r} did not end within {limit:g} s", timeout=limit
            ) from error
        except ProtocolError:
            connection.close()
            raise
        except ProxyStoreHpcError:
            self._pool.give(connection)
            raise
        except OSError:
            connection.close()
            return None
        except BaseException:
            connection.close()
            raise
        idle.append((now, connection))
        if self._closed:
            self._pool.close()
        return received

    def get_range(
        self, key: bytes, offset: int, length: int, timeout: float | None = None
    ) -> memoryview:
        """Bytes of the serialized object. Raises as `get`, and `InvalidArgumentError`."""
        return self._read(key, offset, length, None, timeout, None).toreadonly()

    def read_into(
        self,
        key: bytes,
        offset: int,
        target: Any,
        timeout: float | None = None,
        *,
        progress: Progress | None = None,
    ) -> str:
        """Fills memory of the caller's with bytes of the serialized object; returns `"tcp"`.

        Nothing is written to it after the return. Raises as `get_range`.
        """
        memory = memoryview(target).cast("B")
        if memory.readonly:
            raise InvalidArgumentError("target: it cannot be written")
        self._read(key, offset, len(memory), memory, timeout, progress)
        return "tcp"

    def _read(
        self,
        packed: bytes,
        offset: int,
        length: int | None,
        target: memoryview | None,
        timeout: float | None,
        progress: Progress | None,
    ) -> memoryview:
        key = Key.parse(packed)
        route = self._route(key)
        nbytes = None if key.deferred else key.nbytes
        if offset < 0 or (length or 0) < 0:
            raise InvalidArgumentError(f"bytes {offset} to {offset + (length or 0)} are none")
        if nbytes is not None:
            length = nbytes - offset if length is None else length
            if offset + length > nbytes:
                raise InvalidArgumentError(
                    f"bytes {offset} to {offset + length} lie outside of {key!r}, which has "
                    f"{nbytes}"
                )
        retry = self._retry("get", key, timeout)
        if length is not None and length >= _STREAMS_FROM and not key.live:
            streams = self._streams_for(route, retry)
            if streams > 1:
                return self._read_in_parts(
                    key, route, offset, length, target, retry, progress, streams
                )
        part = Download(packed, offset, length, nbytes, target, self._memory.take, progress)
        attempt(self._pool, route, retry, lambda connection: part.run(connection, retry))
        assert part.target is not None
        return part.target

    def _streams_for(self, route: Sequence[TcpEndpoint], retry: Retry) -> int:
        if self._streams is not None:
            return self._streams
        round_trip = attempt(self._pool, route, retry, lambda c: c.round_trip)
        return STREAMS if round_trip > _LONG_ROUND_TRIP else 1

    def _read_in_parts(
        self,
        key: Key,
        route: Sequence[TcpEndpoint],
        offset: int,
        length: int,
        target: memoryview | None,
        retry: Retry,
        progress: Progress | None,
        streams: int,
    ) -> memoryview:
        whole = self._memory.take(length) if target is None else target
        done = [0] * streams

        def report(index: int) -> Progress | None:
            if progress is None:
                return None

            def tell(arrived: int, _: int) -> None:
                done[index] = arrived
                progress(sum(done), length)

            return tell

        bounds = [length * i // streams for i in range(streams + 1)]
        nbytes = None if key.deferred else key.nbytes
        parts = [
            Download(
                key.packed,
                offset + begin,
                end - begin,
                nbytes,
                whole[begin:end],
                self._memory.take,
                report(index),
            )
            for index, (begin, end) in enumerate(itertools.pairwise(bounds))
        ]
        download_in_parts(self._pool, route, retry, parts)
        return whole

    def get_batch(
        self, keys: Sequence[bytes], writable: bool = False, timeout: float | None = None
    ) -> list[memoryview | ProxyStoreHpcError]:
        """Several objects; small ones of one server are asked for all at once.

        Returns:
            For each key its object, or the exception that says why not, which is not raised.
        """
        retry = self._retry("get of several objects", None, timeout)
        results: list[memoryview | ProxyStoreHpcError | None] = [None] * len(keys)
        groups: dict[tuple[TcpEndpoint, ...], list[tuple[int, Key]]] = {}
        for index, packed in enumerate(keys):
            try:
                key = Key.parse(packed)
                if not key.deferred and key.nbytes <= _PIPELINED:
                    groups.setdefault(self._route(key), []).append((index, key))
            except ProxyStoreHpcError as error:
                results[index] = error
        for route, group in groups.items():
            if len(group) > 1:
                self._pipeline(route, group, retry, results)
        out: list[memoryview | ProxyStoreHpcError] = []
        for packed, result in zip(keys, results, strict=True):
            if result is None:
                try:
                    result = self._read(packed, 0, None, None, retry.left, None)
                except ProxyStoreHpcError as error:
                    result = error
            if isinstance(result, memoryview) and not writable:
                result = result.toreadonly()
            out.append(result)
        return out

    def _pipeline(
        self,
        route: Sequence[TcpEndpoint],
        group: Sequence[tuple[int, Key]],
        retry: Retry,
        results: list[memoryview | ProxyStoreHpcError | None],
    ) -> None:
        """Gets what it can; what is missing afterwards is asked for singly."""

        def action(connection: Connection) -> None:
            under_way: list[tuple[int, int, Download]] = []

            def receive_one() -> None:
                index, number, part = under_way.pop(0)
                try:
                    connection.receive_object(number, 0, part._place, part._moved, retry.deadline)
                    results[index] = part.target
                except ProtocolError:
                    raise
                except ProxyStoreHpcError as error:
                    results[index] = error

            for index, key in group:
                if results[index] is not None:
                    continue
                part = Download(key.packed, 0, None, key.nbytes, None, self._memory.take)
                request = wire.encode_get(wire.Get(key.packed, 0, wire.TO_THE_END, retry.left))
                number = connection.send(wire.GET, request, retry.allowance)
                under_way.append((index, number, part))
                if len(under_way) >= _WINDOW:
                    receive_one()
            while under_way:
                receive_one()

        try:
            attempt(self._pool, route, retry, action)
        except ProxyStoreHpcError as error:
            for index, _ in group:
                if results[index] is None:
                    results[index] = error

    # Asking.

    def exists(
        self, keys: Sequence[bytes], timeout: float | None = None
    ) -> list[ProxyStoreHpcError | None]:
        """For each key `None` if its object is there, else the exception that says why not."""
        return self._ask(wire.EXISTS, keys, False, timeout)

    def evict(
        self, keys: Sequence[bytes], force: bool = False, timeout: float | None = None
    ) -> list[ProxyStoreHpcError | None]:
        """Removes objects; for each key `None`, or the exception that says why not."""
        return self._ask(wire.EVICT, keys, force, timeout)

    def _ask(
        self, kind: int, keys: Sequence[bytes], force: bool, timeout: float | None
    ) -> list[ProxyStoreHpcError | None]:
        outcomes: list[ProxyStoreHpcError | None] = [None] * len(keys)
        groups: dict[tuple[TcpEndpoint, ...], list[int]] = {}
        for index, packed in enumerate(keys):
            try:
                groups.setdefault(self._route(Key.parse(packed)), []).append(index)
            except ProxyStoreHpcError as error:
                outcomes[index] = error
        for route, indices in groups.items():
            retry = self._retry("asking about objects", None, timeout)
            try:
                answers: list[ProxyStoreHpcError | None] = []
                for batch in wire.split_batch([keys[index] for index in indices]):
                    answers += self._ask_once(kind, route, batch, force, retry)
            except ProxyStoreHpcError as error:
                answers += [error] * (len(indices) - len(answers))
            for index, answer in zip(indices, answers, strict=True):
                outcomes[index] = answer
        return outcomes

    def _ask_once(
        self,
        kind: int,
        route: Sequence[TcpEndpoint],
        keys: list[bytes],
        force: bool,
        retry: Retry,
    ) -> list[ProxyStoreHpcError | None]:
        def action(connection: Connection) -> list[ProxyStoreHpcError | None]:
            request = wire.encode_batch(wire.Batch(keys, force, retry.left))
            number = connection.send(kind, request, retry.allowance)
            return wire.decode_outcomes(connection.receive(kind, number)[1], len(keys))

        return attempt(self._pool, route, retry, action)

    def wait_for(self, key: bytes, timeout: float | None = None) -> bytes:
        """Waits until an object is stored; returns its key, which then says where it lies.

        A timeout of 0 asks without waiting.

        Raises:
            OperationTimeoutError: It was not stored in time.
        """
        parsed = Key.parse(key)
        limit = self._timeout if timeout is None else timeout
        end = time.monotonic() + limit
        while True:
            patience = min(max(end - time.monotonic(), 0.0), _WAIT_SLICE)
            # What is waited for counts apart from the way there and back.
            retry = self._retry("waiting", parsed, patience + max(min(limit, 10.0), 5.0))
            try:
                return self._question(wire.WAIT, parsed, retry, patience, bytes)
            except OperationTimeoutError as error:
                if time.monotonic() >= end:
                    raise OperationTimeoutError(
                        f"{parsed!r} was not stored within {limit:g} s", timeout=limit
                    ) from error

    def store_of(self, key: bytes, timeout: float | None = None) -> tuple[str, str]:
        """Name and configuration (JSON) of the store that made a key."""
        parsed = Key.parse(key)
        retry = self._retry("asking for the store", parsed, timeout)
        return self._question(wire.STORE, parsed, retry, retry.left, wire.decode_stored)

    def _question(
        self,
        kind: int,
        key: Key,
        retry: Retry,
        patience: float,
        decode: Callable[[memoryview], T],
    ) -> T:
        def action(connection: Connection) -> T:
            number = connection.send(kind, wire.encode_ask(key.packed, patience), retry.allowance)
            return decode(connection.receive(kind, number)[1])

        return attempt(self._pool, self._route(key), retry, action)

    # Storing.

    def put(
        self,
        length: int,
        segments: Sequence[tuple[int, Any]],
        *,
        token: bytes,
        to: TcpEndpoint | None = None,
        address: bytes = b"",
        ttl_ns: int = 0,
        flags: int = 0,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> bytes:
        """Stores an object at an owner whose server allows that; returns its key.

        If the connection breaks, it goes on through another one with what the server lacks, and
        stores nothing twice.

        Args:
            length: Bytes of the serialized object.
            segments: Offsets in it, in their order, and the bytes there.
            token: What the server was told to accept.
            to: The server; the client's first endpoint by default.
            address: `Store.address` of the owner; needed at a gateway.
            ttl_ns: Time to live in nanoseconds, 0 for ever.
            flags: 1 pins the object.
            timeout: Seconds, instead of the client's.
            progress: As for `get`.

        Raises:
            InvalidArgumentError: The connection is plain and not on this machine.
            AccessDeniedError: The token is not the server's, or it allows no puts.
            StoreFullError: There is no room.
            DoorUnavailableError: No server can be reached, or not again after the connection broke.
            OperationTimeoutError: It was not stored in time. This and the one before say so where
                the object may have been stored, or still be.
        """
        route = self._endpoints if to is None else (to,)
        if not route:
            raise InvalidArgumentError("to: the server to put at is needed")
        if not all(endpoint.keeps_secrets for endpoint in route):
            raise InvalidArgumentError(
                "to: the put token is not sent through a plain connection off this machine, where "
                "others can read it: start the server without tls=False, or forward its port with "
                f"ssh -L and say so with {MAP_VARIABLE}"
            )
        self._check_open()
        retry = self._retry("put", None, timeout)
        request = wire.Put(token, address, length, ttl_ns, flags, retry.left, os.urandom(16))
        sending = Sending(request, segments, progress)
        try:
            return attempt(self._pool, route, retry, lambda c: sending.run(c, retry))
        except ProxyStoreHpcError as error:
            told = sending.told(error)
            if told is None:
                raise
            raise told from error

    # Ways.

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError("the client is closed")

    def _retry(self, what: str, key: Key | None, timeout: float | None) -> Retry:
        name = what if key is None else f"{what} of object {key.object_id} of owner {key.owner}"
        return Retry(name, max(self._timeout if timeout is None else timeout, 1e-3))

    def _route(self, key: Key) -> tuple[TcpEndpoint, ...]:
        self._check_open()
        address = key.packed[_ADDRESS]
        route = self._routes.get(address)
        if route is None:
            route = self._endpoints
            if route is None:
                route = rewrite(unpack(key.outside))
            if not route:
                raise DoorUnavailableError(
                    "tcp",
                    "the key names no server: its owner serves nobody off its cluster; create its "
                    "store with tcp= or gateway=, or pass endpoints=",
                )
            route = of_user(route, key.user)
            if len(self._routes) < 1024:
                self._routes[address] = route
                self._at_hand[address] = self._pool.at_hand(route)
        return route
