"""The ways through which arrays are measured: one door each, and what may carry its bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proxystore_hpc.bench.contestant import Operation, UnavailableError

if TYPE_CHECKING:
    from proxystore_hpc.store import Store

__all__ = ["INTERFACE", "SECRET", "Way", "capacity_for", "check_doors", "check_lanes", "ways"]

SECRET = b"proxystore-bench"
INTERFACE = "PROXYSTORE_HPC_BENCHMARK_INTERFACE"
"""Names a network interface for UCX over TCP besides loopback; all processes of a run read it."""
ROOM = 256 << 20
_SHARED = ("posix", "sysv", "cma", "knem", "xpmem", "self")
_FAST = ("rc", "ud", "dc", "srd", "gga", "ugni")


@dataclass(frozen=True)
class Way:
    """One row of the table of doors.

    Attributes:
        name: Short and unique.
        door: The only door that the stores may use.
        about: What carries the bytes.
        limit: What it is held against, by operation.
        operations: What of `PUT`, `PUT_THERE`, `GET` and `EXCHANGE` makes sense.
        live: Whether registered memory is read instead of stored objects.
        ucx: Options of UCX.
        lanes: Transports that UCX must have chosen from, if it is UCX's.
        tls: For the door tcp, whether the server encrypts.
        gateway: Whether a gateway stands between.
    """

    name: str
    door: str
    about: str
    limit: Mapping[Operation, str]
    operations: frozenset[Operation] = frozenset(
        {Operation.PUT, Operation.PUT_THERE, Operation.GET, Operation.EXCHANGE}
    )
    live: bool = False
    ucx: Mapping[str, str] = field(default_factory=dict)
    lanes: tuple[str, ...] = ()
    tls: bool | None = None
    gateway: bool = False

    @property
    def alone(self) -> bool:
        """Whether owner and reader are one process."""
        return self.door == "self"

    def open_store(self, capacity: int, **more: Any) -> Store:
        """A store with that door alone, and no cache that would spare transfers."""
        from proxystore_hpc.store import Store

        if self.door != "tcp":
            more.setdefault("secret", SECRET)
        options = {"ucx": dict(self.ucx)} if self.ucx else {}
        return Store(
            f"bench-{self.name}",
            doors=(self.door,),
            capacity=capacity,
            cache_size=0,
            options=options,
            **more,
        )


def capacity_for(nbytes: int) -> int:
    """Bytes of a store that has some objects of this size at once; evicted ones rest a while."""
    return 4 * nbytes + ROOM


def check_doors(store: Store, way: Way, key: Any = None) -> None:
    """That the door was taken and no other, and for UCX that its transport was.

    Raises:
        UnavailableError: Others were, so that the figures would be those of something else.
    """
    used = {name for name, stats in store.metrics.doors.items() if stats.operations}
    if used != {way.door}:
        raise UnavailableError(f"the doors {', '.join(sorted(used)) or '(none)'} were used")
    if way.lanes and key is not None:
        check_lanes(store._instance.channels(key.packed)["ucx"]["lanes"], way.lanes)


def check_lanes(lanes: str, wanted: tuple[str, ...]) -> None:
    """That a connection takes what it was meant to take.

    Args:
        lanes: What it takes, in the words of `Endpoint.lanes`.
        wanted: How the names of all of its transports may begin.

    Raises:
        UnavailableError: It takes something else.
    """
    chosen = {lane.split("(")[0].split("/")[0] for lane in lanes.split()}
    if not chosen or not all(name.startswith(wanted) for name in chosen):
        raise UnavailableError(f"{lanes or 'our own socket'} was chosen")


_COPY = dict.fromkeys((Operation.PUT, Operation.PUT_THERE, Operation.EXCHANGE), "memcpy")


def _limited(name: str) -> dict[Operation, str]:
    return {
        Operation.PUT: "memcpy",
        **dict.fromkeys((Operation.GET, Operation.EXCHANGE, Operation.PUT_THERE), name),
    }


def ways() -> list[Way]:
    """All of one machine, whether they can be used here or not."""
    copied = {**_COPY, Operation.GET: "memcpy"}
    found = [
        Way(
            *("self", "self", "the process itself", copied),
            operations=frozenset({Operation.PUT, Operation.GET, Operation.EXCHANGE}),
        ),
        Way("shm", "shm", "the owner's segment, mapped; a get copies nothing", copied),
        Way(
            *("registered", "shm", "memory in place, by process_vm_readv"),
            {Operation.GET: "process_vm_readv"},
            operations=frozenset({Operation.GET}),
            live=True,
        ),
        Way(
            "socket", "socket", "the owner's Unix socket, the last resort", _limited("unix-socket")
        ),
        _ucx("ucx-shm", "UCX over shared memory", "sm,self", "", _SHARED, "ucx_perftest-shm"),
        _ucx("ucx-tcp", "UCX over TCP, loopback", "tcp,self", "lo", ("tcp",), "ucx_perftest-tcp"),
    ]
    interface = os.environ.get(INTERFACE, "")
    if interface:
        about, limit = f"UCX over TCP, {interface}", "ucx_perftest-tcp"
        found.append(_ucx(f"ucx-{interface}", about, "tcp,self", interface, ("tcp",), limit))
    found += [
        _ucx("ucx-rdma", "UCX over an RDMA network", "ib,self", "", _FAST, "ucx_perftest-rdma"),
        _tcp("tcp", "our server, plain, over loopback", "tcp-socket", tls=False),
        _tcp("tcp-tls", "our server, encrypted, over loopback", "tls-socket", tls=True),
        _tcp("gateway", "a gateway of this node, plain, over loopback", "tcp-socket", gateway=True),
    ]
    return found


def _ucx(name: str, about: str, tls: str, device: str, lanes: tuple[str, ...], limit: str) -> Way:
    ucx = {"tls": tls, **({"net_devices": device} if device else {})}
    return Way(name, "ucx", about, _limited(limit), ucx=ucx, lanes=lanes)


def _tcp(name: str, about: str, limit: str, **more: Any) -> Way:
    found = Operation.GET, Operation.EXCHANGE
    return Way(
        *(name, "tcp", about, dict.fromkeys(found, limit)), operations=frozenset(found), **more
    )


def check(way: Way) -> dict[str, str]:
    """Whether a way is open on this machine, as far as that is known without trying.

    Returns:
        Versions.

    Raises:
        UnavailableError: It is not; says what to do.
    """
    from proxystore_hpc import __version__
    from proxystore_hpc.exceptions import ProxyStoreHpcError
    from proxystore_hpc.store.opening import load_core

    versions = {"proxystore_hpc": __version__}
    try:
        load_core()
        if way.door == "ucx":
            versions["ucx"] = _check_ucx(way)
    except ProxyStoreHpcError as error:
        raise UnavailableError(str(error)) from error
    if way.tls:
        try:
            import cryptography
        except ImportError as error:
            raise UnavailableError("pip install 'proxystore_hpc[server]'") from error
        versions["cryptography"] = cryptography.__version__
    return versions


def _check_ucx(way: Way) -> str:
    from proxystore_hpc.ucx_runtime import import_ucx_module, load

    transports = [(row["transport"], row["device"]) for row in import_ucx_module().transports()]
    device = way.ucx.get("net_devices")
    usable = [
        name
        for name, where in transports
        if name != "self" and name.startswith(way.lanes) and (not device or where == device)
    ]
    version = ".".join(map(str, load().version))
    if not usable:
        names = ", ".join(sorted({f"{name} ({where})" for name, where in transports}))
        raise UnavailableError(
            f"UCX {version} offers no transport for it here, only {names}; "
            "`proxystore-hpc info` says why"
        )
    if device == "lo" and version.startswith(("1.19.", "1.20.")):
        raise UnavailableError(
            f"UCX {version} cannot connect over loopback, which other versions can: "
            "--interface names another one"
        )
    return version
