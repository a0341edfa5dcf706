"""How a store is reached from outside: its TCP server, and the gateways that lead to it."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import ConfigError, InvalidArgumentError
from proxystore_hpc.store.options import check_names, check_token
from proxystore_hpc.tcp.endpoints import TcpEndpoint, is_loopback, parse_address

if TYPE_CHECKING:
    from proxystore_hpc.tcp.process import ServerProcess


@dataclass(frozen=True)
class Gateway:
    """A gateway as a configuration names it: `"host:port"`, or a mapping.

    Attributes:
        address: Its host and port.
        pin: The pin of its public key, 32 hexadecimal digits, as the gateway prints it. Without one
            its certificate is verified by the authorities that the reader trusts.
        plain: Do not encrypt. By default only what is on loopback and has no pin is not.
    """

    address: str
    pin: str = ""
    plain: bool | None = None

    @classmethod
    def parse(cls, given: str | Mapping[str, Any]) -> Gateway:
        """Checks names and values.

        Raises:
            ConfigError: One is unknown or of the wrong kind; says which, and what there is.
        """
        if isinstance(given, str):
            given = {"address": given}
        if not isinstance(given, Mapping):
            raise ConfigError(f"gateway: host:port or a mapping is needed, not {given!r}")
        check_names("gateway", given, [field.name for field in fields(cls)])
        if not isinstance(given.get("address"), str):
            raise ConfigError("gateway: its address is missing, such as 'login1:8443'")
        if not isinstance(given.get("pin", ""), str):
            raise ConfigError(f"gateway: pin: 32 hexadecimal digits, not {given['pin']!r}")
        if not isinstance(given.get("plain"), (bool, type(None))):
            raise ConfigError(f"gateway: plain: true or false is needed, not {given['plain']!r}")
        gateway = cls(**given)
        _ = gateway.endpoint
        return gateway

    @property
    def on_loopback(self) -> bool:
        """Whether it is on this node, as far as its address tells."""
        return is_loopback(parse_address(self.address)[0])

    @property
    def endpoint(self) -> TcpEndpoint:
        """What keys carry of it.

        Raises:
            ConfigError: Address or pin cannot be meant.
        """
        host, port = parse_address(self.address)
        try:
            pin = binascii.unhexlify(self.pin) if self.pin else None
        except ValueError as error:
            raise ConfigError(f"gateway: pin: {error}") from error
        plain = self.on_loopback if self.plain is None else self.plain
        if pin is not None and self.plain:
            raise ConfigError("gateway: a pin is for encrypted connections; leave plain= out")
        try:
            return TcpEndpoint(host, port, pin, authority=pin is None and not plain, gateway=True)
        except InvalidArgumentError as error:
            raise ConfigError(f"gateway: {error}") from error


@dataclass(frozen=True)
class Serving:
    """The TCP server of a store as a configuration names it: true, `"host:port"`, or a mapping.

    Attributes:
        listen: Address and port to listen at; port 0 for any that is free.
        advertise: What keys say instead: a host, or host and port, as others reach it.
        tls: Encrypt; by default it does, but on loopback where no key pair can be made, as the
            package `cryptography` is missing or `state` cannot be written.
        cert: File with a certificate that an authority gave (PEM), and `key` its private key.
            Without them the server makes its own, and keys carry its pin.
        key: See `cert`.
        state: File that keeps what the server made for itself, so that keys stay valid when it is
            started again; one below the user's state directory by default.
        put_token: Secret in hexadecimal digits; who shows it may store objects here. Nobody may
            without one.
        limits: Bounds by name, see `proxystore_hpc.tcp.limits.Limits`.
    """

    listen: str = "127.0.0.1:0"
    advertise: str | None = None
    tls: bool | None = None
    cert: str | None = None
    key: str | None = None
    state: str | None = None
    put_token: str | None = None
    limits: Mapping[str, Any] | None = None

    @classmethod
    def parse(cls, given: bool | str | Mapping[str, Any]) -> Serving:
        """Checks names and values.

        Raises:
            ConfigError: One is unknown or of the wrong kind; says which, and what there is.
        """
        if given is True:
            given = {}
        elif isinstance(given, str):
            given = {"listen": given}
        if not isinstance(given, Mapping):
            raise ConfigError(f"tcp: true, host:port or a mapping is needed, not {given!r}")
        check_names("tcp", given, [field.name for field in fields(cls)])
        for name, kinds in _SERVING_TYPES.items():
            if name in given and not isinstance(given[name], kinds):
                raise ConfigError(f"tcp: {name}: {given[name]!r} is of the wrong type")
        serving = cls(**given)
        parse_address(serving.listen)
        if serving.put_token is not None:
            check_token("tcp", serving.put_token)
        if (serving.cert is None) != (serving.key is None):
            raise ConfigError("tcp: cert and key belong together; give both or none")
        return serving


_SERVING_TYPES: dict[str, tuple[type, ...]] = {
    "listen": (str,),
    "advertise": (str, type(None)),
    "tls": (bool, type(None)),
    "cert": (str, type(None)),
    "key": (str, type(None)),
    "state": (str, type(None)),
    "put_token": (str, type(None)),
    "limits": (Mapping, type(None)),
}


def gateways(given: Any) -> tuple[Gateway, ...]:
    """One gateway, or several, of a configuration.

    Raises:
        ConfigError: As `Gateway.parse`.
    """
    if given is None:
        return ()
    if isinstance(given, (str, Mapping)):
        given = [given]
    if not isinstance(given, (list, tuple)):
        raise ConfigError(f"gateway: host:port, a mapping or a list of them, not {given!r}")
    return tuple(Gateway.parse(item) for item in given)


def start_server(given: bool | str | Mapping[str, Any], address: bytes) -> ServerProcess:
    """Starts the TCP server of a store.

    Args:
        given: What its configuration says of it.
        address: `Store.address`.

    Raises:
        DoorUnavailableError: It cannot listen there, or a part of it is missing.
    """
    from proxystore_hpc.tcp.process import start

    serving = Serving.parse(given)
    named = {name: value for name, value in vars(serving).items() if value is not None}
    if serving.put_token is not None:
        named["put_token"] = bytes.fromhex(serving.put_token)
    return start(address, **named)
