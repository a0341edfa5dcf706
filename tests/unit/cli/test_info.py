"""`proxystore-hpc info` on this machine, and on machines that it is told of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import proxystore_hpc
from proxystore_hpc.cli import advice, main, native, node, text
from proxystore_hpc.cli.report import Measured, Module, Report, Software

ENVIRONMENT_OF_MPI = ("OMPI_", "PMIX_", "PMI_", "UCX_", "PSHPC_", "SLURM_")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(ENVIRONMENT_OF_MPI)}
    return subprocess.run(
        [sys.executable, "-m", "proxystore_hpc", *arguments],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_text_names_versions_doors_and_files() -> None:
    done = run("info")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"proxystore_hpc {proxystore_hpc.__version__} on " in done.stdout
    sections = [line for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert {"Doors", "Software", "UCX", "MPI", "Memory", "Node"} <= set(sections)
    assert str(Path(sys.executable)) in done.stdout


def test_json_holds_what_the_text_shows() -> None:
    done = run("info", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["software"]["proxystore_hpc"] == proxystore_hpc.__version__
    core = next(module for module in document["modules"] if module["name"] == "_core")
    assert core["path"] is not None
    assert document["memory"]["machine_total"] > document["memory"]["default_capacity"] > 0
    assert document["node"]["cores"] >= 1
    assert document["required_but_missing"] == []


def test_mpi_is_found_without_being_initialised() -> None:
    pytest.importorskip("mpi4py")
    code = (
        "import json; from proxystore_hpc.cli import native; mpi = native.find_mpi(); "
        "import sys; print(json.dumps([mpi.library, mpi.path, mpi.reason, "
        "'mpi4py.MPI' in sys.modules, 'libmpi' in open('/proc/self/maps').read()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    library, path, reason, imported, loaded = json.loads(done.stdout)
    if library is None:
        pytest.skip(f"no MPI here: {reason}")
    assert Path(path).exists()
    assert not imported
    assert not loaded, "looking for MPI left it in the process"


def test_only_the_first_rank_prints() -> None:
    assert run("info", OMPI_COMM_WORLD_RANK="1").stdout == ""
    assert "Doors" in run("info", OMPI_COMM_WORLD_RANK="0").stdout


def test_a_required_door_that_is_missing_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("proxystore_hpc.cli.report.collect", lambda: machine())
    for name in ENVIRONMENT_OF_MPI:
        for variable in [v for v in os.environ if v.startswith(name)]:
            monkeypatch.delenv(variable)
    assert main(["info", "--require", "shm,readv,ucx"]) == 0
    assert main(["info", "--require", "shm,verbs"]) == 1
    assert "REQUIRED BUT MISSING: verbs" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["nothing"], ["info", "--require", "infiniband"], ["info", "--fast"]]
)
def test_wrong_arguments_are_explained(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: proxystore-hpc" in capsys.readouterr().err


def test_help_tells_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["info", "--help"])
    assert ended.value.code == 0
    assert "exit status:" in capsys.readouterr().out


# Machines that this one is not.

IB = node.RdmaDevice("mlx5_0:1", "ACTIVE", "InfiniBand", "200 Gb/sec (4X HDR)")
TCP = native.Transport("tcp", "eth0")
RC = native.Transport("rc_mlx5", "mlx5_0:1")


def machine(**changes: Any) -> Report:
    """A healthy workstation, with changes by dotted path, such as node__rdma."""
    report = Report(
        software=Software("0", "CPython", "/python", "Linux", "x86_64", "glibc", "2", "3", "4"),
        modules=[Module(name, path=f"/{name}.so") for name in ("_proxy", "_core", "_ucx")],
        ucx=native.Ucx("1.18.0", "/lib/libucp.so.0", "system", True, [TCP]),
        mpi=native.Mpi(
            "Open MPI v5.0.11",
            "/lib/libmpi.so.40",
            "/bin/mpirun",
            "Open MPI 5.0.11",
            native.Ucx("1.18.0", "/lib/libucp.so.0", "mpi", True),
        ),
        memory={
            "machine_total": 64 << 30,
            "machine_available": 60 << 30,
            "available": 60 << 30,
            "cgroup_limit": 0,
            "memlock_limit": (1 << 64) - 1,
            "default_capacity": 16 << 30,
        },
        node=node.Node(
            hostname="node",
            cpu="a processor",
            cores=8,
            cores_usable=8,
            load=0.1,
            process_vm_readv=None,
            ptrace_scope=0,
            huge_pages="madvise",
            shmem_huge_pages="advise",
            shm_size=32 << 30,
            shm_free=32 << 30,
            open_files=1024,
        ),
        environment={},
    )
    for path, value in changes.items():
        target: Any = report
        *parents, name = path.split("__")
        for parent in parents:
            target = getattr(target, parent)
        if isinstance(target, dict):
            target[name] = value
        else:
            setattr(target, name, value)
    return report


def test_a_healthy_workstation_needs_nothing() -> None:
    found = advice.findings(machine())
    assert [finding.level for finding in found] == ["note"]
    assert "no InfiniBand or RoCE device" in found[0].what
    assert "TCP ONLY" in text.render(machine())


def test_infiniband_in_use_is_no_finding() -> None:
    report = machine(node__rdma=[IB], ucx__transports=[TCP, RC])
    assert advice.findings(report) == []
    assert "other nodes over RDMA: mlx5_0:1" in text.render(report)


def broken(change: Callable[[Report], None]) -> Report:
    report = machine()
    change(report)
    return report


def drop_module(name: str) -> Callable[[Report], None]:
    def change(report: Report) -> None:
        report.module(name).path, report.module(name).reason = None, "it was not built"

    return change


NO_MODULES = [Module(name, absent=True) for name in ("_proxy", "_core", "_ucx")]


def test_an_installation_without_modules_is_no_error() -> None:
    report = machine(modules=NO_MODULES, node__rdma=[IB], ucx=native.Ucx(reason="not found"))
    found = [finding for finding in advice.findings(report) if finding.level != "note"]
    assert [finding.level for finding in found] == ["warning"]
    assert "over TCP only" in found[0].what


@pytest.mark.parametrize(
    ("report", "level", "words", "remedy"),
    [
        # The silent fall-back to TCP, in all its forms.
        (
            machine(node__rdma=[IB], ucx__has_verbs=False),
            "warning",
            "TCP INSTEAD OF INFINIBAND: this node has mlx5_0:1",
            "UCX_HOME",
        ),
        (machine(node__rdma=[IB]), "warning", "offers no transport on it", "ulimit -l"),
        (
            machine(node__rdma=[node.RdmaDevice("mlx5_0:1", "DOWN", "InfiniBand", "?")]),
            "warning",
            "no port is active (mlx5_0:1 is DOWN)",
            "ibstat",
        ),
        (
            machine(environment__UCX_TLS="tcp,self"),
            "warning",
            "UCX_TLS=tcp,self is set in the environment",
            "unset UCX_TLS",
        ),
        (machine(environment__UCX_TLS="rc,sm,self"), "note", "restricts what UCX may use", ""),
        (
            machine(ucx=native.Ucx(reason="libucp.so.0 was not found")),
            "warning",
            "there is no ucx door",
            "pip install 'proxystore_hpc[ucx]'",
        ),
        (broken(drop_module("_ucx")), "warning", "this installation has no ucx door", "UCX_HOME"),
        (machine(ucx__trouble="no device"), "error", "cannot be started: no device", ""),
        # The rest.
        (broken(drop_module("_core")), "error", "no store can be opened", "C++ compiler"),
        (broken(drop_module("_proxy")), "error", "proxies are in Python", "C++ compiler"),
        (machine(software__numpy=None), "warning", "numpy is not installed", "pip install numpy"),
        (machine(modules=NO_MODULES), "warning", "has no native part", "on a cluster"),
        (
            machine(node__process_vm_readv="Operation not permitted", node__ptrace_scope=1),
            "warning",
            "Operation not permitted, ptrace_scope is 1",
            "ptrace_scope=0",
        ),
        (machine(node__shm_size=64 << 20), "warning", "/dev/shm has 64 MiB", "--shm-size"),
        (
            machine(node__rdma=[IB], ucx__transports=[TCP, RC], memory__memlock_limit=65536),
            "warning",
            "only 64 KiB may be locked",
            "ulimit -l unlimited",
        ),
        (machine(node__shmem_huge_pages="never"), "note", "no huge pages", "shmem_enabled"),
        (
            machine(memory__cgroup_limit=1 << 30, memory__available=512 << 20),
            "warning",
            "leaves 512 MiB",
            "--mem",
        ),
        (
            machine(mpi=native.Mpi(reason="mpi4py is not installed")),
            "note",
            "Store.from_mpi() cannot be used: mpi4py is not installed",
            "proxystore_hpc[mpi]",
        ),
        (
            machine(mpi__launcher="/usr/bin/mpirun", mpi__launcher_version="Open MPI 4.1.4"),
            "warning",
            "each would be rank 0 of 1",
            "mpirun",
        ),
        (
            machine(mpi__ucx=native.Ucx("1.22.0", "/wheel/libucp.so.0", "mpi", False)),
            "warning",
            "processes that use MPI get UCX 1.22.0",
            "",
        ),
        (
            machine(measured=[Measured("shm", "mapped", refused="it was ended", unexpected=True)]),
            "error",
            "the door shm (mapped) failed: it was ended",
            "",
        ),
    ],
)
def test_each_trouble_is_named_with_its_remedy(
    report: Report, level: str, words: str, remedy: str
) -> None:
    matching = [f for f in advice.findings(report) if words in f.what]
    assert len(matching) == 1, advice.findings(report)
    assert matching[0].level == level
    assert remedy in matching[0].remedy
    # In the text, too, however it is wrapped.
    report.findings = matching
    assert words in " ".join(text.render(report).split())


def test_lines_fit_a_terminal() -> None:
    report = machine(
        node__process_vm_readv="Operation not permitted",
        mpi=native.Mpi(reason="mpi4py finds no MPI: " + "cannot load MPI library " * 10),
        measured=[
            Measured("shm", "mapped segment", 5.25, 4.5, 12.3e9, 14.0),
            Measured("ucx", "TCP, loopback", refused="libucp.so.0 was not found " * 8),
        ],
    )
    report.findings = advice.findings(report)
    rendered = text.render(report)
    assert max(len(line) for line in rendered.splitlines()) <= 100
    assert "5.2 (4.5) us" in rendered
    assert "12.30 GB/s" in rendered
    assert "REFUSED" in rendered


def test_ports_are_read_from_the_kernel(tmp_path: Path) -> None:
    port = tmp_path / "mlx5_0" / "ports" / "1"
    port.mkdir(parents=True)
    (port / "state").write_text("4: ACTIVE\n")
    (port / "link_layer").write_text("InfiniBand\n")
    (port / "rate").write_text("200 Gb/sec (4X HDR)\n")
    assert node.rdma_devices(tmp_path) == [IB]
    assert node.rdma_devices(tmp_path / "missing") == []
