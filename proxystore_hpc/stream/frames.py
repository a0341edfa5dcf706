"""What publishers, subscribers and brokers send each other: heads and messages in one buffer.

Numbers are little-endian. Nothing is pickled, so a broker handles messages without knowing what
they mean.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from proxystore_hpc.exceptions import ProtocolError

SESSION_NBYTES = 16

_PUBLISH = struct.Struct("<16sIdI")  # session, topic, timeout, messages
_FETCH = struct.Struct("<16sQIIdI")  # session, last batch, items, bytes, wait, acknowledgements
_GIVEN = struct.Struct("<QBI")  # number of the batch, state, items
_MARK = struct.Struct("<IQ")  # source, offset
_ITEM = struct.Struct("<IQBI")  # source, offset, whether handed out before, length

ITEMS, NOTHING, END = 0, 1, 2

Mark = tuple[int, int]
"""Number of the source (a topic of the subscription) and offset there."""


class Item(NamedTuple):
    """One item as it is handed out."""

    source: int
    offset: int
    redelivered: bool
    message: bytes


class Publish(NamedTuple):
    """Messages for a topic."""

    session: bytes
    topic: int
    timeout: float
    messages: list[bytes]


class Fetch(NamedTuple):
    """A consumer asks for items; tells which it has worked off, and what came last."""

    session: bytes
    batch: int
    items: int
    nbytes: int
    wait: float
    done: list[Mark]


def pack_publish(session: bytes, topic: int, timeout: float, messages: list[bytes]) -> bytes:
    """See `Publish`."""
    lengths = struct.pack(f"<{len(messages)}I", *map(len, messages))
    return b"".join((_PUBLISH.pack(session, topic, timeout, len(messages)), lengths, *messages))


def unpack_publish(data: bytes | memoryview) -> Publish:
    """What `pack_publish` was given.

    Raises:
        ProtocolError: The bytes are nothing of the kind.
    """
    try:
        session, topic, timeout, count = _PUBLISH.unpack_from(data)
        lengths = struct.unpack_from(f"<{count}I", data, _PUBLISH.size)
    except struct.error as error:
        raise _garbled(data) from error
    messages, at = [], _PUBLISH.size + 4 * count
    for length in lengths:
        messages.append(bytes(data[at : at + length]))
        at += length
    if at != len(data) or not messages:
        raise _garbled(data)
    return Publish(session, topic, timeout, messages)


def pack_fetch(fetch: Fetch) -> bytes:
    """See `Fetch`."""
    session, batch, items, nbytes, wait, done = fetch
    head = _FETCH.pack(session, batch, items, nbytes, wait, len(done))
    return head + b"".join(_MARK.pack(*mark) for mark in done) if done else head


def unpack_fetch(data: bytes | memoryview) -> Fetch:
    """What `pack_fetch` was given.

    Raises:
        ProtocolError: The bytes are nothing of the kind.
    """
    try:
        session, batch, items, nbytes, wait, count = _FETCH.unpack_from(data)
    except struct.error as error:
        raise _garbled(data) from error
    marks = data[_FETCH.size :]
    if len(marks) != count * _MARK.size or not items:
        raise _garbled(data)
    return Fetch(session, batch, items, nbytes, wait, list(_MARK.iter_unpack(marks)))


def pack_given(batch: int, state: int, items: list[Item]) -> bytes:
    """The answer to a fetch."""
    head = _GIVEN.pack(batch, state, len(items))
    if not items:
        return head
    parts = [head]
    parts += [_ITEM.pack(i.source, i.offset, i.redelivered, len(i.message)) for i in items]
    parts += [i.message for i in items]
    return b"".join(parts)


def unpack_given(data: bytes | memoryview) -> tuple[int, int, list[Item]]:
    """Number of the batch, its state (`ITEMS`, `NOTHING`, `END`) and its items.

    Raises:
        ProtocolError: The bytes are nothing of the kind.
    """
    try:
        batch, state, count = _GIVEN.unpack_from(data)
    except struct.error as error:
        raise _garbled(data) from error
    at = _GIVEN.size
    bodies = at + count * _ITEM.size
    if state > END or bodies > len(data):
        raise _garbled(data)
    items = []
    for source, offset, again, length in _ITEM.iter_unpack(data[at:bodies]):
        items.append(Item(source, offset, bool(again), bytes(data[bodies : bodies + length])))
        bodies += length
    if bodies != len(data):
        raise _garbled(data)
    return batch, state, items


def _garbled(data: bytes | memoryview) -> ProtocolError:
    return ProtocolError(
        f"{len(data)} bytes came that are no message of a stream's broker: both sides need the "
        "same version of proxystore_hpc"
    )
