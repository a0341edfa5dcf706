"""Executors whose arguments and results travel as proxies."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import queue
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from time import monotonic
from typing import Any, Generic, TypeVar

from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    OperationTimeoutError,
    PeerError,
    SerializationError,
    StoreClosedError,
    StoreFullError,
)
from proxystore_hpc.proxy import Proxy
from proxystore_hpc.serialize import plan
from proxystore_hpc.store.config import StoreConfig
from proxystore_hpc.store.registry import get_or_create_store, get_store, register_store
from proxystore_hpc.store.utils import get_key

__all__ = ["ProxyAlways", "ProxyLarger", "ProxyNever", "ProxyType", "StoreExecutor"]

logger = logging.getLogger(__name__)

R = TypeVar("R")
_SMALL = frozenset({bool, int, float, complex, type(None)})


class ProxyAlways:
    """Has everything proxied."""

    def __call__(self, item: Any) -> bool:
        """True."""
        return True


class ProxyNever:
    """Has nothing proxied."""

    def __call__(self, item: Any) -> bool:
        """False."""
        return False


class ProxyType:
    """Has objects of some types proxied.

    Args:
        types: The types.
    """

    def __init__(self, *types: type) -> None:
        self.types = types

    def __call__(self, item: Any) -> bool:
        """Whether it is of one of the types."""
        return isinstance(item, self.types)


class ProxyLarger:
    """Has large objects proxied.

    What has no `nbytes` and is no bytes or text is pickled to learn its size, but its large buffers
    are not copied. What cannot be serialized is small.

    Args:
        nbytes: Bytes of the smallest object that is proxied.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes

    def __call__(self, item: Any) -> bool:
        """Whether it is as large."""
        if type(item) in _SMALL:
            return False
        if isinstance(item, (bytes, bytearray, str)):
            return len(item) >= self.nbytes
        nbytes = getattr(item, "nbytes", None)
        if isinstance(nbytes, int):
            return nbytes >= self.nbytes
        try:
            return plan(item).nbytes >= self.nbytes
        except SerializationError:
            return False


class _Task(Generic[R]):
    """The function as workers call it."""

    def __init__(
        self,
        function: Callable[..., R],
        config: StoreConfig,
        address: bytes | None,
        should_proxy: Callable[[Any], bool],
        owned: bool,
    ) -> None:
        self.owned = owned
        self.function = function
        self.config = config
        self.address = address
        self.should_proxy = should_proxy
        # Dask and Parsl name tasks by it.
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self.function(*args, **kwargs)
        if _is_proxy(result) or not self.should_proxy(result):
            return result
        store = get_store(self.config.name)
        if store is None:
            store = get_or_create_store(self.config)
        make = store.owned_proxy if self.owned else store.proxy
        options: dict[str, Any] = {"populate_target": False, "skip_nonproxiable": True}
        if self.address is None or self.address == store.address:
            return make(result, **options)
        try:
            # Where the caller is: a worker may end before its result is used.
            return make(result, to=self.address, **options)
        except (PeerError, StoreFullError, OperationTimeoutError) as error:
            logger.warning(
                "a result of %s stays with the worker that made it, for as long as that lives: %s",
                self.__name__,
                error,
            )
            return make(result, **options)


class _Enclosed:
    """A call whose result travels in a list: Parsl would take a proxy for a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", "task")

    def __call__(self, *args: Any, **kwargs: Any) -> list[Any]:
        return [self.function(*args, **kwargs)]


def _opened(enclosed: Future[list[Any]]) -> Future[Any]:
    """The future of what is in the list that a future gives. It cannot be cancelled."""
    outer: Future[Any] = Future()
    outer.set_running_or_notify_cancel()

    # Parsl keeps its futures, with their callbacks, for some time; results shall not last as long.
    cell = [outer]

    def end(inner: Future[list[Any]]) -> None:
        outer = cell.pop()
        error = inner.exception()
        if error is None:
            outer.set_result(inner.result().pop())
        else:
            outer.set_exception(error)

    enclosed.add_done_callback(end)
    return outer


def _run_chunk(task: _Task[Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    return [task(*args) for args in chunk]


class _Input:
    """A proxied argument, and how many tasks still need it."""

    __slots__ = ("key", "lock", "obj", "proxy", "uses")

    def __init__(self, obj: Any, proxy: Any) -> None:
        self.obj = obj
        self.proxy = proxy
        self.key = get_key(proxy)
        self.uses = 0
        self.lock = threading.Lock()

    def done(self) -> bool:
        """Notes the end of a use; whether that was the last."""
        with self.lock:
            self.uses -= 1
            return self.uses == 0


class StoreExecutor(Executor):
    """Wraps an executor; arguments and results that `should_proxy` chooses travel as proxies.

    Positional and named arguments are looked at, not what is in them. A task that uses a proxied
    argument gets the object where it runs, straight from this process. An argument is evicted when
    its task is done; a result is stored in the memory of this process, wherever it was computed,
    so that workers may end. Thread-safe.

    It works over executors of `concurrent.futures`, `mpi4py.futures`, Parsl's, and over a Dask
    `Client`. Workers need no preparation: one that has no store of the name opens one.

    Args:
        executor: Runs the tasks; it is shut down with this one.
        store: Where arguments and results are kept. It is registered if none of its name is.
        should_proxy: Whether to proxy an object; it travels to the workers. By default nothing is.
        ownership: Results are `OwnedProxy`: when one is dropped, its object is evicted. If false,
            they are proxies, and it is for you to evict them. Dask keeps results as pickles that
            it may load twice, which ownership does not allow: pass false there.
        close_store: Close the store when this is shut down and its tasks are done. Proxies cannot
            be resolved then.
    """

    def __init__(
        self,
        executor: Any,
        store: Any,
        should_proxy: Callable[[Any], bool] | None = None,
        *,
        ownership: bool = True,
        close_store: bool = True,
    ) -> None:
        self.executor = executor
        self.store = store
        self.should_proxy: Callable[[Any], bool] = should_proxy or ProxyNever()
        self.ownership = ownership
        self.close_store = close_store
        library = type(executor).__module__.partition(".")[0]
        self._is_dask = library == "distributed"
        self._is_parsl = library == "parsl"
        self._lock = threading.Lock()
        self._running = 0
        self._shut_down = False
        if get_store(store.name) is None:
            # Proxies that are used here, and tasks that run in threads, find it by name.
            register_store(store)
        config = store.config()
        if config.connector is None:
            # Workers read from it; they do not serve or listen as it does.
            config = dataclasses.replace(
                config, tcp=None, gateway=None, capacity=None, auto_register=False, metrics=False
            )
        self._config: StoreConfig = config
        self._address: bytes | None = getattr(store, "address", None)

    def submit(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> Any:
        """Has `function(*args, **kwargs)` run.

        Args:
            function: The function. Where it is pickled, so must it be.
            args: Its arguments.
            kwargs: Its named arguments, and what the executor's own `submit` takes by name.

        Returns:
            The executor's future. Its result is a proxy if `should_proxy` chooses it.

        Raises:
            StoreFullError: The store has no room for an argument.
            SerializationError: An argument cannot be stored.
            RuntimeError: It was shut down.
        """
        inputs: list[_Input] = []
        try:
            ready = [self._proxied(arg, inputs) for arg in args]
            named = {name: self._proxied(arg, inputs) for name, arg in kwargs.items()}
            return self._start(self._task(function), ready, named, inputs)
        except BaseException:
            self._release(inputs)
            raise

    def map(  # type: ignore[override]
        self,
        function: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        unordered: bool = False,
        **options: Any,
    ) -> Iterator[Any]:
        """Has `function(*items)` run for the items of the iterables, side by side.

        Items are proxied, each by itself. One that several tasks in a row get, such as those of
        `itertools.repeat`, is stored once. Items are evicted as their tasks are done; leaving the
        iterator cancels those that have not begun.

        Args:
            function: The function.
            iterables: Its arguments; they are read to the end of the shortest at once.
            timeout: Seconds from now after which the iterator raises.
            chunksize: Calls in one task.
            unordered: Give results as they come.
            options: What the executor's `submit` takes by name.

        Returns:
            An iterator over the results.

        Raises:
            TimeoutError: From the iterator: a result did not come in time.
            Exception: From the iterator: what a call raised.
        """
        if chunksize < 1:
            raise InvalidArgumentError(f"chunksize: one call at least, not {chunksize}")
        deadline = None if timeout is None else monotonic() + timeout
        task = self._task(function)
        futures: list[Any] = []
        before: list[_Input | None] = [None] * len(iterables)
        chunk: list[tuple[Any, ...]] = []
        inputs: list[_Input] = []

        def send() -> None:
            nonlocal chunk, inputs
            if chunk:
                if chunksize == 1:
                    futures.append(self._start(task, list(chunk[0]), dict(options), inputs))
                else:
                    call: list[Any] = [task, chunk]
                    futures.append(self._start(_run_chunk, call, dict(options), inputs))
            chunk, inputs = [], []

        try:
            for items in zip(*iterables, strict=False):
                chunk.append(tuple(self._proxied_again(items, before, inputs)))
                if len(chunk) == chunksize:
                    send()
            send()
        except BaseException:
            self._release(inputs)
            for future in futures:
                future.cancel()
            raise
        finally:
            self._release([item for item in before if item is not None])
        return self._results(futures, deadline, timeout, unordered, chunksize > 1)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shuts the executor down, and closes the store when all tasks are done.

        Args:
            wait: Wait for the tasks.
            cancel_futures: Cancel those that have not begun.
        """
        if isinstance(self.executor, Executor):
            try:
                self.executor.shutdown(wait=wait, cancel_futures=cancel_futures)
            except TypeError:  # executors of before Python 3.9
                self.executor.shutdown(wait=wait)
        elif hasattr(self.executor, "close"):
            self.executor.close()
            wait = True
        else:
            warnings.warn(
                f"a {type(self.executor).__name__} has neither shutdown() nor close(): end it "
                "yourself",
                RuntimeWarning,
                stacklevel=2,
            )
        with self._lock:
            self._shut_down = True
            done = wait or not self._running
        if done and self.close_store:
            self.store.close()

    def _task(self, function: Callable[..., R]) -> _Task[R]:
        return _Task(function, self._config, self._address, self.should_proxy, self.ownership)

    def _start(
        self, function: Any, args: list[Any], kwargs: dict[str, Any], inputs: list[_Input]
    ) -> Any:
        if self._shut_down:
            raise RuntimeError("the executor was shut down: it takes no more tasks")
        if self._is_dask:
            # Tasks of equal arguments are not the same: each gets proxies of its own.
            kwargs.setdefault("pure", False)
        with self._lock:
            self._running += 1
        try:
            if self._is_parsl:
                future = _opened(self.executor.submit(_Enclosed(function), *args, **kwargs))
            else:
                future = self.executor.submit(function, *args, **kwargs)
        except BaseException:
            self._ended()
            raise
        future.add_done_callback(lambda _: self._done(inputs))
        return future

    def _done(self, inputs: list[_Input]) -> None:
        try:
            self._release(inputs)
        except Exception:
            logger.exception("arguments of a task could not be evicted")
        finally:
            self._ended()

    def _ended(self) -> None:
        with self._lock:
            self._running -= 1
            close = self._shut_down and not self._running and self.close_store
        if close:
            self.store.close()

    def _proxied(self, item: Any, inputs: list[_Input]) -> Any:
        if _is_proxy(item) or not self.should_proxy(item):
            return item
        proxy = self.store.proxy(item, skip_nonproxiable=True, populate_target=True)
        if not _is_proxy(proxy):
            return item
        made = _Input(item, proxy)
        made.uses = 1
        inputs.append(made)
        return proxy

    def _proxied_again(
        self, items: tuple[Any, ...], before: list[_Input | None], inputs: list[_Input]
    ) -> Iterator[Any]:
        for position, item in enumerate(items):
            last = before[position]
            if last is not None and last.obj is item:
                with last.lock:
                    last.uses += 1
                inputs.append(last)
                yield last.proxy
                continue
            made: list[_Input] = []
            ready = self._proxied(item, made)
            if last is not None:
                self._release([last])
            before[position] = None
            if made:
                before[position] = made[0]
                made[0].uses += 1  # ours, until another item comes
                inputs.append(made[0])
            yield ready

    def _release(self, inputs: list[_Input]) -> None:
        keys = [item.key for item in inputs if item.done()]
        if keys:
            with contextlib.suppress(StoreClosedError):
                self.store.evict_batch(keys)

    def _results(
        self,
        futures: list[Any],
        deadline: float | None,
        timeout: float | None,
        unordered: bool,
        chunked: bool,
    ) -> Generator[Any, None, None]:
        came: queue.SimpleQueue[int] = queue.SimpleQueue()
        open_ = dict(enumerate(futures))
        del futures
        for number, future in open_.items():
            if unordered:
                future.add_done_callback(lambda _, number=number: came.put(number))
            else:
                came.put(number)
        future = None
        try:
            while open_:
                left = None if deadline is None else max(0.0, deadline - monotonic())
                try:
                    number = came.get(timeout=left)
                except queue.Empty:
                    raise OperationTimeoutError(
                        f"results did not come within {timeout} s", timeout=timeout
                    ) from None
                # Nothing here keeps a result that the caller has dropped.
                results = open_[number].result(timeout=left)
                del open_[number]
                if not chunked:
                    results = [results]
                while results:
                    yield results.pop(0)
        finally:
            for future in open_.values():
                future.cancel()


def _is_proxy(item: object) -> bool:
    # By the type: isinstance would resolve it.
    return issubclass(type(item), Proxy)
