"""Bare sockets between two processes: what any protocol over them adds to."""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from proxystore_hpc.bench.bursts import Repeated
from proxystore_hpc.bench.companion import Companion
from proxystore_hpc.bench.contestant import Burst, Kind, Operation, UnavailableError
from proxystore_hpc.bench.data import expect, pattern

__all__ = ["Socket"]

_SENDER = "proxystore_hpc.bench.limits.sockets:Sender"
_ABOUT = {
    "tcp": "sendall and recv_into over loopback, into memory that is there already",
    "unix": "the same over a Unix socket",
    "tls": "the same over loopback and TLS",
}


class Socket:
    """A request of 8 bytes, and as many bytes back as it says.

    An echo sends the bytes there, too.

    Args:
        way: `"tcp"`, `"unix"` or `"tls"`.
    """

    kind = Kind.LIMIT
    operations = frozenset(
        {
            *(Operation.PUT_THERE, Operation.GET, Operation.EXCHANGE, Operation.ECHO),
            *(Operation.CALL, Operation.RESOLVE, Operation.EXISTS, Operation.BATCH),
        }
    )
    most = None

    def __init__(self, way: str) -> None:
        self.way = way
        self.name = f"{way}-socket"
        self.about = _ABOUT[way]

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        if self.way == "tls":
            try:
                import cryptography  # noqa: F401
            except ImportError as error:
                raise UnavailableError("pip install 'proxystore_hpc[server]'") from error
            return {"openssl": ssl.OPENSSL_VERSION}
        return {}

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return self._opened(operation, nbytes)

    @contextmanager
    def _opened(self, operation: Operation, nbytes: int) -> Iterator[Burst]:
        import numpy as np

        back = 8 if operation in (Operation.CALL, Operation.EXISTS) else nbytes
        there = nbytes if operation is Operation.ECHO else 0
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            sender = stack.enter_context(
                Companion(_SENDER, way=self.way, folder=folder, nbytes=back, expected=there)
            )
            connection = stack.enter_context(_connected(self.way, sender.call("place")))
            target = np.zeros(back, "u1")
            request = back.to_bytes(8, "little")
            outward = request + pattern(there).tobytes() if there else request
            receive = _receiver(connection, outward, target.data)
            yield Repeated(receive, lambda _: expect(target, back))


def _receiver(connection: Any, request: bytes, target: memoryview) -> Callable[[], None]:
    nbytes, sendall, recv_into = len(target), connection.sendall, connection.recv_into

    def receive() -> None:
        sendall(request)
        done = 0
        while done < nbytes:
            got = recv_into(target[done:])
            if not got:
                raise ConnectionResetError("the bare sender has ended")
            done += got

    return receive


@contextmanager
def _connected(way: str, place: Any) -> Iterator[Any]:
    family = socket.AF_UNIX if way == "unix" else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as raw:
        raw.connect(place)
        if way != "unix":
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if way != "tls":
            yield raw
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(raw) as wrapped:
            yield wrapped


class Sender:
    """Role: sends as many bytes as it is asked for, after it has got `expected`."""

    def __init__(self, way: str, folder: str, nbytes: int, expected: int) -> None:
        self._way = way
        self._payload = pattern(nbytes).data
        self._inward = memoryview(bytearray(expected))
        self._context: ssl.SSLContext | None = None
        if way == "unix":
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(str(Path(folder, "s")))
            self._listener.listen()
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
        if way == "tls":
            from proxystore_hpc.tcp import tls
            from proxystore_hpc.tcp.identity import load_or_create

            self._context = tls.server_context(load_or_create(str(Path(folder, "state"))).pems)
        threading.Thread(target=self._run, daemon=True).start()

    def place(self) -> Any:
        """Where it listens."""
        return self._listener.getsockname()

    def _run(self) -> None:
        raw, _ = self._listener.accept()
        if self._way != "unix":
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection: Any = raw
        if self._context is not None:
            connection = self._context.wrap_socket(raw, server_side=True)
        with connection:
            while request := connection.recv(8):
                done = 0
                while done < len(self._inward):
                    done += connection.recv_into(self._inward[done:])
                connection.sendall(self._payload[: int.from_bytes(request, "little")])

    def close(self) -> None:
        """Stops listening."""
        self._listener.close()
