"""Objects that no native door leads to: the TCP client of a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import (
    DoorUnavailableError,
    ObjectError,
    OperationTimeoutError,
    OwnerGoneError,
    OwnerUnreachedError,
    ProxyStoreHpcError,
    StoreClosedError,
)
from proxystore_hpc.key import Key
from proxystore_hpc.utils.locks import make_lock

if TYPE_CHECKING:
    from proxystore_hpc._core import Instance
    from proxystore_hpc.serialize import Layout
    from proxystore_hpc.tcp.client import TcpClient

DOOR = "tcp"

_PATIENCE = 10.0
_HOPELESS = 60.0
_MOST_HOPELESS = 1024

NATIVE_FAILED = (OwnerUnreachedError, DoorUnavailableError)
"""What native doors raise if they do not lead to an owner. The core remembers that for a minute."""


class Outside:
    """Asks the servers that keys name where native doors failed. Thread-safe.

    Args:
        instance: The native doors.
        allowed: Whether the store may use TCP.
        put_token: What servers want to be shown before they store something.
    """

    def __init__(self, instance: Instance, allowed: bool, put_token: bytes = b"") -> None:
        self._instance = instance
        self._hopeless: dict[bytes, float] = {}
        self._allowed = allowed
        self._put_token = put_token
        self._client: TcpClient | None = None
        self._closed = False
        self._lock = make_lock()

    def leads_to(self, key: Key) -> bool:
        """Whether the key names a server that may be asked."""
        return self._allowed and bool(key.outside)

    def ask(
        self,
        key: Key,
        failure: BaseException,
        action: Callable[[TcpClient, float], Any],
        began: float,
        timeout: float,
        again: Callable[[float], Any] | None = None,
    ) -> Any:
        """What `action` gets of the servers that a key names.

        Args:
            key: The key.
            failure: Why native doors did not lead there.
            action: Takes the client and the seconds left.
            began: When the operation began (`time.perf_counter`).
            timeout: Seconds that the whole operation may take.
            again: The operation through native doors, given the seconds left. It is done if the
                servers do not answer, and native doors were merely too slow in the beginning.

        Raises:
            DoorUnavailableError: Nor do the servers; or `failure`, if the key names none.
            OwnerGoneError: Nobody listens any more where its own server was.
            OperationTimeoutError: The native doors took all the time there was.
        """
        if not self.leads_to(key):
            raise failure
        left = timeout - (time.perf_counter() - began)
        if left <= 0 < timeout:
            raise OperationTimeoutError(
                f"{failure}; no time was left for TCP", timeout=timeout
            ) from failure
        try:
            return action(self._connected(), left)
        except (DoorUnavailableError, OwnerGoneError) as error:
            left = timeout - (time.perf_counter() - began)
            if again is not None and self._leads_natively(key, failure, left):
                return again(timeout - (time.perf_counter() - began))
            if isinstance(error, DoorUnavailableError):
                error = _of_both(failure, error)
            raise error from failure
        except ObjectError as error:
            error.key = key
            raise

    def ask_for_failed(
        self,
        keys: Sequence[Key],
        outcome: list[Any],
        action: Callable[[TcpClient, list[bytes], float], list[Any]],
        began: float,
        timeout: float,
        again: Callable[[list[bytes], float], list[Any]],
    ) -> None:
        """Puts what TCP gives in the places of a batch where native doors failed.

        Args:
            keys: The keys of the batch.
            outcome: What native doors gave for each; exceptions stand where they failed.
            action: Takes the client, keys and the seconds left; gives as many results, or raises.
            began: As for `ask`.
            timeout: As for `ask`.
            again: Takes keys and the seconds left; as for `ask`.
        """
        failed = [
            place
            for place, result in enumerate(outcome)
            if isinstance(result, NATIVE_FAILED) and self.leads_to(keys[place])
        ]
        if not failed:
            return
        packed = [keys[place].packed for place in failed]
        results = self.ask(
            keys[failed[0]],
            outcome[failed[0]],
            lambda client, left: action(client, packed, left),
            began,
            timeout,
            lambda left: again(packed, left),
        )
        slow: list[int] = []
        for place, result in zip(failed, results, strict=True):
            if isinstance(result, (DoorUnavailableError, OwnerGoneError)):
                left = timeout - (time.perf_counter() - began)
                if self._leads_natively(keys[place], outcome[place], left):
                    slow.append(place)
                elif isinstance(result, DoorUnavailableError):
                    result = _of_both(outcome[place], result)
            outcome[place] = result
        if slow:
            left = timeout - (time.perf_counter() - began)
            for place, result in zip(
                slow, again([keys[i].packed for i in slow], left), strict=True
            ):
                outcome[place] = result

    def _leads_natively(self, key: Key, failure: BaseException, left: float) -> bool:
        """Whether native doors lead to an owner after all, given more than their first second."""
        if isinstance(failure, OwnerUnreachedError) or left <= 0:
            return False
        now = time.monotonic()
        if now < self._hopeless.get(key.owner_id, now):
            return False
        try:
            self._instance.store_of(key.inside, min(left, _PATIENCE))
        except ProxyStoreHpcError:
            if len(self._hopeless) >= _MOST_HOPELESS:
                self._hopeless.clear()
            self._hopeless[key.owner_id] = time.monotonic() + _HOPELESS
            return False
        return True

    def put(
        self,
        near: Key,
        failure: BaseException,
        layout: Layout,
        ttl_ns: int,
        flags: int,
        began: float,
        timeout: float,
    ) -> bytes:
        """Stores an object at the owner of a key; returns its key.

        Args:
            near: A key of the owner's.
            failure: As for `ask`.
            layout: The object.
            ttl_ns: Time to live in nanoseconds, 0 for ever.
            flags: 1 pins the object.
            began: As for `ask`.
            timeout: As for `ask`.

        Raises:
            InvalidArgumentError: Only plain connections off this machine lead there.
            AccessDeniedError: The server allows no puts, or wants another token.
            StoreFullError: There is no room.
            DoorUnavailableError, OperationTimeoutError: As for `ask`.
        """
        from proxystore_hpc.tcp.endpoints import of_user, rewrite, unpack

        route = of_user(rewrite(unpack(near.outside)), near.user)
        # One that broke off is not repeated elsewhere, so it goes where it is most likely allowed.
        route = tuple(sorted(route, key=lambda e: (not e.keeps_secrets, not e.gateway)))
        stored: bytes = self.ask(
            near,
            failure,
            lambda client, left: client.put(
                layout.nbytes,
                layout.segments(),
                token=self._put_token,
                to=route[0],
                address=near.address,
                ttl_ns=ttl_ns,
                flags=flags,
                timeout=left,
            ),
            began,
            timeout,
        )
        return stored

    def _connected(self) -> TcpClient:
        with self._lock:
            if self._closed:
                raise StoreClosedError("the store is closed")
            if self._client is None:
                from proxystore_hpc.tcp.client import TcpClient

                self._client = TcpClient()
            return self._client

    def close(self) -> None:
        """Ends the connections. Idempotent."""
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
        if client is not None:
            client.close()


def _of_both(native: BaseException, tcp: DoorUnavailableError) -> DoorUnavailableError:
    """The error that says why neither TCP nor native doors lead to an owner."""
    stop = "" if tcp.reason.endswith(("?", ".")) else "."
    return DoorUnavailableError(tcp.door, f"{tcp.reason}{stop} Native doors: {native}")
