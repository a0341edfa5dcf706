"""Small questions about proxies of stores."""

from __future__ import annotations

from typing import Any

from proxystore_hpc.exceptions import ProxyStoreFactoryError
from proxystore_hpc.key import Key
from proxystore_hpc.proxy import Proxy, get_factory
from proxystore_hpc.store.factory import StoreFactory


def get_key(proxy: Proxy[Any]) -> Key:
    """The key of a proxy's object. The proxy is not resolved.

    Raises:
        ProxyStoreFactoryError: The proxy was not created by a store.
    """
    factory: Any = get_factory(proxy)
    if not isinstance(factory, StoreFactory):
        raise ProxyStoreFactoryError(
            f"the proxy was not created by a store: its factory is a {type(factory).__name__}"
        )
    return factory.key
