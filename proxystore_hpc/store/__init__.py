"""The store and what belongs to it."""

from __future__ import annotations

from proxystore_hpc.exceptions import ProxyStoreFactoryError, StoreExistsError
from proxystore_hpc.store.base import Store
from proxystore_hpc.store.cache import LRUCache
from proxystore_hpc.store.carried import carried_of
from proxystore_hpc.store.config import ConnectorConfig, StoreConfig
from proxystore_hpc.store.connected import ConnectedStore
from proxystore_hpc.store.factory import (
    PollingStoreFactory,
    StoreFactory,
    connected_factory_of,
    connected_proxy_of,
    factory_of,
    polling_factory_of,
    polling_proxy_of,
    proxy_of,
    special_proxy_of,
)
from proxystore_hpc.store.live import RegisteredBuffer
from proxystore_hpc.store.metrics import StoreMetrics
from proxystore_hpc.store.policy import Pinned, Policy, TimeToLive
from proxystore_hpc.store.registry import (
    get_or_create_store,
    get_store,
    register_store,
    store_registration,
    unregister_store,
)
from proxystore_hpc.store.utils import get_key

__all__ = [
    "ConnectedStore",
    "ConnectorConfig",
    "LRUCache",
    "Pinned",
    "Policy",
    "PollingStoreFactory",
    "ProxyStoreFactoryError",
    "RegisteredBuffer",
    "Store",
    "StoreConfig",
    "StoreExistsError",
    "StoreFactory",
    "StoreMetrics",
    "TimeToLive",
    "carried_of",
    "connected_factory_of",
    "connected_proxy_of",
    "factory_of",
    "get_key",
    "get_or_create_store",
    "get_store",
    "polling_factory_of",
    "polling_proxy_of",
    "proxy_of",
    "register_store",
    "special_proxy_of",
    "store_registration",
    "unregister_store",
]
