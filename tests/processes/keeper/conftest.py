from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from support import procfs
from support.fixtures import MakePeer, make_peer  # noqa: F401

from proxystore_hpc.keeper.settings import socket_name
from proxystore_hpc.keeper.talk import ask


class KeeperOfTest:
    """The keeper that this test's processes use, if there is one."""

    def status(self) -> dict[str, Any] | None:
        return ask(socket_name(), "status")

    @property
    def pid(self) -> int:
        status = self.status()
        assert status is not None, "no keeper runs"
        return int(status["pid"])

    @property
    def objects(self) -> int:
        status = self.status()
        return 0 if status is None else sum(kept["objects"] for kept in status["kept"])

    def wait_for_owners(self, ended: int) -> None:
        """Until it has taken over from so many."""
        procfs.wait_until(
            lambda: (status := self.status()) is not None and len(status["kept"]) >= ended,
            f"the keeper takes over from {ended}",
        )

    def wait_for_end(self, pid: int) -> None:
        procfs.wait_until(lambda: not procfs.exists(pid), "the keeper ends")


@pytest.fixture
def keeper(
    make_peer: MakePeer,  # noqa: F811  its check for sockets comes after the keeper's end
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[KeeperOfTest]:
    """A keeper for this test alone, which ends with it; what needs one starts it."""
    monkeypatch.setenv("PROXYSTORE_HPC_KEEPER", f"test-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    monkeypatch.setenv("PROXYSTORE_HPC_KEEPER_IDLE", "30")
    monkeypatch.setenv("PROXYSTORE_HPC_KEEPER_LIMIT", "256MiB")
    yield KeeperOfTest()
    told = ask(socket_name(), "stop")
    if told is not None:
        procfs.wait_until(lambda: not procfs.exists(told["pid"]), "the keeper ends")
