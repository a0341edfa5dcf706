"""From the memory of a block to the object."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from proxystore_hpc.exceptions import InvalidArgumentError, SerializationError
from proxystore_hpc.serialize import arrays, header
from proxystore_hpc.serialize.pickling import load_pickle
from proxystore_hpc.serialize.registry import get_serializer
from proxystore_hpc.serialize.views import flat, restore_view
from proxystore_hpc.serialize.wrapping import unwrap

if TYPE_CHECKING:
    from typing_extensions import Buffer

F = TypeVar("F", bound=Callable[..., Any])


def loads(view: Buffer, *, writable: bool = False) -> Any:
    """Builds the object over `view`, without copying its large buffers.

    Arrays and memoryviews in the result are views of the memory and hold it; `bytes`,
    `bytearray`, `str` and small parts are copies. What the result does not refer to is not held:
    if there is nothing, the caller's `view` is the last reference. Thread-safe; holds the GIL.

    Args:
        view: The serialized object; it may be followed by anything.
        writable: Make the arrays writable, which `view` must then be. An array inside another
            object that was read-only when it was stored stays read-only.

    Raises:
        SerializationError: The memory holds no valid object, or it cannot be built here.
        InvalidArgumentError: `writable` was asked for over read-only memory.
    """
    if type(view) is not memoryview or view.ndim != 1 or view.format != "B":
        view = flat(view)
    if writable:
        if view.readonly:
            raise InvalidArgumentError("a writable object needs writable memory to lie in")
    elif not view.readonly:
        view = view.toreadonly()
    array = arrays.load_known(view)
    if array is not None:
        return array
    parsed = header.parse(view)
    kind = parsed[0]
    if kind <= header.CLOUDPICKLE:
        return load_pickle(view, parsed)
    try:
        return _LOADERS[kind](view, parsed)
    except SerializationError:
        raise
    except Exception as error:
        raise SerializationError(
            f"the stored {header.KIND_NAMES[kind]} cannot be built: {type(error).__name__}: {error}"
        ) from error


def _data(view: memoryview, parsed: header.Header) -> memoryview:
    offset, length = header.extent(view, parsed)
    return view[offset : offset + length]


def _load_text(view: memoryview, parsed: header.Header) -> str:
    return str(_data(view, parsed), "utf-8", "surrogatepass")


def _load_bytes(view: memoryview, parsed: header.Header) -> bytes:
    return bytes(_data(view, parsed))


def _load_bytearray(view: memoryview, parsed: header.Header) -> bytearray:
    return bytearray(_data(view, parsed))


def _load_memoryview(view: memoryview, parsed: header.Header) -> memoryview:
    _, _, _, name_offset, meta_offset, end, _ = parsed
    code = str(view[name_offset:meta_offset], "ascii")
    return restore_view(_data(view, parsed), code, header.shape_of(view, meta_offset, end))


def _load_opaque(view: memoryview, parsed: header.Header) -> Any:
    body = _data(view, parsed)
    if body[:4] == header.MAGIC:
        return loads(body, writable=not body.readonly)
    raise SerializationError(
        "the object was stored with serializer=...: pass the matching deserializer="
    )


def _load_custom(view: memoryview, parsed: header.Header) -> Any:
    name = str(view[parsed[3] : parsed[4]], "utf-8")
    return get_serializer(name).deserialize(header.buffers(view, parsed))


def _load_wrapped(view: memoryview, parsed: header.Header) -> Any:
    return loads(unwrap(view, parsed), writable=not view.readonly)


_LOADERS: dict[int, Callable[[memoryview, header.Header], Any]] = {
    header.TEXT: _load_text,
    header.BYTES: _load_bytes,
    header.BYTEARRAY: _load_bytearray,
    header.MEMORYVIEW: _load_memoryview,
    header.NDARRAY: arrays.load,
    header.OPAQUE: _load_opaque,
    header.CUSTOM: _load_custom,
    header.WRAPPED: _load_wrapped,
}


def raw_payload(view: Buffer) -> memoryview | None:
    """The data of an object that is one buffer, as bytes; `None` for other objects.

    Gives something for `bytes`, `bytearray`, `memoryview`, plain arrays, and what a serializer
    given for one call returned.

    Raises:
        SerializationError: The memory holds no valid object.
    """
    if type(view) is not memoryview or view.ndim != 1 or view.format != "B":
        view = flat(view)
    parsed = header.parse(view)
    return _data(view, parsed) if parsed[0] in header.RAW_KINDS else None


def zero_copy(deserializer: F) -> F:
    """Marks a deserializer that takes a read-only memoryview of the stored memory.

    Without the mark it is given `bytes`, a copy, as most are written for.
    """
    deserializer.zero_copy = True  # type: ignore[attr-defined]
    return deserializer


def loads_with(deserializer: Callable[[Any], Any], view: Buffer, *, writable: bool = False) -> Any:
    """The object that a deserializer given for one call makes of a stored one.

    It gets what the serializer of the call returned; for an object that was stored without one,
    the whole serialized object.

    Raises:
        SerializationError: The deserializer raised something, or the memory holds no object.
    """
    whole = flat(view)
    parsed = header.parse(whole)
    body = _data(whole, parsed) if parsed[0] == header.OPAQUE else whole[: parsed[6]]
    try:
        if not getattr(deserializer, "zero_copy", False):
            return deserializer(bytes(body))
        return deserializer(body if writable else body.toreadonly())
    except Exception as error:
        name = getattr(deserializer, "__qualname__", repr(deserializer))
        raise SerializationError(
            f"the deserializer {name} failed: {type(error).__name__}: {error}"
        ) from error
