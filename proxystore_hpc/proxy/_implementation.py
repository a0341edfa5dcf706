"""Which proxy type is used: the C one, or the one in Python where that was not built.

PROXYSTORE_HPC_PURE=1 in the environment takes the one in Python all the same.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxystore_hpc._proxy import Proxy as Proxy
    from proxystore_hpc._proxy import unpickle as unpickle

    COMPILED: bool
else:
    COMPILED = os.environ.get("PROXYSTORE_HPC_PURE") != "1"
    if COMPILED:
        try:
            from proxystore_hpc._proxy import Proxy, unpickle
        except ImportError:
            # Not built, or not for this interpreter: `proxystore-hpc info` says which.
            COMPILED = False
    if not COMPILED:
        from proxystore_hpc.proxy._pure import Proxy, unpickle

__all__ = ["COMPILED", "Proxy", "unpickle"]
