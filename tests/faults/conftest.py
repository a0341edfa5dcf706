from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.fixtures import make_lasting_peer, make_peer, owner, reader  # noqa: F401
