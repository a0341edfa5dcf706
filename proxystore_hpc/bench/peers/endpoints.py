"""ProxyStore's endpoints, and the relay that introduces them to each other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from proxystore_hpc.bench.contestant import UnavailableError
from proxystore_hpc.bench.peers.peer import required_program

__all__ = ["endpoint", "relay"]

ADVICE = "pip install 'proxystore[endpoints]==1.1.0'"
NAME = "benchmark"
LARGEST = 2 << 30
PATIENCE = 60.0
# Run where the server is: nobody else may reach its port.
_KNOCK = """
import socket, sys, time
end = time.monotonic() + 1
while True:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()
        break
    except OSError:
        if time.monotonic() > end:
            sys.exit(1)
        time.sleep(0.05)
"""


@contextmanager
def relay(host: str, port: int, *, launcher: Sequence[str], folder: str) -> Iterator[str]:
    """A relay server without authentication.

    Args:
        host: Address that it listens at.
        port: Its port.
        launcher: What starts it, on another node for example.
        folder: For what it prints.

    Yields:
        Its address.

    Raises:
        UnavailableError: There is none, or it does not start.
    """
    program = required_program("proxystore-relay", ADVICE)
    command = [program, "--host", host, "--port", str(port), "--log-level", "error"]
    with _running(command, host, port, launcher, Path(folder, "relay.log")):
        yield f"ws://{host}:{port}"


@contextmanager
def endpoint(
    host: str, port: int, relay_address: str, *, launcher: Sequence[str], folder: str
) -> Iterator[str]:
    """An endpoint that keeps objects in memory.

    Args:
        host: Address that it listens at for clients of its node.
        port: Its port.
        relay_address: As `relay` yields it.
        launcher: What starts it, on another node for example.
        folder: Empty; seen by it, by its clients and from here.

    Yields:
        The folder, which `EndpointConnector` takes for `proxystore_dir`.

    Raises:
        UnavailableError: There is none, or it does not start.
    """
    program = required_program("proxystore-endpoint", ADVICE)
    environment = {"PROXYSTORE_HOME": folder}
    options = ["--host", host, "--port", str(port), "--relay-address", relay_address]
    made = subprocess.run(
        [program, "configure", NAME, *options, "--no-relay-auth"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if made.returncode != 0:
        raise UnavailableError(f"proxystore-endpoint configure: {made.stderr[-300:]}")
    _let_large_objects_in(Path(folder, NAME))
    command = [program, "start", "--no-detach", NAME]
    log = Path(folder, "endpoint.log")
    with _running(command, host, port, launcher, log, environment):
        yield folder


def _let_large_objects_in(place: Path) -> None:
    from proxystore.endpoint.config import read_config, write_config

    config = read_config(str(place))
    config.storage.max_object_size = LARGEST
    write_config(config, str(place))


@contextmanager
def _running(
    command: Sequence[str],
    host: str,
    port: int,
    launcher: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[None]:
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*launcher, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
        )
    try:
        knock = [*launcher, sys.executable, "-c", _KNOCK, host, str(port)]
        end = time.monotonic() + PATIENCE
        while subprocess.run(knock, capture_output=True, check=False).returncode != 0:
            if server.poll() is not None or time.monotonic() > end:
                said = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise UnavailableError(f"{Path(command[0]).name} does not start: {''.join(said)}")
        yield
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
