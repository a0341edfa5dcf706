"""Lazy object proxies: use an object that has yet to arrive as if it were here.

A [`Proxy`][proxystore_hpc.proxy.Proxy] is made of a *factory*, a callable that returns the object.
The factory is called when the object is first used (the proxy *resolves*), and what it returned is
used from then on. A pickled proxy holds its factory only, so that it is cheap to send.

Names and semantics are those of `proxystore.proxy`; the guide *Proxies* says where this one is more
transparent, and where no proxy can be.
"""

from __future__ import annotations

from proxystore_hpc.exceptions import ProxyResolveError
from proxystore_hpc.proxy._helpers import (
    ProxyLocker,
    extract,
    get_factory,
    is_resolved,
    resolve,
)
from proxystore_hpc.proxy._implementation import Proxy, unpickle
from proxystore_hpc.proxy._resolving import aresolve
from proxystore_hpc.proxy._types import (
    DefaultClassType,
    DefaultHashType,
    FactoryType,
    ProxyOr,
)

__all__ = [
    "DefaultClassType",
    "DefaultHashType",
    "FactoryType",
    "Proxy",
    "ProxyLocker",
    "ProxyOr",
    "ProxyResolveError",
    "aresolve",
    "extract",
    "get_factory",
    "is_resolved",
    "resolve",
    "unpickle",
]
