"""The store and what belongs to it."""

from __future__ import annotations

from proxystore_hpc.store.base import Store
from proxystore_hpc.store.cache import LRUCache
from proxystore_hpc.store.config import ConnectorConfig, StoreConfig
from proxystore_hpc.store.factory import (
    StoreFactory,
    factory_of,
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
    "ConnectorConfig",
    "LRUCache",
    "Pinned",
    "Policy",
    "RegisteredBuffer",
    "Store",
    "StoreConfig",
    "StoreFactory",
    "StoreMetrics",
    "TimeToLive",
    "factory_of",
    "get_key",
    "get_or_create_store",
    "get_store",
    "proxy_of",
    "register_store",
    "special_proxy_of",
    "store_registration",
    "unregister_store",
]
