"""Items, length, iteration, context managers, calls, files."""

from __future__ import annotations

import io
import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.proxies import lends_memory, reflects_modular_power

from proxystore_hpc.proxy import Proxy, ProxyResolveError


def of(target: Any) -> Proxy[Any]:
    return Proxy(lambda: target)


@pytest.mark.parametrize("target", [[0, 1, 2], (0, 1, 2), range(3), b"abc", "abc"])
def test_sequences(target: Any) -> None:
    proxy = of(target)
    assert len(proxy) == 3
    assert proxy[0] == target[0]
    assert proxy[-1] == target[-1]
    assert proxy[1:] == target[1:]
    assert list(proxy) == list(target)
    assert list(reversed(proxy)) == list(reversed(target))
    assert target[1] in proxy
    assert [*proxy] == [*target]
    first, *_ = proxy
    assert first == target[0]
    for index in (3, -4):
        with pytest.raises(IndexError):
            _ = proxy[index]


def test_mutable_sequence() -> None:
    target = [0, 1, 2]
    proxy = of(target)
    proxy[0] = 9
    del proxy[1]
    proxy[1:] = [7, 8]
    assert target == [9, 7, 8]


def test_mapping() -> None:
    target = {"a": 1}
    proxy = of(target)
    proxy["b"] = 2
    assert target == {"a": 1, "b": 2}
    assert {**proxy} == dict(proxy) == target
    assert (lambda **names: names)(**proxy) == target
    assert "a" in proxy
    del proxy["a"]
    with pytest.raises(KeyError):
        _ = proxy["a"]


def test_items_by_position_through_the_c_api() -> None:
    """heapq and sequence iterators use the sequence slots, with their own rule for negatives."""

    class OldStyle:
        def __getitem__(self, index: int) -> int:
            if index >= 3:
                raise IndexError
            return index * 10

    assert list(of(OldStyle())) == [0, 10, 20]
    assert list(iter(of(OldStyle()))) == [0, 10, 20]
    assert operator.countOf(of([1, 2, 1]), 1) == 2
    assert operator.indexOf(of([1, 2, 1]), 2) == 1


def test_proxy_as_key() -> None:
    key = of("key")
    assert {"key": 1}[key] == 1
    assert {key: 1}["key"] == 1
    assert key in {"key"}
    assert "key" in {key}


def test_what_the_target_cannot_do_is_the_targets_error() -> None:
    number = of(3)
    with pytest.raises(TypeError, match="has no len"):
        len(number)
    with pytest.raises(TypeError, match="not iterable"):
        iter(number)
    with pytest.raises(TypeError, match="not an iterator"):
        next(of([1]))
    with pytest.raises(TypeError, match="not subscriptable"):
        _ = number[0]
    with pytest.raises(TypeError, match="not callable"):
        number()
    with pytest.raises(TypeError, match="item assignment"):
        number[0] = 1


def test_iterators() -> None:
    iterator = of(iter([1, 2]))
    assert operator.length_hint(iterator) == 2
    assert next(iterator) == 1
    assert next(iterator) == 2
    with pytest.raises(StopIteration):
        next(iterator)
    assert next(iterator, "end") == "end"
    assert operator.length_hint(of(3), 5) in (0, 5)


def test_generic_class_target() -> None:
    assert of(list)[int] == list[int]
    assert isinstance([1], of(list))
    assert not isinstance((1,), of(list))
    assert issubclass(bool, of(int))
    assert issubclass(of(bool), int)
    assert of(dict)(a=1) == {"a": 1}


def test_calls() -> None:
    def function(*args: Any, **names: Any) -> Any:
        return args, names

    proxy = of(function)
    assert proxy() == ((), {})
    assert proxy(1, 2) == ((1, 2), {})
    assert proxy(1, b=2) == ((1,), {"b": 2})
    assert proxy(*[1], c=3) == ((1,), {"c": 3})
    assert list(map(of(abs), [-1, 2])) == [1, 2]
    assert sorted([3, -1], key=of(abs)) == [-1, 3]
    assert of("text".upper)() == "TEXT"


def test_error_of_a_call_is_not_wrapped() -> None:
    def function() -> None:
        raise AttributeError("from inside")

    with pytest.raises(AttributeError, match="from inside"):
        of(function)()


def test_context_manager() -> None:
    events: list[Any] = []

    class Manager:
        def __enter__(self) -> str:
            events.append("in")
            return "value"

        def __exit__(self, kind: Any, *_: Any) -> bool:
            events.append(kind)
            return kind is KeyError

    with of(Manager()) as value:
        assert value == "value"
    with of(Manager()):
        raise KeyError
    assert events == ["in", None, "in", KeyError]
    with pytest.raises((AttributeError, TypeError)):
        of(3).__enter__()


def test_file_as_target(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with of(path.open("w")) as file:
        file.write("text")
    assert path.read_text() == "text"
    with Path(of(path)).open() as file:
        assert file.read() == "text"
    with open(of(str(path))) as file:
        assert file.read() == "text"
    assert os.fspath(of(path)) == str(path)
    assert os.fspath(of("a")) == "a"
    with pytest.raises(TypeError, match="int"):
        os.fspath(of(3))


def test_text_is_written_through_str() -> None:
    file = io.StringIO()
    print(of([1]), of("a"), file=file)
    assert file.getvalue() == "[1] a\n"


@pytest.mark.parametrize(
    "use",
    [
        len, iter, next, hash, bool, str, bytes, int, float, complex, abs, reversed, dir,
        operator.index, lambda p: p[0], lambda p: p(), lambda p: 1 in p, lambda p: -p,
        lambda p: p.x, lambda p: setattr(p, "x", 1), lambda p: p.__enter__(), lambda p: f"{p:>3}",
        lambda p: p + p, lambda p: operator.iadd(p, 1), lambda p: p == 1, lambda p: p < 1,
        lambda p: isinstance(p, int), lambda p: isinstance(1, p), lambda p: p.__setitem__(0, 0),
        lambda p: pow(p, 1, 2), lambda p: round(p, 1),
        pytest.param(memoryview, marks=lends_memory),
        pytest.param(lambda p: pow(2, p, 2), marks=reflects_modular_power),
    ],
)  # fmt: skip
def test_every_protocol_reports_a_failing_factory(use: Callable[[Any], Any]) -> None:
    def factory() -> Any:
        raise OSError("gone")

    with pytest.raises(ProxyResolveError, match="gone"):
        use(Proxy(factory))
