"""Serializers that users register for types of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from proxystore_hpc.exceptions import InvalidArgumentError, SerializationError
from proxystore_hpc.serialize.arrays import is_ndarray
from proxystore_hpc.utils.locks import make_lock

MAX_NAME = 255


class Serializer(NamedTuple):
    """How objects of one type become buffers, and buffers objects.

    Attributes:
        name: Identifies the serializer in stored objects.
        type: The exact type that it handles; not its subclasses.
        serialize: Gives one bytes-like object or a sequence of them; they are not copied by it.
        deserialize: Gets a list of as many memoryviews, of format `"B"`, over the stored memory
            (read-only unless a writable result was asked for), and gives the object.
    """

    name: str
    type: type[Any]
    serialize: Callable[[Any], Any]
    deserialize: Callable[[list[memoryview]], Any]


_lock = make_lock()
_by_name: dict[str, Serializer] = {}
_by_type: dict[type[Any], Serializer] = {}


def register_serializer(
    name: str,
    type: type[Any],
    serialize: Callable[[Any], Any | Sequence[Any]],
    deserialize: Callable[[list[memoryview]], Any],
) -> None:
    """Registers a serializer in this process; every process that reads must do the same.

    It is used for stored objects of exactly this type. Objects of it inside other objects are
    pickled with those.

    Args:
        name: Identifies the serializer in stored objects, at most 255 bytes in UTF-8.
        type: The type that it handles; neither a built-in one nor `numpy.ndarray`.
        serialize: Gives one bytes-like object or a sequence of them.
        deserialize: Gets a list of memoryviews over the stored memory and gives the object.

    Raises:
        InvalidArgumentError: Name or type is taken or not allowed.
    """
    encoded = name.encode()
    if not encoded or len(encoded) > MAX_NAME:
        raise InvalidArgumentError(
            f"the name of a serializer has 1 to {MAX_NAME} bytes, {name!r} has {len(encoded)}"
        )
    if type.__module__ == "builtins" or is_ndarray(type):
        raise InvalidArgumentError(
            f"how {type.__qualname__} is stored cannot be changed for everyone: register a "
            "serializer for a subclass, or pass serializer= and deserializer= to the call"
        )
    with _lock:
        if name in _by_name:
            raise InvalidArgumentError(
                f"a serializer named {name!r} is registered already; "
                f"unregister_serializer({name!r}) removes it"
            )
        if type in _by_type:
            raise InvalidArgumentError(
                f"{type.__qualname__} has a serializer already, {_by_type[type].name!r}"
            )
        entry = Serializer(name, type, serialize, deserialize)
        _by_name[name] = entry
        _by_type[type] = entry


def unregister_serializer(name: str) -> None:
    """Removes a serializer; objects that it stored can no longer be read in this process.

    Raises:
        InvalidArgumentError: No serializer has this name.
    """
    with _lock:
        entry = _by_name.pop(name, None)
        if entry is None:
            raise InvalidArgumentError(f"no serializer is named {name!r}")
        del _by_type[entry.type]


def get_serializer(name: str) -> Serializer:
    """The serializer of this name.

    Raises:
        SerializationError: No serializer of this name is registered in this process.
    """
    entry = _by_name.get(name)
    if entry is None:
        raise SerializationError(
            f"the object was stored by the serializer {name!r}, which this process does not "
            f"know: call proxystore_hpc.serialize.register_serializer({name!r}, ...) as the "
            "storing process did, best in the module that defines the type"
        )
    return entry


def serializer_of(type: type[Any]) -> Serializer | None:
    """The serializer of exactly this type, if there is one."""
    return _by_type.get(type)
