"""`proxystore-hpc bench`: measures every door beside the machine's limits and its peers."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from proxystore_hpc.exceptions import InvalidArgumentError
from proxystore_hpc.utils.sizes import parse_size

_DESCRIPTION = """\
Measures what can run here: every door of this package beside the limits of the machine (memcpy,
bare sockets, UCX's and MPI's own operations) and its peers (Redis, ZeroMQ, mpi4py, ...), in one run
and by turns, and prints how long each takes and what share of its limit it reaches.

Run it where the jobs run. `mpirun -n 2 proxystore-hpc bench` measures the mpi door between ranks of
that job; without mpirun it starts a job of its own if it finds one."""
_EPILOG = """\
examples:
  proxystore-hpc bench --quick                                 two minutes
  proxystore-hpc bench --json now.json --html now.html
  proxystore-hpc bench --only doors --sizes 8,64KiB,1GiB --peers none
  proxystore-hpc bench --only doors/exchange --sizes 1000,1000000,1GiB
  proxystore-hpc bench --compare old.json                      what changed since
  proxystore-hpc bench --list                                  what can run here, and what cannot

exit status: 0 if something was measured, 1 if nothing was, 2 for wrong arguments, 70 if it hung in
foreign code (the files hold what there was by then)"""


def add_command(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = commands.add_parser(
        "bench",
        help="measure every door beside the machine's limits and its peers",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    much = parser.add_mutually_exclusive_group()
    much.add_argument("--quick", action="store_true", help="doors only, two sizes: two minutes")
    much.add_argument("--full", action="store_true", help="more sizes and rounds")
    parser.add_argument(
        "--only",
        metavar="GROUP[,GROUP]",
        type=_names,
        default=(),
        help="some groups, or single operations as doors/get (an unknown name lists them all)",
    )
    parser.add_argument(
        "--sizes", metavar="N[,N]", type=_sizes, default=(), help="of arrays, such as 8,64KiB,1GiB"
    )
    parser.add_argument(
        "--seconds",
        metavar="S",
        type=float,
        help="time of each contestant in each comparison (0.1, 0.5 or 2)",
    )
    parser.add_argument(
        "--peers", metavar="NAMES", default="all", help="all (the default), none, or names"
    )
    parser.add_argument(
        "--contestants",
        metavar="NAME[,NAME]",
        type=_names,
        default=(),
        help="these alone, as --list names them, and the limits that belong to them",
    )
    parser.add_argument(
        "--interface",
        metavar="NAME",
        help="measure UCX over TCP through this network interface, too; for that time it lets "
        "whoever reaches its port read the memory of these processes",
    )
    parser.add_argument(
        "--compare", metavar="FILE", type=Path, help="JSON of an earlier run: say what changed"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all samples there")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a report with plots there")
    parser.add_argument(
        "--list", action="store_true", help="say what can run here, and what cannot and why"
    )
    parser.set_defaults(run=run)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(parse_size(part) for part in _names(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not all(sizes):
        raise argparse.ArgumentTypeError("an array of no bytes shows nothing")
    return sizes


def run(options: argparse.Namespace) -> int:
    """Measures; returns the exit status."""
    try:
        import numpy  # noqa: F401
    except ImportError as error:
        raise InvalidArgumentError("the benchmarks need numpy: pip install numpy") from error
    from proxystore_hpc.bench import command
    from proxystore_hpc.bench.ours.ways import INTERFACE

    if options.seconds is not None and options.seconds < 0:
        raise InvalidArgumentError("--seconds cannot be negative")
    if options.interface:
        os.environ[INTERFACE] = options.interface
    chosen = command.Options(
        tier="quick" if options.quick else "full" if options.full else "default",
        only=options.only,
        sizes=options.sizes,
        seconds=options.seconds,
        peers=options.peers,
        contestants=options.contestants,
        compare=options.compare,
        json=options.json,
        html=options.html,
        list=options.list,
    )
    return command.run(
        chosen,
        note=lambda line: print(line, file=sys.stderr, flush=True),
        tell=lambda line: print(line, flush=True),
    )
