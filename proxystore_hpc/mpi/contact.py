"""Which address of ours the ranks on other nodes should use."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.utils.network import address_of, address_towards


def addresses_here() -> list[str]:
    """The IPv4 addresses of this node that others may reach, that of its host name first."""
    found = []
    for _, interface in socket.if_nameindex():
        with suppress(ConfigError):
            found.append(address_of(interface))
    named = []
    with suppress(OSError):
        named = socket.gethostbyname_ex(socket.gethostname())[2]
    found.sort(key=lambda address: address not in named)
    return [address for address in dict.fromkeys(found) if not address.startswith("127.")]


def choose_contact(nodes: Sequence[Sequence[str]], mine: int) -> str:
    """The address of this node on a network that it shares with the others.

    Addresses that several nodes have, as those of container bridges, name none of them and are
    passed over.

    Args:
        nodes: `addresses_here()` of one rank of each node.
        mine: Index of this node.

    Raises:
        ConfigError: There is none.
    """
    owners = Counter(address for addresses in nodes for address in set(addresses))
    usable = [[a for a in addresses if owners[a] == 1] for addresses in nodes]
    # The next node round, so that not all of them ask about the same one.
    for offset in range(1, len(nodes)):
        for peer in usable[(mine + offset) % len(nodes)]:
            with suppress(OSError):
                address = address_towards(peer)
                if address in usable[mine]:
                    return address
    raise ConfigError(
        f"interface: no network leads from this node (addresses {_listed(nodes[mine])}) to the "
        "other nodes of the job; name the interface with interface=..."
    )


def _listed(addresses: Sequence[str]) -> str:
    return ", ".join(addresses) or "none but loopback"
