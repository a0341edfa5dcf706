"""What of a report needs attention, and what to do about it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from proxystore_hpc.cli.report import Finding, Report

_GIB = 1 << 30
_LITTLE_SHM = 64 << 20
_LITTLE_MEMLOCK = 64 << 20


def findings(report: Report) -> list[Finding]:
    """Errors first, then warnings, then notes."""
    found = [
        *_about_modules(report),
        *_about_the_network(report),
        *_about_the_node(report),
        *_about_mpi(report),
        *_about_the_environment(report),
        *_about_measurements(report),
    ]
    order = ("error", "warning", "note")
    return sorted(found, key=lambda finding: order.index(finding.level))


_HOW_TO_BUILD = (
    "pip install --force-reinstall --no-binary proxystore_hpc proxystore_hpc   (needs a C++ "
    "compiler; Debian, Ubuntu: apt-get install g++ python3-dev)"
)


def _about_modules(report: Report) -> Iterator[Finding]:
    core, proxy = report.module("_core"), report.module("_proxy")
    if report.pure:
        yield Finding(
            "warning",
            "this installation has no native part: objects are reached over TCP only, and proxies "
            "are in Python and slower",
            f"on a cluster: {_HOW_TO_BUILD}" if sys.platform == "linux" else "",
        )
    else:
        if core.path is None:
            yield Finding(
                "error",
                f"the extension module _core cannot be used, so no store can be opened: "
                f"{core.reason}",
                _HOW_TO_BUILD,
            )
        if proxy.path is None:
            yield Finding(
                "error",
                "the extension module _proxy cannot be used, so proxies are in Python and slower: "
                f"{proxy.reason}",
                _HOW_TO_BUILD,
            )
    for package, version, without in (
        ("numpy", report.software.numpy, "arrays cannot be got"),
        ("cloudpickle", report.software.cloudpickle, "functions and local classes cannot be put"),
    ):
        if version is None:
            yield Finding(
                "warning", f"{package} is not installed: {without}", f"pip install {package}"
            )


def _about_the_network(report: Report) -> Iterator[Finding]:
    ucx, module = report.ucx, report.module("_ucx")
    active = [device for device in report.node.rdma if device.state == "ACTIVE"]
    if report.pure:
        return
    if ucx.version is None:
        yield Finding(
            "warning",
            f"there is no ucx door, so other nodes are reached by the slow socket only: "
            f"{ucx.reason}",
            "the site's UCX module, or UCX_HOME, or pip install 'proxystore_hpc[ucx]' "
            "(Debian, Ubuntu: apt-get install libucx0)",
        )
        return
    if module.path is None:
        yield Finding(
            "warning",
            f"UCX is there, but this installation has no ucx door, so other nodes are reached by "
            f"the slow socket only: {module.reason}",
            "pip install --force-reinstall --no-cache-dir proxystore_hpc   (with UCX_HOME set, or "
            "the package index in reach; PROXYSTORE_HPC_UCX must not be 'off')",
        )
        return
    if ucx.trouble is not None:
        yield Finding(
            "error", f"UCX {ucx.version} from {ucx.path} cannot be started: {ucx.trouble}"
        )
    elif not active:
        yield from _without_rdma(report)
    elif not ucx.has_verbs:
        yield Finding(
            "warning",
            f"TCP INSTEAD OF {active[0].layer.upper()}: this node has {active[0].name} "
            f"({active[0].rate}), but UCX {ucx.version} ({ucx.origin}) was built without verbs and "
            "cannot use it",
            "load the site's UCX module or set UCX_HOME to a UCX with verbs; with mpi4py, import "
            "mpi4py first, so that MPI's UCX is used",
        )
    elif not ucx.offers_fast_network:
        yield Finding(
            "warning",
            f"TCP INSTEAD OF {active[0].layer.upper()}: this node has {active[0].name} and UCX "
            f"{ucx.version} was built with verbs, yet it offers no transport on it",
            "look at 'ulimit -l' (must be unlimited, or large), at the permissions of "
            "/dev/infiniband/uverbs*, at rdma-core, and at UCX_TLS and UCX_NET_DEVICES",
        )
    memlock = report.memory.get("memlock_limit", 0)
    if active and isinstance(memlock, int) and 0 < memlock < _LITTLE_MEMLOCK:
        yield Finding(
            "warning",
            f"only {memlock >> 10} KiB may be locked, too little to register memory with "
            f"{active[0].name}",
            "ulimit -l unlimited   (or 'memlock' in /etc/security/limits.conf, or "
            "PropagateResourceLimits of Slurm)",
        )


def _without_rdma(report: Report) -> Iterator[Finding]:
    if report.node.rdma:
        states = ", ".join(f"{device.name} is {device.state}" for device in report.node.rdma)
        yield Finding(
            "warning",
            f"TCP INSTEAD OF {report.node.rdma[0].layer.upper()}: no port is active ({states})",
            "ask the administrator; 'ibstat' shows the ports",
        )
        return
    yield Finding(
        "note",
        "this node shows no InfiniBand or RoCE device: other nodes are reached over TCP, which is "
        "right if there is none",
    )


def _about_the_node(report: Report) -> Iterator[Finding]:
    node = report.node
    if node.process_vm_readv is not None:
        scope = "" if node.ptrace_scope is None else f", ptrace_scope is {node.ptrace_scope}"
        yield Finding(
            "warning",
            "a process cannot read the memory of another (process_vm_readv: "
            f"{node.process_vm_readv}{scope}): registered memory is read through a slower door; "
            "stored objects are not affected",
            "sysctl -w kernel.yama.ptrace_scope=0   (in a container: --cap-add SYS_PTRACE)",
        )
    if node.shm_size is not None and node.shm_size <= _LITTLE_SHM:
        yield Finding(
            "warning",
            f"/dev/shm has {node.shm_size >> 20} MiB: MPI and UCX may fall back to TCP on this "
            "node (objects of this package do not lie there)",
            "start the container with --shm-size=1g or --ipc=host",
        )
    if node.shmem_huge_pages == "never":
        yield Finding(
            "note",
            "shared memory gets no huge pages, which makes the first use of memory slower",
            "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled   (as root)",
        )
    limit, available = report.memory.get("cgroup_limit", 0), report.memory.get("available", 0)
    if isinstance(limit, int) and isinstance(available, int) and limit and available < _GIB:
        yield Finding(
            "warning",
            f"the cgroup {report.memory.get('cgroup_path')} leaves {available >> 20} MiB of "
            "memory: larger objects raise StoreFullError",
            "ask the scheduler for more memory (Slurm: --mem)",
        )


def _about_mpi(report: Report) -> Iterator[Finding]:
    mpi = report.mpi
    if mpi.library is None:
        yield Finding(
            "note",
            f"Store.from_mpi() cannot be used: {mpi.reason}",
            "the site's MPI module and pip install --no-binary mpi4py mpi4py, or, with an MPI of "
            "its own, pip install 'proxystore_hpc[mpi]'",
        )
        return
    if mpi.launcher is None:
        yield Finding(
            "note", "there is no mpirun or mpiexec in PATH", "pip install 'proxystore_hpc[mpi]'"
        )
    elif _launches_another(mpi.library, mpi.launcher_version or ""):
        beside = Path(sys.prefix, "bin", "mpirun")
        yield Finding(
            "warning",
            f"{mpi.launcher} is of {mpi.launcher_version}, but mpi4py uses {mpi.library}: the "
            "ranks would not find each other, each would be rank 0 of 1",
            f"use {beside}" if beside.exists() else "use the mpirun of the MPI that mpi4py uses",
        )
    if mpi.ucx is not None and mpi.ucx.version is None and report.ucx.version is not None:
        yield Finding("warning", f"processes with MPI have no ucx door: {mpi.ucx.reason}")
    elif mpi.ucx is not None and mpi.ucx.path != report.ucx.path:
        level = "warning" if report.ucx.has_verbs and not mpi.ucx.has_verbs else "note"
        yield Finding(
            level,
            f"processes that use MPI get UCX {mpi.ucx.version} from {mpi.ucx.path}, which is not "
            "the one of a process without MPI",
        )


def _launches_another(library: str, launcher: str) -> bool:
    """Whether a launcher is of another MPI than a library, as far as their names tell."""
    ours = re.search(r"Open MPI v?(\d+)", library)
    theirs = re.search(r"Open MPI v?(\d+)", launcher)
    if ours and theirs:
        return ours[1] != theirs[1]
    known = theirs is not None or launcher.startswith("Hydra")
    return known and (ours is None) != (theirs is None)


def _about_the_environment(report: Report) -> Iterator[Finding]:
    for name in ("UCX_TLS", "PSHPC_UCX_TLS"):
        value = report.environment.get(name)
        if value is None or value == "all" or value.startswith("^"):
            continue
        transports = set(value.split(","))
        if transports <= {"tcp", "self"}:
            yield Finding(
                "warning",
                f"TCP INSTEAD OF ANYTHING FASTER: {name}={value} is set in the environment",
                f"unset {name}",
            )
        else:
            yield Finding("note", f"{name}={value} restricts what UCX may use")


def _about_measurements(report: Report) -> Iterator[Finding]:
    for row in report.measured:
        if row.unexpected:
            yield Finding("error", f"the door {row.door} ({row.how}) failed: {row.refused}")
