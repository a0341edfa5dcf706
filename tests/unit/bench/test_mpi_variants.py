"""Which components of Open MPI the mpi door is measured over, and who reads whom in a crowd."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxystore_hpc.bench import job, mpi_settings
from proxystore_hpc.bench.contestant import Kind, Operation, UnavailableError
from proxystore_hpc.bench.mpi_settings import components, components_in
from proxystore_hpc.bench.ours.crowds import (
    members_of,
    operations_of,
    owners_of,
    share_of,
    who_reads_whom,
)
from proxystore_hpc.bench.ours.mpi import Backend, mpi
from proxystore_hpc.bench.ours.variants import VARIANTS
from proxystore_hpc.bench.suite import PACES, chosen, contestants

TOLD = """\
package:Open MPI somebody@somewhere Distribution
mca:btl:self:version:"mca:2.1.0"
mca:btl:self:version:"api:3.3.0"
mca:btl:sm:version:"mca:2.1.0"
mca:btl:tcp:version:"mca:2.1.0"
mca:osc:rdma:version:"mca:2.1.0"
mca:osc:sm:version:"mca:2.1.0"
mca:osc:rdma:param:osc_rdma_priority:value:20
"""
THERE = components_in(TOLD)
BY_NAME = {variant.name: variant for variant in VARIANTS}


def test_components_are_read_from_what_ompi_info_prints():
    assert set(THERE) == {"btl", "osc"}
    assert THERE["btl"] == {"self", "sm", "tcp"}
    assert THERE["osc"] == {"rdma", "sm"}
    assert components_in("nothing of the kind") == {}


def test_a_variant_leaves_mpi_no_other_component():
    variables = BY_NAME["rdma-tcp"].variables(THERE)
    assert variables == {
        "OMPI_MCA_osc": "rdma",
        "OMPI_MCA_btl": "self,tcp",
        "OMPI_MCA_pml": "ob1",
    }
    ucx = BY_NAME["ucx"].variables({"osc": frozenset({"ucx"})})
    assert ucx["OMPI_MCA_osc"] == "ucx"
    assert "OMPI_MCA_btl" not in ucx


def test_shared_memory_has_another_name_in_older_versions():
    older = {"osc": frozenset({"rdma"}), "btl": frozenset({"self", "vader"})}
    assert BY_NAME["rdma-sm"].settings(older)["btl"] == {"self", "vader"}
    assert BY_NAME["rdma-sm"].settings(THERE)["btl"] == {"self", "sm"}


@pytest.mark.parametrize(
    ("name", "told"), [("ucx", "no osc/ucx, only rdma, sm"), ("rdma-ofi", "no btl/ofi, only self")]
)
def test_a_missing_component_is_named(name, told):
    with pytest.raises(UnavailableError, match=told):
        BY_NAME[name].settings(THERE)


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """Makes the launcher of an MPI that prints this as its version."""
    pytest.importorskip("mpi4py")

    def make(version: str) -> str:
        path = program(tmp_path / "mpirun", f"echo '{version}'")
        monkeypatch.setenv("PROXYSTORE_HPC_MPIRUN", path)
        return path

    yield make
    job.is_open_mpi.cache_clear()
    mpi_settings.components.cache_clear()


def reason(name: str, leader: object = None) -> str:
    (contestant,) = [each for each in mpi(leader) if each.name == name]
    try:
        contestant.check()
    except UnavailableError as error:
        return str(error)
    return ""


def test_another_mpi_has_no_variants(launcher):
    launcher("HYDRA build details: Version: 5.0.2")
    assert "components of Open MPI" in reason("mpi-rdma-tcp")
    assert "components of Open MPI" in reason("MPI_Get-rdma-tcp")
    assert reason("mpi") == ""


def test_what_is_there_is_found_beside_the_launcher(launcher, tmp_path):
    path = launcher("mpirun (Open MPI) 5.0.11")
    assert "no ompi_info" in reason("mpi-rdma-tcp")
    program(tmp_path / "ompi_info", f"cat <<'END'\n{TOLD}END")
    assert components(path) == THERE
    assert reason("mpi-rdma-tcp") == ""
    assert "no osc/ucx" in reason("mpi-ucx")


class Job:
    """Stands in for a leader."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks

    def describe(self) -> tuple[int, str]:
        return self.ranks, "an MPI"


def test_in_a_job_there_are_no_variants_and_as_many_pairs_as_fit():
    assert "without mpirun" in reason("mpi-rdma-sm", Job(2))
    for ranks, counts in ((2, {1}), (3, {1}), (4, {1, 2}), (9, {1, 2, 4}), (16, {1, 2, 4, 8})):
        crowds = {each.name for each in mpi(Job(ranks)) if each.name.startswith("mpi x")}
        assert crowds == {f"mpi x{count}" for count in counts}


def test_variants_wait_until_they_are_named_or_all_is_measured():
    assert [name for name, tier in PACES.items() if tier.extras] == ["full"]
    offered = contestants("none")
    usual = {each.name for each in chosen(offered, (), extras=False)}
    everybody = {each.name for each in chosen(offered, (), extras=True)}
    assert {"mpi", "MPI_Get"} <= usual
    assert not {each.name for each in offered if getattr(each, "extra", False)} & usual
    assert {"mpi-rdma-tcp", "MPI_Get-rdma-tcp"} <= everybody
    named = chosen(offered, ["mpi-ucx"], extras=False)
    assert [(each.name, each.kind) for each in named] == [
        ("mpi-ucx", Kind.OURS),
        ("MPI_Get-ucx", Kind.LIMIT),
    ]


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_a_crowd_needs_no_more_than_two_members_for_each(count):
    for operation in operations_of(count):
        readings = who_reads_whom(operation, count)
        assert members_of(readings) == list(range(len(members_of(readings))))
        assert len(members_of(readings)) <= 2 * count
        assert 0 in readings
        for reader, owners in readings.items():
            assert owners
            assert reader not in owners
        if operation in (Operation.WEAK, Operation.STRONG):
            assert len(readings) == len(owners_of(readings)) == count
            assert not set(readings) & set(owners_of(readings))
    assert share_of(Operation.STRONG, count, 4096) * count == 4096
    assert share_of(Operation.WEAK, count, 4096) == 4096
    assert share_of(Operation.STRONG, count, 1) == 1


def test_a_job_that_is_lost_is_not_started_again(launcher, tmp_path):
    path = launcher("HYDRA")
    program(tmp_path / "mpirun", f"echo x >>{tmp_path}/starts; echo so it is; exit 3")
    assert os.access(path, os.X_OK)
    backend = Backend()
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"ended with 3; so it is"):
            backend.call("describe")
    # Once it is asked for its version, and once it is started.
    assert (tmp_path / "starts").read_text() == "x\nx\n"
