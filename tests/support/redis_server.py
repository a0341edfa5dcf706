"""A real Redis server for the tests, on a unix socket or on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from support import procfs


def require_redis() -> None:
    """Skips the test where there is no server or no library for it."""
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")


def free_port() -> int:
    """A TCP port on loopback that nobody listened at a moment ago."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def redis_server(directory: Path, *arguments: str) -> Iterator[str]:
    """Runs a server that keeps nothing on disk.

    Args:
        directory: Where its unix socket and its log go.
        arguments: Further settings, as on its command line.

    Yields:
        Path of its unix socket.
    """
    require_redis()
    path = directory / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", ""]
    with (directory / "redis.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--appendonly", "no", "--dir", str(directory), *arguments],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        procfs.wait_until(
            lambda: os.path.exists(path) or server.poll() is not None, "the server listens"
        )
        assert server.poll() is None, (directory / "redis.log").read_text()
        yield str(path)
    finally:
        server.terminate()
        server.wait(20)
