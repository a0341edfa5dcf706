"""`proxystore-hpc gateway`: objects of a cluster for those outside."""

from __future__ import annotations

import argparse
import json
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import ConfigError, InvalidArgumentError

if TYPE_CHECKING:
    from proxystore_hpc.tcp.server import Server, ServerConfig

_DESCRIPTION = """\
Serves objects of processes on this cluster to whoever has their keys and reaches this port, on a
login node for instance. It runs until it is interrupted, and prints what stores need to name it in
their keys: Store(..., gateway=...).

Connections are encrypted. Its key pair is made at the first start and kept, so that keys stay valid
when it is started again; --cert takes one of an authority."""
_EPILOG = """\
examples:
  proxystore-hpc gateway --listen 0.0.0.0:8443 --advertise login1.example.org
  proxystore-hpc gateway --listen 127.0.0.1:8443       (reached by ssh -L 8443:localhost:8443)
  proxystore-hpc gateway --listen login1:8443 --allow 10.20.0.0/16 --put-token-file token

exit status: 0 if it was told to end, 1 if it failed, 2 for wrong arguments"""


def add_command(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = commands.add_parser(
        "gateway",
        help="serve objects of this cluster to the outside",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--listen", metavar="HOST:PORT", required=True, help="where; port 0 for any that is free"
    )
    parser.add_argument(
        "--advertise", metavar="HOST[:PORT]", default="", help="what clients are told instead"
    )
    parser.add_argument("--cert", metavar="FILE", default="", help="certificate of an authority")
    parser.add_argument("--key", metavar="FILE", default="", help="its private key (both in PEM)")
    parser.add_argument(
        "--state", metavar="FILE", default="", help="keeps the key pair, instead of below $HOME"
    )
    parser.add_argument(
        "--rotate",
        action="store_true",
        help="make a new key pair first; keys that carry one of the last three pins stay valid",
    )
    parser.add_argument(
        "--plain", action="store_true", help="do not encrypt: whoever sees the traffic can read it"
    )
    parser.add_argument(
        "--allow",
        metavar="NETWORK",
        action="append",
        help="where owners may be, such as 10.20.0.0/16; again for more (default: private ones)",
    )
    parser.add_argument(
        "--interface", metavar="NAME", default="", help="reach owners through UCX on this interface"
    )
    parser.add_argument(
        "--secret-file",
        metavar="FILE",
        help="holds the job's secret, for puts and UCX; needs --allow",
    )
    parser.add_argument(
        "--put-token-file", metavar="FILE", help="who shows this token may put (default: nobody)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serves until a signal comes; returns the exit status."""
    from proxystore_hpc.store.opening import load_core
    from proxystore_hpc.tcp.server import Server

    load_core()  # says how to get it
    logging.basicConfig(format="proxystore-hpc gateway: %(message)s")
    config = config_of(options)
    if options.rotate:
        from proxystore_hpc.tcp.identity import rotate

        rotate(config.state)
    server = Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop())
    print(told(server, options.json), flush=True)
    server.run()
    return 0


def config_of(options: argparse.Namespace) -> ServerConfig:
    """The configuration that the arguments describe.

    Raises:
        InvalidArgumentError: Some exclude each other.
        ConfigError: A file does not hold what it should.
    """
    from proxystore_hpc.tcp.server import ServerConfig

    if bool(options.cert) != bool(options.key):
        raise InvalidArgumentError("--cert and --key belong together; give both or none")
    if options.plain and options.cert:
        raise InvalidArgumentError("--plain and --cert exclude each other")
    if options.rotate and (options.plain or options.cert):
        raise InvalidArgumentError("--rotate is for a key pair of the gateway's own")
    if options.secret_file and not options.allow:
        raise InvalidArgumentError(
            "--secret-file needs --allow: keys say where owners are, strangers make up keys, and "
            "who answers there could pass the proof of the secret on to a real owner; name the "
            "networks of the owners, in which nobody else listens"
        )
    config = ServerConfig(
        listen=options.listen,
        advertise=options.advertise,
        tls=False if options.plain else None,
        state=options.state,
        cert=options.cert,
        key=options.key,
        put_token=_digits(options.put_token_file),
        secret=_digits(options.secret_file),
        interface=options.interface,
    )
    if options.allow:
        config.allow = tuple(options.allow)
    return config


def told(server: Server, as_json: bool) -> str:
    """What stores need to know of a gateway."""
    endpoint = server.endpoint
    gateway: dict[str, Any] = {"address": str(endpoint)}
    if endpoint.pin is not None:
        gateway["pin"] = endpoint.pin.hex()
    if not endpoint.tls:
        gateway["plain"] = True
    if as_json:
        return json.dumps(gateway)
    return f"listening; in stores: gateway={gateway!r}"


def _digits(file: str | None) -> str:
    """The hexadecimal digits in a file; nothing if there is none."""
    if file is None:
        return ""
    text = Path(file).read_text("utf-8").strip()
    try:
        valid = bool(bytes.fromhex(text))
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"{file} should hold hexadecimal digits, such as 'openssl rand -hex 16'")
    return text
