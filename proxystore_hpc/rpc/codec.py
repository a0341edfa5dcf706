"""Arguments and results as a body and at most one payload.

The body travels with the message and arrives as `bytes`; the payload, a large buffer, is sent from
where it lies and arrives in pooled memory. Unpickling is left to the two `decode` functions, which
are called with what the core delivered: from peers that have shown the secret.

An empty body means no arguments, or `None`. A body that begins as pickle streams do is one, of the
tuple of arguments, of the list `[args, kwargs]`, or of the result. All others begin with one of
the kinds below. Several large buffers share one payload, each at a multiple of 64 bytes, and
are sent from where each of them lies.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from math import prod
from pickle import PickleBuffer, PicklingError, dumps, loads
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import ProtocolError, SerializationError
from proxystore_hpc.serialize import arrays
from proxystore_hpc.serialize.pickling import _ArrayPickler
from proxystore_hpc.serialize.views import flat

if TYPE_CHECKING:
    from proxystore_hpc._core import Lease

LARGE = 4096
"""Buffers of so many bytes leave the body."""

ALIGNMENT = 64

Payload = bytes | memoryview | tuple[memoryview, ...] | None
Encoded = tuple[bytes, Payload]

_PICKLE = 0x80  # the first byte of every pickle stream from protocol 2 on
_BYTES = 1  # `bytes`, behind the kind or in the payload
_ARRAY = 2  # an array of a plain dtype in the payload
_BUFFERS = 3  # a table of buffers in the payload, then the pickle stream that refers to them

_FORTRAN = 1
_READONLY = 2
_ARRAY_HEAD = struct.Struct("<BBBB")  # kind, flags, dimensions, length of the dtype's text
_BUFFERS_HEAD = struct.Struct("<BI")  # kind, buffers
_BUFFER = struct.Struct("<QQ")  # offset, length
_BYTES_KIND = bytes([_BYTES])
_COPIED_ARRAY = b"reconstruct"
_MAX_DIMENSIONS = 32

# Of these there is nothing to find out: no buffers, no arrays.
_SCALARS = frozenset({bool, float, int, str, type(None)})

_NOTHING: Encoded = (b"", None)


def encode_arguments(args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Encoded:
    """The body and payload of a call.

    The payload refers to the argument's memory, which must not change until the call is answered.

    Raises:
        SerializationError: An argument can be handled neither by pickle nor by cloudpickle.
    """
    if kwargs:
        return _dump([args, kwargs])
    if not args:
        return _NOTHING
    for value in args:
        if type(value) not in _SCALARS:
            break
    else:
        return dumps(args, 5), None
    if len(args) == 1:
        encoded = _encode_plain(args[0])
        if encoded is not None:
            return encoded
    return _dump(args)


def encode_one(argument: Any) -> Encoded:
    """As `encode_arguments` for a single one."""
    if type(argument) in _SCALARS:
        return dumps((argument,), 5), None
    return _encode_plain(argument) or _dump((argument,))


def encode_result(result: Any) -> Encoded:
    """The body and payload of an answer; as for `encode_arguments`."""
    if result is None:
        return _NOTHING
    if type(result) in _SCALARS:
        return dumps(result, 5), None
    encoded = _encode_plain(result)
    return _dump(result) if encoded is None else encoded


def decode_arguments(
    body: bytes, lease: Lease | None
) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
    """What `encode_arguments` was given. Arrays are views of the lease, and writable if they were.

    Raises:
        ProtocolError: The bytes are no arguments.
        SerializationError: They cannot be unpickled here.
    """
    if not body:
        return (), None
    kind = body[0]
    if kind == _PICKLE and lease is None:
        try:
            value = loads(body)
        except Exception as error:
            raise _unloadable(error) from error
    elif kind != _PICKLE and kind != _BUFFERS:
        return (_decode_one(kind, body, lease),), None
    else:
        value = _load(kind, body, lease)
    if type(value) is tuple:
        return value, None
    if (
        type(value) is list
        and len(value) == 2
        and type(value[0]) is tuple
        and type(value[1]) is dict
        and all(type(name) is str for name in value[1])
    ):
        return value[0], value[1]
    raise ProtocolError("what was sent to this procedure are no arguments")


def decode_result(body: bytes, lease: Lease | None) -> Any:
    """What `encode_result` was given; as for `decode_arguments`."""
    if not body:
        return None
    kind = body[0]
    if kind == _PICKLE and lease is None:
        try:
            return loads(body)
        except Exception as error:
            raise _unloadable(error) from error
    if kind != _PICKLE and kind != _BUFFERS:
        return _decode_one(kind, body, lease)
    return _load(kind, body, lease)


def nbytes_of(body: bytes, payload: Payload) -> int:
    """What travels: body and payload, with the gaps between several buffers."""
    if payload is None:
        return len(body)
    if type(payload) is not tuple:
        return len(body) + len(payload)
    end = 0
    for buffer in payload:
        end = ((end + ALIGNMENT - 1) & -ALIGNMENT) + len(buffer)
    return len(body) + end


def encode_raw(data: Any) -> Encoded:
    """Bytes-like data as they are: small ones are the body, others the payload.

    Raises:
        SerializationError: It has no contiguous buffer.
    """
    if type(data) is bytes:
        return (data, None) if len(data) < LARGE else (b"", data)
    view = flat(data)
    return (bytes(view), None) if len(view) < LARGE else (b"", view)


def decode_raw(body: bytes, lease: Lease | None) -> bytes | memoryview:
    """What a peer sent as it is: small as `bytes`, others as a writable view of received memory."""
    if lease is None:
        return body
    if not body:
        return memoryview(lease)
    return body + bytes(memoryview(lease))


def _encode_plain(value: Any) -> Encoded | None:
    cls = type(value)
    if cls is bytes:
        return (_BYTES_KIND + value, None) if len(value) < LARGE else (_BYTES_KIND, value)
    if cls.__name__ == "ndarray" and arrays.is_ndarray(cls):
        return _encode_array(value)
    return None


def _encode_array(array: Any) -> Encoded | None:
    shape = array.shape
    if array.nbytes < LARGE or len(shape) > _MAX_DIMENSIONS:
        return None
    text = arrays.plain_text(array.dtype)
    if not text:
        return None
    flags = array.flags
    mark = 0 if flags.writeable else _READONLY
    if not flags.c_contiguous:
        if flags.f_contiguous:
            mark |= _FORTRAN
        else:
            array = array.copy("C")
    count = len(shape)
    head = struct.pack(f"<4B{count}Q", _ARRAY, mark, count, len(text), *shape)
    return head + text, arrays.buffer_of(array)


def _decode_one(kind: int, body: bytes, lease: Lease | None) -> Any:
    if kind == _BYTES:
        if lease is None:
            return body[1:]
        if len(body) == 1:
            return bytes(memoryview(lease))
    elif kind == _ARRAY and lease is not None:
        try:
            return _decode_array(body, lease)
        except SerializationError:
            raise
        except Exception as error:
            raise ProtocolError(f"a garbled array was received: {error}") from error
    raise ProtocolError(f"a garbled message was received, {len(body)} bytes of kind {kind}")


def _decode_array(body: bytes, lease: Lease) -> Any:
    _, mark, count, length = _ARRAY_HEAD.unpack_from(body)
    start = _ARRAY_HEAD.size
    shape = struct.unpack_from(f"<{count}Q", body, start)
    text = body[start + 8 * count :]
    if len(text) != length:
        raise ValueError("its dtype was cut short")
    dtype = arrays.dtype_of(text)
    view = memoryview(lease)
    if prod(shape) * dtype.itemsize != len(view):
        raise ValueError(f"{len(view)} bytes for the shape {shape} of {dtype}")
    array = arrays.array_over(view, 0, dtype, shape, mark & _FORTRAN)
    if mark & _READONLY:
        array.flags.writeable = False
    return array


def _dump(value: Any) -> Encoded:
    buffers: list[memoryview] = []

    def keep(buffer: PickleBuffer) -> bool:
        view = buffer.raw()
        if len(view) < LARGE:
            return True
        buffers.append(view)
        return False

    try:
        stream = dumps(value, 5, buffer_callback=keep)
        # NumPy copies subclasses, datetimes and strided arrays into the stream; see serialize.
        if stream.find(_COPIED_ARRAY) >= 0:
            buffers.clear()
            target = io.BytesIO()
            _ArrayPickler(target, 5, buffer_callback=keep).dump(value)
            stream = target.getvalue()
    except (PicklingError, AttributeError, TypeError) as error:
        buffers.clear()
        stream = _dump_by_cloudpickle(value, keep, error)
    except Exception as error:
        raise SerializationError(f"{_name(value)} cannot be pickled: {error}") from error
    return (stream, None) if not buffers else _with_buffers(stream, buffers)


def _with_buffers(stream: bytes, buffers: list[memoryview]) -> Encoded:
    head = _BUFFERS_HEAD.pack(_BUFFERS, len(buffers))
    end = 0
    for buffer in buffers:
        start = (end + ALIGNMENT - 1) & -ALIGNMENT
        end = start + len(buffer)
        head += _BUFFER.pack(start, len(buffer))
    return head + stream, buffers[0] if len(buffers) == 1 else tuple(buffers)


def _dump_by_cloudpickle(
    value: Any, keep: Callable[[PickleBuffer], bool], first: Exception
) -> bytes:
    try:
        from proxystore_hpc.serialize.cloud import CloudPickler
    except ImportError:
        raise SerializationError(
            f"{_name(value)} cannot be pickled: {first}. Functions and classes that are not at "
            "the top level of a module need cloudpickle: pip install cloudpickle"
        ) from first
    target = io.BytesIO()
    try:
        CloudPickler(target, 5, buffer_callback=keep).dump(value)
    except Exception as error:
        raise SerializationError(
            f"{_name(value)} can be sent neither by pickle ({first}) nor by cloudpickle "
            f"({error}): give it a __reduce__, or send bytes with codec='raw'"
        ) from error
    return target.getvalue()


def _load(kind: int, body: bytes, lease: Lease | None) -> Any:
    if kind == _PICKLE:
        raise ProtocolError("a payload was received that nothing refers to")
    if lease is None:
        raise ProtocolError("a message was received without the buffers that it refers to")
    buffers: list[memoryview] = []
    stream = _find_buffers(body, memoryview(lease), buffers)
    try:
        return loads(stream, buffers=buffers)
    except Exception as error:
        raise _unloadable(error) from error


def _find_buffers(body: bytes, payload: memoryview, found: list[memoryview]) -> memoryview:
    if len(body) < _BUFFERS_HEAD.size:
        raise ProtocolError("a message was cut short")
    _, count = _BUFFERS_HEAD.unpack_from(body)
    end = _BUFFERS_HEAD.size + _BUFFER.size * count
    if end > len(body):
        raise ProtocolError("a message was cut short")
    whole = memoryview(body)
    for offset, length in _BUFFER.iter_unpack(whole[_BUFFERS_HEAD.size : end]):
        if offset + length > len(payload):
            raise ProtocolError("a message refers to bytes behind the end of its payload")
        found.append(payload[offset : offset + length])
    return whole[end:]


def _unloadable(error: Exception) -> SerializationError:
    told = f"what was received cannot be unpickled: {type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        told += f". Install the module {error.name!r} here, or put it on the path"
    elif isinstance(error, AttributeError) and "__main__" in str(error):
        told += (
            ". Its type is defined in the script of the process that sent it: move the definition "
            "into a module that both processes import"
        )
    return SerializationError(told)


def _name(value: Any) -> str:
    if type(value) in (tuple, list):
        return "an argument or result"
    return f"an object of type {type(value).__module__}.{type(value).__qualname__}"
