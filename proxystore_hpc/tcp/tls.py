"""TLS 1.3 with pinned public keys, or with certificates of authorities. Standard library only."""

from __future__ import annotations

import functools
import hashlib
import hmac
import socket
import ssl
import tempfile
from collections.abc import Mapping, Sequence

from proxystore_hpc.exceptions import AccessDeniedError, ConfigError, DoorUnavailableError
from proxystore_hpc.tcp.endpoints import PIN_NBYTES, TcpEndpoint

_SEQUENCE = 0x30
_VERSION_TAG = 0xA0
_PROBE = 2.0
_SUFFIX = ".pin.proxystore-hpc"


def _element(der: bytes, offset: int) -> tuple[int, int, int]:
    """Tag, and where the contents of a DER element begin and end."""
    tag, length = der[offset], der[offset + 1]
    begin = offset + 2
    if length >= 0x80:
        count = length & 0x7F
        if not 0 < count <= 4:
            raise ValueError("a length of DER that is none")
        length = int.from_bytes(der[begin : begin + count], "big")
        begin += count
    if begin + length > len(der):
        raise ValueError("DER that was cut short")
    return tag, begin, begin + length


def public_key_of(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a certificate, both in DER.

    Raises:
        ValueError: It is no certificate.
    """
    try:
        tag, offset, _ = _element(certificate, 0)
        inner, offset, end = _element(certificate, offset)
        if tag != _SEQUENCE or inner != _SEQUENCE:
            raise ValueError("no sequence")
        if certificate[offset] == _VERSION_TAG:
            _, _, offset = _element(certificate, offset)
        # Serial number, algorithm, issuer, validity, subject; then the key.
        for _ in range(5):
            _, _, offset = _element(certificate, offset)
        tag, _, key_end = _element(certificate, offset)
        if tag != _SEQUENCE or key_end > end:
            raise ValueError("no key")
    except (IndexError, ValueError) as error:
        raise ValueError(f"no certificate in DER: {error}") from error
    return certificate[offset:key_end]


def pin_of(certificate: bytes) -> bytes:
    """The pin of a certificate in DER: 16 bytes.

    Raises:
        ValueError: It is no certificate.
    """
    return hashlib.sha256(public_key_of(certificate)).digest()[:PIN_NBYTES]


@functools.cache
def _pinning_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Who it is, is seen from its key; the handshake proves that it has the private half.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@functools.cache
def _authority_context(cafile: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=cafile)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def secure(raw: socket.socket, endpoint: TcpEndpoint, cafile: str | None = None) -> ssl.SSLSocket:
    """Makes a connection TLS, and checks who is at the other end before a byte is sent through it.

    Args:
        raw: A connected socket with a timeout; it is closed on failure.
        endpoint: Says what to expect.
        cafile: Certificates of authorities that are trusted instead of the machine's.

    Raises:
        AccessDeniedError: It is somebody else.
        DoorUnavailableError: The certificate of an authority does not hold, or TLS does not work.
        ValueError: The endpoint's name cannot be that of a host.
    """
    try:
        if endpoint.pin is None:
            context = _authority_context(cafile)
            host = endpoint.name or endpoint.host
            # Raises for what cannot be a name, after which wrap_socket would keep the socket open.
            context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=host)
            return context.wrap_socket(raw, server_hostname=host)
        # A server that has several keys chooses by the name.
        name = endpoint.pin.hex() + _SUFFIX
        secured = _pinning_context().wrap_socket(raw, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        raw.close()
        raise DoorUnavailableError(
            "tcp", f"the certificate of {endpoint} does not hold: {error.verify_message}"
        ) from error
    except TimeoutError:
        raw.close()
        raise
    except ssl.SSLError as error:
        raw.close()
        raise DoorUnavailableError(
            "tcp", f"no TLS 1.3 with {endpoint}: {error.reason or error}"
        ) from error
    except (OSError, ValueError):  # the latter for what cannot be a name
        raw.close()
        raise
    try:
        found = pin_of(secured.getpeercert(True) or b"")
    except ValueError:
        found = b""
    if not hmac.compare_digest(found, endpoint.pin):
        secured.close()
        raise AccessDeniedError(
            f"who answers at {endpoint} has the public key {found.hex()}, not {endpoint.pin.hex()} "
            "as the object's key says: its state file was lost, or somebody is in between",
            peer=str(endpoint),
        )
    return secured


def is_spoken_at(endpoint: TcpEndpoint) -> bool:
    """Whether a server that was taken for a plain one wants TLS. It is told nothing."""
    try:
        with (
            socket.create_connection((endpoint.host, endpoint.port), _PROBE) as raw,
            _pinning_context().wrap_socket(raw),
        ):
            return True
    except (OSError, ValueError):
        return False


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    return context


def server_context(identities: Sequence[str]) -> ssl.SSLContext:
    """A server's context with key pairs of its own.

    Args:
        identities: PEM texts of a private key and its certificate; the first is for clients that
            ask for none of them.

    Raises:
        ConfigError: One cannot be read.
    """
    contexts: dict[str, ssl.SSLContext] = {}
    for pem in identities:
        context = _server_context()
        # The module reads files only. This one is 0600 and gone at once.
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(pem)
            file.flush()
            _load(context, file.name, None)
        contexts[pin_of(certificate_in(pem)).hex()] = context
    return _choosing(contexts)


def _choosing(contexts: Mapping[str, ssl.SSLContext]) -> ssl.SSLContext:
    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        wanted = contexts.get((name or "").removesuffix(_SUFFIX))
        if wanted is not None:
            connection.context = wanted

    first = next(iter(contexts.values()))
    first.sni_callback = choose
    return first


def authority_context(cert: str, key: str) -> ssl.SSLContext:
    """A server's context with a certificate that an authority gave.

    Args:
        cert: File with the certificate and those between it and the authority's, PEM.
        key: File with the private key, PEM.

    Raises:
        ConfigError: They cannot be read, or do not belong together.
    """
    context = _server_context()
    _load(context, cert, key)
    return context


def _load(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the certificate {cert} with its private key cannot be used: {error}"
        ) from error


def certificate_in(pem: str) -> bytes:
    """The first certificate of a PEM text, in DER.

    Raises:
        ValueError: It has none.
    """
    begin, end = pem.find(ssl.PEM_HEADER), pem.find(ssl.PEM_FOOTER)
    if begin < 0 or end < begin:
        raise ValueError("no certificate in PEM")
    return ssl.PEM_cert_to_DER_cert(pem[begin : end + len(ssl.PEM_FOOTER)])
