"""Objects as a pickle stream and the buffers that it refers to."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pickle import PickleBuffer, PicklingError, dumps
from typing import Any

from proxystore_hpc.exceptions import SerializationError
from proxystore_hpc.serialize import arrays, header, reducers
from proxystore_hpc.serialize.layout import Layout, lay_out, lay_out_plain

IN_BAND = 1024
"""Smaller buffers stay in the pickle stream: an entry and a view of their own cost more."""

_COPIED_ARRAY = b"reconstruct"


def _collector(buffers: list[memoryview]) -> Callable[[PickleBuffer], bool]:
    def collect(buffer: PickleBuffer) -> bool:
        view = buffer.raw()
        if len(view) < IN_BAND:
            return True
        buffers.append(view)
        return False

    return collect


def plan_pickle(obj: Any, origin: int) -> Layout:
    """The layout of any object that pickle or cloudpickle can handle.

    Raises:
        SerializationError: Neither can.
    """
    buffers: list[memoryview] = []
    try:
        if table := reducers.table():
            stream = _dump_by(table, obj, buffers)
        else:
            stream = dumps(obj, 5, buffer_callback=_collector(buffers))
        # NumPy copies subclasses, datetimes and strided arrays into the stream, and forgets the
        # attributes of subclasses; "_reconstruct" or "_mareconstruct" show it.
        if stream.find(_COPIED_ARRAY) >= 0:
            buffers.clear()
            stream = _dump_arrays(obj, buffers)
    except (PicklingError, AttributeError, TypeError) as error:
        buffers.clear()
        return _plan_cloudpickle(obj, origin, error)
    except Exception as error:
        raise SerializationError(f"{_name(obj)} cannot be pickled: {error}") from error
    if not buffers:
        return lay_out_plain(header.PICKLE, stream)
    return lay_out(header.PICKLE, 0, b"", stream, buffers, origin)


def plan_subclass(obj: Any, origin: int) -> Layout:
    """The layout of an instance of a subclass of `numpy.ndarray`."""
    buffers: list[memoryview] = []
    try:
        stream = _dump_arrays(obj, buffers)
    except (PicklingError, AttributeError, TypeError) as error:
        buffers.clear()
        return _plan_cloudpickle(obj, origin, error)
    except Exception as error:
        raise SerializationError(f"{_name(obj)} cannot be pickled: {error}") from error
    return lay_out(header.PICKLE, 0, b"", stream, buffers, origin)


def dump_call(function: Callable[..., Any], *arguments: Any) -> bytes:
    """A stream that calls `function(buffer, *arguments)` with its only buffer."""
    target = _Call(function, arguments)
    return pickle.dumps(target, 5, buffer_callback=lambda buffer: False)


class _Call:
    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._function = function
        self._arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._function, (PickleBuffer(bytearray(1)), *self._arguments)


def _dump_by(
    table: dict[type[Any], reducers.Reducer], obj: Any, buffers: list[memoryview]
) -> bytes:
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, 5, buffer_callback=_collector(buffers))
    pickler.dispatch_table = table
    pickler.dump(obj)
    return stream.getvalue()


class _ArrayPickler(pickle.Pickler):
    """Keeps the memory of every array out of band."""

    def reducer_override(self, obj: Any) -> Any:
        return reduce_known(obj)


def reduce_known(obj: Any) -> Any:
    """How an array or an object of a library that we know is pickled, or `NotImplemented`."""
    cls = type(obj)
    if arrays.is_ndarray(cls) or arrays.is_subclass(cls):
        reduced = arrays.strip(obj)
        if reduced is not None:
            return reduced
    return reducers.reduce(obj)


def _dump_arrays(obj: Any, buffers: list[memoryview]) -> bytes:
    stream = io.BytesIO()
    _ArrayPickler(stream, 5, buffer_callback=_collector(buffers)).dump(obj)
    return stream.getvalue()


def _plan_cloudpickle(obj: Any, origin: int, first: Exception) -> Layout:
    try:
        from proxystore_hpc.serialize.cloud import CloudPickler
    except ImportError:
        raise SerializationError(
            f"{_name(obj)} cannot be pickled: {first}. Functions and classes that are not at the "
            "top level of a module need cloudpickle: pip install cloudpickle"
        ) from first
    buffers: list[memoryview] = []
    stream = io.BytesIO()
    try:
        CloudPickler(stream, 5, buffer_callback=_collector(buffers)).dump(obj)
    except Exception as error:
        raise SerializationError(
            f"{_name(obj)} can be stored neither by pickle ({first}) nor by cloudpickle "
            f"({error}): give it a __reduce__, register_serializer() for its type, or pass "
            "serializer= to the call"
        ) from error
    return lay_out(header.CLOUDPICKLE, 0, b"", stream.getvalue(), buffers, origin)


def load_pickle(view: memoryview, parsed: header.Header) -> Any:
    """The object that a pickle stream and its buffers describe.

    Raises:
        SerializationError: The stream cannot be loaded here.
    """
    _, _, count, _, start, end, _ = parsed
    buffers = header.buffers(view, parsed) if count else ()
    try:
        return pickle.loads(view[start:end], buffers=buffers)
    except Exception as error:
        raise SerializationError(_why(error)) from error


def _why(error: Exception) -> str:
    told = f"the stored object cannot be unpickled: {type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        return f"{told}. Install the module {error.name!r} here, or put it on the path"
    if isinstance(error, AttributeError) and "__main__" in str(error):
        return (
            f"{told}. Its type is defined in the script of the process that stored it: move the "
            "definition into a module that both processes import"
        )
    return told


def _name(obj: Any) -> str:
    cls = type(obj)
    return f"an object of type {cls.__module__}.{cls.__qualname__}"
