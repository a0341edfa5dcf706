"""CRC-32 as zlib has it, by the quickest implementation that is installed.

`zlib_ng` computes the same with carry-less multiplication, some ten times as quickly, so that
readers and servers that do not have it understand those that do.
"""

from __future__ import annotations

try:
    from zlib_ng.zlib_ng import crc32
except ImportError:
    from zlib import crc32

__all__ = ["crc32"]
