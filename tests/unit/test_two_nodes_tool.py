"""ci/two_nodes: what the nodes share and what they do not, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import procfs

TOOL = Path(__file__).resolve().parents[2] / "ci/lib/two_nodes.py"
NAME = f"tool{os.getpid()}"


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(TOOL), "--name", NAME, *map(str, arguments)]


def use(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        command(*arguments), capture_output=True, text=True, timeout=50, check=False, **options
    )


def output(*arguments: object) -> str:
    done = use(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Path]:
    """Nodes that are up; a directory that they see."""
    kept = tmp_path / "kept"
    kept.mkdir()
    try:
        output("up", "--keep", kept)
        yield kept
    finally:
        output("down")


def test_help_and_mistakes() -> None:
    assert "usage: ci/two_nodes" in output("--help")
    for mistake in ((), ("across",), ("exec",), ("exec", "3", "true"), ("mpirun",)):
        done = use(*mistake)
        assert done.returncode == 2
        assert "usage: ci/two_nodes" in done.stderr
    assert "'exec NODE ...'" in use("run", "true").stderr
    assert "--name" in use("--name", "../x", "up").stderr


def test_what_is_missing_is_named() -> None:
    done = use("up", env={"PATH": "/nowhere"})
    assert done.returncode == 1
    assert "ip, unshare, mount not found" in done.stderr
    done = use("exec", 1, "true")
    assert done.returncode == 1
    assert f"are not up: ci/two_nodes --name {NAME} up" in done.stderr


@pytest.mark.nodes
def test_it_says_that_it_needs_root() -> None:
    probe = ["unshare", "--user"]
    if subprocess.run([*probe, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("user namespaces are not permitted here")
    done = subprocess.run([*probe, *command("up")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "needs root" in done.stderr


@pytest.mark.nodes
def test_nodes_see_each_other_through_the_wire_only(pair: Path) -> None:
    for kind in ("net", "pid", "ipc", "uts", "mnt"):
        links = {output("exec", number, "readlink", f"/proc/self/ns/{kind}") for number in (1, 2)}
        assert len(links | {os.readlink(f"/proc/self/ns/{kind}")}) == 3, kind
    for directory in ("/tmp", "/var/tmp", "/dev/shm"):
        output("exec", 1, "touch", f"{directory}/{NAME}")
        assert not Path(directory, NAME).exists()
        assert use("exec", 2, "ls", f"{directory}/{NAME}").returncode != 0
    listed = output("exec", 1, "sh", "-c", "echo /proc/[0-9]*").split()
    assert "/proc/1" in listed
    assert len(listed) < 5
    for number, other in ((1, 2), (2, 1)):
        name = output("exec", number, "getent", "hosts", f"{NAME}{other}").split()[0]
        route = json.loads(output("exec", number, "ip", "-json", "route", "get", name))
        assert route[0]["dev"] == f"wire{number}"
    assert output("exec", 2, "hostname") == f"{NAME}2"
    assert output("status") == "up"
    done = use("up")
    assert done.returncode == 1
    assert "are up already" in done.stderr


@pytest.mark.nodes
def test_directories_that_are_needed_stay_visible(pair: Path) -> None:
    (pair / "file").write_text("seen")
    assert output("exec", 2, "cat", pair / "file") == "seen"
    done = use("exec", 1, "pwd", cwd=pair)
    assert done.stdout.strip() == str(pair)
    done = use("exec", 1, sys.executable, "-c", "import pytest, proxystore_hpc; print(1)")
    assert done.stdout == "1\n", done.stderr
    hidden = pair.parent / "hidden"
    hidden.mkdir()
    done = use("exec", 1, "true", cwd=hidden)
    assert done.returncode == 127
    assert "--keep" in done.stderr


@pytest.mark.nodes
def test_a_command_is_as_one_that_runs_here(pair: Path) -> None:
    assert use("exec", 2, "sh", "-c", "exit 7").returncode == 7
    assert use("exec", 2, "sh", "-c", "kill -USR1 $$").returncode == -signal.SIGUSR1
    done = use("exec", 2, "no-such-program")
    assert done.returncode == 127
    assert f"on node {NAME}2: cannot run no-such-program" in done.stderr
    reader, writer = os.pipe()
    with os.fdopen(reader) as file:
        done = use(
            *("exec", 1, "bash", "-c", f"cat; echo $WORD >&{writer}; echo this >&2"),
            input="that",
            pass_fds=[writer],
            env={**os.environ, "WORD": "given"},
        )
        os.close(writer)
        assert (done.stdout, done.stderr, file.read()) == ("that", "this\n", "given\n")


@pytest.mark.nodes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signals_reach_a_command(pair: Path, number: int) -> None:
    process = subprocess.Popen(
        command("exec", 1, "sh", "-c", "echo up; exec sleep 1000"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as said:
        said.readline()
        process.send_signal(number)
        assert process.wait(10) == -number
        assert said.read() == ""  # whoever has it open has ended


@pytest.mark.nodes
def test_down_ends_what_runs_there(pair: Path) -> None:
    stays = "import os, time; os.setsid(); print('up', flush=True); time.sleep(1000)"
    process = subprocess.Popen(
        command("exec", 2, sys.executable, "-c", stays), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as said:
        said.readline()
        # One that its starter leaves behind, too.
        output("exec", 2, "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")
        theirs = {output("exec", number, "readlink", "/proc/self/ns/pid") for number in (1, 2)}
        assert theirs <= namespaces()
        assert output("down") == output("down") == ""
        assert process.wait(10) == 1
        procfs.wait_until(lambda: not theirs & namespaces(), "nothing runs there")
    assert use("status").stdout == "down\n"


def namespaces() -> set[str]:
    """Process namespaces in which something runs."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/ns/pid"):
        try:
            found.add(os.readlink(entry))
        except OSError:
            continue  # it has ended
    return found


@pytest.mark.nodes
def test_run_leaves_nothing_whatever_happens(tmp_path: Path) -> None:
    done = use("run", "--rate", "1gbit", "exec", 1, "tc", "qdisc", "show", "dev", "wire1")
    assert "tbf" in done.stdout
    assert "rate 1Gbit" in done.stdout
    assert use("run", "exec", 2, "sh", "-c", "exit 9").returncode == 9
    done = use("run", "--rate", "much", "exec", 1, "true")
    assert done.returncode == 1
    assert "rate" in done.stderr
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(
            command("run", "exec", 1, "sh", "-c", "echo up; sleep 1000"),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout as said:
            said.readline()
            process.send_signal(number)
            assert process.wait(10) in {128 + number, -number}
            assert said.read() == ""
        procfs.wait_until(lambda: use("status").stdout == "down\n", "the nodes are gone")
    # A killed tool leaves its directory to the next one.
    output("up")
    output("down")
    assert not Path("/run/proxystore_hpc-nodes", NAME).exists()
