"""`proxystore-hpc rm`: evicts the objects of key files."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from proxystore_hpc.cli import remote
from proxystore_hpc.exceptions import (
    OwnerGoneError,
    OwnerUnreachedError,
    ProxyStoreHpcError,
)

_DESCRIPTION = """\
Evicts the objects of key files where they are held; the key files stay. Views that programs hold
stay valid. An object that is gone already is no error."""
_EPILOG = """\
examples:
  proxystore-hpc rm old_*.key
  proxystore-hpc rm --force pinned.key

exit status: 0 if all objects are gone, 1 if one is not, 2 for wrong arguments"""


def add_command(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = remote.add_parser(
        commands,
        "rm",
        help="evict the objects of key files",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("keyfiles", metavar="KEYFILE", nargs="+")
    parser.add_argument("-f", "--force", action="store_true", help="also pinned objects")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Evicts the objects; returns the exit status."""
    from proxystore_hpc.store.keyfile import read_key_file

    status = 0
    for file in options.keyfiles:
        try:
            key, store_name = read_key_file(file)
            with remote.open_store(store_name, options.timeout) as store:
                store.evict(key, force=options.force)
        except OwnerGoneError as error:
            # Its objects have gone with it; but a server that the key names may be out of reach.
            if isinstance(error, OwnerUnreachedError) and key.outside:
                print(f"proxystore-hpc: {file}: {error}", file=sys.stderr)
                status = 1
        except (ProxyStoreHpcError, OSError) as error:
            print(f"proxystore-hpc: {file}: {error}", file=sys.stderr)
            status = 1
    return status
