"""What a server can serve: objects of one owner, or of those that a gateway may reach.

Strangers make up keys. Of what a key says only the object's number and the capability are used, and
the owner is asked about them before anything is read: where the object lies is what the owner says,
since a process of its node could read anything there.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import logging
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxystore_hpc.exceptions import (
    AccessDeniedError,
    InvalidArgumentError,
    InvalidKeyError,
    ObjectError,
    OwnerGoneError,
    ProxyStoreHpcError,
)
from proxystore_hpc.key import Key
from proxystore_hpc.tcp.limits import Staging
from proxystore_hpc.tcp.wire import DENIED, TO_THE_END

if TYPE_CHECKING:
    from proxystore_hpc._core import Instance, Lease

logger = logging.getLogger(__name__)

_OBJECT_NBYTES = 52
_CAPABILITY = slice(36, 52)
_HOST_LENGTH = 74
_ANYONE = bytes(16)
_NO_OUTSIDE = b"\0\0"
_ADDRESS_NBYTES = _HOST_LENGTH - _OBJECT_NBYTES
_MAPPED_DOORS = frozenset({"self", "shm"})
_PIECE = 4 << 20
_KNOWN = 8192
_TEND = 5.0

PRIVATE_NETWORKS = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
)
"""Where a gateway finds owners unless it is told otherwise; those of its node, by their sockets.

Loopback and link-local addresses are those of services that trust who can reach them.
"""

UNREACHED = (
    "nobody answers for the object's owner from here: it has ended, or cannot be reached, or "
    "is too busy"
)
"""What a gateway says of owners to whom no valid key has led yet, whatever answered there."""

_UNVERIFIED = 10.0
_SHORTEST = 2.0


@dataclass(frozen=True)
class Located:
    """An object whose capability was checked.

    Attributes:
        packed: Its key, as its owner gave it.
        nbytes: Length in bytes.
        live: Whether it is registered memory, whose contents change.
        owner_id: Its owner.
    """

    packed: bytes
    nbytes: int
    live: bool
    owner_id: bytes


class Owners:
    """Which owners are served.

    Args:
        own: `Store.address` of the only owner; `None` for any in `networks` and on this node.
        networks: Networks of a gateway's owners.

    Raises:
        InvalidArgumentError: A network is none.
    """

    def __init__(self, own: bytes | None, networks: Sequence[str] = PRIVATE_NETWORKS) -> None:
        self.whole = own
        self.own = None if own is None else own[: _ADDRESS_NBYTES + 1 + own[_ADDRESS_NBYTES]]
        try:
            self._networks = [ipaddress.ip_network(network) for network in networks]
        except ValueError as error:
            raise InvalidArgumentError(f"allow: {error}") from error

    def admit(self, packed: bytes) -> Key:
        """The key with an address that may be reached.

        Raises:
            InvalidKeyError: The bytes are no key.
            AccessDeniedError: Its owner is not served here.
        """
        Key.parse(packed)
        address = self.address(packed[_OBJECT_NBYTES:])
        # There is no other way from here, so the owner is given all the time there is.
        return Key(packed[:_OBJECT_NBYTES] + address + _NO_OUTSIDE)

    def address(self, address: bytes) -> bytes:
        """The part of an owner's address that says where it is, with a number for its host.

        Raises:
            AccessDeniedError: It is not served here.
        """
        if self.own is not None:
            if address[:16] != self.own[:16]:
                raise AccessDeniedError(DENIED)
            return self.own
        if address[:16] == _ANYONE:  # to the native core this means whoever is there
            raise AccessDeniedError(DENIED)
        host_nbytes = address[_ADDRESS_NBYTES]
        host = address[_ADDRESS_NBYTES + 1 : _ADDRESS_NBYTES + 1 + host_nbytes]
        if host:
            host = self._number_of(host.decode("ascii", "replace")).encode()
        return address[:_ADDRESS_NBYTES] + bytes([len(host)]) + host

    def _number_of(self, host: str) -> str:
        # The number is what is connected to: a name could mean something else the next time.
        try:
            number = socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0]
        except (OSError, UnicodeError):
            raise AccessDeniedError(DENIED) from None
        if not any(ipaddress.ip_address(number) in network for network in self._networks):
            raise AccessDeniedError(DENIED)
        return str(number)


class Objects:
    """Objects by the keys that clients show. Thread-safe.

    Attributes:
        verified: Keys, to the last byte, whose capability was checked. They are found by a keyed
            hash, so that the time of looking tells nothing of them.

    Args:
        instance: Reaches the owners through the native doors.
        owners: Which of them are served.
        staging: Bounds the memory for what must be read in one piece.
    """

    def __init__(self, instance: Instance, owners: Owners, staging: Staging) -> None:
        self.instance = instance
        self._owners = owners
        self._staging = staging
        self._known: OrderedDict[tuple[bytes, int], tuple[bytes, Located]] = OrderedDict()
        self.verified: dict[bytes, Located] = {}
        self._mapped: dict[bytes, Located] = {}
        self._reached: OrderedDict[bytes, None] = OrderedDict()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._readers = ThreadPoolExecutor(32, "pshpc-relay")

    def tend(self) -> None:
        """Until `close`, notices the end of owners whose memory is mapped here, and lets go of it.

        What is mapped could be read for ever, and would take memory as long.
        """
        while not self._closed.wait(_TEND):
            try:
                self._tend_once()
            except Exception:  # or what is mapped would stay for ever
                logger.exception("owners could not be looked after")

    def _tend_once(self) -> None:
        for owner_id, located in list(self._mapped.items()):
            with contextlib.suppress(ProxyStoreHpcError):
                if isinstance(self.instance.exists([located.packed], 1.0)[0], OwnerGoneError):
                    self._mapped.pop(owner_id, None)
                    self._forget_owner(owner_id)

    def _forget_owner(self, owner_id: bytes) -> None:
        with self._lock:
            for place in [place for place in self._known if place[0] == owner_id]:
                del self._known[place]
            self.verified.clear()

    def close(self) -> None:
        """Ends the threads."""
        self._closed.set()
        self._readers.shutdown(wait=False, cancel_futures=True)

    def locate(self, packed: bytes, patience: float) -> Located:
        """Checks a capability, and finds the object.

        Raises:
            AccessDeniedError: The capability is not valid, whether or not there is an object.
            ObjectError, PeerError: The owner has none, or cannot be asked.
        """
        exact = self.verified.get(packed)
        if exact is not None:
            return exact
        located = self._locate(packed, patience)
        if len(self.verified) >= _KNOWN:
            self.verified.clear()
        self.verified[packed] = located
        return located

    def _locate(self, packed: bytes, patience: float) -> Located:
        key = self._admit(packed)
        place, capability = (key.owner_id, key.object_id), key.packed[_CAPABILITY]
        known = self._known.get(place)
        # A capability is valid for ever. A wrong one is always asked about, so that the time of the
        # answer tells nothing either.
        if known is not None and hmac.compare_digest(known[0], capability):
            return known[1]
        with self._veiled(key, patience) as left:
            if key.deferred:
                self._check(key, left)
            found = Key(self.instance.wait_for(key.packed, left))
        return self._note(key, found)

    def _check(self, key: Key, patience: float) -> None:
        error = self.instance.exists([key.packed], patience)[0]
        if error is not None:
            raise error

    def _note(self, key: Key, found: Key) -> Located:
        where = found.packed[:_OBJECT_NBYTES] + key.packed[_OBJECT_NBYTES:]
        located = Located(where, found.nbytes, found.live, key.owner_id)
        with self._lock:
            self._known[key.owner_id, key.object_id] = (found.packed[_CAPABILITY], located)
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return located

    def wait_for(self, packed: bytes, patience: float) -> bytes:
        """The key of an object once it is there. Errors as of `locate`, and a timeout."""
        key = self._admit(packed)
        with self._veiled(key, patience) as left:
            return self.instance.wait_for(key.packed, left)

    def store_of(self, packed: bytes, patience: float) -> tuple[str, str]:
        """Name and configuration of the store of a key. Errors as of `locate`."""
        key = self._admit(packed)
        with self._veiled(key, patience) as left:
            with contextlib.suppress(ObjectError):  # its capability is valid all the same
                self._check(key, left)
            return self.instance.store_of(key.packed, left)

    def reached(self, packed: bytes) -> bool:
        """Whether a valid key has led to its owner before. Raises as `Owners.admit`."""
        return self._is_reached(self._admit(packed))

    def _admit(self, packed: bytes) -> Key:
        began = time.monotonic()
        try:
            return self._owners.admit(packed)
        except AccessDeniedError:
            self._even(began)
            raise

    def _even(self, began: float) -> None:
        """Waits until a gateway may refuse a request that began then.

        How long it took tells which addresses, ports and names of its network there are.
        """
        if self._owners.own is None:
            now = time.monotonic()
            left = began + _SHORTEST - now
            self._closed.wait(left if left > 0 else max(began + _UNVERIFIED - now, 0.0))

    def _is_reached(self, key: Key) -> bool:
        return self._owners.own is not None or key.packed[_OBJECT_NBYTES:] in self._reached

    def _note_reached(self, key: Key) -> None:
        with self._lock:
            self._reached[key.packed[_OBJECT_NBYTES:]] = None
            while len(self._reached) > _KNOWN:
                self._reached.popitem(last=False)

    @contextlib.contextmanager
    def _veiled(self, key: Key, patience: float) -> Iterator[float]:
        """Seconds to ask an owner; tells nothing of an address to which no valid key has led.

        A gateway would else say which ports of a network it can reach are open.
        """
        if self._is_reached(key):
            yield patience
            return
        began = time.monotonic()
        try:
            yield max(min(patience, _UNVERIFIED), _SHORTEST)
        except ObjectError:
            self._note_reached(key)
            raise
        except AccessDeniedError:
            self._even(began)
            raise
        except ProxyStoreHpcError as error:
            self._even(began)
            logger.debug("an owner that no valid key has led to: %s", error)
            raise OwnerGoneError(UNREACHED) from None
        self._note_reached(key)

    def ask(
        self, packed: Sequence[bytes], patience: float, *, evict: bool = False, force: bool = False
    ) -> list[ProxyStoreHpcError | None]:
        """Whether objects exist, or evicts them; what is wrong for each."""
        began, refused = time.monotonic(), False
        outcomes: list[ProxyStoreHpcError | None] = [None] * len(packed)
        admitted: list[tuple[int, Key]] = []
        for index, key in enumerate(packed):
            try:
                admitted.append((index, self._owners.admit(key)))
            except (AccessDeniedError, InvalidKeyError) as error:
                outcomes[index] = error
                refused = refused or isinstance(error, AccessDeniedError)
        keys = [key.packed for _, key in admitted]
        if not all(self._is_reached(key) for _, key in admitted):
            patience = max(min(patience, _UNVERIFIED), _SHORTEST)
        if evict:
            answers = self.instance.evict(keys, force, patience)
        else:
            answers = self.instance.exists(keys, patience)
        for (index, asked), answer in zip(admitted, answers, strict=True):
            outcomes[index] = answer
            if self._is_reached(asked):
                continue
            if answer is None or isinstance(answer, ObjectError):
                self._note_reached(asked)
                continue
            refused = True
            if not isinstance(answer, AccessDeniedError):
                outcomes[index] = OwnerGoneError(UNREACHED)
        if refused:
            self._even(began)
        return outcomes

    def read(
        self, located: Located, offset: int, length: int, patience: float
    ) -> Iterator[tuple[memoryview, bool]]:
        """Bytes of an object, as views of where they lie if they lie on this node.

        Yields:
            Views, and whether more follow. Nothing is torn in live memory: it comes in one piece.

        Raises:
            InvalidArgumentError: The object has no such bytes.
            ObjectError, PeerError: It is gone, or its owner.
        """
        if length == TO_THE_END and offset <= located.nbytes:
            length = located.nbytes - offset
        if offset + length > located.nbytes:
            raise InvalidArgumentError(
                f"bytes {offset} to {offset + length} lie outside of the object, which has "
                f"{located.nbytes}"
            )
        try:
            if located.live:
                with self._staged(length, patience):
                    yield memoryview(self._range(located, offset, length, patience)), False
            elif length <= _PIECE or located.owner_id in self._mapped:
                yield memoryview(self._range(located, offset, length, patience)), False
            else:
                yield from self._in_pieces(located, offset, length, patience)
        except ObjectError:
            self.forget(located)
            raise

    def forget(self, located: Located) -> None:
        """Asks the owner again the next time."""
        with self._lock:
            self._known.pop((located.owner_id, Key(located.packed).object_id), None)
            self.verified.clear()

    def _range(self, located: Located, offset: int, length: int, patience: float) -> Lease:
        lease = self.instance.get_range(located.packed, offset, length, patience)
        if lease.door in _MAPPED_DOORS and located.owner_id not in self._mapped:
            self._mapped[located.owner_id] = located
        return lease

    @contextlib.contextmanager
    def _staged(self, nbytes: int, patience: float) -> Iterator[None]:
        self._staging.take(nbytes, patience)
        try:
            yield
        finally:
            self._staging.give(nbytes)

    def _in_pieces(
        self, located: Located, offset: int, length: int, patience: float
    ) -> Iterator[tuple[memoryview, bool]]:
        first = self._range(located, offset, _PIECE, patience)
        if first.door in _MAPPED_DOORS:
            yield memoryview(self._range(located, offset, length, patience)), False
            return
        end = offset + length
        lease: Lease = first
        while True:
            offset += len(lease)
            following: Future[Lease] | None = None
            if offset < end:
                # Read while the one before it is sent.
                following = self._readers.submit(
                    self._range, located, offset, min(_PIECE, end - offset), patience
                )
            yield memoryview(lease), following is not None
            if following is None:
                return
            lease = following.result()

    def put(
        self,
        address: bytes,
        staged: memoryview,
        ttl_ns: int,
        flags: int,
        patience: float,
    ) -> bytes:
        """Stores an object at its owner; returns its key."""
        where = self.put_address(address)
        return self.instance.put_to(
            where, len(staged), [(0, staged)], ttl_ns, flags, max(patience, 1.0)
        )

    def put_address(self, address: bytes) -> bytes:
        """The owner that is to store an object: the one that is served, or one that is named.

        Raises:
            AccessDeniedError: It is not served here.
            InvalidArgumentError: None is named, and there is none by default.
        """
        if self._owners.whole is not None and address[:16] in (b"", self._owners.whole[:16]):
            return self._owners.whole
        if len(address) <= _ADDRESS_NBYTES:
            raise InvalidArgumentError("to: a gateway needs the address of the store to put into")
        host_end = _ADDRESS_NBYTES + 1 + address[_ADDRESS_NBYTES]
        return self._owners.address(address) + address[host_end:]
