"""Every peer of the benchmark suite that can run here does what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import procfs

from proxystore_hpc.bench.companion import Companion, CompanionError
from proxystore_hpc.bench.contestant import Burst, Kind, Operation, UnavailableError
from proxystore_hpc.bench.data import WrongBytesError
from proxystore_hpc.bench.peers import peers
from proxystore_hpc.bench.peers.job import Job
from proxystore_hpc.bench.peers.kept import USUAL, Kept
from proxystore_hpc.bench.peers.peer import Peer
from proxystore_hpc.bench.peers.sides import asked, measuring, stored, times_of
from proxystore_hpc.bench.peers.suspension import Suspension

PEERS = {peer.name: peer for peer in peers()}
SMALL, LARGE = 1000, 300_001


def test_names_are_unique_and_all_are_told() -> None:
    assert len(PEERS) == len(peers())
    for peer in PEERS.values():
        assert peer.kind is Kind.PEER
        assert peer.operations
        assert peer.about
    assert {"redis", "zmq", "mpi4py-buffer", "shared-memory", "proxystore-file"} <= set(PEERS)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", PEERS)
def test_peer(name: str) -> None:
    peer = PEERS[name]
    try:
        versions = peer.check()
    except UnavailableError as error:
        pytest.skip(str(error))
    assert all(versions.values())
    cases = [(operation, SMALL) for operation in sorted(peer.operations)]
    try:
        for operation, nbytes in [*cases, (cases[0][0], LARGE)]:
            with peer.open(operation, nbytes) as burst:
                assert all(0 < burst() < 60 for _ in range(3))
    except UnavailableError as error:
        pytest.skip(str(error))
    finally:
        peer.close()


def test_what_is_kept_is_used_again_until_it_fails_or_is_too_small() -> None:
    started: list[int] = []

    def start(stack: ExitStack, most: int) -> tuple[Companion, ...]:
        started.append(most)
        return (stack.enter_context(Companion("support.garbling:Counting")),)

    companions: list[Companion] = []

    def bursts(found: Sequence[Companion], operation: Operation, nbytes: int) -> Burst:
        companions[:] = found
        return measuring(found, operation, nbytes)

    kept = Kept(start, bursts)
    for nbytes in (8, 1000):
        with kept.open(Operation.GET, nbytes) as burst:
            assert burst() == burst() == 1.0
    (first,) = companions
    assert started == [USUAL]
    expected = ["prepare 8", "measure", "measure", "rest", "prepare 1000", "measure", "measure"]
    assert first.call("history") == [*expected, "rest"]

    # After what failed nobody knows what it is in the middle of.
    with kept.open(Operation.GET, 13) as burst, pytest.raises(WrongBytesError):
        burst()
    assert first.process.poll() is not None
    with kept.open(Operation.GET, 8) as burst:
        burst()
    (second,) = companions
    assert len(started) == 2

    second.process.kill()  # it may end by itself meanwhile
    second.process.wait()
    with kept.open(Operation.GET, 8) as burst:
        burst()
    with kept.open(Operation.GET, 2 * USUAL):
        pass
    assert started == [USUAL, USUAL, USUAL, 2 * USUAL]
    kept.close()
    kept.close()
    assert companions[0].process.poll() is not None


def wait_until_stopped(pid: int) -> None:
    procfs.wait_until(lambda: procfs.state(pid) == "T", "it is stopped")


def test_what_spins_runs_only_while_it_has_a_turn() -> None:
    suspension = Suspension()
    companions: list[Companion] = []

    @contextmanager
    def opener(operation: Operation, nbytes: int) -> Iterator[Burst]:
        with Companion("support.garbling:Counting") as companion:
            companion.call("spin")
            companions.append(companion)
            yield measuring((companion,), operation, nbytes)

    operations = frozenset({Operation.GET})
    peer = Peer("x", "about", operations, opener, suspension=suspension)
    with peer.open(Operation.GET, SMALL) as burst:
        (companion,) = companions
        assert suspension.processes() == [companion.pid]
        wait_until_stopped(companion.pid)
        assert burst() == 1.0
        wait_until_stopped(companion.pid)
    assert companion.process.returncode == 0
    peer.close()

    with peer.open(Operation.GET, 13) as burst, pytest.raises(WrongBytesError):
        burst()
    assert companions[1].process.returncode == 0
    peer.close()


def test_what_was_stopped_goes_on_when_its_benchmark_is_killed() -> None:
    """Else it would stay for ever: what is stopped does not notice that its pipe has ended."""
    program = (
        "import os, signal\n"
        "from proxystore_hpc.bench.companion import Companion\n"
        "from proxystore_hpc.bench.peers.suspension import Suspension\n"
        "suspension = Suspension()\n"
        "with suspension.started():\n"
        "    companion = Companion('support.garbling:Counting')\n"
        "suspension.stop()\n"
        "print(companion.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    pid = int(done.stdout)
    procfs.wait_until(lambda: not procfs.exists(pid), "the companion has ended")


@pytest.mark.parametrize("how", ["flipped", "shifted", "cut"])
@pytest.mark.parametrize("operation", [Operation.EXCHANGE, Operation.PUT, Operation.GET])
def test_garbled_bytes_that_were_stored_are_found(
    operation: Operation, how: str, tmp_path: Path
) -> None:
    side = "support.garbling:InFile"
    with stored(side, operation, SMALL, folder=str(tmp_path), how="whole") as burst:
        assert burst() > 0
    with (
        stored(side, operation, SMALL, folder=str(tmp_path), how=how) as burst,
        pytest.raises(WrongBytesError),
    ):
        burst()


def test_garbled_messages_are_found(tmp_path: Path) -> None:
    for how in ("whole", "shifted"):
        folder = tmp_path / how
        folder.mkdir()
        side = "support.garbling:Messages"
        with asked(side, Operation.ECHO, SMALL, folder=str(folder), how=how) as burst:
            if how == "whole":
                assert burst() > 0
                continue
            with pytest.raises(WrongBytesError):
                burst()


def peer_of(**options: Any) -> Peer:
    def opener(operation: Operation, nbytes: int) -> Any:
        return stored("support.absent:Nothing", operation, nbytes)

    return Peer("x", "about", frozenset({Operation.GET}), opener, **options)


def test_what_is_missing_is_told() -> None:
    assert peer_of().check() == {}
    assert peer_of(modules={"numpy": "numpy"}).check()["numpy"][0].isdigit()
    with pytest.raises(UnavailableError, match="pip install such-a-thing==1"):
        peer_of(modules={"such_a_thing": "such-a-thing==1"}).check()
    with pytest.raises(UnavailableError, match="no-such-program was not found: ask"):
        peer_of(programs={"no-such-program": "ask"}).check()


def test_one_that_does_not_start_is_unavailable() -> None:
    peer = peer_of()
    with pytest.raises(UnavailableError, match="No module named"), peer.open(Operation.GET, SMALL):
        pass
    with pytest.raises(UnavailableError, match="does not do put"), peer.open(Operation.PUT, SMALL):
        pass


def test_a_burst_is_short() -> None:
    assert times_of(0) == times_of(1) == times_of(1000) == 20
    assert times_of(500_000) == 2
    assert times_of(1 << 30) == 1


def test_a_job_that_ends_tells_what_it_said() -> None:
    command = ["sh", "-c", "echo it is broken; exit 3"]
    with pytest.raises(CompanionError, match="it is broken"):
        Job(command, "proxystore_hpc.bench.peers.mpi", "no:Role")


def test_margo_by_its_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, a stand-in has the names that the adapter uses."""
    try:
        PEERS["margo"].check()
    except UnavailableError:
        monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "support" / "standins"))
    else:
        pytest.skip("the real one is there")
    with PEERS["margo"].open(Operation.ECHO, SMALL) as burst:
        assert burst() > 0
