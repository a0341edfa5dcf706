"""Resolving for coroutines."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from proxystore_hpc.proxy._helpers import extract, is_resolved
from proxystore_hpc.utils.offload import offload

if TYPE_CHECKING:
    from proxystore_hpc.proxy._implementation import Proxy

T = TypeVar("T")


async def aresolve(proxy: Proxy[T]) -> T:
    """Resolves a proxy without blocking the event loop; many at once overlap.

    Args:
        proxy: The proxy.

    Returns:
        Its target.

    Raises:
        ProxyResolveError: The factory failed.
    """
    return extract(proxy) if is_resolved(proxy) else await offload(extract, proxy)
