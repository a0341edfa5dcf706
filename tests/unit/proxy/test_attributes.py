"""Attributes: the target's, but for the few that are the proxy's own."""

from __future__ import annotations

import collections.abc
import sys
from typing import Any

import pytest

from proxystore_hpc.proxy import Proxy, is_resolved, resolve


class Point:
    """A point."""

    dimension = 2

    def __init__(self, x: int = 1) -> None:
        self.x = x

    @property
    def double(self) -> int:
        return 2 * self.x

    def moved(self, by: int) -> int:
        return self.x + by


@pytest.fixture
def point() -> Point:
    return Point()


def test_attributes_methods_and_properties(point: Point) -> None:
    proxy = Proxy(lambda: point)
    assert proxy.x == 1
    assert proxy.dimension == 2
    assert proxy.double == 2
    assert proxy.moved(3) == 4
    proxy.x = 5
    assert point.x == 5
    del proxy.x
    assert not hasattr(point, "x")
    assert not hasattr(proxy, "x")


def test_missing_attribute_names_the_target(point: Point) -> None:
    with pytest.raises(AttributeError, match="'Point' object has no attribute 'z'"):
        _ = Proxy(lambda: point).z


def test_missing_attribute_is_looked_for_once() -> None:
    asked: list[str] = []

    class Fussy:
        @property
        def present(self) -> int:
            asked.append("present")
            raise AttributeError("not today")

        def __getattr__(self, name: str) -> int:
            asked.append(name)
            raise AttributeError(f"no {name}")

    proxy = Proxy(Fussy)
    assert not hasattr(proxy, "absent")
    with pytest.raises(AttributeError, match="no present"):
        _ = proxy.present
    assert asked == ["absent", "present", "present"]


@pytest.mark.parametrize("target", [Point(), Point, len, "text", [1]])
def test_special_attributes_are_the_targets(target: Any) -> None:
    proxy = Proxy(lambda: target)
    for name in ("__doc__", "__module__", "__name__", "__qualname__", "__dict__", "__len__"):
        absent = object()
        assert getattr(proxy, name, absent) == getattr(target, name, absent), name
    assert dir(proxy) == dir(target)


def test_hasattr_tells_the_truth_about_protocols() -> None:
    assert not hasattr(Proxy(lambda: 3), "__iter__")
    assert hasattr(Proxy(lambda: [3]), "__iter__")


def test_vars(point: Point) -> None:
    assert vars(Proxy(lambda: point)) is vars(point)


def test_class_and_isinstance(point: Point) -> None:
    proxy = Proxy(lambda: point)
    assert proxy.__class__ is Point
    assert isinstance(proxy, Point)
    assert isinstance(proxy, Proxy)
    assert not isinstance(proxy, int)
    assert isinstance(Proxy(lambda: [1]), collections.abc.Sequence)


def test_names_that_are_not_interned(point: Point) -> None:
    proxy = Proxy(lambda: point)
    assert getattr(proxy, "".join(["__cla", "ss__"])) is Point
    assert getattr(proxy, "".join(["__proxy_", "resolved__"])) is True
    assert getattr(proxy, "".join(["dimen", "sion"])) == 2


def test_assigning_the_class_changes_the_target(point: Point) -> None:
    class Other(Point):
        pass

    proxy = Proxy(lambda: point)
    proxy.__class__ = Other
    assert type(point) is Other


def test_class_attributes_are_the_proxys() -> None:
    assert Proxy.__module__ == "proxystore_hpc.proxy"
    assert Proxy.__name__ == Proxy.__qualname__ == "Proxy"
    assert "factory" in (Proxy.__doc__ or "")
    assert Proxy(lambda: Point()).__doc__ == "A point."


def test_state_of_the_proxy_never_resolves() -> None:
    def factory() -> list[int]:
        return [1]

    proxy = Proxy(factory)
    assert proxy.__proxy_factory__ is factory
    assert proxy.__proxy_default_class__ is None
    assert proxy.__proxy_default_hash__ is None
    assert not hasattr(proxy, "__proxy_unknown__")
    with pytest.raises(AttributeError):
        proxy.__proxy_unknown__ = 1
    with pytest.raises(AttributeError):
        proxy.__proxy_resolved__ = True
    assert isinstance(proxy, Proxy)
    repr(proxy)
    assert callable(proxy)
    assert not is_resolved(proxy)


def test_state_can_be_set_as_on_a_python_object() -> None:
    proxy = Proxy(list)
    object.__setattr__(proxy, "__proxy_default_class__", int)
    assert isinstance(proxy, int)
    assert object.__getattribute__(proxy, "__proxy_default_class__") is int
    object.__delattr__(proxy, "__proxy_default_class__")
    assert proxy.__proxy_default_class__ is None


def test_creating_a_parametrised_proxy_does_not_resolve() -> None:
    proxy = Proxy[Point](Point)
    assert not is_resolved(proxy)
    assert proxy.x == 1
    assert not hasattr(proxy, "__orig_class__")


def test_repr_does_not_resolve_and_shows_the_target_once_resolved() -> None:
    proxy = Proxy(lambda: [1, 2])
    assert repr(proxy).startswith(f"<Proxy at {hex(id(proxy))} with factory ")
    assert not is_resolved(proxy)
    resolve(proxy)
    assert f"<Proxy at {hex(id(proxy))} wrapping [1, 2] at 0x" in repr(proxy)


def test_repr_of_a_target_that_holds_the_proxy() -> None:
    target: list[Any] = []
    proxy = Proxy(lambda: target)
    target.append(proxy)
    resolve(proxy)
    assert "...>" in repr(proxy)


def test_cached_defaults_answer_until_resolved() -> None:
    proxy = Proxy(lambda: "value", cache_defaults=True, target="value")
    assert is_resolved(proxy)
    del proxy.__proxy_wrapped__
    assert isinstance(proxy, str)
    assert hash(proxy) == hash("value")
    assert not is_resolved(proxy)


def test_unhashable_default_raises_each_time_and_keeps_no_frames() -> None:
    proxy = Proxy(list, cache_defaults=True, target=[1])
    del proxy.__proxy_wrapped__
    for _ in range(3):
        with pytest.raises(TypeError, match="unhashable type: 'list'"):
            hash(proxy)
    assert isinstance(proxy.__proxy_default_hash__, TypeError)
    assert not is_resolved(proxy)
    depth = 0
    traceback = proxy.__proxy_default_hash__.__traceback__
    while traceback is not None:
        depth, traceback = depth + 1, traceback.tb_next
    assert depth <= 2  # those of the last time: the test's, and __hash__ if that is in Python


def test_defaults_are_ignored_once_resolved() -> None:
    proxy = Proxy(lambda: 7, cache_defaults=True, target="value")
    del proxy.__proxy_wrapped__
    assert hash(proxy) == hash("value")
    resolve(proxy)
    assert hash(proxy) == hash(7)
    assert isinstance(proxy, int)


def test_error_of_hash_other_than_type_error_reaches_the_caller() -> None:
    class Broken:
        def __hash__(self) -> int:
            raise ValueError("no hash today")

    with pytest.raises(ValueError, match="no hash today"):
        Proxy(Broken, cache_defaults=True, target=Broken())


@pytest.mark.parametrize("value", [-1, -2, 0, 2**61 - 1, -(2**63), 2**200])
def test_any_integer_can_be_a_default_hash(value: int) -> None:
    class Hashed:
        def __hash__(self) -> int:
            return value

    proxy = Proxy(list)
    proxy.__proxy_default_hash__ = value
    assert hash(proxy) == hash(Hashed())


def test_size_is_the_proxys_own() -> None:
    assert sys.getsizeof(Proxy(lambda: [0] * 10_000)) < 200
