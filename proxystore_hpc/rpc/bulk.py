"""Memory that peers read and write one-sidedly: what Mercury and Margo call bulk transfers."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from proxystore_hpc.exceptions import InvalidArgumentError, OperationTimeoutError
from proxystore_hpc.rpc.events import Event
from proxystore_hpc.rpc.handlers import before_waiting, workers

if TYPE_CHECKING:
    from proxystore_hpc._core import BulkHandle, BulkMemory, BulkTransfer, Instance
    from proxystore_hpc.rpc.engine import Engine

__all__ = ["Bulk", "Transfer", "expose"]

Mode = Literal["r", "w", "rw"]

TIMEOUT = 30.0
"""Seconds that a transfer takes at most by default."""

_CLOSE_TIMEOUT = 5.0
_FOR_EVER = float("inf")


def expose(instance: Instance, buffers: Any, mode: str = "r") -> Bulk:
    """Exposes memory of this process; what `Engine.expose` calls.

    Args:
        instance: The engine's instance.
        buffers: A C-contiguous buffer, or a list of them.
        mode: `"r"` for peers to pull, `"w"` to push, `"rw"` for both.

    Raises:
        InvalidArgumentError: There is no such mode, or a buffer is not contiguous, or is read-only
            and to be written.
    """
    from proxystore_hpc import _core

    memory = _core.BulkMemory(instance, _as_list(buffers), mode)
    return Bulk(memory.handle, memory)


class Bulk:
    """A handle of exposed memory. Send it in a call, pickle it, store it.

    In the process that exposed the memory it keeps that registered and alive until `close`, or
    until the handle is dropped: hold on to it for as long as peers shall use it. Elsewhere it is
    but a name of a few hundred bytes. It gives access to whoever has it and shares the engine's
    secret (or its user, on the same node). Several buffers are one range of bytes, in their order.

    Nothing keeps the two sides from using the memory at the same time: that is up to the
    application. All methods may be called from any thread, and release the GIL while they wait or
    copy.
    """

    __slots__ = ("__weakref__", "_handle", "_memory", "_whole")

    def __init__(
        self, handle: BulkHandle, memory: BulkMemory | None = None, whole: Bulk | None = None
    ) -> None:
        self._handle = handle
        self._memory = memory
        self._whole = whole  # keeps it exposed

    @property
    def nbytes(self) -> int:
        """Length in bytes of all segments together."""
        return self._handle.nbytes

    @property
    def segments(self) -> tuple[int, ...]:
        """Lengths in bytes of the contiguous parts, those without bytes left out."""
        return tuple(self._handle.segments)

    @property
    def mode(self) -> str:
        """What peers may do: `"r"` (pull), `"w"` (push) or `"rw"`."""
        return self._handle.mode

    def select(self, offset: int = 0, length: int | None = None) -> Bulk:
        """A handle of a part of the memory; that is closed with the handle it came from.

        Args:
            offset: First byte of the part.
            length: Bytes of the part, by default all that follow.

        Raises:
            InvalidArgumentError: It lies outside.
        """
        if length is None:
            length = max(self.nbytes - offset, 0)
        if offset < 0 or length < 0:
            raise InvalidArgumentError(f"offset {offset} and length {length} cannot be negative")
        return Bulk(self._handle.select(offset, length), whole=self)

    def __getitem__(self, part: slice) -> Bulk:
        """`bulk[a:b]` is `bulk.select(a, b - a)`, with Python's rules for slices."""
        if not isinstance(part, slice):
            raise TypeError(f"a part of a bulk is a slice, not {type(part).__name__}")
        start, stop, step = part.indices(self.nbytes)
        if step != 1:
            raise InvalidArgumentError("a part of a bulk has the step 1")
        return self.select(start, max(stop - start, 0))

    def __len__(self) -> int:
        return self.nbytes

    def pull(
        self,
        engine: Engine,
        into: Any = None,
        *,
        offset: int = 0,
        length: int | None = None,
        timeout: float = TIMEOUT,
    ) -> Any:
        """Brings bytes here, and waits for them.

        Args:
            engine: An engine of this process.
            into: A writable C-contiguous buffer, or a list of them, to be filled; by default the
                bytes come to warm memory of the engine's pool.
            offset: First byte to bring.
            length: How many; by default as many as `into` has, else all that follow.
            timeout: Seconds that it takes at most.

        Returns:
            `into`, or a writable memoryview of bytes; the pool gets its memory back when nothing
            refers to that any more.

        Raises:
            BulkClosedError: The memory is not exposed any more.
            AccessDeniedError: It is not exposed for reading, or not to this process.
            PeerLostError: The process that exposed it is gone.
            OperationTimeoutError: Time is up; nothing is written to `into` any more.
            InvalidArgumentError: The range lies outside, or a buffer cannot be used.
        """
        return _move(engine, self._handle, "pull", offset, length, into, timeout)

    def push(self, engine: Engine, data: Any, *, offset: int = 0, timeout: float = TIMEOUT) -> None:
        """Writes bytes to the exposed memory; they are there when it returns.

        Args:
            engine: An engine of this process.
            data: A C-contiguous buffer, or a list of them, written one after the other.
            offset: Where to.
            timeout: Seconds that it takes at most.

        Raises:
            BulkClosedError: The memory is not exposed any more.
            AccessDeniedError: It is not exposed for writing, or not to this process.
            PeerLostError: The process that exposed it is gone. Some of the bytes may be there.
            OperationTimeoutError: Time is up; some of the bytes may be there.
            InvalidArgumentError: The range lies outside, or a buffer cannot be used.
        """
        _move(engine, self._handle, "push", offset, None, data, timeout)

    def submit_pull(
        self,
        engine: Engine,
        into: Any = None,
        *,
        offset: int = 0,
        length: int | None = None,
        timeout: float = TIMEOUT,
    ) -> Transfer:
        """As `pull`, but does not wait: any number may be in flight.

        The first transfer from a process connects to it, which takes some milliseconds.
        """
        return Transfer(engine, self._handle, "pull", offset, length, into, timeout)

    def submit_push(
        self, engine: Engine, data: Any, *, offset: int = 0, timeout: float = TIMEOUT
    ) -> Transfer:
        """As `push`, but does not wait. Leave `data` unchanged until it is done."""
        return Transfer(engine, self._handle, "push", offset, None, data, timeout)

    def prepare_pull(self, engine: Engine, into: Any, *, offset: int = 0) -> PreparedTransfer:
        """A pull into the same memory that can be made again and again, in less time than `pull`.

        Nothing is moved yet.

        Args:
            engine: An engine of this process.
            into: A writable C-contiguous buffer, or a list of them; held until the transfer goes.
            offset: First byte to bring.

        Raises:
            InvalidArgumentError: The range lies outside, or a buffer cannot be used.
        """
        return PreparedTransfer(engine, self._handle, "pull", offset, into)

    def prepare_push(self, engine: Engine, data: Any, *, offset: int = 0) -> PreparedTransfer:
        """A push from the same memory, as `prepare_pull`."""
        return PreparedTransfer(engine, self._handle, "push", offset, data)

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Ends the exposure; idempotent. In a process that did not expose it nothing happens.

        Transfers cannot begin any more; those under way are waited for. Peers get
        `BulkClosedError` from now on.

        Args:
            timeout: Seconds to wait for transfers under way.

        Raises:
            OperationTimeoutError: A peer does not end its transfer. The memory stays alive; close
                again later.
        """
        if self._memory is not None:
            if workers:
                before_waiting()
            self._memory.close(timeout)
            self._memory = None

    def __enter__(self) -> Bulk:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, (self._handle.pack(),)

    def __repr__(self) -> str:
        return f"<Bulk of {self._handle.owner_id}, {self.nbytes} bytes, mode {self.mode!r}>"


class PreparedTransfer:
    """A pull or push that is made by calling it, any number of times.

    Made by `Bulk.prepare_pull` and `Bulk.prepare_push`. Any thread may call it, one at a time gets
    through; the GIL is released meanwhile. The way to the memory is found by the first call, and
    anew after a failure.
    """

    __slots__ = ("_engine", "_handle", "_into", "_name", "_transfer")

    def __init__(
        self, engine: Engine, handle: BulkHandle, name: str, offset: int, buffers: Any
    ) -> None:
        from proxystore_hpc import _core

        if buffers is None:
            raise InvalidArgumentError("a prepared transfer needs memory of yours")
        offset, _ = _checked("pull", offset, None, None)
        given = _as_list(buffers)
        if handle.off_node:
            engine._ucx.need()
        self._engine = engine
        self._handle = handle
        self._name = name
        self._into = buffers
        self._transfer = _core.PreparedTransfer(
            engine._instance, handle, name == "push", offset, given
        )

    def __call__(self, timeout: float = TIMEOUT) -> Any:
        """Moves the bytes, and waits for them.

        Args:
            timeout: Seconds that it takes at most.

        Returns:
            The memory that it was prepared with.

        Raises:
            BulkClosedError, AccessDeniedError, PeerLostError, OperationTimeoutError,
            InvalidArgumentError: As `Bulk.pull` and `Bulk.push`.
        """
        if workers:
            before_waiting()
        if self._engine._hooks.active:
            self._observed(timeout)
        else:
            self._transfer.run(timeout)
        return self._into

    def _observed(self, timeout: float) -> None:
        observer = _Observer(self._engine, self._handle, self._name)
        try:
            self._transfer.run(timeout)
        except BaseException as error:
            observer.end(error)
            raise
        observer.end(None)

    def __repr__(self) -> str:
        return f"<PreparedTransfer: {self._name} of {self._handle.nbytes} bytes>"


class Transfer:
    """A pull or push under way. Dropping it lets it go on to its end.

    It can be awaited, and then gives what `result` returns. All methods may be called from any
    thread; what waits releases the GIL and drives the transfer meanwhile.
    """

    __slots__ = ("_engine", "_into", "_observer", "_transfer")

    def __init__(
        self,
        engine: Engine,
        handle: BulkHandle,
        name: str,
        offset: int,
        length: int | None,
        buffers: Any,
        timeout: float,
    ) -> None:
        from proxystore_hpc import _core

        offset, given = _checked(name, offset, length, buffers)
        if handle.off_node:
            engine._ucx.need()
        self._engine = engine
        self._into = buffers
        self._observer = _Observer(engine, handle, name) if engine._hooks.active else None
        self._transfer: BulkTransfer = _core.BulkTransfer(
            engine._instance, handle, name == "push", offset, length, given, timeout
        )

    def done(self) -> bool:
        """Whether it has ended, however it did."""
        return self._transfer.done()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for its end, at most `timeout` seconds; whether it has ended."""
        if workers:
            before_waiting()
        return self._transfer.wait(_FOR_EVER if timeout is None else timeout)

    def result(self, timeout: float | None = None) -> Any:
        """Waits for it, and returns or raises what `pull` or `push` would.

        Raises:
            OperationTimeoutError: It has not ended within `timeout` seconds, and goes on; or its
                own time was up.
        """
        if not self.wait(timeout):
            raise OperationTimeoutError(
                f"the transfer did not end within {timeout} s; it goes on until its own timeout",
                timeout=timeout,
            )
        observer, self._observer = self._observer, None
        try:
            _, lease = self._transfer.result()
        except BaseException as error:
            if observer is not None:
                observer.end(error)
            raise
        if observer is not None:
            observer.end(None)
        return self._into if lease is None else memoryview(lease)

    def cancel(self) -> bool:
        """Gives it up if it can be; whether it has ended. `result` then raises RpcCancelledError.

        The connection that it uses is cut and renewed, other transfers on it begin anew.
        """
        return self._transfer.cancel()

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.done():
            yield from self._ended().__await__()
        return self.result()

    async def _ended(self) -> None:
        from proxystore_hpc import _core

        loop = asyncio.get_running_loop()
        queue = _core.Completions()
        told = asyncio.Event()
        loop.add_reader(queue.fileno(), told.set)
        try:
            self._transfer.notify(queue, None)
            # Its deadline is looked at by who waits; here that is the loop.
            while not told.is_set() and not self._transfer.wait(0.0):
                try:
                    await asyncio.wait_for(told.wait(), 1.0)
                except asyncio.TimeoutError:
                    continue
        finally:
            loop.remove_reader(queue.fileno())
            queue.close()


class _Observer:
    """Tells the engine's hooks of one transfer."""

    def __init__(self, engine: Engine, handle: BulkHandle, name: str) -> None:
        self._hooks = engine._hooks
        self._handle = handle
        self._name = name
        self._began = perf_counter()
        self._hooks.emit(Event("transfer", "start", name, 0, handle.owner_id))

    def end(self, error: BaseException | None) -> None:
        nbytes = self._handle.nbytes if error is None else 0
        took = perf_counter() - self._began
        peer = self._handle.owner_id
        self._hooks.emit(Event("transfer", "end", self._name, 0, peer, nbytes, took, error))


def _move(
    engine: Engine,
    handle: BulkHandle,
    name: str,
    offset: int,
    length: int | None,
    buffers: Any,
    timeout: float,
) -> Any:
    from proxystore_hpc import _core

    offset, given = _checked(name, offset, length, buffers)
    if handle.off_node:
        engine._ucx.need()
    if workers:
        before_waiting()
    observer = _Observer(engine, handle, name) if engine._hooks.active else None
    try:
        _, lease = _core.move_bulk(
            engine._instance, handle, name == "push", offset, length, given, timeout
        )
    except BaseException as error:
        if observer is not None:
            observer.end(error)
        raise
    if observer is not None:
        observer.end(None)
    return buffers if lease is None else memoryview(lease)


def _checked(
    name: str, offset: int, length: int | None, buffers: Any
) -> tuple[int, list[Any] | None]:
    if offset < 0 or (length is not None and length < 0):
        raise InvalidArgumentError(f"offset {offset} and length {length} cannot be negative")
    if buffers is None and name == "pull":
        return offset, None
    return offset, _as_list(buffers)


def _as_list(buffers: Any) -> list[Any]:
    parts = list(buffers) if isinstance(buffers, (list, tuple)) else [buffers]
    return [_plain(part) for part in parts]


def _plain(buffer: Any) -> memoryview:
    kind = type(buffer).__name__
    try:
        view = memoryview(buffer)
    except (TypeError, ValueError, BufferError) as error:
        raise InvalidArgumentError(
            f"{kind} has no buffer that could be transferred ({error}): pass an array, a "
            "bytearray, a memoryview, an mmap or cffi's ffi.buffer(...)"
        ) from error
    if not view.c_contiguous:
        raise InvalidArgumentError(
            f"the {kind} is not C-contiguous; pass its parts as a list, or a contiguous copy"
        )
    if "O" in view.format:
        raise InvalidArgumentError(f"the {kind} holds references to Python objects")
    return view


def _unpack(packed: bytes) -> Bulk:
    from proxystore_hpc import _core

    return Bulk(_core.BulkHandle(packed))
