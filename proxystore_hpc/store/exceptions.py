"""Errors of stores, under the name that ProxyStore has for their module."""

from __future__ import annotations

from proxystore_hpc.exceptions import (
    NonProxiableTypeError,
    ProxyResolveMissingKeyError,
    ProxyStoreFactoryError,
    StoreError,
    StoreExistsError,
)

__all__ = [
    "NonProxiableTypeError",
    "ProxyResolveMissingKeyError",
    "ProxyStoreFactoryError",
    "StoreError",
    "StoreExistsError",
]
