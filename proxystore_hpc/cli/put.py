"""`proxystore-hpc put`: a file into a store of another process."""

from __future__ import annotations

import argparse
import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxystore_hpc.cli import remote
from proxystore_hpc.exceptions import ConfigError, InvalidArgumentError, SerializationError

if TYPE_CHECKING:
    from proxystore_hpc.key import Key

_DESCRIPTION = """\
Stores a file as an object in a running job: an array from .npy, what was pickled from .pkl, bytes
from any other file. Writes a key file of the new object, and prints its name.

The job is named by a key file of any object that its store holds, which leads through gateways as
well, or by HOST:PORT of the store's own TCP server. Over TCP the server must allow it: it was
started with a put_token, which is given here in a file or in PROXYSTORE_HPC_PUT_TOKEN."""
_EPILOG = """\
examples:
  proxystore-hpc put new_forcing.npy --to field.key
  proxystore-hpc put settings.pkl --to field.key --token-file token -o settings.key
  proxystore-hpc put field.npy --to node017:40123 --pin 0f3e... --ttl 600

exit status: 0 if the object was stored, 1 if not, 2 for wrong arguments"""


def add_command(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = remote.add_parser(
        commands,
        "put",
        help="store a file as an object in a running job",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("file", metavar="FILE", help="what to store; '-' for standard input")
    parser.add_argument(
        "--to", metavar="KEYFILE|HOST:PORT", required=True, help="the store that takes it"
    )
    parser.add_argument(
        "-o", "--output", metavar="KEYFILE", help="the new key file (default: FILE.key)"
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace a file that exists")
    parser.add_argument("--ttl", type=float, metavar="SECONDS", help="evict it after this long")
    parser.add_argument("--token-file", metavar="FILE", help="holds the server's put_token")
    parser.add_argument(
        "--pin", metavar="HEX", default="", help="with HOST:PORT: of the server's public key"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Stores the file; returns the exit status."""
    if options.output is None and options.file == remote.STANDARD:
        raise InvalidArgumentError("what is read from standard input needs -o KEYFILE")
    output = Path(options.output or f"{options.file}.key")
    if output.exists() and not options.force:
        raise InvalidArgumentError(f"{output} exists; --force replaces it")
    from proxystore_hpc.store.keyfile import write_key_file

    token = remote.put_token(options.token_file)
    obj = load(options.file)
    if Path(options.to).exists():
        key, store_name = put_by_key(obj, options, token)
    else:
        key, store_name = put_at(obj, options, token)
    write_key_file(key, store_name, output)
    print(output)
    return 0


def load(name: str) -> Any:
    """The object that a file holds.

    Raises:
        InvalidArgumentError: It does not hold what its ending says.
    """
    if name == remote.STANDARD:
        return sys.stdin.buffer.read()
    path = Path(name)
    if path.suffix == ".npy":
        try:
            import numpy as np
        except ImportError as error:
            raise SerializationError(
                f"{name} is an array and NumPy is not installed: pip install numpy"
            ) from error
        try:
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except ValueError as error:
            raise InvalidArgumentError(f"{name} is no .npy file: {error}") from error
    if path.suffix == ".pkl":
        with path.open("rb") as file:
            try:
                return pickle.load(file)
            except Exception as error:
                raise InvalidArgumentError(f"{name} cannot be unpickled: {error}") from error
    return path.read_bytes()


def put_by_key(obj: Any, options: argparse.Namespace, token: str | None) -> tuple[Key, str]:
    """Stores at the owner of a key."""
    from proxystore_hpc.store.keyfile import read_key_file
    from proxystore_hpc.store.policy import TimeToLive

    if options.pin:
        raise InvalidArgumentError("--pin is for HOST:PORT; a key file has its own")
    there, store_name = read_key_file(options.to)
    policy = None if options.ttl is None else TimeToLive(options.ttl)
    with remote.open_store(store_name, options.timeout, token) as store:
        return store.put(obj, to=there, policy=policy, timeout=options.timeout), store_name


def put_at(obj: Any, options: argparse.Namespace, token: str | None) -> tuple[Key, str]:
    """Stores at a TCP server."""
    from proxystore_hpc.key import Key
    from proxystore_hpc.serialize import plan
    from proxystore_hpc.store.options import check_token
    from proxystore_hpc.store.policy import TimeToLive
    from proxystore_hpc.store.serving import Gateway
    from proxystore_hpc.tcp.client import TcpClient

    try:
        endpoint = Gateway.parse({"address": options.to, "pin": options.pin}).endpoint
    except ConfigError as error:
        raise InvalidArgumentError(
            f"--to: {options.to!r} is no file, nor HOST:PORT of a server: {error}"
        ) from error
    if token is None:
        raise InvalidArgumentError(
            f"a TCP server wants a token: give --token-file, or set {remote.TOKEN_VARIABLE}"
        )
    check_token("--token-file" if options.token_file else remote.TOKEN_VARIABLE, token)
    layout = plan(obj)
    ttl_ns = 0 if options.ttl is None else TimeToLive(options.ttl).ttl_ns
    with TcpClient(timeout=options.timeout, endpoints=[endpoint]) as client:
        packed = client.put(
            layout.nbytes,
            layout.segments(),
            token=bytes.fromhex(token),
            to=endpoint,
            ttl_ns=ttl_ns,
            timeout=options.timeout,
        )
        store_name, _ = client.store_of(packed)
    return Key.parse(packed), store_name
