"""The examples of the guide run as they stand."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guides" / "proxies.md"


@pytest.mark.skipif(not GUIDE.exists(), reason="the documentation is not in this tree")
def test_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(examples) > 5
    # What an example defines can be pickled only if its module can be imported.
    module = types.ModuleType("guide_examples")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for example in examples:
        exec(compile(example, str(GUIDE), "exec"), vars(module))
