"""Where the bytes of a store's objects can lie, other than in this package's own memory.

A connector is any object with the methods of
[`Connector`][proxystore_hpc.connectors.protocols.Connector]; it needs no base class. Those of
ProxyStore are connectors too.
"""

from __future__ import annotations
