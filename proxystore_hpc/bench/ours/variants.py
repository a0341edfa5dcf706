"""The mpi door by each of Open MPI's one-sided components (osc) and byte transfer layers (btl)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proxystore_hpc.bench import job
from proxystore_hpc.bench.contestant import UnavailableError
from proxystore_hpc.bench.mpi_settings import components

__all__ = ["VARIANTS", "Variant"]

_NO_RULES = {"OMPI_MCA_opal_common_ucx_tls": "any", "OMPI_MCA_opal_common_ucx_devices": "any"}


@dataclass(frozen=True)
class Variant:
    """A choice of components.

    `osc/sm` is none: it has no dynamic windows, which the door needs. MPI takes it by itself for
    the window of `MPI_Get`.

    Attributes:
        name: Short and unique.
        osc: What does one-sided operations.
        btls: What moves their bytes, under its names in different versions; none for an `osc` that
            moves them itself.
        about: What that is.
        reach: As in `report.advice.REACHES`.
    """

    name: str
    osc: str
    about: str
    btls: tuple[str, ...] = ()
    reach: tuple[str, ...] = ("node", "fabric")

    def settings(self, there: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
        """The components that a job may use, by framework; MPI chooses in the others.

        Args:
            there: The components that there are, by framework.

        Raises:
            UnavailableError: One is missing.
        """
        wanted = {"osc": frozenset({_first((self.osc,), "osc", there)})}
        if self.btls:
            wanted["btl"] = frozenset({"self", _first(self.btls, "btl", there)})
            # Else messages could go by something else, and its search for networks takes a second.
            wanted["pml"] = frozenset({"ob1"})
        return wanted

    def variables(self, there: Mapping[str, frozenset[str]]) -> dict[str, str]:
        """The same as variables of the environment.

        Raises:
            UnavailableError: One is missing.
        """
        found = {
            f"OMPI_MCA_{framework}": ",".join(sorted(names))
            for framework, names in self.settings(there).items()
        }
        # Without a network that Open MPI has on its list, its UCX would step back.
        return {**found, **(_NO_RULES if self.osc == "ucx" else {})}

    def components(self) -> dict[str, frozenset[str]]:
        """What the launcher's Open MPI has.

        Raises:
            UnavailableError: There is no launcher, or it is of another MPI.
        """
        launcher = job.find_launcher()
        if not job.is_open_mpi(launcher):
            raise UnavailableError(
                f"osc and btl are components of Open MPI, and {launcher} is of another MPI"
            )
        return components(launcher)


def _first(names: tuple[str, ...], framework: str, there: Mapping[str, frozenset[str]]) -> str:
    able = there.get(framework, frozenset())
    for name in names:
        if name in able:
            return name
    raise UnavailableError(
        f"this Open MPI has no {framework}/{names[0]}, only {', '.join(sorted(able)) or 'none'}"
    )


VARIANTS = (
    Variant("rdma-sm", "rdma", "shared memory of the node", ("sm", "vader"), ("node",)),
    Variant("rdma-tcp", "rdma", "TCP", ("tcp",)),
    Variant("rdma-uct", "rdma", "UCX's transports for InfiniBand", ("uct",)),
    Variant("rdma-ofi", "rdma", "libfabric", ("ofi",)),
    Variant("ucx", "ucx", "UCX, which chooses the transport"),
)
