"""Serialized objects inside of serialized objects: compressed, or with a checksum of everything.

Both are serializers to be passed to a store or to one call. What they make says what it is, so a
reader needs no deserializer, and every `get` of it works as for other objects.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from proxystore_hpc.exceptions import InvalidArgumentError, SerializationError
from proxystore_hpc.serialize import header
from proxystore_hpc.serialize.layout import ORIGIN, Layout, Segment, align, lay_out
from proxystore_hpc.serialize.planning import plan
from proxystore_hpc.utils.checksum import crc32

_NBYTES = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_CRC = b"crc32"
# What compressing has to save.
_WORTH = 0.95


class Checked:
    """A serializer that adds a checksum (CRC-32) of all data, verified whenever they are read.

    Data are laid out as without it, and views of them are handed out in the same way; each is
    looked at once more, by the writer and by every reader.
    """

    def plan_layout(self, obj: Any, origin: int = ORIGIN) -> Layout:
        """The layout of an object and its checksum. Thread-safe; holds the GIL but for the sum.

        Args:
            obj: The object; it must stay unchanged until the layout has been copied.
            origin: Offset of the serialized object in its block.

        Raises:
            SerializationError: It cannot be serialized.
        """
        start = header.HEAD_NBYTES + 16 + len(_CRC) + _CHECKSUM.size
        offset = align(start, 1, origin)
        inner = plan(obj, origin + offset)
        meta = _CHECKSUM.pack(_sum(inner.segments()))
        entry = header.ENTRY.pack(offset, inner.nbytes)
        total = offset + inner.nbytes
        head = header.pack(header.WRAPPED, 0, entry, _CRC, meta, total) + meta
        segments: list[Segment] = [(0, head)]
        segments += [(offset + at, segment) for at, segment in inner.segments()]
        return Layout(header.KIND_NAMES[header.WRAPPED], total, -1, segments)

    def __call__(self, obj: Any) -> bytes:
        """The same as bytes."""
        return self.plan_layout(obj).to_bytes()

    def __repr__(self) -> str:
        return "Checked()"


class Compressed:
    """A serializer that compresses, where that saves anything. It is picklable.

    Args:
        codec: `"zstd"` or `"lz4"`.
        level: Of the codec; `None` for its default.
        checksum: Add a checksum of the data, verified when they are read.
        threads: Threads that compress one object, zstd only; 0 for the calling one.
        min_nbytes: Smaller objects stay as they are.

    Raises:
        InvalidArgumentError: There is no such codec.
        SerializationError: Its library is not installed.
    """

    def __init__(
        self,
        codec: str = "zstd",
        *,
        level: int | None = None,
        checksum: bool = False,
        threads: int = 0,
        min_nbytes: int = 1024,
    ) -> None:
        if codec not in _DECOMPRESSORS:
            raise InvalidArgumentError(f"codec: one of {', '.join(_DECOMPRESSORS)}, not {codec!r}")
        _library(codec)
        self.codec = codec
        self.level = level
        self.checksum = checksum
        self.threads = threads
        self.min_nbytes = min_nbytes

    def plan_layout(self, obj: Any, origin: int = ORIGIN) -> Layout:
        """The layout of the compressed object. Thread-safe; the codec releases the GIL.

        Args:
            obj: The object.
            origin: Offset of the serialized object in its block.

        Raises:
            SerializationError: It cannot be serialized.
        """
        inner = plan(obj, origin)
        if inner.nbytes >= self.min_nbytes:
            packed = self._compress(inner)
            if len(packed) < _WORTH * inner.nbytes:
                meta = _NBYTES.pack(inner.nbytes)
                view = memoryview(packed)
                return lay_out(header.WRAPPED, 0, self.codec.encode(), meta, [view], origin)
        return Checked().plan_layout(obj, origin) if self.checksum else inner

    def __call__(self, obj: Any) -> bytes:
        """The same as bytes."""
        return self.plan_layout(obj).to_bytes()

    def __repr__(self) -> str:
        return f"Compressed({self.codec!r}, level={self.level}, checksum={self.checksum})"

    def _compress(self, inner: Layout) -> bytes:
        begin, write, end = self._compressor(inner.nbytes)
        pieces = [begin]
        position = 0
        for offset, segment in inner.segments():
            if offset > position:
                pieces.append(write(bytes(offset - position)))
            pieces.append(write(segment))
            position = offset + len(segment)
        pieces.append(end())
        return b"".join(pieces)

    def _compressor(self, nbytes: int) -> tuple[bytes, Callable[[Any], bytes], Callable[[], bytes]]:
        library = _library(self.codec)
        if self.codec == "zstd":
            level = 3 if self.level is None else self.level
            compressor = library.ZstdCompressor(
                level=level, threads=self.threads, write_checksum=self.checksum
            ).compressobj(size=nbytes)
            return b"", compressor.compress, compressor.flush
        level = 0 if self.level is None else self.level
        compressor = library.LZ4FrameCompressor(
            compression_level=level, content_checksum=self.checksum
        )
        return compressor.begin(source_size=nbytes), compressor.compress, compressor.flush


def unwrap(view: memoryview, parsed: header.Header) -> memoryview:
    """The serialized object inside of another, verified.

    Raises:
        SerializationError: It is damaged, or its codec is not installed.
    """
    name = bytes(view[parsed[3] : parsed[4]])
    meta = view[parsed[4] : parsed[5]]
    offset, length = header.extent(view, parsed)
    body = view[offset : offset + length]
    if name == _CRC:
        if _sum_of(body) != _CHECKSUM.unpack(meta)[0]:
            raise SerializationError("the checksum of a stored object is wrong: it is damaged")
        return body
    codec = name.decode("ascii", "replace")
    if codec not in _DECOMPRESSORS:
        raise SerializationError(f"the object is compressed by {codec!r}, unknown here")
    (nbytes,) = _NBYTES.unpack(meta)
    try:
        return memoryview(_decompress(codec, body, nbytes))
    except SerializationError:
        raise
    except Exception as error:
        raise SerializationError(f"a compressed object is damaged: {error}") from error


def _decompress(codec: str, body: memoryview, nbytes: int) -> bytearray:
    data = _DECOMPRESSORS[codec](_library(codec), body, nbytes)
    if data is None:
        raise SerializationError(f"a compressed object is damaged: it has not {nbytes} bytes")
    return data


def _of_zstd(library: Any, body: memoryview, nbytes: int) -> bytearray | None:
    data = bytearray(nbytes)
    filled = 0
    with library.ZstdDecompressor().stream_reader(body) as reader, memoryview(data) as rest:
        while filled < nbytes and (more := reader.readinto(rest[filled:])):
            filled += more
        # Whoever reads to the end has the checksum looked at.
        complete = filled == nbytes and not reader.read(1)
    return data if complete else None


def _of_lz4(library: Any, body: memoryview, nbytes: int) -> bytearray | None:
    decompressor = library.LZ4FrameDecompressor(return_bytearray=True)
    data: bytearray = decompressor.decompress(body, max_length=nbytes)
    # What is left is the end mark, and the checksum.
    rest = b"" if decompressor.eof else decompressor.decompress(b"", max_length=1)
    return data if len(data) == nbytes and not rest and decompressor.eof else None


_DECOMPRESSORS = {"zstd": _of_zstd, "lz4": _of_lz4}


def _sum(segments: list[Segment]) -> int:
    total = 0
    for _, segment in segments:
        total = crc32(segment, total)
    return total


def _sum_of(body: memoryview) -> int:
    """The same of what was laid out: bytes between the segments mean nothing."""
    parsed = header.parse(body)
    total = crc32(body[: parsed[5]])
    for buffer in header.buffers(body, parsed):
        total = crc32(buffer, total)
    return total


def _library(codec: str) -> Any:
    try:
        if codec == "zstd":
            import zstandard

            return zstandard
        import lz4.frame

        return lz4.frame
    except ImportError as error:
        raise SerializationError(
            f"{codec} is not installed here: pip install 'proxystore_hpc[compress]'"
        ) from error
