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
_VERSION = 1
_DEFERRED = 1
_LIVE = 2
_HOST_OFFSET = _HEAD.size


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
            fingerprint_length = packed[host_end]
        except (struct.error, IndexError, TypeError) as error:
            raise InvalidKeyError(_garbled(packed), key=packed) from error
        whole = host_end + 1 + fingerprint_length
        if head[0] != _VERSION or len(packed) != whole or fingerprint_length not in (0, 16):
            raise InvalidKeyError(_garbled(packed), key=packed)
        host = packed[_HOST_OFFSET:host_end].decode("ascii", "replace")
        fields = (*head[:11], host, packed[host_end + 1 :])
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
    def contact(self) -> tuple[str, int] | None:
        """Host and port where the owner can be asked from other nodes, `None` if it cannot."""
        fields = self._decode()
        return (fields[11], fields[10]) if fields[11] else None

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


def _garbled(packed: object) -> str:
    size = len(packed) if isinstance(packed, (bytes, bytearray, memoryview)) else 0
    return (
        f"these {size} bytes are no key of proxystore_hpc, or one that was cut short or garbled; "
        "pass keys on whole, as pickles or as bytes(key)"
    )
