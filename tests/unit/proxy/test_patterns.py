"""Structural pattern matching, as far as CPython lets a lazy object take part."""

from __future__ import annotations

import collections
import pickle
from dataclasses import dataclass
from typing import Any

import pytest

from proxystore_hpc.proxy import Proxy, is_resolved, resolve, unpickle


def kind(value: Any) -> Any:
    match value:
        case []:
            return "empty"
        case [first, *rest]:
            return first, rest
        case {"key": found}:
            return "mapping", found
        case _:
            return "neither"


def lazy(target: Any) -> Proxy[Any]:
    """Unresolved, of a known class."""
    return unpickle(lambda: target, type(target))


TARGETS = [
    ([1, 2], (1, [2])),
    ([], "empty"),
    ((3,), (3, [])),
    (range(2), (0, [1])),
    (collections.deque([4]), (4, [])),
    ({"key": 5}, ("mapping", 5)),
    (collections.OrderedDict(key=6), ("mapping", 6)),
    ({"other": 5}, "neither"),
    ("text", "neither"),
    (b"text", "neither"),
    (7, "neither"),
    ({1}, "neither"),
]


@pytest.mark.parametrize(("target", "expected"), TARGETS, ids=repr)
def test_resolved_proxy(target: Any, expected: Any) -> None:
    assert kind(target) == expected
    proxy = Proxy(lambda: target)
    resolve(proxy)
    assert kind(proxy) == expected
    assert kind(Proxy(lambda: target, target=target)) == expected


@pytest.mark.parametrize(("target", "expected"), TARGETS, ids=repr)
def test_unresolved_proxy_of_known_class(target: Any, expected: Any) -> None:
    proxy = lazy(target)
    assert kind(proxy) == expected
    assert is_resolved(proxy) == (expected != "neither" or isinstance(target, dict))


def test_unresolved_proxy_of_unknown_class_does_not_match() -> None:
    """The interpreter looks at a flag of the type only: nothing of ours runs before it decides."""
    proxy = Proxy(lambda: [1, 2])
    assert kind(proxy) == "neither"
    assert not is_resolved(proxy)


def test_class_travels_with_a_pickle() -> None:
    proxy = Proxy(list, cache_defaults=True, target=[1])
    assert kind(pickle.loads(pickle.dumps(proxy))) == "empty"


def test_type_follows_the_target() -> None:
    proxy: Any = Proxy(list)
    for target, expected in TARGETS:
        proxy.__proxy_wrapped__ = target
        assert kind(proxy) == expected
        assert isinstance(proxy, Proxy)
        assert type(proxy).__name__ == "Proxy"
    del proxy.__proxy_wrapped__
    assert type(proxy) is Proxy
    proxy.__proxy_default_class__ = tuple
    proxy.__proxy_factory__ = lambda: (8,)
    assert kind(proxy) == (8, [])


@dataclass
class Point:
    x: int
    y: int


def test_class_value_and_literal_patterns() -> None:
    match Proxy(lambda: Point(1, 2)):
        case Point(x=1, y=found):
            assert found == 2
        case _:
            pytest.fail("no match")
    match Proxy(lambda: "text"):
        case "other":
            pytest.fail("wrong match")
        case str() as found:
            assert found == "text"
    match Proxy(lambda: 3):
        case int(value):
            assert value == 3


def test_subclasses_keep_their_type() -> None:
    class Sub(Proxy[Any]):
        pass

    proxy = Sub(lambda: [1])
    resolve(proxy)
    assert type(proxy) is Sub
    assert kind(proxy) == "neither"
