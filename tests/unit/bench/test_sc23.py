"""The paper's experiment with crossings of which everything is known."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from proxystore_hpc.bench import sc23
from proxystore_hpc.bench.companion import CompanionError
from proxystore_hpc.bench.contestant import UnavailableError
from proxystore_hpc.bench.peers import endpoints

NODES = sc23.Nodes(sc23.Place((), "127.0.0.1"), sc23.Place((), "127.0.0.1"), "")


def crossing(name, act):
    @contextmanager
    def opener(nodes, nbytes):
        yield act

    return sc23.Crossing(name, "a stand-in", opener)


def test_who_fails_in_a_round_is_left_out_with_the_reason(monkeypatch):
    rounds = []

    def fails():
        rounds.append(1)
        if len(rounds) > 2:
            raise CompanionError("the side raised\nTimeoutError: 30 s")
        return 1.0, 2.0

    monkeypatch.setattr(
        sc23,
        "CROSSINGS",
        {"fails": crossing("fails", fails), "works": crossing("works", lambda: (3.0, 4.0))},
    )
    found = list(sc23.measure(NODES, [1], only=("fails", "works"), rounds=4))
    assert found == [
        (1, {"works": sc23.Times([3.0] * 4, [4.0] * 4)}, {"fails": "TimeoutError: 30 s"})
    ]
    assert len(rounds) == 3


def test_endpoints_without_their_programs_say_what_to_install(monkeypatch, tmp_path):
    required = endpoints.required_program
    monkeypatch.setattr(
        endpoints, "required_program", lambda name, how: required(f"no-{name}", how)
    )
    relay = endpoints.relay("127.0.0.1", 1, launcher=(), folder=str(tmp_path))
    with pytest.raises(UnavailableError, match=r"proxystore\[endpoints\]"), relay:
        pass


def test_a_server_that_ends_says_why(tmp_path):
    command = ["/bin/sh", "-c", "echo no such option; exit 2"]
    running = endpoints._running(command, "127.0.0.1", 1, (), tmp_path / "log")
    with pytest.raises(UnavailableError, match="sh does not start: no such option"), running:
        pass
