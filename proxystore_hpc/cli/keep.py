"""`proxystore-hpc keep`: the keeper of this node."""

from __future__ import annotations

import argparse
import json
import logging
import time
from typing import Any

from proxystore_hpc.exceptions import KeeperError
from proxystore_hpc.utils.sizes import format_size

_DESCRIPTION = """\
Serves, under their names, what processes on this node had stored that have ended, if their stores
were opened with keep=True. There is one keeper for each node and user. Stores start it by
themselves; this command runs one in the foreground, tells what it holds, or ends it.

What is kept is lost when the keeper ends. Batch systems end it with the job."""
_EPILOG = """\
examples:
  proxystore-hpc keep --limit 8GiB         in the foreground, until it is interrupted or idle
  proxystore-hpc keep --status             what is kept, for whom
  proxystore-hpc keep --stop               ends it, and what it holds

PROXYSTORE_HPC_KEEPER_LIMIT and PROXYSTORE_HPC_KEEPER_IDLE say the same to keepers that stores
start; PROXYSTORE_HPC_KEEPER names a keeper of one's own.

exit status: 0 if it ended as it should, 1 if it failed or there is none, 2 for wrong arguments"""


def add_command(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = commands.add_parser(
        "keep",
        help="serve what ended processes have stored",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--limit", metavar="SIZE", help="most that is kept (default: a quarter of the memory)"
    )
    parser.add_argument(
        "--idle",
        metavar="SECONDS",
        help="end after so long without objects and stores (default: 60)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--status", action="store_true", help="tell what the keeper holds")
    what.add_argument("--stop", action="store_true", help="end the keeper; what it holds is lost")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs, asks or ends the keeper; returns the exit status."""
    from proxystore_hpc.keeper.settings import socket_name
    from proxystore_hpc.keeper.talk import ask

    if not options.status and not options.stop:
        return _serve(options)
    told = ask(socket_name(), "stop" if options.stop else "status")
    if told is None:
        print("null" if options.json else "no keeper of yours runs on this node")
        return 1
    if options.json:
        print(json.dumps(told))
    elif options.stop:
        print(f"the keeper (process {told['pid']}) ends, with {_amount(told['kept'])}")
    else:
        print("\n".join(_described(told)))
    return 0


def _serve(options: argparse.Namespace) -> int:
    import errno

    from proxystore_hpc.keeper.server import Keeper, serve
    from proxystore_hpc.keeper.settings import Settings, parse_idle, parse_limit

    settings = Settings.of_environment()
    if options.limit is not None:
        settings = Settings(parse_limit(options.limit, "--limit"), settings.idle)
    if options.idle is not None:
        settings = Settings(settings.limit, parse_idle(options.idle, "--idle"))
    logging.basicConfig(format="proxystore-hpc keep: %(message)s")

    def told(keeper: Keeper) -> None:
        if options.json:
            print(json.dumps({"limit": keeper.limit, "idle": keeper.idle}), flush=True)
        else:
            print(
                f"keeping up to {format_size(keeper.limit)}; ends when it is idle for "
                f"{keeper.idle:g} s",
                flush=True,
            )

    try:
        serve(settings, told)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise KeeperError("a keeper of yours runs on this node already; see --status") from error
    return 0


def _described(told: dict[str, Any]) -> list[str]:
    use = f"{format_size(told['used'])} of {format_size(told['limit'])} in use"
    lines = [
        f"keeper: process {told['pid']}, proxystore_hpc {told['package']}, {use}",
        f"stores that are open: {len(told['connected'])}",
    ]
    lines += [f"  {store['store']!r} of process {store['pid']}" for store in told["connected"]]
    lines.append(f"kept: {_amount(told['kept'])}")
    for kept in told["kept"]:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(kept["since"]))
        lines.append(
            f"  owner {kept['owner']}, store {kept['store']!r} of process {kept['pid']}, since "
            f"{since}: {kept['objects']} objects, {format_size(kept['bytes'])}"
        )
    if told["events"]:
        lines += ["events:", *(f"  {event}" for event in told["events"])]
    return lines


def _amount(kept: list[dict[str, Any]]) -> str:
    objects = sum(entry["objects"] for entry in kept)
    size = format_size(sum(entry["bytes"] for entry in kept))
    return f"{objects} objects, {size}, of {len(kept)} ended stores"
