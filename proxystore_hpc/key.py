"""Names of stored objects.

A key is a few bytes that say where an object is and that its holder may read it. It is read here
without the native core, so that a machine that lacks it can hold, print and forward keys. The
layout is described in `docs/protocol.md`; `csrc/objects/key.cpp` reads the same bytes.
"""

from __future__ import annotations

import struct
from typing import Any

from proxystore_hpc.exceptions import InvalidKeyError

_HEAD = struct.Struct("<BBHQQQQ16s16sIHB")
_OUTSIDE = struct.Struct("<H")
_VERSION = 2
_FIRST_VERSION = 1
_DEFERRED = 1
_LIVE = 2
_RAISED = 4
_HOST_OFFSET = _HEAD.size
_ADDRESS_OFFSET = 52
_MAX_OUTSIDE = 1024
_ADDRESS_BITS = 48


class Key:
    """The name of one stored object, as compact bytes. Immutable and hashable.

    Two keys are equal if they mean the same object, also when one was made before the object was
    (`Store.new_key`) and therefore does not know where it lies.

    Args:
        packed: What `bytes(key)` of an earlier key gave. It is checked when it is first looked into
            or used; `Key.parse` checks at once.
    """

    __slots__ = ("_fields", "_identity", "packed")

    _fields: tuple[Any, ...]
    _identity: tuple[int, bytes]

    def __init__(self, packed: bytes) -> None:
        self.packed = packed

    @classmethod
    def parse(cls, packed: bytes) -> Key:
        """A key of bytes from elsewhere.

        Raises:
            InvalidKeyError: The bytes are no key, or one that was cut short or garbled.
        """
        if not isinstance(packed, bytes):
            raise InvalidKeyError(f"a key is made of bytes, not of {type(packed).__name__}")
        key = cls(packed)
        key._decode()
        return key

    def _decode(self) -> tuple[Any, ...]:
        try:
            return self._fields
        except AttributeError:
            pass
        packed = self.packed
        try:
            head = _HEAD.unpack_from(packed)
            host_end = _HOST_OFFSET + head[11]
            (outside_length,) = _OUTSIDE.unpack_from(packed, host_end)
        except (struct.error, TypeError) as error:
            raise InvalidKeyError(_unreadable(packed), key=packed) from error
        outside = host_end + _OUTSIDE.size
        if (
            head[0] != _VERSION
            or len(packed) != outside + outside_length
            or head[1] > _DEFERRED | _LIVE | _RAISED
            or (head[5] | head[6]) >> _ADDRESS_BITS
            or outside_length > _MAX_OUTSIDE
        ):
            raise InvalidKeyError(_unreadable(packed), key=packed)
        host = packed[_HOST_OFFSET:host_end].decode("ascii", "replace")
        fields = (*head[:11], host, packed[outside:])
        self._fields = fields
        return fields

    @property
    def object_id(self) -> int:
        """Number of the object at its owner, never used twice."""
        return int(self._decode()[3])

    @property
    def owner_id(self) -> bytes:
        """16 random bytes that its owner chose when it started."""
        return bytes(self._decode()[8])

    @property
    def owner(self) -> str:
        """The owner as messages name it: the first 8 hexadecimal digits of its id."""
        return self.owner_id[:4].hex()

    @property
    def user(self) -> int:
        """Id of the user whose process the owner is, on its machine."""
        return int(self._decode()[9])

    @property
    def address(self) -> bytes:
        """`Store.address` of the owner."""
        self._decode()
        return self.packed[_ADDRESS_OFFSET : _HOST_OFFSET + self.packed[_HOST_OFFSET - 1]]

    @property
    def contact(self) -> tuple[str, int] | None:
        """Host and port where the owner can be asked from other nodes, `None` if it cannot."""
        fields = self._decode()
        return (fields[11], fields[10]) if fields[11] else None

    @property
    def outside(self) -> bytes:
        """Where the owner is reached by TCP, for `proxystore_hpc.tcp.endpoints.unpack`."""
        return bytes(self._decode()[12])

    @property
    def inside(self) -> bytes:
        """The packed key without `outside`."""
        return self.packed[: len(self.packed) - len(self.outside) - _OUTSIDE.size] + b"\0\0"

    @property
    def nbytes(self) -> int:
        """Length of the serialized object in bytes; 0 if it was not there when the key was made."""
        return int(self._decode()[6])

    @property
    def deferred(self) -> bool:
        """Whether the key was made before its object."""
        return bool(self._decode()[1] & _DEFERRED)

    @property
    def live(self) -> bool:
        """Whether the key means registered memory, whose contents change."""
        return bool(self._decode()[1] & _LIVE)

    @property
    def raised(self) -> bool:
        """Whether an exception stands where the object was waited for, see `Store.future`."""
        return bool(self._decode()[1] & _RAISED)

    @property
    def generation(self) -> int:
        """Which of the values that the object had the key was made for."""
        return int(self._decode()[4])

    @property
    def identity(self) -> tuple[int, bytes]:
        """What equal keys share."""
        try:
            return self._identity
        except AttributeError:
            self._identity = (self.object_id, self.owner_id)
            return self._identity

    def __bytes__(self) -> bytes:
        return self.packed

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Key):
            return NotImplemented
        return self.packed == other.packed or self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __reduce__(self) -> tuple[type[Key], tuple[bytes]]:
        return Key, (self.packed,)

    def __repr__(self) -> str:
        try:
            return f"<Key of object {self.object_id} of owner {self.owner}>"
        except InvalidKeyError:
            return f"<Key that cannot be read, {len(self.packed)} bytes>"


def _unreadable(packed: object) -> str:
    if isinstance(packed, bytes) and len(packed) > _HOST_OFFSET and packed[0] == _FIRST_VERSION:
        return (
            f"this key is of version {_FIRST_VERSION}, which an older proxystore_hpc made; this "
            f"one reads version {_VERSION}: install the same version on both sides, and make the "
            "key anew"
        )
    size = len(packed) if isinstance(packed, (bytes, bytearray, memoryview)) else 0
    return (
        f"these {size} bytes are no key of proxystore_hpc, or one that was cut short or garbled; "
        "pass keys on whole, as pickles or as bytes(key)"
    )
