"""A store's way to the keeper of its node, which is started if there is none."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import proxystore_hpc
from proxystore_hpc.exceptions import KeeperError
from proxystore_hpc.keeper.settings import Settings, socket_name
from proxystore_hpc.keeper.talk import connect, receive_line, send_line

_PATIENCE = 30.0
_PAUSE = 0.02
# Forks before it imports anything, so that the starter has no child that goes on living. Not -m,
# which would take another copy of the package out of the current directory.
_PROGRAM = (
    "import os, sys; os.setsid(); os.fork() and os._exit(0); sys.path.insert(0, sys.argv[1]); "
    "from proxystore_hpc.keeper.server import main; sys.exit(main(sys.argv[2]))"
)


def join_keeper(facts: dict[str, Any]) -> socket.socket:
    """A connection to this user's keeper of this node, which has agreed to take over from us.

    Args:
        facts: What it has to know of a store beside what the core tells it.

    Raises:
        KeeperError: There is none, and none can be started; says why.
        AccessDeniedError: Another user holds its name.
        ConfigError: The environment says something of it that cannot be meant.
    """
    name, settings = socket_name(), Settings.of_environment()
    deadline = time.monotonic() + _PATIENCE
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise KeeperError(f"the keeper of this node did not answer within {_PATIENCE:.0f} s")
        try:
            return _introduce(connect(name, left), facts)
        except ConnectionRefusedError:
            _start(settings, left)
        except (EOFError, ConnectionError):
            time.sleep(_PAUSE)  # it was about to end
        except OSError as error:
            raise KeeperError(f"the keeper of this node cannot be reached: {error}") from error


def _introduce(connection: socket.socket, facts: dict[str, Any]) -> socket.socket:
    try:
        send_line(connection, {"ask": "keep", "pid": os.getpid(), **facts})
        answer = receive_line(connection)
        if "refused" in answer:
            raise KeeperError(f"the keeper of this node refused: {answer['refused']}")
    except BaseException:
        connection.close()
        raise
    return connection


def _start(settings: Settings, timeout: float) -> None:
    """Starts a keeper, in a session of its own; returns when one listens.

    Of several that are started at once, the one that gets the name stays.
    """
    root = str(Path(proxystore_hpc.__file__).resolve().parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, root, json.dumps(asdict(settings))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
    )
    try:
        said = _read_all(process, timeout)
    finally:
        if process.stdout is not None:
            process.stdout.close()
        process.wait()  # the one that forked
    if said.strip() != "listening":
        raise KeeperError(f"no keeper could be started: {said.strip() or 'it said nothing'}")


def _read_all(process: subprocess.Popen[bytes], timeout: float) -> str:
    """What it says until it closes its output, which it does when it listens, or ends."""
    assert process.stdout is not None
    said, deadline = b"", time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise KeeperError("no keeper could be started in time")
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            return said.decode(errors="replace")
        said += piece
