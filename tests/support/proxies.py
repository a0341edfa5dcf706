"""What the proxy type in use cannot do: the one in Python depends on the version of Python."""

from __future__ import annotations

import sys

import pytest

from proxystore_hpc.proxy._implementation import COMPILED

LIMITS = "the proxy type in Python "

lends_memory = pytest.mark.skipif(
    not COMPILED and sys.version_info < (3, 12),
    reason=f"{LIMITS}has no buffer protocol before Python 3.12",
)
reflects_modular_power = pytest.mark.skipif(
    not COMPILED and sys.version_info < (3, 14),
    reason=f"{LIMITS}is not asked for pow(x, proxy, modulus) before Python 3.14",
)
