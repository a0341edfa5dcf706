"""Bytes in pieces, and their number for people."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from proxystore_hpc.utils.sizes import parse_size

BytesT = TypeVar("BytesT", bytes, bytearray, memoryview)


def chunk_bytes(data: BytesT, chunk_size: int) -> Generator[BytesT, None, None]:
    """Yields `data` in pieces of `chunk_size` bytes, the last of which may be shorter.

    Pieces of a memoryview are not copied.

    Raises:
        ValueError: The size is not positive.
    """
    if chunk_size < 1:
        raise ValueError(f"pieces have at least one byte, not {chunk_size}")
    for start in range(0, len(data), chunk_size):
        yield data[start : start + chunk_size]


def bytes_to_readable(size: int, precision: int = 3) -> str:
    """A number of bytes for people, in powers of 1000: `"1.5 MB"`.

    Args:
        size: The number.
        precision: Most digits after the point.

    Raises:
        ValueError: The size is negative.
    """
    if size < 0:
        raise ValueError(f"a size cannot be negative: {size}")
    power = min((len(str(int(size))) - 1) // 3, 4)
    number = f"{round(size / 1000**power, precision):.{max(precision, 0)}f}"
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return f"{number} {('B', 'KB', 'MB', 'GB', 'TB')[power]}"


def readable_to_bytes(size: str) -> int:
    """The number of bytes in a text such as `"1.2 KB"` (powers of 1000) or `"1 MiB"` (of 1024).

    Raises:
        ValueError: It is no size.
    """
    try:
        return int(float(size))
    except ValueError:
        pass
    if size.strip()[-1:] in tuple("kmgtpKMGTP"):
        raise ValueError(f"{size!r}: the unit is B, KB, KiB, MB, ...")
    return parse_size(size)
