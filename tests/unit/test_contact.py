from __future__ import annotations

import socket

import pytest

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.mpi.contact import addresses_here, choose_contact


def test_addresses_of_this_machine_are_none_of_loopback() -> None:
    addresses = addresses_here()
    assert len(set(addresses)) == len(addresses)
    for address in addresses:
        socket.inet_aton(address)
        assert not address.startswith("127.")


def test_the_address_that_leads_to_another_node_is_chosen() -> None:
    here = addresses_here()
    if not here:
        pytest.skip("this machine has no network but loopback")
    # A host beside ours, on the network of our first address.
    first, _, last = here[0].rpartition(".")
    there = f"{first}.{1 if last != '1' else 2}"
    assert choose_contact([here, [there]], 0) == here[0]


def test_addresses_that_every_node_has_are_passed_over() -> None:
    here = addresses_here()
    with pytest.raises(ConfigError, match="name the interface with interface="):
        choose_contact([[*here, "172.17.0.1"], [*here, "172.17.0.1"]], 0)


def test_a_node_without_a_network_is_told() -> None:
    with pytest.raises(ConfigError, match="none but loopback"):
        choose_contact([[], ["192.0.2.1"]], 0)
