"""`proxystore-hpc gateway`, as a program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxystore_hpc import Store
from proxystore_hpc.cli import main

TOKEN = "00112233445566778899aabbccddeeff"
Gateway = tuple[subprocess.Popen[str], Any]


@pytest.fixture
def start() -> Iterator[Callable[..., Gateway]]:
    """Starts a gateway; gives the program and what stores need to know of it."""
    programs: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> Gateway:
        program = subprocess.Popen(
            [sys.executable, "-m", "proxystore_hpc", "gateway", "--json", *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        programs.append(program)
        assert program.stdout is not None
        return program, json.loads(program.stdout.readline())

    yield run
    for program in programs:
        program.terminate()
        program.communicate(timeout=20)


def test_objects_go_through_it(start: Callable[..., Gateway], tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    program, gateway = start(
        *("--listen", "127.0.0.1:0", "--put-token-file", str(tmp_path / "token"))
    )
    assert ("pin" in gateway) != ("plain" in gateway)
    with (
        Store("test-gateway", gateway=gateway) as owner,
        Store("test-gateway", doors=("tcp",)) as outsider,
    ):
        key = owner.put(b"through the gateway")
        assert outsider.get(key) == b"through the gateway"
        owner.evict(key)
        assert not outsider.exists(key)
    program.send_signal(signal.SIGINT)
    assert program.wait(20) == 0


def test_its_key_pair_is_kept(start: Callable[..., Gateway], tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    state = (
        "--listen",
        "0.0.0.0:0",
        "--advertise",
        "127.0.0.1",
        "--state",
        str(tmp_path / "state"),
    )
    program, gateway = start(*state)
    assert "plain" not in gateway
    with (
        Store("test-gateway", gateway=gateway) as owner,
        Store("test-gateway", doors=("tcp",)) as outsider,
    ):
        assert outsider.get(owner.put([1, 2])) == [1, 2]
    program.terminate()
    assert program.wait(20) == 0
    assert os.listdir(tmp_path) == ["state"]
    _, again = start(*state)
    assert again["pin"] == gateway["pin"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--listen", "nowhere"], 2, "nowhere"),
        (["--listen", "127.0.0.1:0", "--cert", "file"], 2, "--key"),
        (["--listen", "127.0.0.1:0", "--cert", "a", "--key", "b", "--plain"], 2, "exclude"),
        (["--listen", "127.0.0.1:0", "--allow", "all"], 2, "allow"),
        (["--listen", "127.0.0.1:0", "--secret-file", "secret"], 2, "needs --allow"),
        (["--listen", "127.0.0.1:0", "--put-token-file", "/dev/null"], 2, "openssl rand"),
        (["--listen", "192.0.2.1:0", "--plain"], 1, "cannot listen at 192.0.2.1"),
    ],
)
def test_what_cannot_be_meant(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str
) -> None:
    assert main(["gateway", *arguments]) == status
    assert words in capsys.readouterr().err
