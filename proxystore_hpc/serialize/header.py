"""The header that every serialized object starts with.

Little-endian, no padding:

    head    magic 4s, checksum u32, kind u8, flags u8, name length u16, buffer count u32,
            meta length u64, total length u64                         (32 bytes)
    table   offset u64, length u64 of each buffer, offsets from the start of the head
    name    dtype, memoryview format or serializer name
    meta    shape (i64 each), or the pickle stream

then the buffers, each on its alignment; bytes between them mean nothing. Of a raw kind the part
before the data is at most `PREFIX_NBYTES` long, so that reading this much is enough to know where
any range of the data lies. The checksum (CRC-32) covers what follows it up to the buffers, but not
the meta part beyond its first `COVERED_NBYTES`: it tells a header from garbage before anything is
unpickled; it is no protection of the data.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

from proxystore_hpc.exceptions import SerializationError

MAGIC = b"PSH\x01"
HEAD = struct.Struct("<4sIBBHIQQ")
SEAL = struct.Struct("<4sI")
FIELDS = struct.Struct("<BBHIQQ")
ENTRY = struct.Struct("<QQ")
HEAD_NBYTES = HEAD.size
PREFIX_NBYTES = 256
COVERED_NBYTES = 4096

PICKLE = 0
CLOUDPICKLE = 1
TEXT = 2
BYTES = 3
BYTEARRAY = 4
MEMORYVIEW = 5
NDARRAY = 6
OPAQUE = 7
CUSTOM = 8
WRAPPED = 9
KIND_NAMES = (
    "pickle",
    "cloudpickle",
    "str",
    "bytes",
    "bytearray",
    "memoryview",
    "ndarray",
    "opaque",
    "custom",
    "wrapped",
)
RAW_KINDS = frozenset({BYTES, BYTEARRAY, MEMORYVIEW, NDARRAY, OPAQUE})

FORTRAN = 1

_DAMAGED = "the header of a serialized object is damaged: it was overwritten or is something else"

MAX_RAW_NAME = 64
MAX_RAW_NDIM = 16


Header = tuple[int, int, int, int, int, int, int]
"""kind, flags, buffer count, offset of the name, offset of the meta part, its end, total length"""

SHAPES = tuple(struct.Struct(f"<{ndim}q") for ndim in range(MAX_RAW_NDIM + 1))


class ObjectInfo(NamedTuple):
    """What the first `PREFIX_NBYTES` bytes of a serialized object tell about it.

    Attributes:
        kind: One of `KIND_NAMES`.
        nbytes: Length of the data in bytes: of a raw kind what the object itself holds, else
            the whole serialized object.
        dtype: NumPy dtype text (`"<f8"`) or memoryview format, `None` for other kinds.
        shape: Shape of an array or memoryview, `None` for other kinds.
        order: `"C"` or `"F"`.
        data_offset: Where the data of a raw kind begin, from the start of the serialized object;
            `None` for other kinds, which have no data that could be read in ranges.
        total: Length of the whole serialized object in bytes.
    """

    kind: str
    nbytes: int
    dtype: str | None
    shape: tuple[int, ...] | None
    order: str
    data_offset: int | None
    total: int

    @property
    def is_raw(self) -> bool:
        """Whether ranges of the data can be read without reading all of it."""
        return self.data_offset is not None


def pack(kind: int, flags: int, table: bytes, name: bytes, meta: bytes, nbytes: int) -> bytes:
    """The header with its checksum, up to `meta`, which is not in the result."""
    rest = FIELDS.pack(kind, flags, len(name), len(table) // 16, len(meta), nbytes) + table + name
    covered = meta if len(meta) <= COVERED_NBYTES else memoryview(meta)[:COVERED_NBYTES]
    return SEAL.pack(MAGIC, crc32(covered, crc32(rest))) + rest


def parse(view: memoryview) -> Header:
    """Reads and validates the header at the start of `view`, which holds the whole object.

    Raises:
        SerializationError: It is truncated, damaged, or not one of ours.
    """
    nbytes = len(view)
    if nbytes < HEAD_NBYTES:
        raise SerializationError(
            f"a serialized object has at least {HEAD_NBYTES} bytes, this has {nbytes}: "
            "it was truncated or is something else"
        )
    magic, checksum, kind, flags, name_length, count, meta_length, total = HEAD.unpack_from(view)
    if magic != MAGIC:
        raise SerializationError(_foreign(magic))
    name_offset = HEAD_NBYTES + 16 * count
    meta_offset = name_offset + name_length
    end = meta_offset + meta_length
    if total > nbytes:
        raise SerializationError(
            f"a serialized object of {total} bytes was cut off after {nbytes} bytes"
        )
    if kind >= len(KIND_NAMES) or end > total:
        raise SerializationError(_DAMAGED)
    covered = end if meta_length <= COVERED_NBYTES else meta_offset + COVERED_NBYTES
    if crc32(view[8:covered]) != checksum:
        raise SerializationError(_DAMAGED)
    return kind, flags, count, name_offset, meta_offset, end, total


def describe(prefix: bytes | bytearray | memoryview) -> ObjectInfo:
    """What a serialized object is, from its first bytes.

    Args:
        prefix: At least `PREFIX_NBYTES` bytes, or the whole object if it is shorter.

    Raises:
        SerializationError: The prefix is too short, damaged, or not one of ours.
    """
    view = memoryview(prefix)
    if len(view) < HEAD_NBYTES:
        raise SerializationError(f"{len(view)} bytes are too few to describe an object")
    magic, checksum, kind, flags, name_length, count, meta_length, total = HEAD.unpack_from(view)
    if magic != MAGIC:
        raise SerializationError(_foreign(magic))
    meta_offset = HEAD_NBYTES + 16 * count + name_length
    end = meta_offset + meta_length
    if kind >= len(KIND_NAMES) or end > total:
        raise SerializationError(_DAMAGED)
    if kind not in RAW_KINDS:
        return ObjectInfo(KIND_NAMES[kind], total, None, None, "C", None, total)
    if count != 1 or meta_length % 8 or end > PREFIX_NBYTES:
        raise SerializationError(_DAMAGED)
    if end > len(view):
        raise SerializationError(f"the header has {end} bytes, {len(view)} were given")
    if crc32(view[8:end]) != checksum:
        raise SerializationError(_DAMAGED)
    offset, length = ENTRY.unpack_from(view, HEAD_NBYTES)
    if offset < end or offset + length > total:
        raise SerializationError(_DAMAGED)
    order = "F" if flags & FORTRAN else "C"
    if kind != NDARRAY and kind != MEMORYVIEW:
        return ObjectInfo(KIND_NAMES[kind], length, None, None, order, offset, total)
    dtype = str(view[meta_offset - name_length : meta_offset], "ascii")
    return ObjectInfo(
        KIND_NAMES[kind], length, dtype, shape_of(view, meta_offset, end), order, offset, total
    )


def shape_of(view: memoryview, start: int, end: int) -> tuple[int, ...]:
    """The shape that the meta part of a raw object holds."""
    ndim, rest = divmod(end - start, 8)
    if rest or ndim > MAX_RAW_NDIM:
        raise SerializationError(_DAMAGED)
    return SHAPES[ndim].unpack_from(view, start)


def extent(view: memoryview, parsed: Header) -> tuple[int, int]:
    """Offset and length of the only buffer of an object."""
    _, _, count, _, _, end, total = parsed
    if count != 1:
        raise SerializationError(_DAMAGED)
    offset, length = ENTRY.unpack_from(view, HEAD_NBYTES)
    if offset < end or offset + length > total:
        raise SerializationError(_DAMAGED)
    return offset, length


def buffers(view: memoryview, parsed: Header) -> list[memoryview]:
    """The buffers that the table names, as slices of `view`."""
    _, _, _, name_offset, _, end, total = parsed
    slices = []
    for offset, length in ENTRY.iter_unpack(view[HEAD_NBYTES:name_offset]):
        if offset < end or offset + length > total:
            raise SerializationError(_DAMAGED)
        slices.append(view[offset : offset + length])
    return slices


def _foreign(magic: bytes) -> str:
    if magic[:3] == MAGIC[:3]:
        return (
            f"the object was serialized in format {magic[3]}, this version reads {MAGIC[3]}: "
            "use the same version of proxystore_hpc on both sides"
        )
    return (
        f"this is not a serialized object (it starts with {magic!r}): if it was stored with a "
        "serializer of its own, pass the matching deserializer"
    )
