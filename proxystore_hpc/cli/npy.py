"""Arrays in NumPy's file format, written without NumPy."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxystore_hpc.serialize import ObjectInfo

_MAGIC = b"\x93NUMPY"
_ALIGNMENT = 64
_SHORT = 1 << 16


def header(info: ObjectInfo) -> bytes:
    """What stands before the data of an array in a `.npy` file.

    Args:
        info: Describes an object of the kind `ndarray`.
    """
    text = (
        f"{{'descr': {info.dtype!r}, 'fortran_order': {info.order == 'F'}, "
        f"'shape': {info.shape!r}, }}"
    )
    version, length_format = (
        (b"\x01\x00", "<H") if len(text) + 128 < _SHORT else (b"\x02\x00", "<I")
    )
    before = len(_MAGIC) + 2 + struct.calcsize(length_format)
    padding = -(before + len(text) + 1) % _ALIGNMENT
    text += " " * padding + "\n"
    return _MAGIC + version + struct.pack(length_format, len(text)) + text.encode("latin-1")
