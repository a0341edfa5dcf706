from __future__ import annotations

from support.fixtures import make_lasting_peer, make_peer, owner, reader  # noqa: F401
