"""The proxy type in Python, for where the C type was not built.

The semantics are those of csrc/proxy, and so is every pickle. What Python code cannot do: lend the
target's memory before Python 3.12, and take part in `pow(x, proxy, modulus)` before 3.14.
"""

from __future__ import annotations

from proxystore_hpc.proxy._pure.type import Proxy, unpickle

__all__ = ["Proxy", "unpickle"]
