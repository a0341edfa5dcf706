"""A server in a child process, for the store beside it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import proxystore_hpc
from proxystore_hpc.exceptions import DoorUnavailableError, ProxyStoreHpcError
from proxystore_hpc.tcp import wire
from proxystore_hpc.tcp.endpoints import TcpEndpoint, is_loopback, parse_address
from proxystore_hpc.tcp.server import ServerConfig
from proxystore_hpc.utils.network import loopback_tag

logger = logging.getLogger(__name__)

_PATIENCE = 30.0
_SHORTEST_LIFE = 5.0
_SHORTEST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0
# Not -m, which would take another copy of the package out of the current directory.
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from proxystore_hpc.tcp.server import main; sys.exit(main())"
)


class ServerProcess:
    """A running server. It ends with this process, whatever happens to it.

    If it dies by itself it is started again at the same port with the same key pair, so that
    clients go on where they were.

    Attributes:
        endpoints: Where it is reached, for the outside section of keys.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._process, told = _launch(config)
        host, _ = parse_address(config.listen)
        bound = f"[{host}]" if ":" in host else host
        pin = bytes.fromhex(told["pin"]) if told["pin"] else None
        # What keys say must hold for the next one, too.
        self._config = dataclasses.replace(
            config,
            listen=f"{bound}:{told['bound']}",
            tls=pin is not None or told["authority"],
        )
        here = is_loopback(host) and not config.advertise and bool(config.owner)
        self.endpoints = (
            TcpEndpoint(
                told["host"],
                told["port"],
                pin,
                told["authority"],
                not config.owner,
                loopback_tag() if here else b"",
            ),
        )
        self._owner_process = os.getpid()
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="pshpc-tcp", daemon=True)
        self._watcher.start()

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def close(self) -> None:
        """Ends the server; its clients' connections break. Idempotent."""
        if os.getpid() != self._owner_process:  # a forked child's copy
            return
        self._closing.set()
        _end(self._process)
        if threading.current_thread() is not self._watcher:
            self._watcher.join(_PATIENCE)

    def _watch(self) -> None:
        while True:
            began = time.monotonic()
            status = self._process.wait()
            if self._closing.is_set():
                return
            logger.warning("the TCP server ended with status %d and is started again", status)
            _close_pipes(self._process)
            if time.monotonic() - began < _SHORTEST_LIFE:
                self._closing.wait(_SHORTEST_LIFE / 5)
            process = self._launch_again()
            if process is None:
                return
            self._process = process
            if self._closing.is_set():
                _end(process)
                return

    def _launch_again(self) -> subprocess.Popen[bytes] | None:
        """A server at the same port, however long that takes; `None` once `close` was called."""
        pause = _SHORTEST_PAUSE
        while not self._closing.is_set():
            try:
                return _launch(self._config)[0]
            except (ProxyStoreHpcError, OSError) as error:
                logger.warning(
                    "the TCP server cannot be started again, and is tried in %g s: %s", pause, error
                )
            self._closing.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        return None


def start(
    address: bytes,
    *,
    listen: str = "127.0.0.1:0",
    tls: bool | None = None,
    advertise: str = "",
    state: str | Path = "",
    cert: str | Path = "",
    key: str | Path = "",
    put_token: bytes = b"",
    secret: bytes | None = None,
    limits: Mapping[str, Any] | None = None,
) -> ServerProcess:
    """Starts a server for the store of this process.

    Args:
        address: `Store.address`; objects of this owner alone are served.
        listen: `"host:port"`; port 0 for any that is free.
        tls: Whether to encrypt; by default it does, but on loopback where no key pair can be made.
        advertise: Host, or host:port, that clients are told instead.
        state: File that keeps the key pair of TLS; below the home directory by default.
        cert: File with a certificate that an authority gave, PEM.
        key: File with its private key, PEM.
        put_token: What a client shows that may put; empty: nobody may.
        secret: The job's secret, if the store has one.
        limits: Fields of `proxystore_hpc.tcp.limits.Limits` that differ from the defaults.

    Raises:
        DoorUnavailableError: It cannot listen there, or needs a package that is missing.
        ConfigError: An argument cannot be meant.
    """
    if tls is False and not is_loopback(parse_address(listen)[0]):
        warnings.warn(
            f"objects and their keys are served without encryption at {listen}: whoever sees the "
            "traffic can read both",
            stacklevel=3,
        )
    config = ServerConfig(
        listen=listen,
        owner=address.hex(),
        advertise=advertise,
        tls=tls,
        state=str(state),
        cert=str(cert),
        key=str(key),
        put_token=put_token.hex(),
        secret=secret.hex() if secret else "",
        limits=dict(limits or {}),
    )
    return ServerProcess(config)


def _launch(config: ServerConfig) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    root = str(Path(proxystore_hpc.__file__).resolve().parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(config.to_json().encode() + b"\n")
            process.stdin.flush()
        told = _read_line(process)
    except BaseException:
        _end(process)
        raise
    if "failed" in told:
        _end(process)
        raise wire.decode_error(told["failed"], told["reason"].encode())
    return process, told


def _read_line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    line, deadline = b"", time.monotonic() + _PATIENCE
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise DoorUnavailableError("tcp", f"its server said nothing for {_PATIENCE:.0f} s")
        piece = os.read(process.stdout.fileno(), 4096)
        if not piece:
            raise DoorUnavailableError(
                "tcp", "its server ended at once; what it printed above says why"
            )
        line += piece
    answer: dict[str, Any] = json.loads(line)
    return answer


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    _close_pipes(process)
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
