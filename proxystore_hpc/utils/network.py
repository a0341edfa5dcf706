"""Addresses of this machine."""

from __future__ import annotations

import hashlib
import socket
import struct
from pathlib import Path

from proxystore_hpc.exceptions import ConfigError

LOOPBACK_NBYTES = 8
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/net")
_SIOCGIFADDR = 0x8915
_SIOCGIFFLAGS = 0x8913
_IFF_UP_AND_RUNNING = 0x1 | 0x40


def address_of(interface: str) -> str:
    """The IPv4 address of a network interface; an address is returned as it is.

    Raises:
        ConfigError: There is no such interface, it has no address, or no network is behind it.
    """
    try:
        socket.inet_aton(interface)
    except OSError:
        pass
    else:
        return interface
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("256s", interface[:15].encode())
        try:
            packed = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            flags = fcntl.ioctl(probe.fileno(), _SIOCGIFFLAGS, request)
        except OSError as error:
            known = ", ".join(name for _, name in socket.if_nameindex())
            raise ConfigError(
                f"interface: {interface!r} is no interface with an IPv4 address ({error}); this "
                f"machine has {known}"
            ) from error
    # UCX would pass over such a device, with no more than a warning.
    if struct.unpack_from("H", flags, 16)[0] & _IFF_UP_AND_RUNNING != _IFF_UP_AND_RUNNING:
        raise ConfigError(f"interface: {interface!r} is down, or has no carrier")
    return socket.inet_ntoa(packed[20:24])


def interface_with(address: str) -> str | None:
    """The interface that has an IPv4 address, `None` if none has."""
    for _, name in socket.if_nameindex():
        try:
            if address_of(name) == address:
                return name
        except ConfigError:
            continue
    return None


def address_towards(host: str) -> str:
    """The address of ours from which packets to `host` would leave. Nothing is sent.

    Raises:
        OSError: There is no route.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return str(probe.getsockname()[0])


def loopback_tag() -> bytes:
    """What the loopback interface that this process sees is known by: 8 bytes.

    Those of other machines, of other network namespaces and of other boots have other ones. Empty
    where the system does not tell.
    """
    try:
        seen = f"{_BOOT_ID.read_text('ascii').strip()} {_NAMESPACE.stat().st_ino}"
    except OSError:
        return b""
    return hashlib.blake2b(seen.encode(), digest_size=LOOPBACK_NBYTES).digest()
