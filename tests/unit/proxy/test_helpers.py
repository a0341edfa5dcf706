"""The functions beside the class."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from proxystore_hpc.factory import SimpleFactory
from proxystore_hpc.proxy import (
    Proxy,
    ProxyLocker,
    ProxyOr,
    extract,
    get_factory,
    is_resolved,
    resolve,
)


def test_extract_resolves_and_gives_the_object_itself() -> None:
    target = [1]
    proxy = Proxy(lambda: target)
    assert extract(proxy) is target
    assert is_resolved(proxy)
    assert type(extract(proxy)) is list


def test_resolve_and_get_factory() -> None:
    factory = SimpleFactory("value")
    proxy = Proxy(factory)
    assert get_factory(proxy) is factory
    assert not is_resolved(proxy)
    resolve(proxy)
    assert is_resolved(proxy)


@pytest.mark.parametrize("function", [extract, get_factory, is_resolved, resolve])
def test_only_proxies_are_accepted(function: Any) -> None:
    with pytest.raises(AttributeError):
        function([1])


def test_locker_keeps_its_proxy_out_of_reach() -> None:
    proxy = Proxy(SimpleFactory([1]))
    locker = ProxyLocker(proxy)
    with pytest.raises(AttributeError, match="unlock"):
        _ = locker._proxy
    assert locker.unlock() is proxy
    assert not is_resolved(proxy)
    unpickled = pickle.loads(pickle.dumps(locker))
    assert not is_resolved(unpickled.unlock())
    assert unpickled.unlock() == [1]


def test_proxy_or_can_be_subscripted() -> None:
    assert int in ProxyOr[int].__args__
    assert Proxy[int] in ProxyOr[int].__args__
