"""Opens each door between two processes and measures it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from proxystore_hpc.cli.peer import Plan
from proxystore_hpc.cli.report import Measured, Report

_LIMIT = 60.0


def plans(report: Report, interface: str | None = None) -> list[Plan]:
    """The doors to be opened, also those that are known to be closed."""
    all_plans = [
        Plan("shm", "mapped segment"),
        Plan("shm", "process_vm_readv", live=True),
        Plan("socket", "unix socket"),
        Plan("ucx", "shared memory", tls="sm,self"),
        Plan("ucx", "TCP, loopback", tls="tcp,self", net_devices="lo"),
    ]
    if interface is not None:
        all_plans.append(Plan("ucx", f"TCP, {interface}", tls="tcp,self", net_devices=interface))
    if report.ucx.offers_fast_network:
        all_plans.append(Plan("ucx", "RDMA network", tls="ib,self", net_devices="all"))
    return all_plans


def all_doors(
    report: Report, interface: str | None = None, note: Callable[[str], None] | None = None
) -> list[Measured]:
    """Measures every door. A door that crashes its processes costs its own row only.

    Args:
        report: What is known about the machine.
        interface: A network interface for TCP besides loopback.
        note: Called with a line before each door.
    """
    rows = []
    for plan in plans(report, interface):
        if note is not None:
            note(f"measuring {plan.door}: {plan.how} ...")
        refused = _known_obstacle(report, plan)
        if refused is not None:
            rows.append(Measured(plan.door, plan.how, refused=refused))
        else:
            row = measure(plan)
            if row.unexpected and plan.net_devices == "lo":
                _excuse_loopback(row, report.ucx.version)
            rows.append(row)
    return rows


def _excuse_loopback(row: Measured, version: str | None) -> None:
    # From 1.19 on the routing table was asked, with the wrong address for loopback
    # (openucx/ucx#11202).
    if version is not None and version.startswith(("1.19.", "1.20.")):
        row.unexpected = False
        row.refused = (
            f"UCX {version} cannot connect processes through the loopback interface, which later "
            "versions can; shared memory and network interfaces are not affected (try --interface)"
        )


def _known_obstacle(report: Report, plan: Plan) -> str | None:
    core, ucx = report.module("_core"), report.module("_ucx")
    if core.path is None:
        return core.reason
    if plan.live and report.node.process_vm_readv is not None:
        return report.node.process_vm_readv
    if plan.door == "ucx" and ucx.path is None:
        return ucx.reason
    return None


def measure(plan: Plan) -> Measured:
    """One door: starts an owner and a reader, both children of this process."""
    row = Measured(plan.door, plan.how)
    try:
        with _peer("own", plan) as owner:
            described = _answer(owner, "owner")
            with _peer("read", plan, json.dumps(described)) as reader:
                figures = _answer(reader, "reader")
    except _FailedError as error:
        row.refused, row.unexpected = str(error), True
        return row
    for name, value in figures.items():
        setattr(row, name, value)
    return row


class _FailedError(Exception):
    """Why a peer gave no answer."""


@contextmanager
def _peer(role: str, plan: Plan, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "proxystore_hpc.cli.peer", role, json.dumps(asdict(plan))]
    process = subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
        process.communicate(timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        raise _FailedError(f"the {role}er did not end within {_LIMIT:.0f} s") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def _answer(process: subprocess.Popen[str], who: str) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        # UCX logs to standard output as well.
        if not line.startswith("{"):
            continue
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise _FailedError(answer["failed"])
        return answer
    _, errors = process.communicate(timeout=_LIMIT)
    raise _FailedError(f"the {who} {_how_it_ended(process.returncode)}{_last_line(errors)}")


def _how_it_ended(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _last_line(errors: str) -> str:
    lines = errors.strip().splitlines()
    return f": {lines[-1]}" if lines else ""
