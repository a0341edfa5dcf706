"""`proxystore-hpc info`: which doors this machine offers, and why it lacks the others."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxystore_hpc.cli.report import Report

_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
_DESCRIPTION = """\
Prints what this machine offers to proxystore_hpc: versions, the UCX and the MPI that are found and
where, transports and devices, limits, and what is missing with the command that gets it.

Run it where the jobs run: a login node and a compute node often differ. Inside of a job, for
instance `mpirun -n 1 proxystore-hpc info`, it shows the UCX that MPI processes get; of several
ranks only the first one prints."""
_EPILOG = """\
exit status:
  0  what is installed can be used
  1  a part is broken, a door of --require is missing, or a door of --measure failed
  2  wrong arguments"""
REQUIREMENTS = ("shm", "readv", "ucx", "verbs", "mpi")


def add_command(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = commands.add_parser(
        "info",
        help="show what this machine offers, and what is missing",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="open each door between two processes; print its latency and bandwidth (10 s)",
    )
    parser.add_argument(
        "--interface",
        metavar="NAME",
        help="with --measure: measure TCP through this network interface, too",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument(
        "--require",
        metavar="NAME[,NAME]",
        type=_requirements,
        default=(),
        help=f"fail unless these can be used: {', '.join(REQUIREMENTS)}",
    )
    parser.set_defaults(run=run)


def _requirements(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in REQUIREMENTS:
            raise argparse.ArgumentTypeError(
                f"{name!r} cannot be required; choose from {', '.join(REQUIREMENTS)}"
            )
    return names


def run(options: argparse.Namespace) -> int:
    """Collects, measures if asked to, prints; returns the exit status."""
    if not _is_first_rank():
        return 0
    from proxystore_hpc.cli import advice, report, text

    found = report.collect()
    if options.measure:
        from proxystore_hpc.cli import measure

        note = None if options.json else lambda line: print(line, file=sys.stderr, flush=True)
        found.measured = measure.all_doors(found, options.interface, note)
    found.findings = advice.findings(found)
    missing = [name for name in options.require if not available(found, name)]
    if options.json:
        document = asdict(found) | {"required_but_missing": missing}
        print(json.dumps(document, indent=2))
    else:
        print(text.render(found))
        for name in missing:
            print(f"\nREQUIRED BUT MISSING: {name}")
    broken = any(finding.level == "error" for finding in found.findings)
    return 1 if missing or broken else 0


def available(found: Report, name: str) -> bool:
    """Whether what `--require` names can be used here."""
    if name == "shm":
        return found.module("_core").path is not None
    if name == "readv":
        return found.node.process_vm_readv is None
    if name == "ucx":
        return found.module("_ucx").path is not None and found.ucx.version is not None
    if name == "verbs":
        return found.ucx.offers_fast_network
    return found.mpi.library is not None


def _is_first_rank() -> bool:
    return all(os.environ.get(name, "0") == "0" for name in _RANK_VARIABLES)
