"""What a user of ProxyStore's proxies relies on, run against theirs and against ours.

A difference between the two belongs into the guide *Proxies*; the ones intended are at the end.
"""

from __future__ import annotations

import copy
import gc
import operator
import pickle
import types
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import pytest

import proxystore_hpc.factory
import proxystore_hpc.proxy

try:
    import proxystore.factory
    import proxystore.proxy
except ImportError:
    proxystore = None  # type: ignore[assignment]


class Package(NamedTuple):
    """The modules of one implementation."""

    proxy: types.ModuleType
    factory: types.ModuleType


OURS = Package(proxystore_hpc.proxy, proxystore_hpc.factory)
THEIRS = Package(proxystore.proxy, proxystore.factory) if proxystore else None
needs_theirs = pytest.mark.skipif(THEIRS is None, reason="proxystore is not installed")


@pytest.fixture(
    params=[pytest.param(OURS, id="ours"), pytest.param(THEIRS, id="theirs", marks=needs_theirs)]
)
def package(request: pytest.FixtureRequest) -> Package:
    return request.param


@pytest.fixture
def proxy_type(package: Package) -> Any:
    return package.proxy.Proxy


@needs_theirs
@pytest.mark.parametrize("module", Package._fields)
def test_every_public_name_exists(module: str) -> None:
    theirs = getattr(THEIRS, module)
    names = {
        name
        for name, value in vars(theirs).items()
        if getattr(value, "__module__", None) == theirs.__name__
        and not name.startswith("_")
        and not isinstance(value, TypeVar)
    }
    assert names
    assert names <= set(vars(getattr(OURS, module)))


def test_life_of_a_proxy(package: Package) -> None:
    calls: list[int] = []

    def factory() -> list[int]:
        calls.append(1)
        return [1, 2, 3]

    proxy = package.proxy.Proxy(factory)
    assert package.proxy.get_factory(proxy) is factory
    assert not package.proxy.is_resolved(proxy)
    assert not proxy.__proxy_resolved__
    package.proxy.resolve(proxy)
    assert package.proxy.is_resolved(proxy)
    assert package.proxy.extract(proxy) == [1, 2, 3]
    assert proxy.__proxy_wrapped__ is package.proxy.extract(proxy)
    assert calls == [1]
    del proxy.__proxy_wrapped__
    assert len(proxy) == 3
    assert calls == [1, 1]


def test_constructor(proxy_type: Any) -> None:
    with pytest.raises(TypeError, match="must be callable"):
        proxy_type("not callable")
    with pytest.raises(TypeError):
        proxy_type(list, True)
    assert proxy_type(list, target=[1]).__proxy_resolved__
    assert not proxy_type(list, target=None).__proxy_resolved__
    assert not proxy_type(list, cache_defaults=True).__proxy_resolved__


@pytest.mark.parametrize("error", [ValueError("v"), AttributeError("a"), KeyError("k")])
def test_factory_errors(package: Package, error: Exception) -> None:
    def factory() -> None:
        raise error

    with pytest.raises(package.proxy.ProxyResolveError) as caught:
        len(package.proxy.Proxy(factory))
    assert caught.value.cause is error
    assert caught.value.__cause__ is error


def test_defaults(proxy_type: Any) -> None:
    for target in ("text", 12, (1, 2)):
        proxy = proxy_type(lambda target=target: target, cache_defaults=True, target=target)
        del proxy.__proxy_wrapped__
        assert isinstance(proxy, type(target))
        assert hash(proxy) == hash(target)
        assert proxy.__proxy_default_class__ is type(target)
        assert not proxy.__proxy_resolved__
    proxy = proxy_type(list, cache_defaults=True, target=[])
    del proxy.__proxy_wrapped__
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        hash(proxy)
    assert not proxy.__proxy_resolved__


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(package: Package, protocol: int) -> None:
    factory = package.factory.SimpleFactory("text")
    proxy = package.proxy.Proxy(factory, cache_defaults=True, target="text")
    result = pickle.loads(pickle.dumps(proxy, protocol))
    assert type(result) is package.proxy.Proxy
    assert not result.__proxy_resolved__
    assert isinstance(result, str)
    assert hash(result) == hash("text")
    assert not result.__proxy_resolved__
    assert result == "text"


def test_copies(package: Package) -> None:
    proxy = package.proxy.Proxy(package.factory.SimpleFactory([1]))
    for made in (copy.copy(proxy), copy.deepcopy(proxy)):
        assert isinstance(made, package.proxy.Proxy)
        assert not made.__proxy_resolved__
        assert made == [1]
    assert package.proxy.get_factory(copy.copy(proxy)) is package.proxy.get_factory(proxy)


class Target:
    """Documented."""

    kind = "target"

    def __init__(self) -> None:
        self.value = 1

    def method(self, *args: Any, **names: Any) -> Any:
        return self.value, args, names


@pytest.mark.parametrize(
    "read",
    [
        lambda o: o.value,
        lambda o: o.kind,
        lambda o: o.method(1, b=2),
        lambda o: o.__doc__,
        lambda o: o.__module__,
        lambda o: o.__dict__,
        lambda o: o.__class__,
        lambda o: dir(o),
        lambda o: vars(o),
        lambda o: isinstance(o, Target),
        lambda o: hasattr(o, "missing"),
        lambda o: getattr(o, "missing", 5),
        lambda o: str(o),
        lambda o: hash(o),
        lambda o: bool(o),
    ],
)
def test_reading(proxy_type: Any, read: Callable[[Any], Any]) -> None:
    target = Target()
    assert read(proxy_type(lambda: target)) == read(target)


def test_writing(proxy_type: Any) -> None:
    target = Target()
    proxy = proxy_type(lambda: target)
    proxy.value = 2
    proxy.other = 3
    del proxy.other
    proxy.__doc__ = "changed"
    assert vars(target) == {"value": 2, "__doc__": "changed"}


OPERATORS = [
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv),
    *(operator.mod, operator.pow, divmod, operator.lt, operator.le, operator.eq, operator.ne),
    *(operator.gt, operator.ge, operator.lshift, operator.rshift),
    *(operator.and_, operator.or_, operator.xor),
]


@pytest.mark.parametrize("function", OPERATORS, ids=lambda f: f.__name__)
def test_operators(proxy_type: Any, function: Any) -> None:
    expected = function(17, 3)
    assert function(proxy_type(lambda: 17), 3) == expected
    assert function(17, proxy_type(lambda: 3)) == expected
    assert function(proxy_type(lambda: 17), proxy_type(lambda: 3)) == expected


IN_PLACE = [
    *(operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv),
    *(operator.imod, operator.ipow, operator.ilshift, operator.irshift),
    *(operator.iand, operator.ior, operator.ixor),
]


@pytest.mark.parametrize("function", IN_PLACE, ids=lambda f: f.__name__)
def test_in_place_operators(proxy_type: Any, function: Any) -> None:
    proxy = proxy_type(lambda: 17)
    result = function(proxy, 3)
    assert result is proxy
    assert type(proxy) is proxy_type
    assert proxy == function(17, 3)


@pytest.mark.parametrize(
    "function",
    [operator.neg, operator.pos, abs, operator.invert, int, float, bool, str, round, complex],
    ids=lambda f: f.__name__,
)
def test_unary_operators(proxy_type: Any, function: Any) -> None:
    assert function(proxy_type(lambda: -3)) == function(-3)


def test_containers(proxy_type: Any) -> None:
    proxy = proxy_type(lambda: [3, 1, 2])
    proxy[0] = 5
    del proxy[1]
    assert (len(proxy), proxy[0], proxy[1:], 2 in proxy) == (2, 5, [2], True)
    assert list(proxy) == [5, 2]
    assert list(reversed(proxy)) == [2, 5]
    mapping = proxy_type(lambda: {"a": 1})
    mapping["b"] = 2
    assert {**mapping} == {"a": 1, "b": 2}
    iterator = proxy_type(lambda: iter([1]))
    assert next(iterator) == 1
    assert [10, 20][proxy_type(lambda: 1)] == 20


def test_repr_does_not_resolve(proxy_type: Any) -> None:
    proxy = proxy_type(lambda: [1])
    assert repr(proxy).startswith(f"<Proxy at 0x{id(proxy):x} with factory ")
    assert not proxy.__proxy_resolved__
    str(proxy)
    assert f"<Proxy at 0x{id(proxy):x} wrapping [1] at 0x" in repr(proxy)


def test_class_and_instance_module(package: Package) -> None:
    proxy = package.proxy.Proxy(Target)
    assert package.proxy.Proxy.__module__ == package.proxy.__name__
    assert proxy.__module__ == __name__


def test_subclass_with_slots(proxy_type: Any) -> None:
    class Sub(proxy_type):  # type: ignore[misc]
        __slots__ = ("__proxy_extra__",)

        def __init__(self, factory: Any, extra: int) -> None:
            object.__setattr__(self, "__proxy_extra__", extra)
            super().__init__(factory)

    proxy = Sub(Target, 5)
    assert object.__getattribute__(proxy, "__proxy_extra__") == 5
    assert not proxy.__proxy_resolved__
    assert proxy.value == 1
    assert isinstance(proxy, Sub)
    assert type(copy.copy(proxy)) is proxy_type


def test_weak_references_and_cycles(proxy_type: Any) -> None:
    def make_cycle() -> list[weakref.ref[Any]]:
        target = Target()
        target.value = proxy_type(lambda: target)
        assert target.value.kind == "target"
        return [weakref.ref(target), weakref.ref(target.value)]

    references = make_cycle()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_locker(package: Package) -> None:
    proxy = package.proxy.Proxy(Target)
    locker = package.proxy.ProxyLocker(proxy)
    with pytest.raises(AttributeError):
        _ = locker._proxy
    assert locker.unlock() is proxy
    assert not package.proxy.is_resolved(proxy)


def test_factories(package: Package) -> None:
    assert package.factory.SimpleFactory(3)() == 3
    assert package.factory.LambdaFactory(pow, 2, exp=3)() == 8

    class Derived(package.factory.Factory[int]):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.value = 7

        def resolve(self) -> int:
            return self.value

    assert package.proxy.Proxy(Derived()) == 7


def as_index(proxy: Any) -> Any:
    return [10, 20][proxy]


@needs_theirs
@pytest.mark.parametrize(
    "use",
    [
        lambda p: hasattr(p, "__iter__"),
        lambda p: round(p, 1),
        lambda p: f"{p:.1f}",
        as_index,
    ],
)
def test_intended_differences(use: Callable[[Any], Any]) -> None:
    """Where ours does what the object itself does, and theirs something else."""

    def outcome(target: Any) -> Any:
        try:
            return use(target)
        except TypeError:
            return TypeError

    assert outcome(OURS.proxy.Proxy(lambda: 1.25)) == outcome(1.25)
    assert THEIRS is not None
    assert outcome(THEIRS.proxy.Proxy(lambda: 1.25)) != outcome(1.25)
