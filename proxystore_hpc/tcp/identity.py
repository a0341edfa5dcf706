"""The key pair of a server, kept in a file so that a restarted server still serves old keys."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from proxystore_hpc.exceptions import ConfigError, DoorUnavailableError
from proxystore_hpc.tcp import tls

_FORMAT = 1
_MOST = 4
_YEARS = 20


@dataclass(frozen=True)
class Identity:
    """Key pairs of a server.

    Attributes:
        pems: PEM texts of a private key and its certificate each, the newest first. Clients that
            were given the pin of an older one are still served.
    """

    pems: tuple[str, ...]

    @property
    def pin(self) -> bytes:
        """The pin that new keys carry."""
        return tls.pin_of(tls.certificate_in(self.pems[0]))

    @property
    def pins(self) -> tuple[bytes, ...]:
        """All pins that are answered to."""
        return tuple(tls.pin_of(tls.certificate_in(pem)) for pem in self.pems)


def default_state() -> Path:
    """Where the key pair is kept if no other file is named."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "proxystore_hpc" / "server.json"


def load_or_create(path: str | Path = "") -> Identity:
    """The key pair of a state file, made if there is none.

    Args:
        path: The file; `default_state()` if empty.

    Raises:
        ConfigError: It is readable to others, or damaged.
        DoorUnavailableError: It must be made, and the package `cryptography` is missing.
    """
    path = Path(path) if path else default_state()
    with contextlib.suppress(FileNotFoundError):
        return _load(path)
    _write(path, Identity((_new_pem(),)), replace=False)
    # Another server may have been quicker.
    return _load(path)


def rotate(path: str | Path = "") -> Identity:
    """Adds a new key pair, which new keys will be pinned to; the last three are still accepted.

    Servers take it up when they are started. Errors as of `load_or_create`.
    """
    path = Path(path) if path else default_state()
    old = _load(path).pems if path.exists() else ()
    identity = Identity((_new_pem(), *old)[:_MOST])
    _write(path, identity, replace=True)
    return identity


def _load(path: Path) -> Identity:
    with path.open() as file:
        status = os.fstat(file.fileno())
        if status.st_mode & 0o077 or status.st_uid not in (os.geteuid(), 0):
            raise ConfigError(
                f"the private key in {path} is open to other users: run chmod 600 on it, and "
                "rotate it if others were on this machine"
            )
        text = file.read()
    try:
        document = json.loads(text)
        pems = tuple(str(pem) for pem in document["identities"])
        if document["format"] != _FORMAT or not pems:
            raise ValueError("another format")
        identity = Identity(pems)
        assert len(identity.pins) == len(pems)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no state file of a server: {error}; restore it, or remove it, after which "
            "clients refuse the keys that were given out"
        ) from error
    return identity


def _write(path: Path, identity: Identity, *, replace: bool) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump({"format": _FORMAT, "identities": identity.pems}, file)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            Path(name).replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _new_pem() -> str:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ImportError as error:
        raise DoorUnavailableError(
            "tcp",
            "a server makes its certificate with the package cryptography: "
            'pip install "proxystore_hpc[server]", or name a certificate of your own',
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "proxystore_hpc")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return (private + certificate.public_bytes(serialization.Encoding.PEM)).decode()
