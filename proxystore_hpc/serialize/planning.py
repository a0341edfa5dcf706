"""From an object to the layout of its block; nothing is copied here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxystore_hpc.exceptions import SerializationError
from proxystore_hpc.serialize import arrays, header, registry
from proxystore_hpc.serialize.layout import ORIGIN, Layout, lay_out, lay_out_raw
from proxystore_hpc.serialize.pickling import plan_pickle, plan_subclass
from proxystore_hpc.serialize.views import contiguous, flat, is_bytes_like


def plan(obj: Any, origin: int = ORIGIN) -> Layout:
    """Decides how `obj` is stored: its header, its buffers, and where each of them goes.

    Large buffers (arrays, bytes) are referred to, not copied, so `obj` must stay unchanged until
    the layout has been copied into its block. Thread-safe; holds the GIL.

    Args:
        obj: The object.
        origin: Offset of the serialized object in its block. Buffers are 64-byte aligned in the
            block, those of 64 KiB or more page-aligned.

    Raises:
        SerializationError: Neither pickle nor cloudpickle can handle it, nor a registered
            serializer.
    """
    cls = type(obj)
    planner = _PLANNERS.get(cls)
    if planner is not None:
        return planner(obj, origin)
    return _plan_other(obj, cls, origin)


def _plan_other(obj: Any, cls: type[Any], origin: int) -> Layout:
    custom = registry.serializer_of(cls)
    if custom is not None:
        return _plan_custom(obj, custom, origin)
    if arrays.is_ndarray(cls):
        _PLANNERS[cls] = _plan_ndarray
        return _plan_ndarray(obj, origin)
    if arrays.is_subclass(cls):
        return plan_subclass(obj, origin)
    return plan_pickle(obj, origin)


def _plan_ndarray(obj: Any, origin: int) -> Layout:
    return arrays.plan_ndarray(obj, origin) or plan_pickle(obj, origin)


def _plan_bytes(obj: bytes, origin: int) -> Layout:
    return _plan_raw(header.BYTES, memoryview(obj), origin)


def _plan_bytearray(obj: bytearray, origin: int) -> Layout:
    return _plan_raw(header.BYTEARRAY, memoryview(obj), origin)


def _plan_text(obj: str, origin: int) -> Layout:
    return _plan_raw(header.TEXT, memoryview(obj.encode("utf-8", "surrogatepass")), origin)


def _plan_memoryview(obj: memoryview, origin: int) -> Layout:
    view, shape = contiguous(obj)
    if len(shape) > header.MAX_RAW_NDIM:
        raise SerializationError(f"a memoryview of {len(shape)} dimensions cannot be stored")
    meta = header.SHAPES[len(shape)].pack(*shape)
    return _plan_raw(header.MEMORYVIEW, view, origin, obj.format.encode("ascii"), meta)


def _plan_raw(
    kind: int, view: memoryview, origin: int, name: bytes = b"", meta: bytes = b""
) -> Layout:
    length = len(view)
    head, offset = lay_out_raw(kind, 0, name, meta, length, origin)
    segments: list[tuple[int, bytes | memoryview]] = [(0, head)]
    if length:
        segments.append((offset, view))
    return Layout(header.KIND_NAMES[kind], offset + length, offset, segments)


def _plan_custom(obj: Any, custom: registry.Serializer, origin: int) -> Layout:
    try:
        result = custom.serialize(obj)
    except SerializationError:
        raise
    except Exception as error:
        raise SerializationError(
            f"the serializer {custom.name!r} failed: {type(error).__name__}: {error}"
        ) from error
    parts = list(result) if isinstance(result, (list, tuple)) else [result]
    views = [flat(part) for part in parts]
    return lay_out(header.CUSTOM, 0, custom.name.encode(), b"", views, origin)


def plan_with(serializer: Callable[[Any], Any], obj: Any, origin: int = ORIGIN) -> Layout:
    """The layout of what a serializer given for one call makes of `obj`.

    Exceptions of the serializer are passed on. One that has a method `plan_layout` is asked for
    the layout itself.

    Raises:
        TypeError: Its result is not bytes-like.
    """
    planner = getattr(serializer, "plan_layout", None)
    if planner is not None:
        layout: Layout = planner(obj, origin)
        return layout
    result = serializer(obj)
    if not is_bytes_like(result):
        raise TypeError(
            f"a serializer must return bytes, a bytearray or a memoryview, this one returned "
            f"{type(result).__name__}"
        )
    return _plan_raw(header.OPAQUE, flat(result), origin)


_PLANNERS: dict[type[Any], Callable[[Any, int], Layout]] = {
    bytes: _plan_bytes,
    bytearray: _plan_bytearray,
    str: _plan_text,
    memoryview: _plan_memoryview,
    **dict.fromkeys((list, dict, tuple, set, int, float, complex, type(None)), plan_pickle),
}
