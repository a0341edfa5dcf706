from __future__ import annotations

import os

import pytest

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.keeper.settings import Settings, keep_by_default, socket_name


def test_defaults():
    assert Settings.of_environment({}) == Settings(0, 60.0)
    assert not keep_by_default({})
    assert socket_name({}) == f"\0proxystore-hpc/{os.geteuid()}/keeper".encode()


def test_what_the_environment_says():
    given = {
        "PROXYSTORE_HPC_KEEPER": "mine_2-b",
        "PROXYSTORE_HPC_KEEPER_LIMIT": "1.5GiB",
        "PROXYSTORE_HPC_KEEPER_IDLE": "0.5",
        "PROXYSTORE_HPC_KEEP": "1",
    }
    assert Settings.of_environment(given) == Settings(3 << 29, 0.5)
    assert keep_by_default(given)
    assert socket_name(given).endswith(b"/keeper/mine_2-b")
    assert Settings.of_environment({"PROXYSTORE_HPC_KEEPER_LIMIT": "4096"}).limit == 4096


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PROXYSTORE_HPC_KEEPER_LIMIT", "much"),
        ("PROXYSTORE_HPC_KEEPER_LIMIT", "-1"),
        ("PROXYSTORE_HPC_KEEPER_IDLE", "soon"),
        ("PROXYSTORE_HPC_KEEPER_IDLE", "-1"),
        ("PROXYSTORE_HPC_KEEPER_IDLE", "nan"),
        ("PROXYSTORE_HPC_KEEPER_IDLE", "inf"),
    ],
)
def test_what_cannot_be_meant(name, text):
    with pytest.raises(ConfigError, match=name):
        Settings.of_environment({name: text})


@pytest.mark.parametrize("name", ["a/b", "a b", "-", "x" * 41])
def test_names_that_are_none(name):
    with pytest.raises(ConfigError, match="PROXYSTORE_HPC_KEEPER"):
        socket_name({"PROXYSTORE_HPC_KEEPER": name})
