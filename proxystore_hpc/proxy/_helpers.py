"""Functions on proxies that do not go through to the target."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from proxystore_hpc.proxy._implementation import Proxy
from proxystore_hpc.proxy._types import FactoryType

T = TypeVar("T")


def get_factory(proxy: Proxy[T]) -> FactoryType[T]:
    """The factory of `proxy`. Does not resolve it."""
    return proxy.__proxy_factory__


def extract(proxy: Proxy[T]) -> T:
    """The target of `proxy`, the object itself.

    Raises:
        ProxyResolveError: The proxy was not resolved yet, and its factory failed.
    """
    return proxy.__proxy_wrapped__


def is_resolved(proxy: Proxy[T]) -> bool:
    """Whether the target of `proxy` is here. Does not resolve it."""
    return proxy.__proxy_resolved__


def resolve(proxy: Proxy[T]) -> None:
    """Resolve `proxy` now, if it is not already.

    Raises:
        ProxyResolveError: The factory failed.
    """
    _ = proxy.__proxy_wrapped__


class ProxyLocker(Generic[T]):
    """Holds a proxy out of reach of code that might resolve it by accident.

    Args:
        proxy: What [`unlock`][proxystore_hpc.proxy.ProxyLocker.unlock] gives back.
    """

    def __init__(self, proxy: Proxy[T]) -> None:
        self._proxy = proxy

    def __getattribute__(self, name: str) -> Any:
        if name == "_proxy":
            raise AttributeError("the proxy is locked: unlock() returns it")
        return super().__getattribute__(name)

    def unlock(self) -> Proxy[T]:
        """The proxy, in the state in which it was locked."""
        proxy: Proxy[T] = super().__getattribute__("_proxy")
        return proxy
