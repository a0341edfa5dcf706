"""Small questions about proxies of stores."""

from __future__ import annotations

import contextlib
from typing import Any

from proxystore_hpc.exceptions import ProxyStoreFactoryError
from proxystore_hpc.proxy import Proxy, get_factory, is_resolved, resolve
from proxystore_hpc.store.factory import StoreFactory
from proxystore_hpc.utils.offload import start


def get_key(proxy: Proxy[Any]) -> Any:
    """The key of a proxy's object, a `Key` or what its connector made. Resolves nothing.

    Raises:
        ProxyStoreFactoryError: The proxy was not created by a store.
    """
    factory: Any = get_factory(proxy)
    if not isinstance(factory, StoreFactory):
        raise ProxyStoreFactoryError(
            f"the proxy was not created by a store: its factory is a {type(factory).__name__}"
        )
    return factory.key


def resolve_async(proxy: Proxy[Any]) -> None:
    """Begins to resolve a proxy in the background; who uses it then waits for that alone.

    Args:
        proxy: The proxy; if it is resolved, nothing happens. A failure is raised where it is used.
    """
    if not is_resolved(proxy):
        start(_try_to_resolve, proxy)


def _try_to_resolve(proxy: Proxy[Any]) -> None:
    with contextlib.suppress(Exception):
        resolve(proxy)
