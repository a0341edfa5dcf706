"""The program that serves objects over TCP, beside an owner or as a gateway.

It is a process of its own, so that it does not share a GIL with the simulation. It reads its
configuration as a line of JSON from standard input, answers with a line that says where it listens,
and ends when standard input does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import select
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from proxystore_hpc.exceptions import (
    ConfigError,
    DoorUnavailableError,
    ProxyStoreHpcError,
)
from proxystore_hpc.tcp import wire
from proxystore_hpc.tcp.acceptor import Acceptor
from proxystore_hpc.tcp.endpoints import TcpEndpoint, is_loopback, parse_address
from proxystore_hpc.tcp.limits import Limits, Staging, TokenBucket
from proxystore_hpc.tcp.sessions import Service
from proxystore_hpc.tcp.sources import PRIVATE_NETWORKS, Objects, Owners

logger = logging.getLogger(__name__)

_LOOK = 1.0
_POOL = 1 << 30


@dataclass
class ServerConfig:
    """What a server needs to know.

    Attributes:
        listen: `"host:port"`; port 0 for any.
        owner: `Store.address` of the owner it serves, in hexadecimal digits; empty for a gateway.
        advertise: Host that keys name instead of the one it is bound to, with a port or without.
        tls: Whether to encrypt; by default it does, but on loopback where no key pair can be made.
        state: File that keeps the key pair; needed for TLS without a certificate of your own.
        cert: File with a certificate (chain) of an authority, PEM.
        key: File with its private key, PEM.
        put_token: What a client shows that may put, in hexadecimal digits; empty: nobody may.
        allow: Networks in which a gateway finds owners.
        secret: The job's secret in hexadecimal digits, for a gateway that puts or uses UCX.
        interface: Network interface or address by which a gateway reaches owners through UCX.
        limits: Fields of `Limits` that differ from the defaults.
    """

    listen: str = "127.0.0.1:0"
    owner: str = ""
    advertise: str = ""
    tls: bool | None = None
    state: str = ""
    cert: str = ""
    key: str = ""
    put_token: str = ""
    allow: Sequence[str] = PRIVATE_NETWORKS
    secret: str = ""
    interface: str = ""
    limits: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ServerConfig:
        """What `to_json` gave.

        Raises:
            ConfigError: It is something else.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the configuration of a server is garbled: {error}") from error


class Server:
    """A server in this process.

    Args:
        config: What to serve, and where.

    Raises:
        ConfigError: It cannot be meant.
        DoorUnavailableError: It cannot listen there, or a part is missing.
    """

    def __init__(self, config: ServerConfig) -> None:
        host, port = parse_address(config.listen)
        try:
            limits = Limits(**config.limits)
        except TypeError as error:
            raise ConfigError(f"limits: {error}") from error
        _raise_descriptor_limit(limits)
        self._listener = _bind(host, port)
        port = self._listener.getsockname()[1]
        self.loopback = _is_loopback(self._listener)
        context: ssl.SSLContext | None = None
        pin: bytes | None = None
        try:
            if config.tls is not False or config.cert:
                context, pin = _tls(config, self.loopback)
            elif not self.loopback and not config.owner:  # an owner's process warns by itself
                logger.warning(
                    "objects and keys are served without encryption at %s: whoever sees the "
                    "traffic can read both; leave tls=False out, or listen on loopback",
                    config.listen,
                )
            self._instance = _open_instance(config)
        except BaseException:
            self._listener.close()
            raise
        owner = bytes.fromhex(config.owner) or None
        staging = Staging(limits.staging)
        self._objects = Objects(self._instance, Owners(owner, config.allow), staging)
        service = Service(
            self._objects,
            limits,
            staging,
            TokenBucket(limits.rate) if limits.rate else None,
            bytes.fromhex(config.put_token),
            wire.OWNER if owner else wire.GATEWAY,
        )
        self._acceptor = Acceptor(service, [self._listener], context)
        self.endpoint = TcpEndpoint(
            *_advertised(config, host, port),
            pin=pin,
            authority=bool(config.cert),
            gateway=owner is None,
        )

    def run(self) -> None:
        """Serves until `stop`, then closes everything."""
        threading.Thread(target=self._objects.tend, name="pshpc-tend", daemon=True).start()
        try:
            self._acceptor.run()
        finally:
            self._objects.close()
            self._instance.close()

    def stop(self) -> None:
        """Ends `run`. Any thread, and signal handlers."""
        self._acceptor.stop()


def _advertised(config: ServerConfig, host: str, port: int) -> tuple[str, int]:
    if config.advertise:
        named, colon, number = config.advertise.rpartition(":")
        if colon and number.isdigit():
            return parse_address(config.advertise)
        return (config.advertise if not colon else f"{named}:{number}"), port
    if host in {"0.0.0.0", "::", "*"}:
        return socket.getfqdn(), port
    return host, port


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise DoorUnavailableError("tcp", f"cannot listen at {host}:{port}: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise DoorUnavailableError("tcp", f"cannot listen at {host}:{port}: {error}") from error
    return listener


def _is_loopback(listener: socket.socket) -> bool:
    return is_loopback(str(listener.getsockname()[0]))


def _tls(config: ServerConfig, loopback: bool) -> tuple[ssl.SSLContext | None, bytes | None]:
    from proxystore_hpc.tcp import tls

    if config.cert:
        return tls.authority_context(config.cert, config.key or config.cert), None
    from proxystore_hpc.tcp.identity import load_or_create

    try:
        identity = load_or_create(config.state)
    except (DoorUnavailableError, OSError) as error:
        # The user of who listens on their machine is all that clients can see then.
        if config.tls is None and loopback:
            return None, None
        if isinstance(error, DoorUnavailableError):
            raise
        raise DoorUnavailableError(
            "tcp", f"its key pair cannot be kept: {error}; name another file with state="
        ) from error
    return tls.server_context(identity.pems), identity.pin


def _open_instance(config: ServerConfig) -> Any:
    from proxystore_hpc import _core

    gateway = not config.owner
    instance = _core.Instance(
        "tcp",
        capacity=1 << 20,
        pool_capacity=_POOL if gateway else 64 << 20,
        secret=bytes.fromhex(config.secret) if config.secret else None,
    )
    if config.interface:
        from proxystore_hpc.ucx_runtime import import_ucx_module

        try:
            module = import_ucx_module()
            instance.open_door(module.create_door(interface=config.interface))
        except ProxyStoreHpcError:
            instance.close()
            raise
    return instance


def _raise_descriptor_limit(limits: Limits) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + limits.greeting + 256
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def _stop_with_parent(server: Server, parent: int) -> None:
    # A forked child of the parent may hold the pipe open, hence the second look.
    while os.getppid() == parent:
        if select.select([0], [], [], _LOOK)[0] and not os.read(0, 4096):
            break
    server.stop()


def main() -> int:
    """The program; see the module."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's business
    logging.basicConfig(format="proxystore_hpc tcp server: %(message)s")
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return 1
        line += byte
    try:
        server = Server(ServerConfig.from_json(line.decode()))
    except ProxyStoreHpcError as error:
        number, _ = wire.encode_error(error)
        reason = error.reason if isinstance(error, DoorUnavailableError) else str(error)
        print(json.dumps({"failed": number, "reason": reason}), flush=True)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    print(
        json.dumps(
            {
                "host": server.endpoint.host,
                "port": server.endpoint.port,
                "bound": server._listener.getsockname()[1],
                "pin": server.endpoint.pin.hex() if server.endpoint.pin else None,
                "authority": server.endpoint.authority,
            }
        ),
        flush=True,
    )
    threading.Thread(target=_stop_with_parent, args=(server, parent), daemon=True).start()
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
