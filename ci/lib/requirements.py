"""Prints what the package and some of its extras need, a line each, for pip's -r.

ci/lib/requirements.py EXTRA ...
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
extras = [project["optional-dependencies"][extra] for extra in sys.argv[1:]]
print("\n".join(sum(extras, project["dependencies"])))
