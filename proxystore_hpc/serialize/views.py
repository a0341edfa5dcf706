"""Bytes-like objects as flat views, and back."""

from __future__ import annotations

from pickle import PickleBuffer
from typing import Any

from proxystore_hpc.exceptions import SerializationError

BytesLike = bytes | bytearray | memoryview

_NATIVE = frozenset("bB?hHiIlLqQnNfdPc")


def is_bytes_like(obj: Any) -> bool:
    """Whether `obj` is a `bytes`, `bytearray` or `memoryview`."""
    return isinstance(obj, (bytes, bytearray, memoryview))


def flat(buffer: Any) -> memoryview:
    """The memory of a contiguous buffer as a one-dimensional view of bytes.

    Raises:
        SerializationError: It exports no buffer, or one that is not contiguous.
    """
    try:
        return PickleBuffer(buffer).raw()
    except (BufferError, TypeError) as error:
        raise SerializationError(
            f"a {type(buffer).__name__} is not a contiguous buffer: {error}"
        ) from error


def contiguous(view: memoryview) -> tuple[memoryview, tuple[int, ...]]:
    """The bytes of a memoryview in C order, copied only if they are not, and its shape.

    Raises:
        SerializationError: A memoryview of this format and shape could not be made again.
    """
    code = view.format.removeprefix("@")
    shape = view.shape or ()
    if code not in _NATIVE:
        raise SerializationError(
            f"a memoryview of format {view.format!r} cannot be made again from bytes: store the "
            "object that it looks at, or view.cast('B')"
        )
    if view.nbytes == 0 and len(shape) > 1:
        raise SerializationError(
            f"an empty memoryview of shape {shape} cannot be made again from bytes: store the "
            "object that it looks at"
        )
    if view.c_contiguous:
        return PickleBuffer(view).raw(), shape
    return memoryview(view.tobytes()), shape


def restore_view(buffer: Any, code: str, shape: tuple[int, ...]) -> memoryview:
    """A memoryview of this format and shape over `buffer`."""
    view = memoryview(buffer)
    if not view.nbytes:
        return view.cast(code)  # type: ignore[call-overload,no-any-return]
    return view.cast(code, shape)  # type: ignore[call-overload,no-any-return]
