"""Every error that this package raises on purpose.

All derive from [`ProxyStoreHpcError`][proxystore_hpc.exceptions.ProxyStoreHpcError], survive
pickling with their attributes, and are cheap to import. Errors of the C++ core arrive through
[`from_code`][proxystore_hpc.exceptions.from_code], the only place where its codes are translated.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AccessDeniedError",
    "BaseRefProxyError",
    "BulkClosedError",
    "ConfigError",
    "ConnectorError",
    "DoorError",
    "DoorUnavailableError",
    "EngineClosedError",
    "ForkedError",
    "FutureCancelledError",
    "FutureDoneError",
    "InvalidArgumentError",
    "InvalidKeyError",
    "KeeperError",
    "LifetimeEndedError",
    "MissingLibraryError",
    "MultiConnectorError",
    "MutableBorrowError",
    "NoMemoryOfItsOwnError",
    "NonProxiableTypeError",
    "NotDeferrableError",
    "ObjectChangedError",
    "ObjectError",
    "ObjectEvictedError",
    "ObjectMissingError",
    "ObjectPinnedError",
    "OffsetGoneError",
    "OperationTimeoutError",
    "OwnerGoneError",
    "OwnerUnreachedError",
    "PeerError",
    "PeerLostError",
    "PeerRestartedError",
    "ProtocolError",
    "ProxyResolveError",
    "ProxyResolveMissingKeyError",
    "ProxyStoreFactoryError",
    "ProxyStoreHpcError",
    "ReferenceInvalidError",
    "ReferenceNotOwnedError",
    "RemoteError",
    "RpcCancelledError",
    "RpcError",
    "SerializationError",
    "StoreClosedError",
    "StoreError",
    "StoreExistsError",
    "StoreFullError",
    "StreamError",
    "SystemCallError",
    "TopicClosedError",
    "TopicFullError",
    "UnknownProviderError",
    "UnknownRpcError",
    "from_code",
]


def _rebuild(
    cls: type[ProxyStoreHpcError], args: tuple[Any, ...], state: dict[str, Any]
) -> ProxyStoreHpcError:
    # Constructors format their message from parts; unpickling must not format it again.
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ProxyStoreHpcError(Exception):
    """Base of all errors of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class ConfigError(ProxyStoreHpcError, ValueError):
    """A configuration has an unknown field, or a value of the wrong kind."""


class InvalidArgumentError(ProxyStoreHpcError, ValueError):
    """An argument is outside what the operation accepts."""


class InvalidKeyError(InvalidArgumentError):
    """The key is malformed, truncated, or belongs to another job."""

    def __init__(self, message: str, *, key: object = None) -> None:
        super().__init__(message)
        self.key = key


class SerializationError(ProxyStoreHpcError):
    """An object cannot be turned into bytes, or bytes cannot be turned into an object."""


class OperationTimeoutError(ProxyStoreHpcError, TimeoutError):
    """An operation did not end within its deadline.

    Attributes:
        timeout: The deadline that was exceeded, in seconds, or `None` if unknown.
    """

    def __init__(self, message: str, *, timeout: float | None = None) -> None:
        super().__init__(message)
        self.timeout = timeout


class ForkedError(ProxyStoreHpcError):
    """A store or connection of the parent was used in a forked child."""


class SystemCallError(ProxyStoreHpcError):
    """The operating system refused something that no other error describes.

    Attributes:
        errno: The error number, or `None` if unknown.
    """

    def __init__(self, message: str, *, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class MissingLibraryError(ProxyStoreHpcError, ImportError):
    """A library is not installed that only a part of this package needs.

    Attributes:
        extra: Extra of this package that brings it.
    """

    def __init__(self, message: str, *, extra: str = "") -> None:
        super().__init__(message)
        self.extra = extra


class StoreError(ProxyStoreHpcError):
    """Base of the errors of a store."""


class StoreExistsError(StoreError):
    """A store of this name is already registered in this process."""


class StoreClosedError(StoreError):
    """The store was closed before the operation began."""


class StoreFullError(StoreError):
    """The object does not fit into the memory that the store may use.

    Attributes:
        requested: Bytes asked for.
        capacity: Bytes that the store may use.
        used: Bytes in use.
        largest_free: Length in bytes of the largest free block.
    """

    def __init__(
        self,
        message: str,
        requested: int = 0,
        capacity: int = 0,
        used: int = 0,
        largest_free: int = 0,
    ) -> None:
        super().__init__(message)
        self.requested = requested
        self.capacity = capacity
        self.used = used
        self.largest_free = largest_free


class KeeperError(StoreError):
    """The keeper of this node, which a store asked for, cannot be had."""


class ProxyStoreFactoryError(StoreError):
    """The proxy was not created by a store, so no store or key belongs to it."""


class NonProxiableTypeError(StoreError, TypeError):
    """A proxy of this type would be misleading: `None` and `bool` are compared by identity."""


class ObjectError(StoreError):
    """Base of the errors about one stored object.

    Attributes:
        key: The object's key, or `None` where it is not known.
    """

    def __init__(self, message: str, *, key: object = None) -> None:
        super().__init__(message)
        self.key = key


class ObjectMissingError(ObjectError, LookupError):
    """The owner holds no object of this key and knows of none that it had."""


class ObjectEvictedError(ObjectError, LookupError):
    """The object existed and was evicted, or its time to live ended."""


class ObjectChangedError(ObjectError):
    """Live memory kept changing while it was read, until the deadline."""


class ObjectPinnedError(ObjectError):
    """The object is pinned, or a view of it is alive, so it cannot be taken away."""


class FutureDoneError(StoreError):
    """The future has its result already; it keeps that one."""


class FutureCancelledError(StoreError):
    """The future was cancelled before it had a result."""


class BaseRefProxyError(StoreError):
    """Base of the errors about references to objects (`proxystore_hpc.store.ref`)."""


class MutableBorrowError(BaseRefProxyError):
    """Other references to the object are in the way: end them first."""


class ReferenceNotOwnedError(BaseRefProxyError, RuntimeError):
    """The operation needs another kind of reference, or its owner."""


class ReferenceInvalidError(BaseRefProxyError):
    """The reference went on to another process, or has ended. Use the one that is there."""


class LifetimeEndedError(StoreError, RuntimeError):
    """The lifetime has ended; nothing can be added to it."""


class ProxyResolveError(ProxyStoreHpcError):
    """A proxy's factory failed.

    Attributes:
        cause: The exception that the factory raised.
    """

    def __init__(self, message: str, cause: BaseException) -> None:
        super().__init__(message)
        self.cause = cause


class ProxyResolveMissingKeyError(ObjectMissingError):
    """The object that a proxy stands for is not in its store.

    Attributes:
        key: Key of the object.
        store_type: Type of the store that was asked.
        store_name: Name of the store that was asked.
        owner: The process that should hold the object, as text, or `None` if unknown.
    """

    def __init__(
        self, key: object, store_type: type[Any], store_name: str, owner: str | None = None
    ) -> None:
        held_by = f", which {owner} should hold," if owner else ""
        super().__init__(
            f"the object of key {key!r}{held_by} is not in {store_type.__name__} {store_name!r}. "
            "It was probably evicted while proxies of it were still in use: evict it later, or "
            "create the proxy without evict=True.",
            key=key,
        )
        self.store_type = store_type
        self.store_name = store_name
        self.owner = owner


class ConnectorError(StoreError):
    """A connector could not store, read or evict; what was to be stored is not there.

    Attributes:
        connector: The connector, as text, or `None` if unknown.
        key: Key of the object, or `None` if it is not about a single one.
    """

    def __init__(self, message: str, *, connector: str | None = None, key: object = None) -> None:
        super().__init__(message)
        self.connector = connector
        self.key = key


class MultiConnectorError(ConnectorError):
    """No connector of several takes the object, or the one that holds it is not to be had here."""


class NotDeferrableError(ConnectorError, NotImplementedError):
    """The connector gives no keys before what they stand for is there, which futures need."""


class NoMemoryOfItsOwnError(ConnectorError, InvalidArgumentError, AttributeError):
    """Only a store without a connector can do this, in memory of its own."""


class PeerError(ProxyStoreHpcError):
    """Base of the errors about another process.

    Attributes:
        peer: The other process, as text (host, pid or address), or `None` if unknown.
    """

    def __init__(self, message: str, *, peer: str | None = None) -> None:
        super().__init__(message)
        self.peer = peer


class OwnerGoneError(PeerError):
    """The process that owns the object has ended, and its objects with it."""


class OwnerUnreachedError(OwnerGoneError):
    """Nobody answers for the owner: it has ended, or there is no way to it from here."""


class PeerLostError(PeerError):
    """The connection to a process broke while it was in use."""


class AccessDeniedError(PeerError):
    """A process refused access: a wrong capability, secret or user."""


class ProtocolError(PeerError):
    """A process sent something that does not follow the protocol."""


class PeerRestartedError(PeerError):
    """Another process answers at the peer's address: it was started again. Look it up anew."""


class RpcError(ProxyStoreHpcError):
    """Base of the errors of remote procedure calls.

    Attributes:
        peer: The other process, as text, or `None` if unknown.
    """

    def __init__(self, message: str, *, peer: str | None = None) -> None:
        super().__init__(message)
        self.peer = peer


class UnknownRpcError(RpcError, LookupError):
    """The peer has registered no procedure of this name."""


class UnknownProviderError(RpcError, LookupError):
    """The peer has the procedure, but not for this provider id."""


class RpcCancelledError(RpcError):
    """The call was cancelled before it was answered."""


class BulkClosedError(RpcError, LookupError):
    """The memory is not exposed any more: its handle was closed where it was made."""


class EngineClosedError(RpcError):
    """The engine, here or at the peer, was closed before the call ended."""


class RemoteError(RpcError):
    """A handler failed with what cannot be raised here as it is.

    Attributes:
        type_name: Class of the exception there, with its module; empty if it was not in Python.
        message: Its text.
        remote_traceback: Where it was raised, as the peer's Python printed it.
    """

    def __init__(
        self,
        message: str,
        *,
        type_name: str = "",
        remote_traceback: str = "",
        peer: str | None = None,
    ) -> None:
        super().__init__(": ".join(filter(None, (type_name, message))), peer=peer)
        self.type_name = type_name
        self.message = message
        self.remote_traceback = remote_traceback


class StreamError(ProxyStoreHpcError):
    """Base of the errors of streams.

    Attributes:
        topic: The topic that it is about, or `None` if unknown.
    """

    def __init__(self, message: str, *, topic: str | None = None) -> None:
        super().__init__(message)
        self.topic = topic


class TopicClosedError(StreamError):
    """The topic was closed, so it takes no more items."""


class TopicFullError(StreamError, TimeoutError):
    """Nobody made room in a topic in time.

    Attributes:
        items: Items in the topic that a group of consumers still has to work off.
        nbytes: Bytes of their messages.
        timeout: Seconds that were waited.
    """

    def __init__(
        self,
        message: str,
        *,
        topic: str | None = None,
        items: int = 0,
        nbytes: int = 0,
        timeout: float | None = None,
    ) -> None:
        super().__init__(message, topic=topic)
        self.items = items
        self.nbytes = nbytes
        self.timeout = timeout


class OffsetGoneError(StreamError, LookupError):
    """The topic does not hold the item of this offset any more, or not yet.

    Attributes:
        oldest: Offset of the oldest item that it holds.
        end: Offset of the next item to come.
    """

    def __init__(
        self, message: str, *, topic: str | None = None, oldest: int = 0, end: int = 0
    ) -> None:
        super().__init__(message, topic=topic)
        self.oldest = oldest
        self.end = end


class DoorError(ProxyStoreHpcError):
    """Base of the errors about a transport."""


class DoorUnavailableError(DoorError):
    """A transport that was asked for cannot be used.

    Attributes:
        door: Name of the transport, such as `"shm"` or `"ucx"`; empty if none could be used.
        reason: Why it cannot be used, and how to get it.
    """

    def __init__(self, door: str, reason: str) -> None:
        super().__init__(f"the {door} door cannot be used: {reason}" if door else reason)
        self.door = door
        self.reason = reason


_BY_CODE: dict[str, type[ProxyStoreHpcError]] = {
    "invalid": InvalidArgumentError,
    "invalid_key": InvalidKeyError,
    "not_found": ObjectMissingError,
    "evicted": ObjectEvictedError,
    "owner_gone": OwnerGoneError,
    "unreached": OwnerUnreachedError,
    "peer_lost": PeerLostError,
    "timed_out": OperationTimeoutError,
    "full": StoreFullError,
    "closed": StoreClosedError,
    "denied": AccessDeniedError,
    "protocol": ProtocolError,
    "unavailable": DoorUnavailableError,
    "changed": ObjectChangedError,
    "pinned": ObjectPinnedError,
    "borrowed": MutableBorrowError,
    "moved": ReferenceInvalidError,
    "forked": ForkedError,
    "bulk_closed": BulkClosedError,
    "engine_closed": EngineClosedError,
    "failed": RemoteError,
    "no_method": UnknownRpcError,
    "no_provider": UnknownProviderError,
    "cancelled": RpcCancelledError,
    "replaced": PeerRestartedError,
    "system": SystemCallError,
}


def from_code(code: str, message: str, **details: Any) -> ProxyStoreHpcError:
    """Translates a status of the C++ core into an exception, which the caller raises.

    Args:
        code: Name of the status, such as `"not_found"`. An unknown one gives the base class.
        message: What happened, to what, and what to do.
        details: Attributes for the exception (`key`, `peer`, `door`, `requested`, `errno`, ...).
    """
    cls = _BY_CODE.get(code, ProxyStoreHpcError)
    if cls is InvalidArgumentError and "key" in details:
        cls = InvalidKeyError
    error: ProxyStoreHpcError
    if cls is DoorUnavailableError:
        error = DoorUnavailableError(str(details.pop("door", "")), message)
    else:
        error = cls(message)
    error.__dict__.update(details)
    return error
