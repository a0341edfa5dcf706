"""Remote procedure calls between engines, in the manner of Margo and Thallium."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxystore_hpc.rpc.config import EngineConfig
from proxystore_hpc.rpc.endpoint import Endpoint
from proxystore_hpc.rpc.engine import Engine
from proxystore_hpc.rpc.events import Event
from proxystore_hpc.rpc.functions import BoundCall, OneWayCall, RemoteFunction
from proxystore_hpc.rpc.futures import CallCancelledError, RpcFuture
from proxystore_hpc.rpc.handlers import LaterAnswer, Request
from proxystore_hpc.rpc.provider import Provider, ProviderHandle, rpc

if TYPE_CHECKING:
    from proxystore_hpc.rpc.bulk import Bulk as Bulk

__all__ = [
    "BoundCall",
    "Bulk",
    "CallCancelledError",
    "Endpoint",
    "Engine",
    "EngineConfig",
    "Event",
    "LaterAnswer",
    "OneWayCall",
    "Provider",
    "ProviderHandle",
    "RemoteFunction",
    "Request",
    "RpcFuture",
    "rpc",
]


def __getattr__(name: str) -> Any:
    if name == "Bulk":
        from proxystore_hpc.rpc.bulk import Bulk

        return Bulk
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
