"""Frames of the TCP path; `docs/protocol.md` describes them.

Nothing here touches a socket. What is parsed comes from strangers: all sizes are bounded before
anything is allocated, and what does not fit raises `ProtocolError`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from proxystore_hpc.exceptions import (
    AccessDeniedError,
    DoorUnavailableError,
    InvalidArgumentError,
    InvalidKeyError,
    ObjectChangedError,
    ObjectEvictedError,
    ObjectMissingError,
    ObjectPinnedError,
    OperationTimeoutError,
    OwnerGoneError,
    PeerLostError,
    ProtocolError,
    ProxyStoreHpcError,
    StoreClosedError,
    StoreFullError,
    from_code,
)

VERSION = 2
MAGIC = b"PSHPCTCP"

CHECKSUMS = 1
PUTS = 2
FEATURES = CHECKSUMS | PUTS

OWNER = 0
GATEWAY = 1

REPLY = 0x80
PING, GET, EXISTS, EVICT, WAIT, STORE, PUT = range(1, 8)

MORE = 1
CHECKED = 2
LIVE = 4

MAX_REQUEST = 64 << 10
"""Bytes of a request's body."""

MAX_KEY = 2048
MAX_KEYS = 1000
MAX_TEXT = 1024
MAX_REPLY = 4 << 20
"""Bytes of a reply's body, but for the pieces of a get."""

MAX_OBJECT = 1 << 48
CHECKED_PIECE = 1 << 20
"""Bytes of a piece that carries a checksum, at most."""

TO_THE_END = (1 << 64) - 1

HELLO = struct.Struct("<8sHHI")
HEAD = struct.Struct("<BBHIQ")
PIECE = struct.Struct("<QQII")
GET_REQUEST = struct.Struct("<BBHIQIQQ")
"""Head and body of a get in one; the key follows."""
FIRST_PIECE = struct.Struct("<BBHIQQQII")
"""Head and beginning of a piece in one."""
_ASK = struct.Struct("<I")
_RANGE = struct.Struct("<IQQ")
_BATCH = struct.Struct("<IBH")
_LENGTH = struct.Struct("<H")
_OUTCOME = struct.Struct("<HH")
_PUT = struct.Struct("<IQqI16s")
_PROGRESS = struct.Struct("<QB")

_CODES = (
    (1, "invalid", InvalidArgumentError),
    (2, "invalid_key", InvalidKeyError),
    (3, "not_found", ObjectMissingError),
    (4, "evicted", ObjectEvictedError),
    (5, "owner_gone", OwnerGoneError),
    (6, "peer_lost", PeerLostError),
    (7, "timed_out", OperationTimeoutError),
    (8, "full", StoreFullError),
    (9, "closed", StoreClosedError),
    (10, "denied", AccessDeniedError),
    (11, "protocol", ProtocolError),
    (12, "unavailable", DoorUnavailableError),
    (13, "changed", ObjectChangedError),
    (14, "pinned", ObjectPinnedError),
    (15, "failed", ProxyStoreHpcError),
)
_NAMES = {number: name for number, name, _ in _CODES}
_FAILED = _CODES[-1][0]

DENIED = (
    "access was denied: the key was not issued by the owner that it names, or this server does not "
    "serve that owner; use the whole key, as the process that made it gave it out"
)
"""What everybody is told who shows no valid capability, whatever there is."""


def encode_hello(flags: int, features: int) -> bytes:
    """The first bytes of either side. `flags` is the role of a server, 0 from a client."""
    return HELLO.pack(MAGIC, VERSION, flags, features)


@dataclass(frozen=True)
class Hello:
    """What the other side said first."""

    version: int
    flags: int
    features: int


def decode_hello(data: bytes | bytearray | memoryview) -> Hello:
    """Parses 16 bytes.

    Raises:
        ProtocolError: They are no hello. That the version is another one is for the caller to say.
    """
    if len(data) != HELLO.size:
        raise ProtocolError("the connection ended before a hello of the TCP path")
    magic, version, flags, features = HELLO.unpack(data)
    if magic != MAGIC:
        raise ProtocolError("what answers there does not speak the protocol of the TCP path")
    return Hello(version, flags, features)


def encode_request(kind: int, number: int, body: bytes) -> bytes:
    """A whole request."""
    return HEAD.pack(kind, 0, 0, number, len(body)) + body


def decode_request(data: memoryview) -> tuple[int, int, int]:
    """Kind, number and size of the body of a request, from its head.

    Raises:
        ProtocolError: There is no such request, or it is too large.
    """
    kind, flags, status, number, size = HEAD.unpack_from(data)
    if not PING <= kind <= PUT or flags or status or size > MAX_REQUEST:
        raise ProtocolError("a request of an unknown kind, or one that is too large")
    return kind, number, size


@dataclass(frozen=True)
class Get:
    """Asks for bytes of an object. Times are in seconds."""

    key: bytes
    offset: int
    length: int
    patience: float


def to_milliseconds(seconds: float) -> int:
    """As it stands in requests."""
    return min(max(int(seconds * 1e3), 1), (1 << 32) - 1)


def _key(body: memoryview, offset: int) -> bytes:
    if not 0 < len(body) - offset <= MAX_KEY:
        raise ProtocolError("a request without a key, or with one that is too long")
    return bytes(body[offset:])


def encode_get(get: Get) -> bytes:
    """Body of a get; a length of `TO_THE_END` means all that follows the offset."""
    return _RANGE.pack(to_milliseconds(get.patience), get.offset, get.length) + get.key


def decode_get(body: memoryview) -> Get:
    """Parses the body of a get.

    Raises:
        ProtocolError: It is none.
    """
    if len(body) < _RANGE.size:
        raise ProtocolError("a get that was cut short")
    patience, offset, length = _RANGE.unpack_from(body)
    if offset > MAX_OBJECT or (length > MAX_OBJECT and length != TO_THE_END):
        raise ProtocolError("a get of bytes that no object has")
    return Get(_key(body, _RANGE.size), offset, length, patience / 1e3)


def encode_ask(key: bytes, patience: float) -> bytes:
    """Body of a wait, or of a question after the store of a key."""
    return _ASK.pack(to_milliseconds(patience)) + key


def decode_ask(body: memoryview) -> tuple[bytes, float]:
    """The key and the seconds that the asker waits.

    Raises:
        ProtocolError: The body is none of a question.
    """
    if len(body) < _ASK.size:
        raise ProtocolError("a question that was cut short")
    return _key(body, _ASK.size), _ASK.unpack_from(body)[0] / 1e3


@dataclass(frozen=True)
class Batch:
    """Asks about several objects, or evicts them."""

    keys: list[bytes]
    force: bool
    patience: float


def encode_batch(batch: Batch) -> bytes:
    """Body of an exists or evict."""
    head = _BATCH.pack(to_milliseconds(batch.patience), batch.force, len(batch.keys))
    return head + b"".join(_LENGTH.pack(len(key)) + key for key in batch.keys)


def decode_batch(body: memoryview) -> Batch:
    """Parses the body of an exists or evict.

    Raises:
        ProtocolError: It is none, or names too many objects.
    """
    keys: list[bytes] = []
    try:
        patience, force, count = _BATCH.unpack_from(body)
        offset = _BATCH.size
        for _ in range(count if count <= MAX_KEYS else 0):
            (length,) = _LENGTH.unpack_from(body, offset)
            offset += _LENGTH.size + length
            keys.append(bytes(body[offset - length : offset]))
            if not 0 < length <= MAX_KEY or offset > len(body):
                raise ProtocolError("a batch with a key that is too long, or cut short")
    except struct.error as error:
        raise ProtocolError("a batch that was cut short") from error
    if offset != len(body) or force > 1:
        raise ProtocolError("a batch of too many objects, or with bytes behind it")
    return Batch(keys, bool(force), patience / 1e3)


def split_batch(keys: Sequence[bytes]) -> list[list[bytes]]:
    """Keys in groups that fit into a request each, in their order."""
    groups: list[list[bytes]] = [[]]
    room = MAX_REQUEST - _BATCH.size
    for key in keys:
        room -= _LENGTH.size + len(key)
        if groups[-1] and (room < 0 or len(groups[-1]) == MAX_KEYS):
            groups.append([])
            room = MAX_REQUEST - _BATCH.size - _LENGTH.size - len(key)
        groups[-1].append(key)
    return groups if groups[-1] else []


def encode_outcomes(outcomes: Sequence[ProxyStoreHpcError | None]) -> bytes:
    """Body of the reply to a batch."""
    parts = []
    for error in outcomes:
        number, text = (0, b"") if error is None else encode_error(error)
        parts.append(_OUTCOME.pack(number, len(text)) + text)
    return b"".join(parts)


def decode_outcomes(body: memoryview, count: int) -> list[ProxyStoreHpcError | None]:
    """What became of each object of a batch.

    Raises:
        ProtocolError: The reply is about another number of objects, or garbled.
    """
    outcomes: list[ProxyStoreHpcError | None] = []
    offset = 0
    try:
        for _ in range(count):
            number, length = _OUTCOME.unpack_from(body, offset)
            offset += _OUTCOME.size + length
            text = body[offset - length : offset]
            outcomes.append(decode_error(number, text) if number else None)
    except struct.error as error:
        raise ProtocolError("the answer to a batch was cut short") from error
    if offset != len(body):
        raise ProtocolError("an answer for another number of objects than were asked about")
    return outcomes


@dataclass(frozen=True)
class Put:
    """Stores an object of `length` bytes, which are sent once the server has agreed.

    A client that asks again with the same `upload`, 16 bytes that it chose at random, goes on with
    it, and stores nothing twice.
    """

    token: bytes
    address: bytes
    length: int
    ttl_ns: int
    flags: int
    patience: float
    upload: bytes


def encode_put(put: Put) -> bytes:
    """Body of a put."""
    head = _PUT.pack(to_milliseconds(put.patience), put.length, put.ttl_ns, put.flags, put.upload)
    return head + b"".join(_LENGTH.pack(len(text)) + text for text in (put.token, put.address))


def decode_put(body: memoryview) -> Put:
    """Parses the body of a put.

    Raises:
        ProtocolError: It is none, or was cut short.
    """
    texts = []
    try:
        patience, length, ttl_ns, flags, upload = _PUT.unpack_from(body)
        offset = _PUT.size
        for _ in range(2):
            (size,) = _LENGTH.unpack_from(body, offset)
            offset += _LENGTH.size + size
            texts.append(bytes(body[offset - size : offset]))
    except struct.error as error:
        raise ProtocolError("a put that was cut short") from error
    if offset != len(body) or length > MAX_OBJECT or ttl_ns < 0:
        raise ProtocolError("a put of an object that cannot be")
    return Put(texts[0], texts[1], length, ttl_ns, flags, patience / 1e3, upload)


def encode_progress(received: int, known: bool) -> bytes:
    """Body of the reply that agrees to a put: bytes that are there; whether it was known before."""
    return _PROGRESS.pack(received, known)


def decode_progress(body: memoryview, length: int) -> tuple[int, bool]:
    """What `encode_progress` was given, of an object of `length` bytes.

    Raises:
        ProtocolError: The reply is garbled.
    """
    if len(body) != _PROGRESS.size:
        raise ProtocolError("an answer to a put that is garbled")
    received, known = _PROGRESS.unpack(body)
    if received > length or known > 1:
        raise ProtocolError("an answer to a put of more bytes than it has")
    return received, bool(known)


def encode_stored(name: str, config: str) -> bytes:
    """Body of the reply to a question after the store of a key."""
    text = name.encode()
    return _LENGTH.pack(len(text)) + text + config.encode()


def decode_stored(body: memoryview) -> tuple[str, str]:
    """Name and configuration of a store.

    Raises:
        ProtocolError: The reply is garbled.
    """
    try:
        (length,) = _LENGTH.unpack_from(body)
        name = bytes(body[_LENGTH.size : _LENGTH.size + length]).decode()
        return name, bytes(body[_LENGTH.size + length :]).decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise ProtocolError("the description of a store is garbled") from error


def encode_reply(kind: int, number: int, body: bytes, *, flags: int = 0, status: int = 0) -> bytes:
    """A whole reply."""
    return HEAD.pack(REPLY | kind, flags, status, number, len(body)) + body


def encode_piece(
    number: int, flags: int, total: int, offset: int, length: int, checksum: int
) -> bytes:
    """What precedes `length` bytes of an object of `total`."""
    size = PIECE.size + length
    return FIRST_PIECE.pack(REPLY | GET, flags, 0, number, size, total, offset, checksum, 0)


@dataclass(frozen=True)
class ReplyHead:
    """The head of a reply; `size` bytes follow."""

    kind: int
    flags: int
    status: int
    number: int
    size: int


def decode_reply(data: memoryview | bytes | bytearray) -> ReplyHead:
    """Parses the head of a reply.

    Raises:
        ProtocolError: It is none, or announces more than a reply has.
    """
    kind, flags, status, number, size = HEAD.unpack_from(data)
    head = ReplyHead(kind ^ REPLY, flags, status, number, size)
    piece = head.kind == GET and status == 0
    if (
        not PING <= head.kind <= PUT
        or flags > (MORE | CHECKED | LIVE)
        or size > (MAX_OBJECT if piece else MAX_REPLY)
        or (piece and size < PIECE.size)
        or (piece and flags & CHECKED and size > PIECE.size + CHECKED_PIECE)
    ):
        raise ProtocolError("a reply of an unknown kind, or one that is too large")
    return head


def encode_error(error: BaseException) -> tuple[int, bytes]:
    """Number and text of an exception.

    Denials say the same whatever led to them, so that they tell nothing.
    """
    if isinstance(error, AccessDeniedError):
        return 10, DENIED.encode()
    number = next((n for n, _, cls in _CODES[:-1] if isinstance(error, cls)), _FAILED)
    if isinstance(error, InvalidKeyError):
        number = 2
    # Unforeseen errors may hold what is nobody's business.
    known = isinstance(error, ProxyStoreHpcError)
    text = str(error) if known else "the server failed; its log says why"
    if isinstance(error, DoorUnavailableError):
        text = error.reason
    return number, text.encode("utf-8", "replace")[:MAX_TEXT]


def decode_error(number: int, text: memoryview | bytes) -> ProxyStoreHpcError:
    """The exception that a reply stands for."""
    message = bytes(text[:MAX_TEXT]).decode("utf-8", "replace")
    name = _NAMES.get(number, "failed")
    if name == "failed":
        return ProxyStoreHpcError(message)
    if name == "unavailable":
        return DoorUnavailableError("tcp", message)
    return from_code(name, message)
