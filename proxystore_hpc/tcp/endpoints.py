"""Where an object can be had over TCP: the outside section of a key.

The layout is described in `docs/protocol.md`.
"""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from proxystore_hpc.exceptions import ConfigError, InvalidArgumentError, InvalidKeyError
from proxystore_hpc.utils.network import LOOPBACK_NBYTES

PIN_NBYTES = 16
"""Length of a pin: the start of the SHA-256 of a server's public key."""

MAP_VARIABLE = "PROXYSTORE_HPC_TCP_MAP"
"""Environment variable that `rewrite` obeys."""

_HEAD = struct.Struct("<BHB")
_PINNED = 1
_AUTHORITY = 2
_GATEWAY = 4
_LOOPBACK = 8
_MOST = 8


@dataclass(frozen=True)
class TcpEndpoint:
    """A server that can be asked for an object.

    Attributes:
        host: Its name or address.
        port: Its port.
        pin: The first 16 bytes of SHA-256 of its public key (SubjectPublicKeyInfo, DER). The
            connection is TLS and no other key is accepted.
        authority: The connection is TLS, and the certificate is verified by the authorities that
            this machine trusts. With neither this nor a pin, the connection is plain.
        gateway: It leads to owners elsewhere; that nobody listens there says nothing of the owner.
        loopback: Which loopback interface it is on, see `utils.network.loopback_tag`; empty if on
            none, or not known.
        name: Name that its certificate must bear; `host` if empty. Not part of a key.
        mapped: It is a forwarded port that stands for another address. Not part of a key.
        user: User who may serve it besides root and one's own, if it is plain and on this machine.
            Not part of the endpoint in a key, but of the key.
    """

    host: str
    port: int
    pin: bytes | None = None
    authority: bool = False
    gateway: bool = False
    loopback: bytes = b""
    name: str = ""
    mapped: bool = False
    user: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.port < 1 << 16:
            raise InvalidArgumentError(f"port: {self.port} is none; ports are 1 to 65535")
        if not 0 < len(self.host) < 256 or not self.host.isascii() or not self.host.isprintable():
            raise InvalidArgumentError(
                f"host: {self.host!r} is no name or address of at most 255 ASCII characters"
            )
        if self.pin is not None and (len(self.pin) != PIN_NBYTES or self.authority):
            raise InvalidArgumentError(
                f"pin: it has {PIN_NBYTES} bytes, and is not combined with an authority"
            )

        if len(self.loopback) not in (0, LOOPBACK_NBYTES):
            raise InvalidArgumentError(f"loopback: it has {LOOPBACK_NBYTES} bytes, or none")

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.pin is not None or self.authority

    @property
    def on_loopback(self) -> bool:
        """Whether it is on whichever machine asks."""
        return is_loopback(self.host)

    @property
    def keeps_secrets(self) -> bool:
        """Whether nobody reads on the way what is sent there."""
        return self.tls or self.on_loopback

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether bytes to a name or an address stay on this machine, as far as can be told from it."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    except ValueError:
        return False


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `"host:port"` or `"[IPv6 address]:port"`.

    Raises:
        ConfigError: It is neither.
    """
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) >= 1 << 16:
        raise ConfigError(f"{text!r} is no address: write host:port, or [address]:port for IPv6")
    return host, int(port)


def pack(endpoints: Sequence[TcpEndpoint]) -> bytes:
    """The outside section of a key.

    Raises:
        InvalidArgumentError: There are more than 8.
    """
    if len(endpoints) > _MOST:
        raise InvalidArgumentError(f"a key carries {_MOST} endpoints at most, not {len(endpoints)}")
    packed = bytearray()
    for endpoint in endpoints:
        host = endpoint.host.encode("ascii")
        flags = _PINNED * (endpoint.pin is not None)
        flags |= _AUTHORITY * endpoint.authority | _GATEWAY * endpoint.gateway
        flags |= _LOOPBACK * bool(endpoint.loopback)
        packed += _HEAD.pack(flags, endpoint.port, len(host)) + host
        packed += (endpoint.pin or b"") + endpoint.loopback
    return bytes(packed)


def unpack(packed: bytes) -> tuple[TcpEndpoint, ...]:
    """The endpoints of an outside section.

    Raises:
        InvalidKeyError: The bytes are no such section.
    """
    endpoints: list[TcpEndpoint] = []
    offset = 0
    try:
        while offset < len(packed):
            flags, port, host_nbytes = _HEAD.unpack_from(packed, offset)
            host_end = offset + _HEAD.size + host_nbytes
            pin_end = host_end + PIN_NBYTES * (flags & _PINNED)
            offset_after = pin_end + LOOPBACK_NBYTES * bool(flags & _LOOPBACK)
            if flags >= 2 * _LOOPBACK or offset_after > len(packed) or len(endpoints) == _MOST:
                raise ValueError("an unknown flag, a cut, or too many")
            host = packed[offset + _HEAD.size : host_end].decode("ascii")
            pin = packed[host_end:pin_end] if flags & _PINNED else None
            kind = bool(flags & _AUTHORITY), bool(flags & _GATEWAY)
            endpoints.append(TcpEndpoint(host, port, pin, *kind, packed[pin_end:offset_after]))
            offset = offset_after
    except (struct.error, ValueError) as error:
        raise InvalidKeyError(
            f"the {len(packed)} bytes that say where the object can be had over TCP are garbled; "
            "pass keys on whole, as pickles or as bytes(key)"
        ) from error
    return tuple(endpoints)


def of_user(endpoints: Sequence[TcpEndpoint], user: int) -> tuple[TcpEndpoint, ...]:
    """Endpoints of an owner's keys, which tell the user it runs as."""
    return tuple(
        replace(endpoint, user=user) if endpoint.on_loopback and not endpoint.tls else endpoint
        for endpoint in endpoints
    )


def rewrite(
    endpoints: Sequence[TcpEndpoint], environment: Mapping[str, str] | None = None
) -> tuple[TcpEndpoint, ...]:
    """Endpoints as they are reached from here, through `ssh -L` for example.

    `PROXYSTORE_HPC_TCP_MAP=host:port=localhost:port[,...]` replaces those before the equals sign by
    those behind it. What the certificate is checked against does not change.

    Args:
        endpoints: Those of a key.
        environment: Environment variables; `os.environ` by default.

    Raises:
        ConfigError: The variable cannot be understood.
    """
    text = (os.environ if environment is None else environment).get(MAP_VARIABLE, "")
    if not text:
        return tuple(endpoints)
    table: dict[tuple[str, int], tuple[str, int]] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        source, equals, target = entry.partition("=")
        if not equals:
            raise ConfigError(f"{MAP_VARIABLE}: {entry!r} is not of the form host:port=host:port")
        table[parse_address(source)] = parse_address(target)
    rewritten = []
    for endpoint in endpoints:
        here = table.get((endpoint.host, endpoint.port))
        if here is not None:
            name = endpoint.name or endpoint.host
            endpoint = replace(endpoint, host=here[0], port=here[1], name=name, mapped=True)
        rewritten.append(endpoint)
    return tuple(rewritten)
