"""What a proxy holds, and how it gets its target."""

from __future__ import annotations

import os
import threading
from typing import Any

from proxystore_hpc.exceptions import ProxyResolveError

SEQUENCE = 1 << 5
MAPPING = 1 << 6

PLAIN: dict[type, int] = {}
"""The proxy types that are no subclass of a user's, and the pattern flag that each one has."""


EMPTY: Any = type("Empty", (), {})()


class _Slots:
    __slots__ = ("__weakref__", "default_class", "default_hash", "factory", "target")


# Out of the class, where an attribute of a target could collide with them.
_fields = {name: vars(_Slots)[name] for name in _Slots.__slots__ if name != "__weakref__"}
for _name in _fields:
    delattr(_Slots, _name)
get_factory, set_factory = _fields["factory"].__get__, _fields["factory"].__set__
get_target, set_target = _fields["target"].__get__, _fields["target"].__set__
get_default_class = _fields["default_class"].__get__
set_default_class = _fields["default_class"].__set__
get_default_hash, set_default_hash = (
    _fields["default_hash"].__get__,
    _fields["default_hash"].__set__,
)
_set_type = vars(object)["__class__"].__set__


def _field(name: str, *, optional: bool = False) -> property:
    """A field that can be set and deleted, and that is missing, or else `None`, while empty."""
    get, put = _fields[name].__get__, _fields[name].__set__

    def read(self: Any) -> Any:
        value = get(self)
        if value is not EMPTY:
            return value
        if optional:
            return None
        raise AttributeError(f"__proxy_{name}__")

    def write(self: Any, value: Any) -> None:
        put(self, EMPTY if optional and value is None else value)
        settle_type(self)

    def delete(self: Any) -> None:
        if get(self) is EMPTY:
            raise AttributeError(f"__proxy_{name}__")
        put(self, EMPTY)
        settle_type(self)

    return property(read, write, delete)


class State(_Slots):
    """Base of the proxy type: its fields."""

    __slots__ = ()

    def __new__(cls, *_: Any, **__: Any) -> State:
        self = object.__new__(cls)
        for put in (set_factory, set_target, set_default_class, set_default_hash):
            put(self, EMPTY)
        return self

    __proxy_factory__ = _field("factory")
    __proxy_target__ = _field("target")
    __proxy_default_class__ = _field("default_class", optional=True)
    __proxy_default_hash__ = _field("default_hash", optional=True)
    __proxy_wrapped__ = property(
        lambda self: resolve(self), __proxy_target__.fset, __proxy_target__.fdel
    )
    __proxy_resolved__ = property(lambda self: is_resolved(self))


_WRAPPED = vars(State)["__proxy_wrapped__"]


def is_proxy(value: Any) -> bool:
    """By its type alone: a target may claim any `__class__`."""
    return issubclass(type(value), State)


def is_resolved(proxy: Any) -> bool:
    """Whether the target is known."""
    return get_target(proxy) is not EMPTY


def lookup(cls: type, name: str, default: Any = None) -> Any:
    """What a class has under a name, its bases included, past descriptors and metaclasses."""
    for base in cls.__mro__:
        found = base.__dict__
        if name in found:
            return found[name]
    return default


def target_of(proxy: Any) -> Any:
    """What the proxy stands for, by way of a subclass' own `__proxy_wrapped__` if it has one."""
    cls = type(proxy)
    if cls not in PLAIN and lookup(cls, "__proxy_wrapped__") is not _WRAPPED:
        return proxy.__proxy_wrapped__
    target = get_target(proxy)
    return resolve(proxy) if target is EMPTY else target


def unwrap(value: Any) -> Any:
    """The target of a proxy, any other object itself."""
    return target_of(value) if is_proxy(value) else value


def settle_type(proxy: Any) -> None:
    """Gives a plain proxy the type whose flag makes `case [..]` or `case {..}` match its target."""
    if type(proxy) not in PLAIN:
        return
    target = get_target(proxy)
    known = get_default_class(proxy) if target is EMPTY else type(target)
    flags = known.__flags__ & (SEQUENCE | MAPPING) if isinstance(known, type) else 0
    for cls, flag in PLAIN.items():
        if flag == flags and type(proxy) is not cls:
            _set_type(proxy, cls)


class _Call:
    """One call of a factory. Threads wait for it by its lock."""

    __slots__ = ("cause", "ended", "lock", "thread")

    def __init__(self, thread: int) -> None:
        self.thread = thread
        self.ended = False
        self.cause: Exception | None = None
        self.lock = threading.Lock()
        self.lock.acquire()


# Each operation on these is atomic: a lock would not be free for what a signal handler or a
# finalizer resolves in the thread that holds it.
_calls: dict[int, _Call] = {}
_waits_for: dict[int, _Call] = {}


def _forget_parent() -> None:
    """A forked child has none of the threads that were resolving or waiting in its parent."""
    _calls.clear()
    _waits_for.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


def resolve(proxy: Any) -> Any:
    """The target; calls the factory, or waits for another thread that does.

    Raises:
        ProxyResolveError: The factory failed, or would have to wait for itself.
    """
    thread = threading.get_ident()
    while True:
        target = get_target(proxy)
        if target is not EMPTY:
            return target
        factory = get_factory(proxy)
        if factory is EMPTY:
            raise _unresolvable(
                "Proxy is not initialized: __proxy_factory__ is missing.", AttributeError
            )
        mine = _Call(thread)
        call = _calls.setdefault(id(proxy), mine)
        if call is mine:
            if not is_resolved(proxy):
                return _call_factory(proxy, factory, mine)
            _end(proxy, mine)
            continue
        if call.thread == thread:
            raise _unresolvable(
                "the factory of this proxy uses the proxy itself, which it has yet to resolve: "
                "let the factory use the object, not its proxy",
                RecursionError,
            )
        _await(call, thread)
        if call.cause is not None:
            raise _factory_error(factory, call.cause)


def _call_factory(proxy: Any, factory: Any, call: _Call) -> Any:
    try:
        target = factory()
        set_target(proxy, target)
        settle_type(proxy)
        return target
    except Exception as cause:
        call.cause = cause
        raise _factory_error(factory, cause) from cause
    finally:
        # KeyboardInterrupt and its like are this thread's alone; the others try for themselves.
        _end(proxy, call)
        del call  # it holds the exception, whose traceback holds this frame


def _end(proxy: Any, call: _Call) -> None:
    call.ended = True
    if _calls.get(id(proxy)) is call:
        del _calls[id(proxy)]
    call.lock.release()


def _await(call: _Call, thread: int) -> None:
    _waits_for[thread] = call
    try:
        # After the entry above, so that of two threads that come at once one sees the other.
        if _would_never_end(call, thread):
            raise _unresolvable(
                "the factories of two proxies wait for each other: each uses the other's proxy, "
                "and different threads are resolving them",
                RuntimeError,
            )
        with call.lock:
            pass
    finally:
        _waits_for.pop(thread, None)


def _would_never_end(call: _Call, thread: int) -> bool:
    seen: set[int] = set()
    while call.thread not in seen and not call.ended:
        if call.thread == thread:
            return True
        seen.add(call.thread)
        awaited = _waits_for.get(call.thread)
        if awaited is None:
            return False
        call = awaited
    return False


def _unresolvable(message: str, cause_type: type[Exception]) -> ProxyResolveError:
    return _caused(message, cause_type(message))


def _factory_error(factory: Any, cause: Exception) -> ProxyResolveError:
    try:
        reason = str(cause)
    except Exception:
        reason = "(without a printable message)"
    return _caused(
        f"cannot resolve the proxy: its factory ({type(factory).__name__}) raised "
        f"{type(cause).__name__}: {reason}",
        cause,
    )


def _caused(message: str, cause: Exception) -> ProxyResolveError:
    error = ProxyResolveError(message, cause)
    error.__cause__ = error.__context__ = cause
    return error
