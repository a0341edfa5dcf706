from __future__ import annotations

from support.fixtures import make_peer  # noqa: F401
