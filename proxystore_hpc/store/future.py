"""Results that other processes wait for: futures over keys that are made before their objects."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from proxystore_hpc.exceptions import (
    FutureCancelledError,
    FutureDoneError,
    InvalidArgumentError,
    ObjectError,
    ObjectEvictedError,
    OperationTimeoutError,
    PeerError,
    ProxyStoreHpcError,
    SerializationError,
)
from proxystore_hpc.key import Key
from proxystore_hpc.proxy import Proxy, unpickle
from proxystore_hpc.serialize import plan
from proxystore_hpc.store.core import BUILT_IN, SerializerT
from proxystore_hpc.store.factory import StoreFactory
from proxystore_hpc.store.policy import RAISED

if TYPE_CHECKING:
    from proxystore_hpc._core import Completions

__all__ = ["Future", "FutureFactory", "ResultFactory"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# A watch is renewed, so that one which nobody is interested in any more ends.
_WATCH = 30.0


class ResultFactory(Protocol[T_co]):
    """What a future stands on: the factory of its proxies, which a kind of store provides."""

    def __call__(self) -> T_co:
        """The result, for a proxy: waits for it."""

    def done(self) -> bool:
        """Whether there is a result, or there cannot be one any more."""

    def fetch(self, timeout: float) -> tuple[T_co | None, BaseException | None]:
        """The result, or what is stored as an exception; waits so many seconds for it."""

    def settle(self, obj: Any, serializer: SerializerT | None, raised: bool) -> None:
        """Stores the result, or an exception in its place. Once: then `InvalidArgumentError`."""

    def watch(self, queue: Completions, token: object) -> Callable[[], bool] | None:
        """Lets `queue` get `token` when `done` may have changed; the callable then tells whether.

        `None` if nobody can tell: then `done` is asked again and again.
        """


class FutureFactory(StoreFactory[T]):
    """Waits for an object when it is called, and gets it.

    Args:
        key: Key of the object, which may not be there yet.
        store_name: Name of its store.
        evict: Evict the object once it was got.
        deserializer: Used instead of the store's own.
        timeout: Seconds that a call waits; `None` for as long as the owner lives.
    """

    __slots__ = ("timeout",)

    def __init__(
        self,
        key: Key,
        store_name: str,
        *,
        evict: bool = False,
        deserializer: Callable[[Any], T] | None = None,
        timeout: float | None = None,
    ) -> None:
        super().__init__(key, store_name, evict=evict, deserializer=deserializer)
        self.timeout = timeout

    def __reduce__(self) -> tuple[Any, ...]:
        special = (self.evict, self.deserializer, self.timeout)
        return future_factory_of, (self.key.packed, self.store_name, *special)

    def __reduce_proxy__(self, *defaults: Any) -> tuple[Any, ...]:
        special = (self.evict, self.deserializer, self.timeout)
        return future_proxy_of, (self.key.packed, self.store_name, special, *defaults)

    def resolve(self) -> T:
        """Waits for the object and gets it.

        Raises:
            OperationTimeoutError: It was not there in time.
            OwnerGoneError, ObjectEvictedError: It cannot be any more.
            Exception: It was stored as the result.
        """
        value, error = self.fetch(math.inf if self.timeout is None else self.timeout)
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def done(self) -> bool:
        """Whether there is an object or an exception, or there cannot be one any more."""
        return self.get_store()._is_settled(self.key)

    def fetch(self, timeout: float) -> tuple[T | None, BaseException | None]:
        """The object or an exception in its place; waits so many seconds for it."""
        store = self.get_store()
        key = store.located(self.key, timeout=timeout)
        if key.raised:
            return None, store.get_or_raise(key, deserializer=BUILT_IN)
        obj: T = store.get_or_raise(key, deserializer=self.deserializer)
        if self.evict:
            store.evict(self.key)
        return obj, None

    def settle(self, obj: Any, serializer: SerializerT | None, raised: bool) -> None:
        """Stores the object, or an exception in its place."""
        store = self.get_store()
        if not raised:
            store.set(self.key, obj, serializer=serializer)
            return
        try:
            layout = plan(obj)
        except SerializationError:
            layout = plan(ProxyStoreHpcError(f"{type(obj).__name__}: {obj}"))
        store._set(self.key, layout, RAISED)

    def watch(self, queue: Completions, token: object) -> Callable[[], bool] | None:
        """See `ResultFactory.watch`."""
        return self.get_store()._watch(self.key, queue, token, _WATCH)


def future_factory_of(
    packed: bytes,
    store_name: str,
    evict: bool,
    deserializer: Callable[[Any], Any] | None,
    timeout: float | None,
) -> FutureFactory[Any]:
    """The factory that a pickle stands for."""
    return FutureFactory(
        Key(packed), store_name, evict=evict, deserializer=deserializer, timeout=timeout
    )


def future_proxy_of(
    packed: bytes, store_name: str, special: tuple[bool, Any, float | None], *defaults: Any
) -> Proxy[Any]:
    """The proxy that a pickle stands for."""
    return unpickle(future_factory_of(packed, store_name, *special), *defaults)


class Future(Generic[T]):
    """A result that one process sets, once, and any process waits for.

    Made by `Store.future`. It is kept by the process that made it, its *owner*, which wakes those
    who wait: nobody polls. A pickle of it leads to the same result, so either side of it may be
    elsewhere. All methods may be called from any thread; they release the GIL while they wait.

    Args:
        factory: Where the result is.
        serializer: Used by `set_result` instead of the store's.
    """

    def __init__(self, factory: ResultFactory[T], *, serializer: SerializerT | None = None) -> None:
        self._factory = factory
        self._serializer = serializer
        self._outcome: tuple[T | None, BaseException | None] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _future_of, (type(self), self._factory, self._serializer)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._factory!r}>"

    def done(self) -> bool:
        """Whether it has a result, an exception, was cancelled, or its owner ended."""
        return self._outcome is not None or self._factory.done()

    def proxy(self) -> Proxy[T]:
        """A proxy of the result, which waits for it when it is used.

        What was stored as an exception, and the end of the owner, raise `ProxyResolveError` there.
        """
        return Proxy(self._factory)

    def result(self, timeout: float | None = None) -> T:
        """The result; waits for it.

        Args:
            timeout: Seconds; `None` for as long as the owner lives.

        Raises:
            OperationTimeoutError: There was none in time.
            FutureCancelledError: It was cancelled.
            OwnerGoneError, ObjectEvictedError: There cannot be one any more.
            Exception: What `set_exception` was given.
        """
        value, error = self._settled(timeout)
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What `result` would raise, `None` if nothing; waits as `result`.

        Raises:
            OperationTimeoutError: There was no result in time.
            FutureCancelledError: It was cancelled.
        """
        error = self._settled(timeout)[1]
        if isinstance(error, FutureCancelledError):
            raise error
        return error

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        try:
            return isinstance(self._settled(0)[1], FutureCancelledError)
        except (OperationTimeoutError, ObjectError, PeerError):
            return False  # not done, or evicted, or its owner ended

    def failed(self) -> bool:
        """Whether it is done, and has no result."""
        if not self.done():
            return False
        try:
            return self._settled(_WATCH)[1] is not None
        except (ObjectError, PeerError):
            return True

    def set_result(self, obj: T) -> None:
        """Sets the result, and wakes who waits for it. If it fails, nothing is set.

        Raises:
            FutureDoneError: It has a result, or an exception.
            FutureCancelledError: It was cancelled.
            OwnerGoneError: Its owner has ended.
        """
        self._settle(obj, raised=False)

    def set_exception(self, exception: BaseException) -> None:
        """Sets an exception, which `result` raises. One that no pickle holds is told as text.

        Raises:
            FutureDoneError, FutureCancelledError, OwnerGoneError: As for `set_result`.
        """
        self._settle(exception, raised=True)

    def cancel(self) -> bool:
        """Lets everybody who waits, and who sets the result, get `FutureCancelledError`.

        Returns:
            Whether it is cancelled now; false if it had a result before.
        """
        try:
            self._settle(FutureCancelledError("the future was cancelled"), raised=True)
        except FutureDoneError:
            return False
        except FutureCancelledError:
            pass
        return True

    def _settled(self, timeout: float | None) -> tuple[T | None, BaseException | None]:
        if self._outcome is None:
            self._outcome = self._factory.fetch(math.inf if timeout is None else timeout)
        return self._outcome

    def _settle(self, obj: Any, *, raised: bool) -> None:
        try:
            self._factory.settle(obj, self._serializer, raised)
        except (InvalidArgumentError, ObjectEvictedError) as error:
            if not self.done():
                raise
            if self.cancelled():
                raise FutureCancelledError(
                    "the future was cancelled, so nobody waits for its result"
                ) from error
            raise FutureDoneError(
                "the future has a result, which it keeps, or it was evicted"
            ) from error


def _future_of(kind: type[Future[T]], factory: ResultFactory[T], serializer: Any) -> Future[T]:
    return kind(factory, serializer=serializer)
