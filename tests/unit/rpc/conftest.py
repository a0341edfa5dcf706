from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.doors import require_door

from proxystore_hpc import Engine
from proxystore_hpc.rpc import Endpoint


@pytest.fixture
def engine() -> Iterator[Engine]:
    require_door("ucx")
    with Engine("shm", capacity="16MiB", handlers=2) as engine:
        yield engine


@pytest.fixture
def itself(engine: Engine) -> Endpoint:
    """The engine, as it sees itself."""
    return engine.lookup(engine.address)
