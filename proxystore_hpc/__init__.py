"""Proxies over one registered memory with many doors, for simulations and workflows.

Names are imported when they are first used, so that `import proxystore_hpc` costs next to nothing
and never fails for want of an optional part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxystore_hpc._version import __version__ as __version__
    from proxystore_hpc.exceptions import ProxyStoreHpcError as ProxyStoreHpcError
    from proxystore_hpc.proxy import Proxy as Proxy
    from proxystore_hpc.proxy import ProxyOr as ProxyOr
    from proxystore_hpc.proxy import aresolve as aresolve
    from proxystore_hpc.proxy import extract as extract
    from proxystore_hpc.proxy import get_factory as get_factory
    from proxystore_hpc.proxy import is_resolved as is_resolved
    from proxystore_hpc.proxy import resolve as resolve
    from proxystore_hpc.rpc import Bulk as Bulk
    from proxystore_hpc.rpc import Endpoint as Endpoint
    from proxystore_hpc.rpc import Engine as Engine
    from proxystore_hpc.rpc import EngineConfig as EngineConfig
    from proxystore_hpc.rpc import Provider as Provider
    from proxystore_hpc.rpc import Request as Request
    from proxystore_hpc.serialize import register_serializer as register_serializer
    from proxystore_hpc.serialize import unregister_serializer as unregister_serializer
    from proxystore_hpc.store import Store as Store
    from proxystore_hpc.store.config import ConnectorConfig as ConnectorConfig
    from proxystore_hpc.store.config import StoreConfig as StoreConfig
    from proxystore_hpc.store.keyfile import load_key as load_key
    from proxystore_hpc.store.keyfile import load_proxy as load_proxy
    from proxystore_hpc.store.policy import Pinned as Pinned
    from proxystore_hpc.store.policy import TimeToLive as TimeToLive
    from proxystore_hpc.store.registry import get_or_create_store as get_or_create_store
    from proxystore_hpc.store.registry import get_store as get_store
    from proxystore_hpc.store.registry import register_store as register_store
    from proxystore_hpc.store.registry import store_registration as store_registration
    from proxystore_hpc.store.registry import unregister_store as unregister_store

_HOMES = {
    "__version__": "_version",
    "Bulk": "rpc.bulk",
    "ConnectorConfig": "store.config",
    "Endpoint": "rpc",
    "Engine": "rpc",
    "EngineConfig": "rpc",
    "Pinned": "store.policy",
    "Provider": "rpc",
    "Proxy": "proxy",
    "ProxyOr": "proxy",
    "ProxyStoreHpcError": "exceptions",
    "Request": "rpc",
    "Store": "store",
    "StoreConfig": "store.config",
    "TimeToLive": "store.policy",
    "aresolve": "proxy",
    "extract": "proxy",
    "get_factory": "proxy",
    "get_or_create_store": "store.registry",
    "get_store": "store.registry",
    "is_resolved": "proxy",
    "load_key": "store.keyfile",
    "load_proxy": "store.keyfile",
    "register_serializer": "serialize",
    "register_store": "store.registry",
    "resolve": "proxy",
    "store_registration": "store.registry",
    "unregister_serializer": "serialize",
    "unregister_store": "store.registry",
}
_MODULES = frozenset({"exceptions", "proxy", "rpc", "serialize", "store", "stream"})

__all__ = sorted([*_HOMES, "get_include"])


def get_include() -> str:
    """Folder of `proxystore_hpc/rpc.h`, for the compiler's `-I`."""
    from pathlib import Path

    return str(Path(__file__).parent / "include")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in _MODULES:
        return import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
