"""What processes share over time: results to come, and objects that live for their references."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from proxystore_hpc.exceptions import (
    ObjectError,
    ObjectEvictedError,
    ObjectMissingError,
    OperationTimeoutError,
    OwnerGoneError,
)
from proxystore_hpc.key import Key
from proxystore_hpc.proxy import Proxy
from proxystore_hpc.store.awaiting import Awaiting
from proxystore_hpc.store.core import DeserializerT, SerializerT, packed_bytes
from proxystore_hpc.store.future import Future, FutureFactory
from proxystore_hpc.store.holding import Mode
from proxystore_hpc.store.options import Options
from proxystore_hpc.store.policy import Policy, TimeToLive
from proxystore_hpc.store.ref import OwnedProxy, into_owned
from proxystore_hpc.store.utils import get_key

if TYPE_CHECKING:
    from proxystore_hpc._core import Completions

T = TypeVar("T")


class Sharing(Awaiting):
    """Futures and references of a store."""

    def future(
        self,
        *,
        evict: bool = False,
        serializer: SerializerT | None = None,
        deserializer: DeserializerT | None = None,
        polling_interval: float = 1,
        polling_backoff_factor: float = 1,
        polling_interval_limit: float | None = None,
        polling_timeout: float | None = None,
    ) -> Future[Any]:
        """A result that is set later, here or elsewhere, and that anybody can wait for.

        Args:
            evict: Evict the result when it is got for the first time.
            serializer: Makes bytes of the result, instead of the store's. It is pickled with the
                future, as is the next.
            deserializer: Makes the result of them.
            polling_interval: Accepted as in ProxyStore, as are the next two. Nobody polls: this
                process wakes those who wait.
            polling_backoff_factor: See there.
            polling_interval_limit: See there.
            polling_timeout: Seconds that a proxy of the future waits; `None` for as long as this
                store is open.
        """
        factory: FutureFactory[Any] = FutureFactory(
            self.new_key(),
            self.name,
            evict=evict,
            deserializer=deserializer,
            timeout=polling_timeout,
        )
        return Future(factory, serializer=serializer)

    def owned_proxy(
        self,
        obj: T,
        *,
        serializer: SerializerT | None = None,
        deserializer: DeserializerT | None = None,
        populate_target: bool | None = None,
        skip_nonproxiable: bool = True,
        policy: Policy | Iterable[Policy] | None = None,
        to: int | bytes | Key | None = None,
    ) -> OwnedProxy[T] | T:
        """Stores an object that lives for as long as references to it: see the guide *Ownership*.

        Args:
            obj: The object.
            serializer: As for `put`.
            deserializer: As for `proxy`.
            populate_target: As for `proxy`.
            skip_nonproxiable: Return `None` and booleans as they are.
            policy: As for `put`.
            to: As for `put`.

        Raises:
            NonProxiableTypeError: `obj` is `None` or a boolean and that is not skipped.
        """
        proxy = self._whole.proxy(
            obj,
            serializer=serializer,
            deserializer=deserializer,
            populate_target=populate_target,
            skip_nonproxiable=skip_nonproxiable,
            policy=policy,
            to=to,
        )
        if not issubclass(type(proxy), Proxy):
            return obj
        try:
            return into_owned(proxy)
        except BaseException:
            self.evict(get_key(proxy), force=True)
            raise

    def extend(self, key: Key, seconds: float | None, *, timeout: float | None = None) -> None:
        """Lets an object live for so many seconds from now on. See `extend_batch`."""
        self.extend_batch([key], seconds, timeout=timeout)

    def extend_batch(
        self, keys: Sequence[Key], seconds: float | None, *, timeout: float | None = None
    ) -> None:
        """Lets objects live for so many seconds from now on, asking each owner once.

        Args:
            keys: Their keys.
            seconds: Seconds, less than before or more; `None` for ever.
            timeout: Seconds, instead of the store's default.

        Raises:
            ObjectMissingError, ObjectEvictedError: One is not there; the others live on.
            OwnerGoneError: The process that held one has ended.
            DoorUnavailableError: Only TCP leads there.
        """
        self._check_open()
        for key in keys:
            self._reach(key)
        outcome = self._instance.extend(
            [packed_bytes(key) for key in keys],
            0 if seconds is None else TimeToLive(seconds).ttl_ns,
            self._timeout if timeout is None else timeout,
        )
        for key, error in zip(keys, outcome, strict=True):
            if error is not None:
                if isinstance(error, ObjectError):
                    error.key = key
                raise error

    @property
    def lease(self) -> float:
        """Seconds that a pickled reference may be on its way."""
        return Options.parse(self._config.options).lease

    def _hold(self, key: Key, number: int, mode: Mode, *, fresh: bool, lease: float = 0.0) -> None:
        """Tells the owner of an object about a reference, see `Hold`."""
        self._check_open()
        self._reach(key)
        try:
            self._instance.hold(key.packed, number, mode, fresh, round(lease * 1e9), self._timeout)
        except ObjectError as error:
            error.key = key
            raise

    @property
    def _releaser(self) -> Callable[[Any, int], None]:
        """Tells the owner of an object that a reference has ended. Waits for nobody."""
        release = self._instance.release
        return lambda key, number: release(key.packed, number)

    def _update(self, key: Key, obj: Any, number: int, serializer: SerializerT | None) -> Key:
        """Replaces an object, as a reference allows; gives the key of what it is now."""
        self._check_open()
        self.cache.evict(key)
        return self._set(key, self._plan(obj, serializer), claim=number)

    def _copy_of(self, key: Key) -> Key:
        """Stores the bytes of an object once more, in this process."""
        self._check_open()
        self._reach(key)
        lease = self._instance.get(key.packed, False, self._timeout)
        return Key(self._instance.put(len(lease), [(0, memoryview(lease))]))

    def _is_settled(self, key: Key) -> bool:
        """Whether there is an object, or there cannot be one any more."""
        (error,) = self._ask_about([key], self._timeout)
        if error is None or isinstance(error, (ObjectEvictedError, OwnerGoneError)):
            return True
        if isinstance(error, ObjectMissingError):
            return False
        raise error

    def _watch(
        self, key: Key, queue: Completions, token: object, patience: float
    ) -> Callable[[], bool] | None:
        """Lets a queue get a token when a key is settled, or after so many seconds.

        Returns:
            Tells then whether it is settled. `None` if nobody can tell the queue.
        """
        self._check_open()
        self._reach(key)
        if self.holds(key):
            self._instance.watch(key.packed, patience, queue, token)
            return lambda: self._is_settled(key)
        pending = self._instance.start_wait(key.packed, patience)
        if pending is None:
            return None
        pending.notify(queue, token)

        def ended() -> bool:
            try:
                pending.result()
            except OperationTimeoutError:
                return False
            except Exception:
                return True  # who asks for the result is told
            return True

        return ended
