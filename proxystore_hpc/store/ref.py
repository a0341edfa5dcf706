"""Ownership and borrowing: proxies whose object lives for as long as they do, in any process.

Every reference counts where the object lies, so the rules hold between processes: one owner; any
number of `RefProxy`, or one `RefMutProxy`. When the last of them is dropped, or its process ends,
the object is evicted. Pickling a reference *moves* it; the copy that stays is of no use any more.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, TypeVar, cast

from proxystore_hpc.exceptions import (
    BaseRefProxyError,
    InvalidArgumentError,
    MutableBorrowError,
    ProxyStoreFactoryError,
    ProxyStoreHpcError,
    ReferenceInvalidError,
    ReferenceNotOwnedError,
)
from proxystore_hpc.proxy import Proxy
from proxystore_hpc.store.core import SerializerT
from proxystore_hpc.store.factory import StoreFactory
from proxystore_hpc.store.holding import Hold, Mode

__all__ = [
    "BaseRefProxy",
    "BaseRefProxyError",
    "MutableBorrowError",
    "OwnedProxy",
    "RefMutProxy",
    "RefProxy",
    "ReferenceInvalidError",
    "ReferenceNotOwnedError",
    "borrow",
    "clone",
    "into_owned",
    "mut_borrow",
    "update",
]

T = TypeVar("T")

_get = object.__getattribute__
_set = object.__setattr__


class PrivateFactory(StoreFactory[T]):
    """Gets an object of its own, whose arrays can be written."""

    __slots__ = ()

    writable: ClassVar[bool] = True


class BaseRefProxy(Proxy[T]):
    """What the kinds of references have in common.

    Args:
        factory: Where the object is.
        cache_defaults: As for `Proxy`.
        target: As for `Proxy`.

    Raises:
        MutableBorrowError: Other references to the object are in the way.
        ObjectEvictedError, OwnerGoneError: There is no object.
    """

    __slots__ = ("__proxy_hold__",)

    __proxy_mode__: ClassVar[Mode]
    __proxy_hold__: Hold | BaseException

    def __init__(
        self,
        factory: StoreFactory[T],
        *,
        cache_defaults: bool = False,
        target: T | None = None,
    ) -> None:
        mode = _get(self, "__proxy_mode__")
        _set(self, "__proxy_hold__", Hold.make(factory.get_store(), factory.key, mode))
        super().__init__(factory, cache_defaults=cache_defaults, target=target)

    @property
    def __proxy_wrapped__(self) -> T:
        hold = _get(self, "__proxy_hold__")
        if type(hold) is not Hold:
            raise ReferenceInvalidError(f"the reference could not be taken over: {hold}") from hold
        if not hold.held:
            raise ReferenceInvalidError(
                "the reference has gone to another process, as it was pickled, or it has ended: "
                "make another one with borrow()"
            )
        return super().__proxy_wrapped__

    @__proxy_wrapped__.setter
    def __proxy_wrapped__(self, target: T) -> None:
        _set(self, "__proxy_target__", target)

    @__proxy_wrapped__.deleter
    def __proxy_wrapped__(self) -> None:
        object.__delattr__(self, "__proxy_target__")

    def __copy__(self) -> NoReturn:
        raise NotImplementedError("references are not copied: borrow() or clone() its owner")

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        raise NotImplementedError("references are not copied: borrow() or clone() its owner")

    def __reduce__(self) -> tuple[Any, ...]:
        hold = _hold_of(self)
        plain = super().__reduce__()
        hold.lend(_factory_of(self).get_store())
        self._left()
        return _arrive, (int(hold.mode), hold.number, *plain[:2])

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return self.__reduce__()

    def _left(self) -> None:
        """It is on its way to another process."""


class OwnedProxy(BaseRefProxy[T]):
    """The owner of an object: there is one at most, and its end is the object's.

    The object lives on for as long as it is borrowed, and is evicted then. No atexit handler is
    needed: the process that counts the references sees the end of the others.
    """

    __slots__ = ()

    __proxy_mode__ = Mode.OWN


class _Borrowed(BaseRefProxy[T]):
    """A borrowed reference; in the process of its owner it keeps that alive.

    Args:
        factory: Where the object is.
        cache_defaults: As for `Proxy`.
        owner: The owner, if it is in this process.
        target: As for `Proxy`.
    """

    __slots__ = ("__proxy_owner__",)

    __proxy_owner__: OwnedProxy[T] | None

    def __init__(
        self,
        factory: StoreFactory[T],
        *,
        cache_defaults: bool = False,
        owner: OwnedProxy[T] | None = None,
        target: T | None = None,
    ) -> None:
        _set(self, "__proxy_owner__", owner)
        super().__init__(factory, cache_defaults=cache_defaults, target=target)


class RefProxy(_Borrowed[T]):
    """An immutable reference. Others may be there, but no mutable one."""

    __slots__ = ()

    __proxy_mode__ = Mode.SHARED


class RefMutProxy(_Borrowed[T]):
    """The one mutable reference. What it resolves to is private, until `update` stores it."""

    __slots__ = ()

    __proxy_mode__ = Mode.EXCLUSIVE

    def _left(self) -> None:
        owner = _get(self, "__proxy_owner__")
        if owner is not None:
            forget_target(owner)  # it may change elsewhere


_KINDS: dict[Mode, type[BaseRefProxy[Any]]] = {
    kind.__proxy_mode__: kind for kind in (OwnedProxy, RefProxy, RefMutProxy)
}


def _arrive(
    mode: int, number: int, rebuild: Callable[..., Proxy[Any]], arguments: tuple[Any, ...]
) -> BaseRefProxy[Any]:
    """The reference that a pickle stands for. If it cannot be had, its use says why."""
    plain = rebuild(*arguments)
    kind = _KINDS[Mode(mode)]
    factory = _factory_of(plain)
    hold: Hold | BaseException
    try:
        hold = Hold.take(factory.get_store(), factory.key, Mode(mode), number)
    except ProxyStoreHpcError as error:
        hold = error
    arrived: BaseRefProxy[Any] = _build(kind, factory, hold, plain)
    return arrived


def _build(
    kind: type[BaseRefProxy[T]],
    factory: StoreFactory[T],
    hold: Hold | BaseException,
    like: Proxy[T],
    *,
    populate: bool = False,
    owner: OwnedProxy[T] | None = None,
) -> Any:
    if issubclass(kind, RefMutProxy):
        factory = PrivateFactory(factory.key, factory.place, deserializer=factory.deserializer)
    proxy = kind.__new__(kind)
    _set(proxy, "__proxy_hold__", hold)
    if issubclass(kind, _Borrowed):
        _set(proxy, "__proxy_owner__", owner)
    Proxy.__init__(proxy, factory)
    _set(proxy, "__proxy_default_class__", _get(like, "__proxy_default_class__"))
    _set(proxy, "__proxy_default_hash__", _get(like, "__proxy_default_hash__"))
    if populate and like.__proxy_resolved__:
        _set(proxy, "__proxy_target__", _get(like, "__proxy_target__"))
    return proxy


def _factory_of(proxy: Proxy[T]) -> StoreFactory[T]:
    factory = _get(proxy, "__proxy_factory__")
    if not isinstance(factory, StoreFactory):
        raise ProxyStoreFactoryError(
            f"the proxy was not created by a store: its factory is a {type(factory).__name__}"
        )
    return factory


def _hold_of(proxy: BaseRefProxy[Any]) -> Hold:
    hold = _get(proxy, "__proxy_hold__")
    if type(hold) is not Hold:
        raise ReferenceInvalidError(f"the reference could not be taken over: {hold}") from hold
    if not hold.held:
        raise ReferenceInvalidError("the reference has gone to another process, or has ended")
    return hold


def _owned(proxy: object, what: str) -> OwnedProxy[Any]:
    # By the type: isinstance would resolve other proxies.
    if not issubclass(type(proxy), OwnedProxy):
        raise ReferenceNotOwnedError(f"{what} needs an OwnedProxy, not a {type(proxy).__name__}")
    owned = cast("OwnedProxy[Any]", proxy)
    _hold_of(owned)
    return owned


def forget_target(proxy: BaseRefProxy[Any]) -> None:
    """Lets a reference resolve anew when it is used next."""
    if proxy.__proxy_resolved__:
        object.__delattr__(proxy, "__proxy_target__")


def _borrow(proxy: OwnedProxy[T], kind: type[BaseRefProxy[T]], populate: bool) -> Any:
    owned = _owned(proxy, "borrowing")
    factory = _factory_of(owned)
    hold = Hold.make(factory.get_store(), factory.key, kind.__proxy_mode__)
    return _build(kind, factory, hold, owned, populate=populate, owner=owned)


def borrow(proxy: OwnedProxy[T], *, populate_target: bool = True) -> RefProxy[T]:
    """An immutable reference to the object of an owner.

    Args:
        proxy: The owner.
        populate_target: The reference is resolved if the owner is, and shares its object.

    Raises:
        ReferenceNotOwnedError: It is no owner.
        ReferenceInvalidError: It went to another process.
        MutableBorrowError: There is a mutable reference, in whatever process.
    """
    return cast("RefProxy[T]", _borrow(proxy, RefProxy, populate_target))


def mut_borrow(proxy: OwnedProxy[T], *, populate_target: bool = True) -> RefMutProxy[T]:
    """The mutable reference to the object of an owner.

    Args:
        proxy: The owner.
        populate_target: As for `borrow`.

    Raises:
        ReferenceNotOwnedError, ReferenceInvalidError: As for `borrow`.
        MutableBorrowError: There is a reference already, in whatever process.
    """
    return cast("RefMutProxy[T]", _borrow(proxy, RefMutProxy, populate_target))


def clone(proxy: OwnedProxy[T]) -> OwnedProxy[T]:
    """A copy of the stored object in this process' memory, and its owner.

    A resolved owner's object is copied deeply.

    Raises:
        ReferenceNotOwnedError, ReferenceInvalidError: As for `borrow`.
        StoreFullError: There is no room for it.
    """
    owned = _owned(proxy, "cloning")
    factory = _factory_of(owned)
    store = factory.get_store()
    target = copy.deepcopy(_get(owned, "__proxy_target__")) if owned.__proxy_resolved__ else None
    key = store._copy_of(factory.key)
    again: StoreFactory[T] = StoreFactory(key, factory.place, deserializer=factory.deserializer)
    copied = cast("OwnedProxy[T]", _build(OwnedProxy, again, _own(again), owned))
    if owned.__proxy_resolved__:
        _set(copied, "__proxy_target__", target)
    return copied


def into_owned(proxy: Proxy[T], *, populate_target: bool = True) -> OwnedProxy[T]:
    """The owner of the object of an ordinary proxy, whose other copies lose it with the owner.

    Args:
        proxy: A proxy that a store made. Its `evict` is unset.
        populate_target: As for `borrow`.

    Raises:
        InvalidArgumentError: It is a reference already.
        ProxyStoreFactoryError: No store made it.
        MutableBorrowError: The object has an owner.
        ObjectEvictedError, OwnerGoneError: There is no object.
    """
    if issubclass(type(proxy), BaseRefProxy):
        raise InvalidArgumentError("only an ordinary proxy can be made an owner")
    factory = _factory_of(proxy)
    factory.evict = False
    hold = Hold.make(factory.get_store(), factory.key, Mode.OWN)
    return cast("OwnedProxy[T]", _build(OwnedProxy, factory, hold, proxy, populate=populate_target))


def update(proxy: OwnedProxy[T] | RefMutProxy[T], *, serializer: SerializerT | None = None) -> None:
    """Stores the object as it is here now; whoever gets it from now on, gets this.

    Those who hold an earlier value keep it. Does nothing if the reference is not resolved.

    Args:
        proxy: The mutable reference, or the owner if there is none.
        serializer: Used instead of the store's.

    Raises:
        ReferenceNotOwnedError: It is an immutable reference, or none.
        ReferenceInvalidError: It went to another process.
        MutableBorrowError: It is the owner, and borrowed.
        StoreFullError: There is no room beside the earlier value.
    """
    if not issubclass(type(proxy), (OwnedProxy, RefMutProxy)):
        raise ReferenceNotOwnedError(
            f"only an OwnedProxy or a RefMutProxy can change its object, not a "
            f"{type(proxy).__name__}"
        )
    hold = _hold_of(proxy)
    if not proxy.__proxy_resolved__:
        return
    factory = _factory_of(proxy)
    store = factory.get_store()
    target = _get(proxy, "__proxy_target__")
    factory.key = store._update(factory.key, target, hold.number, serializer)
    owner = _get(proxy, "__proxy_owner__") if issubclass(type(proxy), RefMutProxy) else None
    if owner is not None:
        _factory_of(owner).key = factory.key
        if owner.__proxy_resolved__ and _get(owner, "__proxy_target__") is not target:
            forget_target(owner)


def _own(factory: StoreFactory[Any]) -> Hold:
    store = factory.get_store()
    try:
        return Hold.make(store, factory.key, Mode.OWN)
    except BaseException:
        store.evict(factory.key)
        raise
