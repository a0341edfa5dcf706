"""Memory of the user's that others read in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import InvalidArgumentError, StoreClosedError
from proxystore_hpc.key import Key
from proxystore_hpc.serialize import plan
from proxystore_hpc.store.opening import load_core

if TYPE_CHECKING:
    from proxystore_hpc._core import Instance, LiveMemory


class RegisteredBuffer:
    """A buffer that other processes can read where it lies, until this handle is closed.

    Readers get a copy of what is there when they read. Bracket changes with `writing()`, and a
    reader that met one reads again; without it a reader may see some bytes of before and some of
    after, and synchronisation is yours. The buffer is kept alive by the handle.

    Attributes:
        key: Key to hand to readers.
    """

    def __init__(self, instance: Instance, buffer: Any) -> None:
        core = load_core()
        buffer = _as_plain_buffer(buffer)
        layout = plan(buffer)
        segments = layout.segments()
        if len(segments) != 2 or layout.data_offset < 0 or not _contiguous(buffer):
            raise InvalidArgumentError(
                "only one contiguous buffer that is not empty can be registered (an array in C or "
                f"Fortran order, bytearray, memoryview, cffi buffer), not {type(buffer).__name__}"
            )
        prefix, (offset, data) = segments[0][1], segments[1]
        self._live: LiveMemory | None = core.LiveMemory(instance, prefix, offset, data)
        self.key = Key(self._live.key)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Brackets a change of the buffer. Does not nest.

        Raises:
            InvalidArgumentError: Another thread is writing.
            StoreClosedError: The handle is closed.
        """
        live = self._open()
        live.begin_writing()
        try:
            yield
        finally:
            live.end_writing()

    def _open(self) -> LiveMemory:
        if self._live is None:
            raise StoreClosedError("the registered buffer was closed; register it again")
        return self._live

    def close(self) -> None:
        """Ends the registration; readers get `ObjectEvictedError` from now on. Idempotent."""
        live, self._live = self._live, None
        if live is not None:
            live.close()

    def __enter__(self) -> RegisteredBuffer:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _contiguous(buffer: Any) -> bool:
    """Whether the layout is of the buffer itself, and not of a contiguous copy."""
    if isinstance(buffer, (bytes, bytearray)):
        return True
    if isinstance(buffer, memoryview):
        return buffer.c_contiguous
    flags = buffer.flags
    return bool(flags.c_contiguous or flags.f_contiguous)


def _as_plain_buffer(buffer: Any) -> Any:
    if type(buffer).__module__ == "numpy" or isinstance(buffer, (bytes, bytearray, memoryview)):
        return buffer
    try:
        return memoryview(buffer)
    except TypeError as error:
        raise InvalidArgumentError(
            f"{type(buffer).__name__} has no buffer that could be registered: pass an array, a "
            "bytearray, a memoryview or cffi's ffi.buffer(...)"
        ) from error
