from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from proxystore_hpc import Store


@pytest.fixture
def store() -> Iterator[Store]:
    with Store("unit", capacity="64MiB") as store:
        yield store
