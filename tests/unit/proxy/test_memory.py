"""Lifetime: weak references, cycles, no leaked references."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from proxystore_hpc.proxy import Proxy, ProxyResolveError, resolve, unpickle


class Target:
    def __init__(self) -> None:
        self.value: Any = None


def test_weak_reference_to_the_proxy_not_its_target() -> None:
    target = Target()
    proxy = Proxy(lambda: target)
    reference = weakref.ref(proxy)
    assert reference() is proxy
    del proxy
    assert reference() is None


def test_weak_dictionary_of_proxies() -> None:
    proxy = Proxy(lambda: "key")
    table = weakref.WeakValueDictionary({"a": proxy})
    assert table["a"] is proxy
    del proxy
    assert "a" not in table


def test_proxy_keeps_its_target_alive_and_lets_it_go() -> None:
    proxy = Proxy(Target)
    resolve(proxy)
    reference = weakref.ref(proxy.__proxy_wrapped__)
    gc.collect()
    assert reference() is not None
    del proxy
    assert reference() is None


@pytest.mark.parametrize("subclass", [False, True])
def test_cycle_is_collected(subclass: bool) -> None:
    proxy_type: Any = type("Sub", (Proxy,), {}) if subclass else Proxy

    def make_cycle() -> weakref.ref[Target]:
        target = Target()
        target.value = proxy_type(lambda: target)
        resolve(target.value)
        return weakref.ref(target)

    reference = make_cycle()
    gc.collect()
    assert reference() is None


def test_retyped_proxy_in_a_cycle_is_collected() -> None:
    class List(list[Any]):
        pass

    def make_cycle() -> weakref.ref[List]:
        target = List()
        target.append(Proxy(lambda: target))
        assert len(target[0]) == 1
        return weakref.ref(target)

    reference = make_cycle()
    gc.collect()
    assert reference() is None


def test_long_chain_of_proxies_is_freed_without_recursion() -> None:
    proxy = Proxy(Target)
    for _ in range(200_000):
        proxy = Proxy(Target, target=proxy)
    del proxy
    gc.collect()


def using(proxy: Any) -> None:
    """A bit of everything."""
    _ = (proxy.value, proxy[0], len(proxy), proxy + proxy, proxy == 1, hash(proxy), str(proxy))
    _ = (repr(proxy), proxy(1, b=2), list(proxy), 0 in proxy, isinstance(proxy, Everything))
    _ = (bool(proxy), -proxy, f"{proxy:x}", proxy.__reduce__(), round(proxy, 1), bytes(proxy))
    proxy.value = 1
    proxy[0] = 1
    proxy += 1
    with proxy:
        pass


class Everything:
    value = 0

    def __getitem__(self, index: int) -> int:
        if index > 1:
            raise IndexError
        return index

    def __setitem__(self, index: int, value: int) -> None: ...
    def __len__(self) -> int:
        return 2

    def __add__(self, other: Any) -> Everything:
        return self

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return False

    def __call__(self, *_: Any, **__: Any) -> None: ...
    def __neg__(self) -> int:
        return 0

    def __format__(self, specification: str) -> str:
        return "x"

    def __round__(self, digits: int = 0) -> int:
        return 0

    def __bytes__(self) -> bytes:
        return b""

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def cycle_of_use() -> None:
    using(Proxy(Everything))
    using(unpickle(Everything, Everything, ()))
    using(SUBCLASS(Everything))


def failing() -> None:
    def factory() -> None:
        raise OSError("gone")

    with pytest.raises(ProxyResolveError):
        len(Proxy(factory))


SUBCLASS = type("Sub", (Proxy,), {})


@pytest.mark.parametrize("use", [cycle_of_use, failing])
def test_no_memory_is_leaked(use: Callable[[], None]) -> None:
    def blocks() -> int:
        gc.collect()
        return sys.getallocatedblocks()

    for _ in range(1000):
        use()
    before = blocks()
    for _ in range(1000):
        use()
    assert blocks() - before < 500  # one object a use would be 1000


def test_no_reference_to_types_or_targets_is_leaked() -> None:
    targets: list[Any] = [[1, 2], {"a": 1}, "text", 1000.5]
    types = {type(Proxy(list, target=target)) for target in targets}

    def counts() -> list[int]:
        gc.collect()
        return [sys.getrefcount(one) for one in (*targets, *types, Proxy)]

    def use() -> None:
        for target in targets:
            proxy = Proxy(lambda target=target: target, cache_defaults=True, target=target)
            _ = str(proxy), proxy == target, proxy.__class__
            del proxy.__proxy_wrapped__
            _ = isinstance(proxy, int), str(proxy)

    use()
    before = counts()
    for _ in range(500):
        use()
    after = counts()
    assert all(abs(a - b) < 20 for a, b in zip(after, before, strict=True))


def test_target_may_vanish_while_it_is_used() -> None:
    class Vanishing:
        @property
        def attribute(self) -> str:
            del proxy.__proxy_wrapped__
            gc.collect()
            return "still here"

        def __getitem__(self, key: Any) -> str:
            del proxy.__proxy_wrapped__
            gc.collect()
            return "still here"

    proxy: Any = Proxy(Vanishing)
    assert proxy.attribute == "still here"
    assert proxy[0] == "still here"
