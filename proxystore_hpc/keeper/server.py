"""The keeper's process: takes the estates of stores, serves what ended ones have left."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections import deque
from typing import Any

from proxystore_hpc._version import __version__
from proxystore_hpc.exceptions import ProtocolError, ProxyStoreHpcError
from proxystore_hpc.keeper.kept import Kept
from proxystore_hpc.keeper.line import Line
from proxystore_hpc.keeper.settings import Settings, socket_name
from proxystore_hpc.keeper.talk import check_user, parse_line, send_line
from proxystore_hpc.store.opening import load_core

logger = logging.getLogger(__name__)

_BACKLOG = 512
_PERIOD = 0.25
_EVENTS = 100
# Who asks an owner without objects for one that is gone is told so for a while.
_LINGER = 5.0
_GREETING_TIME = 10.0
_ANSWER_TIME = 5.0
_LONGEST_GREETING = 64 * 1024


class Keeper:
    """Serves until it is told to end, or was idle for long enough. One thread.

    Args:
        settings: What it may take.

    Raises:
        OSError: Another keeper holds the name (`EADDRINUSE`).
        ProxyStoreHpcError: The core cannot be loaded, or the environment cannot be meant.
    """

    def __init__(self, settings: Settings) -> None:
        self.limit = settings.limit or load_core().default_capacity(1)
        self.idle = settings.idle
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Who binds the name is the keeper.
        self._listener.bind(socket_name())
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._greeting: dict[socket.socket, tuple[float, bytes]] = {}
        self._lines: dict[socket.socket, Line] = {}
        self._kept: list[Kept] = []
        self._events: deque[str] = deque(maxlen=_EVENTS)
        self._idle_since = time.monotonic()
        self._stopping = False

    def stop(self) -> None:
        """Makes `run` return soon. What is kept ends. Any thread, also from a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Serves."""
        try:
            while not self._stopping:
                for key, _ in self._selector.select(_PERIOD):
                    self._on_ready(key.fileobj)  # type: ignore[arg-type]
                self._tend()
        finally:
            self._end()

    def _on_ready(self, ready: socket.socket) -> None:
        if ready is self._listener:
            self._accept()
        elif ready in self._greeting:
            self._greet(ready)
        elif ready in self._lines:
            self._listen_to(ready)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = self._listener.accept()
            try:
                check_user(connection, "who came to the keeper")
            except (ProxyStoreHpcError, OSError) as error:
                self._note(f"turned somebody away: {error}")
                connection.close()
                return
            connection.setblocking(False)
            self._greeting[connection] = (time.monotonic(), b"")
            self._selector.register(connection, selectors.EVENT_READ, None)

    def _greet(self, connection: socket.socket) -> None:
        since, line = self._greeting[connection]
        try:
            try:
                piece = connection.recv(_LONGEST_GREETING)
            except BlockingIOError:
                return
            line += piece
            if not piece or len(line) > _LONGEST_GREETING:
                raise ProtocolError("somebody left before they had said what they want")
            if not line.endswith(b"\n"):
                self._greeting[connection] = (since, line)
                return
            del self._greeting[connection]
            if self._answer(connection, parse_line(line)):
                return
        except (OSError, ProxyStoreHpcError) as error:
            self._note(str(error))
            self._greeting.pop(connection, None)
        self._selector.unregister(connection)
        connection.close()

    def _answer(self, connection: socket.socket, said: dict[str, Any]) -> bool:
        """Answers a question; whether the connection goes on."""
        connection.settimeout(_ANSWER_TIME)
        if said.get("ask") == "keep":
            send_line(connection, {"pid": os.getpid()})
            connection.setblocking(False)
            self._lines[connection] = Line(connection, said)
            return True
        if said.get("ask") == "stop":
            self.stop()
        send_line(connection, self.status())
        return False

    def _listen_to(self, connection: socket.socket) -> None:
        line = self._lines[connection]
        try:
            if line.read():
                return
            self._take_over(line)
        except (ProxyStoreHpcError, OSError) as error:
            self._note(f"what process {line.facts.get('pid')} had stored is lost: {error}")
        del self._lines[connection]
        self._selector.unregister(connection)
        line.close()

    def _take_over(self, line: Line) -> None:
        if not line.complete:
            return
        kept = Kept(line.facts, line.take_estate(), self.limit - self.used)
        if kept.shed_objects:
            self._note(
                f"{kept.shed_objects} objects ({kept.shed_bytes} bytes) of store {kept.store!r} "
                f"were refused: the limit of {self.limit} bytes is reached; evict objects, or "
                "raise it by --limit or PROXYSTORE_HPC_KEEPER_LIMIT"
            )
        if kept.served:
            self._kept.append(kept)
        else:
            kept.close()

    @property
    def used(self) -> int:
        """Bytes of what is kept."""
        return sum(kept.used for kept in self._kept)

    def status(self) -> dict[str, Any]:
        """For people who ask."""
        return {
            "pid": os.getpid(),
            "package": __version__,
            "limit": self.limit,
            "idle": self.idle,
            "used": self.used,
            "connected": [
                {"store": line.facts.get("store"), "pid": line.facts.get("pid")}
                for line in self._lines.values()
            ],
            "kept": [kept.describe() for kept in self._kept],
            "events": list(self._events),
        }

    def _tend(self) -> None:
        now = time.monotonic()
        for connection, (since, _) in list(self._greeting.items()):
            if now - since > _GREETING_TIME:
                del self._greeting[connection]
                self._selector.unregister(connection)
                connection.close()
        for kept in list(self._kept):
            if (empty := kept.empty_for()) is not None and empty > min(self.idle, _LINGER):
                self._kept.remove(kept)
                kept.close()
        if self._lines or self._greeting or any(kept.empty_for() is None for kept in self._kept):
            self._idle_since = now
        elif now - self._idle_since > self.idle:
            self.stop()

    def _note(self, event: str) -> None:
        logger.warning("%s", event)
        self._events.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {event}")

    def _end(self) -> None:
        # First: whoever comes now starts another keeper.
        self._selector.close()
        self._listener.close()
        for connection in self._greeting:
            connection.close()
        for line in self._lines.values():
            line.close()
        for kept in self._kept:
            kept.close()


def serve(settings: Settings, on_listening: Any) -> None:
    """Runs a keeper in this process until it ends.

    Args:
        settings: What it may take.
        on_listening: Called with the keeper once it listens.

    Raises:
        OSError: Another keeper holds the name.
        ProxyStoreHpcError: As the constructor of `Keeper`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    keeper = Keeper(settings)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: keeper.stop())
    on_listening(keeper)
    keeper.run()


def main(settings: str) -> int:
    """The program of a keeper that a store started; says "listening" when one does.

    Args:
        settings: Fields of `Settings` as JSON.
    """

    def let_go(_: Any = None) -> None:
        # The starter waits for the end of our output.
        print("listening", flush=True)
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        os.close(nothing)

    logging.basicConfig(level=logging.CRITICAL)
    try:
        serve(Settings(**json.loads(settings)), let_go)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            print(f"{error}", file=sys.stderr)
            return 1
        let_go()  # by another one, which was quicker
    except ProxyStoreHpcError as error:
        print(f"{error}", file=sys.stderr)
        return 1
    return 0
