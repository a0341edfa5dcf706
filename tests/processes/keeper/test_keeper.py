"""The keeper's own life: how it begins and ends, and what it refuses."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import procfs

from proxystore_hpc import Store
from proxystore_hpc.cli import main
from proxystore_hpc.exceptions import ConfigError, KeeperError, OwnerGoneError
from proxystore_hpc.keeper.settings import socket_name


def open_together(gate, told):
    gate.wait()
    with Store("store", keep=True, capacity="1MiB"):
        told.put(os.getpid())
        gate.wait()


def test_of_many_that_are_started_one_stays(keeper):
    context = multiprocessing.get_context("fork")
    gate, told = context.Barrier(6), context.Queue()
    owners = [context.Process(target=open_together, args=(gate, told)) for _ in range(6)]
    for owner in owners:
        owner.start()
    pids = {told.get(timeout=30) for _ in owners}
    for owner in owners:
        owner.join(30)
        assert owner.exitcode == 0
    assert pids == {owner.pid for owner in owners}
    listening = f"@{socket_name()[1:].decode()}"
    rows = Path("/proc/net/unix").read_text().splitlines()
    flags = [row.split()[3] for row in rows if row.endswith(f" {listening}")]
    assert flags.count("00010000") == 1  # __SO_ACCEPTCON


def test_it_ends_when_it_is_idle(keeper, make_peer, monkeypatch):
    monkeypatch.setenv("PROXYSTORE_HPC_KEEPER_IDLE", "0.5")
    producer = make_peer(name="store", keep=True, capacity="1MiB")
    key = producer(lambda here: here.store.put(b"value"))
    pid = keeper.pid
    producer.kill()
    with Store("store", doors=("shm",)) as store:
        assert store.get(key) == b"value"
        assert procfs.exists(pid)
        store.evict(key)
        keeper.wait_for_end(pid)


@pytest.mark.full
def test_it_lets_go_of_a_store_without_objects(keeper, make_peer):
    producer = make_peer(name="store", keep=True, capacity="1MiB")
    key = producer(lambda here: here.store.put(b"value"))
    producer.kill()
    with Store("store", doors=("shm",)) as store:
        assert store.get(key) == b"value"
        store.evict(key)
        assert not store.exists(key)
        procfs.wait_until(lambda: not keeper.status()["kept"], "the keeper lets go", timeout=15)
        with pytest.raises(OwnerGoneError):
            store.exists(key)


@pytest.mark.full
def test_it_stays_while_a_store_is_open(keeper, monkeypatch):
    monkeypatch.setenv("PROXYSTORE_HPC_KEEPER_IDLE", "0.2")
    with Store("store", keep=True, capacity="1MiB"):
        pid = keeper.pid
        with pytest.raises(AssertionError):
            procfs.wait_until(lambda: not procfs.exists(pid), "ends", timeout=1.5)
    keeper.wait_for_end(pid)


def test_the_limit(keeper, make_peer, monkeypatch):
    monkeypatch.setenv("PROXYSTORE_HPC_KEEPER_LIMIT", "1MiB")
    producer = make_peer(name="store", keep=True, capacity="16MiB")
    large, small = producer(
        lambda here: (here.store.put(np.zeros(1 << 20)), here.store.put(np.zeros(1 << 10)))
    )
    producer.kill()
    with Store("store", doors=("shm",)) as store:
        assert not store.exists(large)
        assert store.get(small).sum() == 0
    status = keeper.status()
    assert status["used"] < 1 << 20
    (event,) = status["events"]
    assert "1 objects" in event
    assert "--limit" in event


def test_the_environment_may_ask_for_it(keeper, monkeypatch):
    monkeypatch.setenv("PROXYSTORE_HPC_KEEP", "1")
    with Store("default"), Store("without", keep=False):
        stores = [store["store"] for store in keeper.status()["connected"]]
    assert stores == ["default"]
    monkeypatch.setenv("PROXYSTORE_HPC_KEEP", "yes")
    with pytest.raises(ConfigError, match="0 or 1"):
        Store("wrong")


def test_it_says_why_it_cannot_be_started(keeper, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(KeeperError, match="no keeper could be started"):
        Store("store", keep=True)


def test_strangers_words_do_no_harm(keeper):
    with Store("store", keep=True, capacity="1MiB") as store:
        for words in (b"", b"hello\n", b'{"version": 77}\n', b"x" * 100_000):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(socket_name())
                stranger.sendall(words)
                if words:
                    stranger.shutdown(socket.SHUT_WR)
                    assert stranger.recv(1) == b""
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(socket_name())
            stranger.sendall(b'{"version": 1, "ask": "keep"}\n')
            assert stranger.recv(1000).endswith(b"\n")
            stranger.sendall(b"garbage" * 100)
            assert stranger.recv(1) == b""
        assert any("garbage" in event for event in keeper.status()["events"])
        assert store.put(1)


def run_command(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "proxystore_hpc", "keep", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_command(keeper, make_peer, capsys):
    assert main(["keep", "--status"]) == 1
    assert main(["keep", "--stop"]) == 1
    program = run_command("--limit", "8MiB", "--idle", "100")
    assert "up to 8.00 MiB" in program.stdout.readline()
    capsys.readouterr()
    assert main(["keep"]) == 1
    assert "already" in capsys.readouterr().err
    producer = make_peer(name="store", keep=True, capacity="1MiB")
    producer(lambda here: here.store.put(b"value"))
    assert main(["keep", "--status"]) == 0
    assert f"'store' of process {producer.pid}" in capsys.readouterr().out
    producer.kill()
    keeper.wait_for_owners(1)
    assert main(["keep", "--status"]) == 0
    assert "1 objects" in capsys.readouterr().out
    assert main(["keep", "--status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pid"] == program.pid
    assert main(["keep", "--stop"]) == 0
    assert program.wait(20) == 0
    program.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_by_a_signal(keeper, number):
    program = run_command()
    assert program.stdout.readline()
    program.send_signal(number)
    assert program.wait(20) == 0
    program.stdout.close()


@pytest.mark.parametrize("arguments", [["--limit", "much"], ["--idle", "-1"]])
def test_wrong_arguments(keeper, arguments, capsys):
    assert main(["keep", *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err
