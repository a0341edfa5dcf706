"""What stands in a pickle for the defaults of a proxy; the C type writes and reads the same."""

from __future__ import annotations

import builtins
import operator
from typing import Any

_HEAP_TYPE = 1 << 9
_ARRAY_CLASS = "numpy.ndarray"

_TOKEN = hash("proxystore_hpc.proxy") & 0x7FFFFFFF
"""Two processes with the same token give equal strings equal hashes."""

# Classes that travel by name alone, in a fifth of the time and bytes of a reference that pickle
# makes. A closed list, so that an unpickler that restricts what may be imported still does.
_NAMED: dict[str, type] = {
    cls.__name__: cls
    for cls in (list, dict, tuple, str, bytes, int, float, set, bytearray, complex, frozenset)
}


def _names(cls: Any) -> tuple[str, ...]:
    """What C code may call the class, the likelier name first: static types have their module in
    it, those of Python have not, and of others made at run time it cannot be seen.
    """  # noqa: D205
    if not isinstance(cls, type):
        return ("object",)
    names = (f"{cls.__module__}.{cls.__name__}", cls.__name__)
    if cls.__module__ == "builtins":
        return names[1:]
    return names[::-1] if cls.__flags__ & _HEAP_TYPE else names


def _can_travel(cls: type) -> bool:
    """Whether pickle can refer to the class at all: not to a local one, nor to what the interpreter
    keeps to itself (the class of functions).
    """  # noqa: D205
    if cls.__flags__ & _HEAP_TYPE:
        return "<locals>" not in cls.__qualname__
    return cls.__module__ != "builtins" or getattr(builtins, cls.__name__, None) is cls


def encode_class(cls: Any) -> Any:
    """The name of a common class, any other as it is, `None` for one that stays behind."""
    if not isinstance(cls, type):
        return cls
    name = _names(cls)[0]
    if _NAMED.get(name) is cls or (name == _ARRAY_CLASS and not cls.__flags__ & _HEAP_TYPE):
        return name
    return cls if _can_travel(cls) else None


def decode_class(cls: Any) -> Any:
    """The class; `None` if it is not to be had here.

    Raises:
        ValueError: The name is none that `encode_class` writes.
    """
    if not isinstance(cls, str):
        return cls
    if cls in _NAMED:
        return _NAMED[cls]
    if cls != _ARRAY_CLASS:
        raise ValueError(f"the pickled default class {cls!r} of a proxy is unknown")
    try:
        from numpy import ndarray
    except ImportError:
        return None
    return ndarray


def _unhashable(cls: Any) -> list[str]:
    """What hash() of an instance of the class usually says."""
    return [f"unhashable type: '{name}'" for name in _names(cls)]


def encode_hash(value: Any, cls: Any) -> Any:
    """`()` for the usual TypeError, `(hash, token)` for a number, another exception as it is."""
    if isinstance(value, int):
        return (value, _TOKEN)
    if cls is not None and type(value) is TypeError and len(value.args) == 1:
        message = value.args[0]
        if isinstance(message, str) and message in _unhashable(cls):
            return ()
    return value


def decode_hash(value: Any, cls: Any) -> Any:
    """The default hash; `None` if strings hash differently here, as it may depend on one.

    Raises:
        ValueError, TypeError: It is nothing that `encode_hash` writes.
    """
    if not isinstance(value, tuple):
        return value
    if not value:
        return TypeError(_unhashable(cls)[0])
    if len(value) != 2:
        raise ValueError("the pickled default hash of a proxy is malformed")
    return value[0] if operator.index(value[1]) == _TOKEN else None
