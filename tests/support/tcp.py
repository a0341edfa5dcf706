"""Servers of the TCP path beside an owner, and what stands between them and a client."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from proxystore_hpc.tcp.endpoints import TcpEndpoint


def serve(here: Any, **options: Any) -> tuple[list[TcpEndpoint], int]:
    """Starts a server in a peer that has a store; its endpoints and process id.

    It is plain by default, so that tests can speak the protocol by hand.
    """
    from proxystore_hpc.tcp.process import start

    options.setdefault("tls", False)
    here.server = start(here.store.address, **options)
    return list(here.server.endpoints), here.server.pid


def close(here: Any) -> None:
    """Ends the server of a peer."""
    here.server.close()


def put(here: Any, *objects: Any) -> list[bytes]:
    """Packed keys of objects."""
    return [bytes(here.store.put(obj)) for obj in objects]


def put_numbers(here: Any, nbytes: int) -> bytes:
    """Packed key of an array of bytes that are no others when shifted."""
    return bytes(here.store.put(numbers(nbytes)))


def numbers(nbytes: int) -> Any:
    """Bytes of an increasing sequence."""
    return np.arange(nbytes // 8, dtype="u8").view("u1")


class Forwarder:
    """A port that leads to another one, and counts, cuts and holds up what goes through.

    Attributes:
        port: Where it listens.
        down: Bytes that went from the server to clients.
        up: Bytes that went from clients to the server.
        connections: Connections that were made through it.
        cut_after: Bytes towards a client after which its connection is cut, once for each entry.
        cut_up_after: The same for bytes towards the server.
        change: Is given bytes towards a client, gives others, and cuts if it raises `OSError`.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.down = self.up = 0
        self.connections = 0
        self.cut_after: list[int] = []
        self.cut_up_after: list[int] = []
        self.change: Callable[[bytes], bytes] | None = None
        self._open = threading.Event()
        self._open.set()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def hold(self) -> None:
        """Lets nothing through."""
        self._open.clear()

    def release(self) -> None:
        """Lets everything through again."""
        self._open.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            self.connections += 1
            cut = self.cut_after.pop(0) if self.cut_after else None
            cut_up = self.cut_up_after.pop(0) if self.cut_up_after else None
            self._sockets += [client, server]
            for source, sink, limit, downwards in (
                (client, server, cut_up, False),
                (server, client, cut, True),
            ):
                thread = threading.Thread(
                    target=self._pump, args=(source, sink, limit, downwards), daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, limit: int | None, downwards: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536 if limit is None else min(65536, limit)):
                self._open.wait()
                if downwards and self.change is not None:
                    data = self.change(data)
                sink.sendall(data)
                if downwards:
                    self.down += len(data)
                else:
                    self.up += len(data)
                if limit is not None:
                    limit -= len(data)
                    if limit <= 0:
                        break
        for end in (source, sink):
            if limit is not None and not downwards:  # or who sends would not hear of it
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes everything."""
        self.release()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for end in self._sockets:
            end.close()


@contextlib.contextmanager
def forwarder(endpoint: TcpEndpoint) -> Iterator[Forwarder]:
    """A forwarder to an endpoint."""
    made = Forwarder((endpoint.host, endpoint.port))
    try:
        yield made
    finally:
        made.close()


class Gateway:
    """A gateway started from the shell.

    Attributes:
        endpoint: Where it is.
        told: What it prints for `Store(..., gateway=...)`.
        pid: Its process id.
    """

    def __init__(self, *arguments: str, launcher: Sequence[str] = ()) -> None:
        self.arguments = arguments
        self._launcher = launcher
        self._start()

    def _start(self) -> None:
        from proxystore_hpc.store.serving import Gateway as Configured

        command = [sys.executable, "-m", "proxystore_hpc", "gateway", "--json", *self.arguments]
        root = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(
            [*self._launcher, *command],
            stdout=subprocess.PIPE,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        assert self._process.stdout is not None
        self.told = json.loads(self._process.stdout.readline())
        self.endpoint = Configured.parse(self.told).endpoint

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Starts it again after `kill`, at the same port."""
        before = self.arguments
        index = before.index("--listen") + 1
        self.arguments = (*before[:index], self.told["address"], *before[index + 1 :])
        self._start()

    def close(self) -> int:
        """Ends it as Ctrl-C does; its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self._process.wait(10)


@contextlib.contextmanager
def gateway(*arguments: str, launcher: Sequence[str] = ()) -> Iterator[Gateway]:
    """A gateway that ends well."""
    made = Gateway(*arguments, launcher=launcher)
    try:
        yield made
        assert made.close() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            made.kill()


class Noting(ssl.SSLSocket):
    """Notes calls into OpenSSL that overlap."""

    inside = 0
    overlaps = 0

    @contextlib.contextmanager
    def _noted(self):
        cls = type(self)
        cls.inside += 1
        cls.overlaps += cls.inside > 1
        try:
            yield
        finally:
            cls.inside -= 1

    def read(self, *arguments):
        with self._noted():
            return super().read(*arguments)

    def write(self, data):
        with self._noted():
            return super().write(data)

    def send(self, data, flags=0):
        with self._noted():
            return super().send(data, flags)
