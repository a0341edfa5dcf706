"""A report as text for people."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator

from proxystore_hpc.cli.native import Ucx
from proxystore_hpc.cli.report import Measured, Report
from proxystore_hpc.utils.sizes import format_size

_WIDTH = 100
_LABEL = 16
_UNLIMITED = 1 << 60


def render(report: Report) -> str:
    """The whole report; lines are at most 100 wide, but for paths."""
    sections = [
        (None, _title(report)),
        ("Doors", _doors(report)),
        ("Measured between two processes of this node", _measured(report.measured)),
        ("What to know and do", _findings(report)),
        ("Software", _software(report)),
        ("UCX", _ucx(report)),
        ("MPI", _mpi(report)),
        ("Memory", _memory(report)),
        ("Node", _node(report)),
        ("Environment", (_row(name, value) for name, value in report.environment.items())),
    ]
    blocks = []
    for heading, lines in sections:
        block = list(lines)
        if block:
            blocks.append("\n".join([heading, *block] if heading else block))
    return "\n\n".join(blocks)


def _row(label: str, text: str) -> str:
    return f"  {label:<{_LABEL - 1}} {text}".rstrip()


def _title(report: Report) -> Iterator[str]:
    node = report.node
    yield f"proxystore_hpc {report.software.proxystore_hpc} on {node.hostname}"


def _doors(report: Report) -> Iterator[str]:
    core = report.module("_core").path is not None
    node, ucx = report.node, report.ucx
    missing = "MISSING    the native core is not there"
    if core:
        yield _row("shm", "ready      same node: objects are mapped where they lie, no copy")
        if node.process_vm_readv is None:
            yield _row("", "ready      same node: registered memory is read by process_vm_readv")
        else:
            yield _row("", f"REFUSED    process_vm_readv: {node.process_vm_readv}")
    else:
        yield _row("shm", missing)
    yield _row("ucx", _ucx_state(report, ucx) if core else missing)
    yield _row("socket", "ready      last resort, slow" if core else missing)
    yield _row("tcp", "ready      off the cluster: objects whose keys name a server or a gateway")


def _ucx_state(report: Report, ucx: Ucx) -> str:
    if ucx.version is None or report.module("_ucx").path is None or ucx.trouble is not None:
        return "MISSING    other nodes are reached by the socket only, see below"
    if ucx.offers_fast_network:
        devices = sorted({t.device for t in ucx.transports if t.name.startswith(("rc", "dc"))})
        return f"ready      other nodes over RDMA: {', '.join(devices) or 'see below'}"
    interfaces = sorted({t.device for t in ucx.transports if t.name == "tcp" and t.device != "lo"})
    through = f" through {', '.join(interfaces)}" if interfaces else ", loopback only"
    return f"TCP ONLY   other nodes over TCP{through}; no RDMA network can be used here"


def _measured(rows: list[Measured]) -> Iterator[str]:
    if not rows:
        return
    yield f"  {'door':<8}{'how':<18}{'8 B, median (min)':>22}{'64 MiB':>12}"
    for row in rows:
        head = f"  {row.door:<8}{row.how:<18}"
        if row.refused is not None:
            yield from _wrapped(f"{head}REFUSED: {row.refused}", 28)
            continue
        latency = ""
        if row.latency_us is not None and row.latency_min_us is not None:
            latency = f"{row.latency_us:.1f} ({row.latency_min_us:.1f}) us"
        bandwidth = "" if row.bandwidth is None else f"{row.bandwidth / 1e9:.2f} GB/s"
        detail = row.detail
        if row.mapped_us is not None:
            detail = f"not copied: a view in {row.mapped_us:.1f} us"
        yield f"{head}{latency:>22}{bandwidth:>12}  {detail}".rstrip()


def _findings(report: Report) -> Iterator[str]:
    marks = {"error": "ERROR", "warning": "WARNING", "note": "note"}
    for finding in report.findings:
        yield from _wrapped(f"  {marks[finding.level]:<9}{finding.what}.", 11)
        if finding.remedy:
            yield from _wrapped(f"  {'':<9}-> {finding.remedy}", 14)


def _software(report: Report) -> Iterator[str]:
    software = report.software
    yield _row("Python", f"{software.python}, {software.executable}")
    yield _row("kernel", f"{software.kernel} {software.machine}, {software.libc}")
    yield _row("numpy", software.numpy or "not installed")
    yield _row("mpi4py", software.mpi4py or "not installed")
    for module in report.modules:
        yield from _wrapped(
            _row(module.name, module.path or f"MISSING: {module.reason}"), _LABEL + 2
        )


def _ucx(report: Report) -> Iterator[str]:
    ucx = report.ucx
    if ucx.version is None:
        yield from _wrapped(_row("library", f"none: {ucx.reason}"), _LABEL + 2)
        return
    yield _row("library", f"{ucx.version}, {ucx.path}")
    yield _row("chosen by", f"{ucx.origin}")
    yield _row("verbs", _verbs(ucx))
    if ucx.transports:
        devices: dict[str, list[str]] = defaultdict(list)
        for transport in ucx.transports:
            devices[transport.name].append(transport.device)
        offers = (f"{name} ({', '.join(sorted(set(on)))})" for name, on in devices.items())
        yield from _wrapped(_row("transports", ", ".join(offers)), _LABEL + 2)
    else:
        yield _row("transports", ucx.trouble or "unknown without the module _ucx")
    used = report.mpi.ucx
    if used is not None and used.version is not None:
        same = "the same" if used.path == ucx.path else f"{used.version}, {used.path}"
        verbs = "" if used.has_verbs == ucx.has_verbs else f"; {_verbs(used)}"
        yield _row("with MPI", f"{same}{verbs}")


def _verbs(ucx: Ucx) -> str:
    return "built with verbs" if ucx.has_verbs else "BUILT WITHOUT: no InfiniBand, no RoCE"


def _mpi(report: Report) -> Iterator[str]:
    mpi = report.mpi
    if mpi.library is None:
        yield from _wrapped(_row("library", f"none: {mpi.reason}"), _LABEL + 2)
    else:
        yield _row("library", f"{mpi.library}, {mpi.path}")
    version = "" if mpi.launcher_version is None else f"{mpi.launcher_version}, "
    yield _row("launcher", f"{version}{mpi.launcher}" if mpi.launcher else "none in PATH")


def _memory(report: Report) -> Iterator[str]:
    memory = report.memory
    if not memory:
        yield _row("limits", "unknown without the native core")
        return

    def size(name: str) -> str:
        value = memory.get(name, 0)
        if not isinstance(value, int) or value <= 0:
            return "none"
        return "unlimited" if value >= _UNLIMITED else format_size(value)

    yield _row("machine", f"{size('machine_total')}, {size('machine_available')} available")
    limit = size("cgroup_limit")
    where = f", {size('cgroup_available')} available ({memory.get('cgroup_path')})"
    yield _row("cgroup", "no limit" if limit == "none" else limit + where)
    yield _row("store", f"{size('default_capacity')} capacity by default, for one process")
    yield _row("may be locked", f"{size('memlock_limit')} (ulimit -l)")


def _node(report: Report) -> Iterator[str]:
    node = report.node
    usable = "" if node.cores_usable == node.cores else f", {node.cores_usable} usable"
    yield _row("processor", f"{node.cores} cores{usable}, {node.cpu}; load {node.load:.1f}")
    yield _row("readv", node.process_vm_readv or "works between processes (process_vm_readv)")
    scope = "no Yama in this kernel" if node.ptrace_scope is None else str(node.ptrace_scope)
    yield _row("ptrace_scope", scope)
    shared = node.shmem_huge_pages or "unknown"
    yield _row("huge pages", f"{node.huge_pages or 'unknown'}, for shared memory: {shared}")
    if node.shm_size is not None and node.shm_free is not None:
        yield _row(
            "/dev/shm", f"{format_size(node.shm_size)}, {format_size(node.shm_free)} available"
        )
    yield _row("open files", f"{node.open_files} (ulimit -n)")
    for device in node.rdma:
        yield _row("RDMA", f"{device.name}: {device.layer}, {device.state}, {device.rate}")
    if not node.rdma:
        yield _row("RDMA", "no device")
    for interface in node.interfaces:
        speed = "" if interface.speed is None else f", {interface.speed / 1000:g} Gbit/s"
        yield _row("interface", f"{interface.name}, {interface.address}{speed}")


def _wrapped(text: str, indent: int) -> Iterable[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
