"""The command `proxystore-hpc`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from proxystore_hpc._version import __version__
from proxystore_hpc.exceptions import (
    ConfigError,
    InvalidArgumentError,
    InvalidKeyError,
    ProxyStoreHpcError,
)

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status.

    Args:
        arguments: What follows the program's name; `sys.argv` by default.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; Python would complain when it flushes.
        sys.stderr.close()
        return 141
    except (ProxyStoreHpcError, OSError) as error:
        print(f"proxystore-hpc: {error}", file=sys.stderr)
        about_arguments = isinstance(error, (ConfigError, InvalidArgumentError))
        return 2 if about_arguments and not isinstance(error, InvalidKeyError) else 1
    return status


def _parser() -> argparse.ArgumentParser:
    from proxystore_hpc.cli import bench, gateway, get, info, keep, ls, put, rm

    parser = argparse.ArgumentParser(
        prog="proxystore-hpc",
        description="Proxies and one-sided remote memory for parallel simulations and workflows.",
    )
    parser.add_argument("--version", action="version", version=f"proxystore_hpc {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (get, put, ls, rm, gateway, keep, info, bench):
        command.add_command(commands)
    return parser
