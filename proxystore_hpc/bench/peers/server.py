"""A Redis server for those who need one."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proxystore_hpc.bench.contestant import UnavailableError
from proxystore_hpc.bench.peers.peer import required_program

__all__ = ["ADVICE", "RedisServer", "free_port", "redis_server"]

ADVICE = "install Redis (Debian: apt-get install redis-server) or Valkey"
# Without it, no value is larger than 512 MB.
LARGEST = "8gb"
PATIENCE = 20.0


@dataclass(frozen=True)
class RedisServer:
    """Where it listens: a Unix socket, and a port of one address."""

    path: str
    host: str
    port: int


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port at which nobody listened a moment ago."""
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def redis_server(
    host: str = "127.0.0.1",
    *,
    port: int | None = None,
    launcher: Sequence[str] = (),
    folder: str | None = None,
) -> Iterator[RedisServer]:
    """A server that keeps nothing on disk and ends with the context.

    Args:
        host: Address that it listens at, besides a Unix socket.
        port: Its port; by default a free one, looked for here.
        launcher: What starts it, on another node for example.
        folder: Where a folder for its socket is made; it must be seen by it and from here.

    Raises:
        UnavailableError: There is none, or it does not start.
    """
    program = required_program("redis-server", ADVICE)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        found = RedisServer(str(Path(scratch, "redis")), host, port or free_port())
        command = [program, "--bind", host, "--port", str(found.port), "--protected-mode", "no"]
        command += ["--unixsocket", found.path, "--save", "", "--appendonly", "no"]
        command += ["--proto-max-bulk-len", LARGEST, "--dir", scratch]
        with Path(scratch, "log").open("wb") as log:
            server = subprocess.Popen(
                [*launcher, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            _await(server, found.path, Path(scratch, "log"))
            yield found
        finally:
            server.terminate()
            server.wait()


def _await(server: subprocess.Popen[bytes], path: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
                return
            except OSError:
                pass
        if server.poll() is not None or time.monotonic() > end:
            said = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise UnavailableError(f"redis-server does not start: {''.join(said)}")
        time.sleep(0.01)
