"""Where the parts of an object go in its block, before anything is copied."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from proxystore_hpc.serialize.header import (
    COVERED_NBYTES,
    ENTRY,
    FIELDS,
    HEAD_NBYTES,
    KIND_NAMES,
    MAGIC,
    SEAL,
    pack,
)

ORIGIN = 64
"""Bytes of the core's own object header, which precede the serialized object in a block."""

ALIGNMENT = 64
PAGE = 4096
PAGE_ALIGNED_FROM = 64 * 1024

Segment = tuple[int, "bytes | memoryview"]


class Layout:
    """The parts of one serialized object and where each goes.

    Holds views of the object's buffers, so the object must not change before the copy is done.

    Attributes:
        kind: One of `header.KIND_NAMES`.
        nbytes: Bytes that the serialized object takes.
        data_offset: Where its first buffer begins, from the start of the serialized object;
            -1 if it has none.
    """

    __slots__ = ("_segments", "data_offset", "kind", "nbytes")

    def __init__(self, kind: str, nbytes: int, data_offset: int, segments: list[Segment]) -> None:
        self.kind = kind
        self.nbytes = nbytes
        self.data_offset = data_offset
        self._segments = segments

    def segments(self) -> list[Segment]:
        """`(offset, buffer)` pairs in ascending order, not overlapping.

        Every buffer is `bytes` or a contiguous one-dimensional memoryview of format `"B"`.
        What lies between the segments is not read, so it need not be written.
        """
        return self._segments

    def write_into(self, target: memoryview) -> None:
        """Copies all segments into `target`, a writable view of at least `nbytes` bytes.

        Holds the GIL; the core's own copy does not.
        """
        for offset, segment in self._segments:
            target[offset : offset + len(segment)] = segment

    def to_bytes(self) -> bytes:
        """The serialized object in one `bytes`, gaps filled with zeros."""
        if len(self._segments) == 1:
            return bytes(self._segments[0][1])
        return b"".join(self.pieces())

    def pieces(self) -> list[bytes | memoryview]:
        """What makes the serialized object when joined, gaps filled with zeros."""
        pieces: list[bytes | memoryview] = []
        position = 0
        for offset, segment in self._segments:
            if offset > position:
                pieces.append(bytes(offset - position))
            pieces.append(segment)
            position = offset + len(segment)
        return pieces

    def __repr__(self) -> str:
        return f"<Layout {self.kind}, {self.nbytes} bytes in {len(self._segments)} segments>"


def align(offset: int, nbytes: int, origin: int) -> int:
    """The first place from `offset` on for a buffer of `nbytes`, in an object at `origin`."""
    if not nbytes:
        return offset
    step = PAGE if nbytes >= PAGE_ALIGNED_FROM else ALIGNMENT
    return ((origin + offset + step - 1) & -step) - origin


def arrange(lengths: Iterable[int], position: int, origin: int) -> tuple[list[int], bytes, int]:
    """Offsets of buffers of these lengths from `position` on, their table, and the end."""
    offsets = []
    table = b""
    for length in lengths:
        position = align(position, length, origin)
        offsets.append(position)
        table += ENTRY.pack(position, length)
        position += length
    return offsets, table, position


def lay_out(
    kind: int, flags: int, name: bytes, meta: bytes, buffers: list[memoryview], origin: int
) -> Layout:
    """Places header, `meta` and `buffers` one after the other."""
    start = HEAD_NBYTES + 16 * len(buffers) + len(name)
    offsets, table, total = arrange(map(len, buffers), start + len(meta), origin)
    head = pack(kind, flags, table, name, meta, total)
    segments: list[Segment]
    # A large pickle stream is a segment of its own rather than copied behind the header.
    segments = [(0, head + meta)] if len(meta) <= COVERED_NBYTES else [(0, head), (start, meta)]
    segments += [placed for placed in zip(offsets, buffers, strict=True) if len(placed[1])]
    return Layout(KIND_NAMES[kind], total, offsets[0] if offsets else -1, segments)


def lay_out_raw(
    kind: int, flags: int, name: bytes, meta: bytes, length: int, origin: int
) -> tuple[bytes, int]:
    """Header and data offset of an object that is one buffer of `length` bytes."""
    offset = align(HEAD_NBYTES + 16 + len(name) + len(meta), length, origin)
    entry = ENTRY.pack(offset, length)
    return pack(kind, flags, entry, name, meta, offset + length) + meta, offset


def lay_out_plain(kind: int, meta: bytes) -> Layout:
    """An object without buffers."""
    length = len(meta)
    total = HEAD_NBYTES + length
    rest = FIELDS.pack(kind, 0, 0, 0, length, total)
    if length <= COVERED_NBYTES:
        rest += meta
        return Layout(KIND_NAMES[kind], total, -1, [(0, SEAL.pack(MAGIC, crc32(rest)) + rest)])
    head = SEAL.pack(MAGIC, crc32(memoryview(meta)[:COVERED_NBYTES], crc32(rest))) + rest
    return Layout(KIND_NAMES[kind], total, -1, [(0, head), (HEAD_NBYTES, meta)])
