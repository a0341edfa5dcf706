"""Objects as one block of bytes: pickle protocol 5 with its buffers out of band.

`plan` says where the parts of an object go before anything is copied; `loads` builds the object
over the memory that holds them. `serialize` and `deserialize` do the same through `bytes`.
"""

from __future__ import annotations

from typing import Any

from proxystore_hpc.exceptions import SerializationError
from proxystore_hpc.serialize.arrays import plan_array
from proxystore_hpc.serialize.header import PREFIX_NBYTES, ObjectInfo, describe
from proxystore_hpc.serialize.layout import Layout
from proxystore_hpc.serialize.loading import loads, loads_with, raw_payload, zero_copy
from proxystore_hpc.serialize.planning import plan, plan_with
from proxystore_hpc.serialize.registry import (
    Serializer,
    get_serializer,
    register_serializer,
    unregister_serializer,
)
from proxystore_hpc.serialize.views import BytesLike, is_bytes_like
from proxystore_hpc.serialize.wrapping import Checked, Compressed

__all__ = [
    "PREFIX_NBYTES",
    "BytesLike",
    "Checked",
    "Compressed",
    "Layout",
    "ObjectInfo",
    "SerializationError",
    "Serializer",
    "describe",
    "deserialize",
    "get_serializer",
    "is_bytes_like",
    "loads",
    "loads_with",
    "plan",
    "plan_array",
    "plan_with",
    "raw_payload",
    "register_serializer",
    "serialize",
    "unregister_serializer",
    "zero_copy",
]


def serialize(obj: Any) -> bytes:
    """The object as bytes, which `deserialize` turns back.

    Raises:
        SerializationError: The object cannot be serialized.
    """
    return plan(obj).to_bytes()


@zero_copy
def deserialize(buffer: BytesLike) -> Any:
    """The object that `serialize` made bytes of.

    Arrays in the result are read-only views of `buffer`.

    Raises:
        SerializationError: `buffer` is not bytes-like, not made by `serialize`, or damaged.
    """
    if not is_bytes_like(buffer):
        raise SerializationError(f"deserialize takes bytes, not {type(buffer).__name__}")
    return loads(buffer)
