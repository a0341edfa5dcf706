"""Types that describe proxies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar, Union

from proxystore_hpc.proxy._implementation import Proxy

T = TypeVar("T")

FactoryType: TypeAlias = Callable[[], T]
"""A callable without arguments that returns the target."""

DefaultClassType: TypeAlias = type | None
"""What `__class__` gives while the proxy is unresolved; `None` resolves it."""

DefaultHashType: TypeAlias = Exception | int | None
"""What `hash()` returns, or raises, while the proxy is unresolved; `None` resolves it."""

# A union with `|` cannot be subscripted where its members are types.GenericAlias (3.10).
ProxyOr: TypeAlias = Union[Proxy[T], T]  # noqa: UP007
"""A `T`, or a proxy of one: `ProxyOr[int]` is `Proxy[int] | int`."""
