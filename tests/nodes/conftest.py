from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from support.fixtures import make_peer  # noqa: F401
from support.procfs import wait_until


@dataclass(frozen=True)
class Node:
    """A network namespace with one interface to the other one."""

    namespace: str
    interface: str
    address: str

    @property
    def launcher(self) -> tuple[str, ...]:
        """Starts a command on this node."""
        return ("ip", "netns", "exec", self.namespace)

    def ip(self, *arguments: str) -> str:
        return run("ip", "-n", self.namespace, *arguments)

    def wait_for_carrier(self) -> None:
        """The kernel takes a moment to see that both ends of the wire are up."""
        wait_until(
            lambda: "state UP" in self.ip("link", "show", self.interface),
            f"{self.interface} is up",
        )


def run(*command: str) -> str:
    """Runs a command; what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    """Two nodes with a wire between them: abstract sockets and loopback do not cross it."""
    tag = f"psh{os.getpid()}"
    pair = tuple(Node(f"{tag}n{i}", f"{tag}v{i}", f"10.213.77.{i}") for i in (1, 2))
    with contextlib.ExitStack() as stack:
        try:
            for node in pair:
                run("ip", "netns", "add", node.namespace)
                stack.callback(run, "ip", "netns", "del", node.namespace)
                node.ip("link", "set", "lo", "up")
            one, two = pair
            one.ip(
                *("link", "add", one.interface, "type", "veth"),
                *("peer", "name", two.interface, "netns", two.namespace),
            )
            for node in pair:
                node.ip("addr", "add", f"{node.address}/24", "dev", node.interface)
                node.ip("link", "set", node.interface, "up")
            for node in pair:
                node.wait_for_carrier()
        except RuntimeError as error:
            pytest.skip(f"nodes: {error}")
        yield one, two
