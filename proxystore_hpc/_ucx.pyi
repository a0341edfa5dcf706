"""The ucx door and facts about the UCX in use.

Import through `proxystore_hpc.ucx_runtime.import_ucx_module`, which settles the UCX first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

class _TransportInfo(TypedDict):
    transport: str
    device: str
    domain: str

class _BuildConfig(TypedDict):
    headers: str
    compiler: str

def create_door(
    *,
    tls: str = "",
    interface: str = "",
    net_devices: str = "",
    error_handling: bool = True,
    keepalive: float = 0.5,
    tuning: Mapping[str, str] = ...,
    name: str = "ucx",
) -> object:
    """Makes a door for `Instance.open_door`, as a capsule. The GIL is released meanwhile.

    Args:
        tls: UCX's list of transports ("posix,cma,self"); empty leaves the choice to UCX.
        interface: Network interface that TCP may use, beside whatever RDMA devices there are;
            empty: loopback only.
        net_devices: UCX's own list of network devices ("mlx5_0:1,eth0", "all") in place of that.
        error_handling: Notice dead peers.
        keepalive: How often, in seconds, an idle peer is asked whether it lives.
        tuning: Further UCX settings without their prefix, such as {"RNDV_THRESH": "64K"}.
        name: What the door is called; two doors of one store differ in it.

    Raises:
        DoorUnavailableError: There is no such transport or device here.
        ProxyStoreHpcError: UCX refused for another reason.
    """

def version() -> str:
    """Version of the UCX library in use."""

def library_path() -> str:
    """File that libucp was loaded from."""

def transports() -> list[_TransportInfo]:
    """All transports and devices that UCX finds here, whatever a door is restricted to."""

def has_verbs() -> bool:
    """Whether this UCX can use InfiniBand and RoCE devices, if there are any."""

def build_config() -> _BuildConfig:
    """What this module was compiled against."""
