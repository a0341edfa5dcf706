"""Exceptions of handlers, from the process that raised them to the one that called.

They travel as texts beside a pickle, and the pickle is loaded with care: nothing is imported for
it, so that what an error class does on import happens in no process that has no use for it.
"""

from __future__ import annotations

import builtins
import io
import pickle
import struct
import sys
import traceback
from concurrent.futures import CancelledError
from types import FunctionType
from typing import Any

from proxystore_hpc.exceptions import RemoteError

_LENGTHS = struct.Struct("<III")
_MAX_TEXT = 1 << 20
# Raised here as they are, these would end a generator, a coroutine or a wait of the caller's.
_CONTROL = (StopIteration, StopAsyncIteration, CancelledError)
_PLAIN_BUILTINS = frozenset({"bytearray", "complex", "frozenset", "range", "set", "slice"})


def encode(error: BaseException) -> bytes:
    """An exception as bytes for `revive`. Never fails."""
    cls = type(error)
    texts = [
        _text(f"{cls.__module__}.{cls.__qualname__}".removeprefix("builtins.")),
        _text(_message(error)),
        _text(_traceback(error)),
    ]
    stream = b""
    if isinstance(error, Exception):
        try:
            stream = pickle.dumps(error, 5)
        except Exception:
            stream = b""  # it then arrives as a RemoteError
    return b"".join([_LENGTHS.pack(*map(len, texts)), *texts, stream])


def revive(body: bytes, peer: str) -> Exception:
    """The exception that `encode` made bytes of, to be raised at the caller. Never fails.

    It is of the same type if that lies in `builtins` or a module that is loaded here, and can be
    made again; else a [`RemoteError`][proxystore_hpc.exceptions.RemoteError], as are exceptions
    that would end more than the call (`SystemExit`, `StopIteration`, ...). Either has the
    attributes `remote_traceback` and `peer`, and from Python 3.11 on a note with the traceback.
    """
    try:
        type_name, message, where, stream = _split(body)
    except (struct.error, ValueError):
        return RemoteError("the peer's account of its error is garbled", peer=peer)
    plain = RemoteError(message, type_name=type_name, remote_traceback=where, peer=peer)
    error = _load(stream) or plain
    try:
        error.remote_traceback = where  # type: ignore[attr-defined]
        if getattr(error, "peer", None) is None:
            error.peer = peer  # type: ignore[attr-defined]
        if sys.version_info >= (3, 11) and where:
            error.add_note(f"Raised in {peer}:\n{where.rstrip()}")
    except Exception:  # a class that refuses attributes
        return plain
    return error


def _split(body: bytes) -> tuple[str, str, str, bytes]:
    texts = []
    position = _LENGTHS.size
    for length in _LENGTHS.unpack_from(body):
        if position + length > len(body):
            raise ValueError("cut short")
        texts.append(body[position : position + length].decode("utf-8", "replace"))
        position += length
    return texts[0], texts[1], texts[2], body[position:]


class _Loader(pickle.Unpickler):
    """Finds only what is loaded already; of the builtins, only exceptions and containers."""

    def find_class(self, module: str, name: str) -> Any:
        found: Any = sys.modules.get(module)
        if found is None:
            raise pickle.UnpicklingError(f"the module {module} is not loaded here")
        for part in name.split("."):
            found = getattr(found, part)
        if module == builtins.__name__ and name not in _PLAIN_BUILTINS:
            if not (isinstance(found, type) and issubclass(found, BaseException)):
                raise pickle.UnpicklingError(f"builtins.{name} has no place in an exception")
        elif not isinstance(found, (type, FunctionType)) and not callable(found):
            raise pickle.UnpicklingError(f"{module}.{name} is neither a class nor a function")
        return found


def _load(stream: bytes) -> Exception | None:
    if not stream:
        return None
    try:
        error = _Loader(io.BytesIO(stream)).load()
    except Exception:
        return None
    return error if isinstance(error, Exception) and not isinstance(error, _CONTROL) else None


def _text(text: str) -> bytes:
    return text.encode("utf-8", "replace")[:_MAX_TEXT]


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "its text cannot be made"


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception:
        return ""
