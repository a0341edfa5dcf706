from __future__ import annotations

from typing import Any

import pytest
from support.fixtures import make_lasting_peer, make_peer, owner, reader  # noqa: F401


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A suite whose module says in what ways its two sides meet runs in each of them."""
    ways_of = getattr(metafunc.module, "TWO_SIDED", None)
    if ways_of is not None and "way" in metafunc.fixturenames:
        found = ways_of(metafunc.config)
        metafunc.parametrize("way", found, ids=str, indirect=True, scope="module")


@pytest.fixture(scope="module")
def way(request: pytest.FixtureRequest) -> Any:
    """How the two sides meet; see support/ways.py."""
    request.param.require()
    return request.param
