"""Calls over a Unix socket, with the names and the manners of py-mochi-margo 0.6."""

from __future__ import annotations

import os
import tempfile
import threading
from multiprocessing.connection import Client, Listener
from typing import Any

client, server = "client", "server"


class Handle:
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def respond(self, value: Any) -> None:
        self.connection.send(value)


class Remote:
    """A name, and on an address a callable."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on(self, address: Any) -> Any:
        connection = Client(address)

        def call(*args: Any) -> Any:
            connection.send((self.name, args))
            return connection.recv()

        return call


class Engine:
    def __init__(self, addr: str, mode: str = server, use_progress_thread: bool = False) -> None:
        assert addr == "na+sm"
        self.functions: dict[str, Any] = {}
        self.listener: Any = None
        if mode == server:
            # Otherwise nobody would answer while the program does something else.
            assert use_progress_thread
            self.listener = Listener(f"{tempfile.gettempdir()}/margo-{os.getpid()}")
            threading.Thread(target=self._serve, daemon=True).start()

    @property
    def address(self) -> str:
        return str(self.listener.address)

    def lookup(self, address: str) -> str:
        return address

    def register(self, name: str, function: Any = None) -> Remote:
        self.functions[name] = function
        return Remote(name)

    def _serve(self) -> None:
        with self.listener.accept() as connection:
            try:
                while True:
                    name, args = connection.recv()
                    self.functions[name](Handle(connection), *args)
            except EOFError:
                return

    def finalize(self) -> None:
        if self.listener is not None:
            self.listener.close()
