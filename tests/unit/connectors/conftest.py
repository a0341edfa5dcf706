from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.redis_server import redis_server

from proxystore_hpc.connectors.file import FileConnector
from proxystore_hpc.connectors.hpc import HPCConnector
from proxystore_hpc.connectors.local import LocalConnector
from proxystore_hpc.connectors.multi import MultiConnector, Policy
from proxystore_hpc.connectors.redis import RedisConnector

KINDS = ("local", "file", "redis", "multi", "hpc")


@pytest.fixture(scope="session")
def redis_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as path:
        yield path


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Callable[[str], Any]]:
    made = []

    def make_one(kind: str) -> Any:
        if kind == "local":
            connector: Any = LocalConnector()
        elif kind == "file":
            connector = FileConnector(str(tmp_path / "objects"))
        elif kind == "redis":
            path = request.getfixturevalue("redis_socket")
            connector = RedisConnector(unix_socket_path=path, clear=True, timeout=20)
        elif kind == "hpc":
            connector = HPCConnector("all", capacity="64MiB")
        else:
            connector = MultiConnector(
                {
                    "small": (LocalConnector(), Policy(priority=1, max_size_bytes=100)),
                    "large": (FileConnector(str(tmp_path / "large")), Policy()),
                }
            )
        made.append(connector)
        return connector

    yield make_one
    for connector in made:
        connector.close()


@pytest.fixture(params=KINDS)
def connector(request: pytest.FixtureRequest, make: Callable[[str], Any]) -> Any:
    return make(request.param)
