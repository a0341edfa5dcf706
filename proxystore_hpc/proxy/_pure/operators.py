"""The special methods that do what they do on the target."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from types import GeneratorType
from typing import Any

from proxystore_hpc.proxy._awaiting import awaited
from proxystore_hpc.proxy._pure.state import (
    PLAIN,
    lookup,
    set_target,
    settle_type,
    target_of,
    unwrap,
)

_BINARY: dict[str, Any] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "matmul": operator.matmul,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "lshift": operator.lshift,
    "rshift": operator.rshift,
    "and": operator.and_,
    "xor": operator.xor,
    "or": operator.or_,
}
_UNARY: dict[str, Any] = {
    "str": str,
    "iter": iter,
    "next": next,
    "len": len,
    "length_hint": operator.length_hint,
    "bool": bool,
    "int": int,
    "float": float,
    "complex": complex,
    "bytes": bytes,
    "neg": operator.neg,
    "pos": operator.pos,
    "abs": abs,
    "invert": operator.invert,
    "reversed": reversed,
    "dir": dir,
    "trunc": math.trunc,
    "floor": math.floor,
    "ceil": math.ceil,
}


def _unary(operation: Callable[[Any], Any]) -> Any:
    return lambda self, /: operation(target_of(self))


def _binary(operation: Callable[[Any, Any], Any]) -> Any:
    return lambda self, other, /: operation(target_of(self), unwrap(other))


def _reflected(operation: Callable[[Any, Any], Any]) -> Any:
    return lambda self, other, /: operation(unwrap(other), target_of(self))


def _in_place(operation: Callable[[Any, Any], Any]) -> Any:
    def method(self: Any, other: Any, /) -> Any:
        """`p += x` leaves p a proxy, of the result."""
        result = operation(target_of(self), unwrap(other))
        if type(self) in PLAIN:
            set_target(self, result)
            settle_type(self)
        else:
            self.__proxy_wrapped__ = result
        return self

    return method


def _call_method(name: str) -> Any:
    return lambda self, /, *args, **kwargs: getattr(target_of(self), name)(*args, **kwargs)


def power(self: Any, other: Any, modulus: Any = None, /) -> Any:
    """`self ** other % modulus`."""
    return pow(target_of(self), unwrap(other), unwrap(modulus))


def reflected_power(self: Any, other: Any, modulus: Any = None, /) -> Any:
    """`other ** self % modulus`."""
    return pow(unwrap(other), target_of(self), unwrap(modulus))


def as_index(self: Any, /) -> Any:
    """As in ProxyStore an integer without `__index__` will do, but nothing `int` would round."""
    target = target_of(self)
    has_index, has_int, has_float = (
        lookup(type(target), name) is not None for name in ("__index__", "__int__", "__float__")
    )
    if not has_index and has_int and not has_float:
        return int(target)
    return operator.index(target)


def rounded(self: Any, /, *digits: Any) -> Any:
    """`round(self, digits)`."""
    return round(target_of(self), *digits)


def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Calls the target."""
    return target_of(self)(*args, **kwargs)


def set_item(self: Any, key: Any, value: Any, /) -> None:
    """`self[key] = value`."""
    target_of(self)[key] = value


def file_system_path(self: Any, /) -> Any:
    """The target itself if it is no path: `os.fspath` then names the proxy in its error."""
    target = target_of(self)
    if isinstance(target, (str, bytes)):
        return target
    try:
        method = target.__fspath__
    except AttributeError:
        return target
    return method()


def _asynchronous(name: str, message: str) -> Any:
    def method(self: Any, /) -> Any:
        target = target_of(self)
        if lookup(type(target), name) is None:
            raise TypeError(message.format(type(target).__name__))
        return getattr(type(target), name)(target)

    return method


_await_target = _asynchronous("__await__", "object {} can't be used in 'await' expression")


def await_target(self: Any, /) -> Any:
    """`await self`."""
    target = target_of(self)
    if type(target) is GeneratorType:
        # A coroutine made by types.coroutine is awaitable without a method that says so; only an
        # `await` accepts it.
        coroutine: Any = target
        return awaited(coroutine).__await__()
    return _await_target(self)


def methods() -> dict[str, Any]:
    """All of them by name."""
    found: dict[str, Any] = {
        "__divmod__": _binary(divmod),
        "__rdivmod__": _reflected(divmod),
        "__pow__": power,
        "__rpow__": reflected_power,
        "__ipow__": _in_place(operator.ipow),
        "__index__": as_index,
        "__round__": rounded,
        "__format__": lambda self, specification, /: format(target_of(self), specification),
        "__call__": call,
        "__contains__": lambda self, value, /: value in target_of(self),
        "__getitem__": lambda self, key, /: target_of(self)[key],
        "__setitem__": set_item,
        "__delitem__": lambda self, key, /: operator.delitem(target_of(self), key),
        "__fspath__": file_system_path,
        # Where the target is a class.
        "__instancecheck__": lambda self, value, /: isinstance(value, target_of(self)),
        "__subclasscheck__": lambda self, value, /: issubclass(value, target_of(self)),
        "__buffer__": lambda self, flags, /: memoryview(target_of(self)),
        "__await__": await_target,
        "__aiter__": _asynchronous(
            "__aiter__", "'async for' requires an object with __aiter__ method, got {}"
        ),
        "__anext__": _asynchronous(
            "__anext__", "'async for' requires an iterator with __anext__ method, got {}"
        ),
    }
    for name, operation in _UNARY.items():
        found[f"__{name}__"] = _unary(operation)
    for name, operation in _BINARY.items():
        found[f"__{name}__"] = _binary(operation)
        found[f"__r{name}__"] = _reflected(operation)
        found[f"__i{name}__"] = _in_place(getattr(operator, f"i{name}"))
    for name in ("lt", "le", "eq", "ne", "gt", "ge"):
        found[f"__{name}__"] = _binary(getattr(operator, name))
    for name in ("enter", "exit", "aenter", "aexit"):
        found[f"__{name}__"] = _call_method(f"__{name}__")
    for name, method in found.items():
        method.__name__ = name
        method.__qualname__ = f"Proxy.{name}"
    return found
