"""The type itself: which attributes are the proxy's own, and which the target's."""

from __future__ import annotations

import collections.abc
import reprlib
import threading
from collections.abc import Callable
from types import GenericAlias
from typing import Any

from proxystore_hpc.proxy._pure import operators
from proxystore_hpc.proxy._pure.pickling import (
    decode_class,
    decode_hash,
    encode_class,
    encode_hash,
)
from proxystore_hpc.proxy._pure.state import (
    EMPTY,
    MAPPING,
    PLAIN,
    SEQUENCE,
    State,
    get_default_class,
    get_default_hash,
    get_factory,
    get_target,
    is_resolved,
    lookup,
    set_default_class,
    set_default_hash,
    set_factory,
    set_target,
    settle_type,
    target_of,
)
from proxystore_hpc.proxy._pure.ufunc import array_ufunc

_PUBLIC_MODULE = "proxystore_hpc.proxy"
_get = object.__getattribute__
_set = object.__setattr__

# Answered by the proxy itself, never by its target. __deepcopy__ and __copy__ are on this list to
# be missing: the target's would resolve the proxy and give a copy of the target. Without them,
# both copy functions go by __reduce_ex__.
_OWN = frozenset({
    "__class__", "__init__", "__repr__", "__hash__", "__sizeof__", "__getattr__", "__setattr__",
    "__delattr__", "__copy__", "__getattribute__", "__deepcopy__", "__reduce__", "__reduce_ex__",
    "__array_struct__", "__array_interface__",
})  # fmt: skip

# Answered by the target even where a class body put an attribute of this name into a subclass.
_ALWAYS_FORWARDED = frozenset(
    {"__module__", "__doc__", "__dict__", "__weakref__", "__annotations__"}
)


class _Missed(threading.local):
    """The last look-up in a target that failed: id of the proxy, name, error.

    Python calls `__getattr__` next, which must not ask the target a second time.
    """

    lookup: tuple[int, str, AttributeError] | None = None


_missed = _Missed()


def _is_state(name: str) -> bool:
    return name.startswith("__proxy_")


def _defined_by_subclass(cls: type, name: str) -> bool:
    """Whether a subclass defines the name, or redefines what it would inherit from Proxy."""
    found = lookup(cls, name, lookup)
    return found is not lookup and found is not lookup(Proxy, name, lookup)


def _forward(proxy: Any, name: str) -> Any:
    target = target_of(proxy)
    try:
        return getattr(target, name)
    except AttributeError as error:
        _missed.lookup = (id(proxy), name, error)
        raise


def _get_special(proxy: Any, name: str) -> Any:
    if name == "__class__":
        return _class_of(proxy)
    if _is_state(name) or name in _OWN:
        return _get(proxy, name)
    return _forward(proxy, name)


def _get_in_subclass(proxy: Any, name: str) -> Any:
    cls = type(proxy)
    if name not in _ALWAYS_FORWARDED:
        try:
            if _defined_by_subclass(cls, name):
                return _get(proxy, name)
            if cls.__dictoffset__ and name in (own := _get(proxy, "__dict__")):
                return own[name]
        except AttributeError:
            # A slot that is not set is looked for in the target.
            if _is_state(name):
                raise
    if name.startswith("__"):
        return _get_special(proxy, name)
    if _defined_by_subclass(cls, "__getattr__"):
        raise AttributeError(name)  # Python calls the subclass' __getattr__ next
    return _forward(proxy, name)


def _class_of(proxy: Any) -> Any:
    if not is_resolved(proxy):
        default = get_default_class(proxy)
        if default is not EMPTY:
            return default
    return _forward(proxy, "__class__")


def _set_class(proxy: Any, cls: Any) -> None:
    target_of(proxy).__class__ = cls


def _is_set_on_proxy(proxy: Any, name: str) -> bool:
    if _is_state(name):
        return True
    cls = type(proxy)
    return cls not in PLAIN and name not in _ALWAYS_FORWARDED and _defined_by_subclass(cls, name)


def _unless_unusual(target: Any, name: str) -> Any:
    if getattr(getattr(target, "dtype", None), "kind", "") in ("m", "M", "V"):
        raise AttributeError(name)
    return getattr(target, name)


class Proxy(State):
    """Stands for the object that `factory()` returns, and calls it when the object is first used.

    A pickle, or copy, of a proxy holds the factory and never the object. Threads that use an
    unresolved proxy at once call its factory once.

    Args:
        factory: Called without arguments; returns the object.
        cache_defaults: Remember class and hash of `target`, so that `isinstance` and `hash` do not
            resolve. They travel with the proxy.
        target: The object, if it is at hand. `None` means that it is not.

    Raises:
        TypeError: `factory` cannot be called.
        ProxyResolveError: On first use, if the factory failed; `cause` has its exception.
    """

    __slots__ = ()

    def __init__(
        self, factory: Callable[[], Any], *, cache_defaults: bool = False, target: Any = None
    ) -> None:
        if not callable(factory):
            raise TypeError("Factory must be callable.")
        set_factory(self, factory)
        set_default_class(self, EMPTY)
        set_default_hash(self, EMPTY)
        if target is not None:
            set_target(self, target)
        settle_type(self)
        if cache_defaults and target is not None:
            set_default_class(self, target.__class__)
            try:
                default: Any = hash(target)
            except TypeError as error:
                default = error.with_traceback(None)
            set_default_hash(self, default)

    __class_getitem__: Any = classmethod(GenericAlias)
    __class__ = property(_class_of, _set_class)

    def __getattribute__(self, name: str) -> Any:
        if type(self) not in PLAIN:
            return _get_in_subclass(self, name)
        if name.startswith("__"):
            return _get_special(self, name)
        return _forward(self, name)

    def __getattr__(self, name: str) -> Any:
        missed, _missed.lookup = _missed.lookup, None
        if missed is not None and missed[:2] == (id(self), name):
            try:
                raise missed[2]
            finally:
                del missed  # it holds the exception, whose traceback holds this frame
        if _is_state(name) or name in _OWN:
            raise AttributeError(name)
        return getattr(target_of(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if _is_set_on_proxy(self, name):
            _set(self, name, value)
        elif name == "__orig_class__":
            # Proxy[T](factory) sets this on what it made, ignoring a refusal; setting it on the
            # target would resolve every such proxy at once.
            raise AttributeError(name)
        else:
            setattr(target_of(self), name, value)

    def __delattr__(self, name: str) -> None:
        if _is_set_on_proxy(self, name):
            object.__delattr__(self, name)
        else:
            delattr(target_of(self), name)

    @reprlib.recursive_repr("<Proxy ...>")
    def __repr__(self) -> str:
        """Does not resolve."""
        factory = getattr(self, "__proxy_factory__", None)
        wrapping = ""
        if is_resolved(self):
            target = get_target(self)
            wrapping = f" wrapping {target!r} at {id(target):#x}"
        name = type(self).__name__
        return f"<{name} at {id(self):#x}{wrapping} with factory {factory!r}>"

    def __hash__(self) -> int:
        default = EMPTY if is_resolved(self) else get_default_hash(self)
        if default is EMPTY:
            return hash(target_of(self))
        if isinstance(default, BaseException):
            # One instance is raised again and again: without this it would collect, and keep
            # alive, the frames of every time.
            raise default.with_traceback(None)
        return int(default)

    # numpy keeps alive what it reads by __array_struct__, or gets of __array__, but of
    # __array_interface__ the proxy only, which may let go of its target. The first does not say
    # what the fields of a structure and the units of dates are; so for these there is __array__.
    @property
    def __array_struct__(self) -> Any:
        return _unless_unusual(target_of(self), "__array_struct__")

    @property
    def __array_interface__(self) -> Any:
        return _unless_unusual(target_of(self), "__array_interface__")

    __array_ufunc__ = array_ufunc

    def __reduce__(self) -> tuple[Any, ...]:
        factory = get_factory(self)
        if factory is EMPTY:
            raise AttributeError("Proxy is not initialized: __proxy_factory__ is missing.")
        default_class, default_hash = get_default_class(self), get_default_hash(self)
        cls = None if default_class is EMPTY else encode_class(default_class)
        args: tuple[Any, ...] = (factory,) if cls is None else (factory, cls)
        if default_hash is not EMPTY:
            known = None if cls is None else default_class
            args = (factory, cls, encode_hash(default_hash, known))
        method = lookup(type(factory), "__reduce_proxy__")
        if method is not None:
            reduced: tuple[Any, ...] = method(*args)
            return reduced
        return unpickle, args

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # As an attribute, so that a subclass may have one of its own.
        return self.__reduce__()


for _name, _method in operators.methods().items():
    setattr(Proxy, _name, _method)


class _SequenceProxy(Proxy):
    __slots__ = ()


class _MappingProxy(Proxy):
    __slots__ = ()


# CPython looks at nothing but a flag of the type, and this sets it.
collections.abc.Sequence.register(_SequenceProxy)
collections.abc.Mapping.register(_MappingProxy)
PLAIN.update({Proxy: 0, _SequenceProxy: SEQUENCE, _MappingProxy: MAPPING})
for _cls in PLAIN:
    _cls.__module__, _cls.__name__, _cls.__qualname__ = _PUBLIC_MODULE, "Proxy", "Proxy"


def unpickle(
    factory: Callable[[], Any], default_class: Any = None, default_hash: Any = None, /
) -> Proxy:
    """The unresolved proxy that a pickle stands for."""
    proxy = Proxy(factory)
    if default_class is not None:
        default_class = decode_class(default_class)
        _set(proxy, "__proxy_default_class__", default_class)
    if default_hash is not None:
        _set(proxy, "__proxy_default_hash__", decode_hash(default_hash, default_class))
    return proxy


unpickle.__module__ = _PUBLIC_MODULE
