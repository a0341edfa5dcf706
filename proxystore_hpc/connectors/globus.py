"""ProxyStore's `GlobusConnector` and what belongs to it, from its own package.

It serves stores of this package as it is; only its name is also here.
"""

from __future__ import annotations

from typing import Any

from proxystore_hpc.utils.optional import import_optional


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    theirs = import_optional(
        "proxystore.connectors.globus", extra="compat", purpose="GlobusConnector"
    )
    return getattr(theirs, name)
