from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxystore_hpc import Store


@pytest.fixture
def store() -> Iterator[Store]:
    with Store("unit", capacity="64MiB") as store:
        yield store
