"""Two nodes on one machine: namespaces with a wire between them; see ci/two_nodes.

A node has its own network, processes, IPC, mounts and name, so neither shared memory nor CMA nor a
node socket leads to the other one. It lives as long as its first process, `node_shell`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import node_shell
from node_shell import PRIVATE, ShellError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUN = Path("/run/proxystore_hpc-nodes")
NETWORK = "10.213.77"
NUMBERS = (1, 2)
NAMED_BY = "PROXYSTORE_HPC_NODES"
"""Variable that tells programs on a node the name of their nodes."""
CARRIER_S = 10.0
READY_S = 20.0
UNSHARE = (
    *("unshare", "--net", "--uts", "--ipc", "--pid", "--mount", "--mount-proc", "--fork"),
    *("--kill-child", "--propagation", "private"),
)
USAGE = """usage: ci/two_nodes [--name NAME] COMMAND ...

Two nodes on this machine, each with its own network, processes, IPC, host name, /dev/shm, /tmp and
/var/tmp, and a wire between them. Needs root, iproute2 and util-linux.

  up [--rate RATE] [--keep DIRECTORY ...]
                      makes the nodes; RATE, as in 1gbit, shapes the wire; directories below /tmp
                      that are to stay visible, besides the checkout, the current directory, the
                      Python environment and what PATH and PYTHONPATH name
  exec NODE CMD ...   runs a command on node 1 or 2
  mpirun ARGUMENTS    runs mpirun (Open MPI or MPICH) on node 1 for both, eight slots on each
  run [--rate RATE] [--keep DIRECTORY ...] exec|mpirun ...
                      up, that command, down
  down                ends the nodes and all that runs there
  status              whether they are up

--name tells several pairs apart; PROXYSTORE_HPC_MPIRUN chooses the launcher (first in PATH).
Environment and open files go along. One rank on each node:

  ci/two_nodes run mpirun -n 2 --map-by ppr:1:node python program.py     (Open MPI)
  ci/two_nodes run mpirun -n 2 -ppn 1 python program.py                  (MPICH)
"""


class NodesError(Exception):
    """What stands in the way, and what to do about it."""


class Nodes:
    """A pair of nodes.

    Args:
        name: Tells it from others.
    """

    def __init__(self, name: str = "psnode") -> None:
        if not name.isalnum() or len(name) > 30:
            raise NodesError(f"--name: up to 30 letters and digits, not {name!r}")
        self.name = name
        self._state = RUN / name
        self._named = "" if name == "psnode" else f" --name {name}"
        self._started: list[subprocess.Popen[str]] = []

    def hostname(self, number: int) -> str:
        """Name of a node, which both can resolve."""
        return f"{self.name}{number}"

    def address(self, number: int) -> str:
        """IPv4 address of a node."""
        return f"{NETWORK}.{number}"

    def interface(self, number: int) -> str:
        """A node's end of the wire."""
        return f"wire{number}"

    def socket(self, number: int) -> Path:
        """Where the node's shell listens."""
        return self._state / str(number)

    def command(self, number: int, *command: str) -> list[str]:
        """The command line that runs a command on a node, from here or from the other node."""
        return self.tool("exec", str(number), *command)

    def tool(self, *arguments: str) -> list[str]:
        """The command line of ci/two_nodes for these nodes."""
        return [sys.executable, __file__, "--name", self.name, *arguments]

    def up(self, rate: str | None = None, keep: Iterable[Path] = (), lasting: bool = True) -> None:
        """Makes the nodes.

        Args:
            rate: Of the wire, in each direction, as tc(8) has it.
            keep: Directories below those of `PRIVATE` that stay visible.
            lasting: Until `down`; else at most as long as this process.

        Raises:
            NodesError: They are up already, or cannot be made.
        """
        check_rights()
        if any(self._pids()):
            raise NodesError(
                f"the nodes {self.name!r} are up already: ci/two_nodes{self._named} down"
            )
        self._forget()
        RUN.mkdir(exist_ok=True)
        self._state.mkdir()
        try:
            visible = to_keep(keep)
            for number in NUMBERS:
                self._start(number, visible, lasting)
            self._connect(rate)
        except BaseException:
            self.down()
            raise

    def _start(self, number: int, keep: list[Path], lasting: bool) -> None:
        staging = self._state / "kept"
        staging.mkdir(exist_ok=True)
        settings = {
            "hostname": self.hostname(number),
            "hosts": "127.0.0.1 localhost\n"
            + "".join(f"{self.address(n)} {self.hostname(n)}\n" for n in NUMBERS),
            "socket": str(self.socket(number)),
            "keep": [str(path) for path in keep],
            "staging": str(staging),
            "lifeline": not lasting,
        }
        process = subprocess.Popen(
            [
                *(*UNSHARE, sys.executable, str(HERE / "node_shell.py"), json.dumps(settings)),
            ],
            stdin=subprocess.DEVNULL if lasting else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        assert process.stdout is not None
        with process.stdout as output:
            ready = select.select([output], [], [], READY_S)[0]
            said = output.readline() if ready else f"not ready after {READY_S:g} s"
            if said != "ready\n":
                more = output.read() if ready else ""
                raise NodesError(f"node {number} cannot be made: {(said + more).strip()}")

    def _connect(self, rate: str | None) -> None:
        one, two = ((self.interface(n), "netns", str(pid)) for n, pid in zip(NUMBERS, self._pids()))  # noqa: B905
        checked("ip", "link", "add", *one, "type", "veth", "peer", "name", *two)
        for number in NUMBERS:
            wire = self.interface(number)
            script = (
                f"ip link set lo up && ip link set {wire} up && "
                f"ip addr add {self.address(number)}/24 dev {wire}"
            )
            if rate is not None:
                script += f" && tc qdisc add dev {wire} root tbf rate {rate} burst 1mb latency 50ms"
            checked(*self.command(number, "sh", "-c", script))
        deadline = time.monotonic() + CARRIER_S
        for number in NUMBERS:
            # The kernel takes a moment to see that both ends are up.
            show = self.command(number, "ip", "link", "show", self.interface(number))
            while "state UP" not in checked(*show):
                if time.monotonic() > deadline:
                    raise NodesError(f"the wire has no carrier after {CARRIER_S:g} s")
                time.sleep(0.02)

    def down(self) -> None:
        """Ends the nodes and all that runs there. Idempotent.

        Raises:
            NodesError: The rights are missing.
        """
        if self._state.exists() and not os.access(self._state, os.W_OK):
            raise NodesError("ending the nodes needs root, who made them")
        for pid in filter(None, self._pids()):
            with contextlib.suppress(ProcessLookupError):
                ended = os.pidfd_open(pid)
                try:
                    # With its first process, the kernel ends all that lives in a namespace.
                    signal.pidfd_send_signal(ended, signal.SIGKILL)
                    select.select([ended], [], [])
                finally:
                    os.close(ended)
        for process in self._started:
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self._started.clear()
        self._forget()

    def release(self) -> None:
        """Ends them if this process made them."""
        if self._started:
            self.down()

    def is_up(self) -> bool:
        """Whether both nodes live."""
        return all(self._pids())

    def shell(self, number: int) -> Path:
        """The socket of a node that is up.

        Raises:
            NodesError: It is not.
        """
        path = self.socket(number)
        try:
            node_shell.connect(path).close()
        except ShellError as error:
            if isinstance(error.__cause__, PermissionError):
                raise NodesError("using the nodes needs root, who made them") from error
            what = "have ended" if path.exists() else "are not up"
            raise NodesError(
                f"the nodes {self.name!r} {what}: ci/two_nodes{self._named} up"
            ) from error
        return path

    def mpirun(self, launcher: str, arguments: Sequence[str]) -> list[str]:
        """The command that node 1 runs to start a job on both; sets the environment for it.

        Args:
            launcher: mpirun or mpiexec of Open MPI or MPICH.
            arguments: Those of the user.

        Raises:
            NodesError: It is neither.
        """
        program = shutil.which(launcher)
        if program is None:
            raise NodesError(f"{launcher} was not found: see PROXYSTORE_HPC_MPIRUN")
        version = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False
        ).stdout
        agent = str(HERE / "node_agent")
        hosts = [self.hostname(number) for number in NUMBERS]
        network = f"{NETWORK}.0/24"
        os.environ[NAMED_BY] = self.name
        if "Open MPI" in version or "PRTE" in version:
            for name in ("OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT"):
                os.environ[name] = os.environ[f"{name}_CONFIRM"] = "1"
            # Those of ci/mpirun, and between the nodes nothing but TCP over the wire.
            for name, value in (
                ("btl", "self,sm,tcp"),
                ("pml", "ob1"),
                ("osc", "^ucx"),
                ("btl_tcp_if_include", network),
            ):
                os.environ.setdefault(f"OMPI_MCA_{name}", value)
            for name in ("sm", "vader"):  # a directory that the nodes do not see
                os.environ.pop(f"OMPI_MCA_btl_{name}_backing_directory", None)
            return [
                *(program, "--host", ",".join(f"{host}:8" for host in hosts), "--bind-to", "none"),
                *("--prtemca", "plm_ssh_agent", agent, "--prtemca", "prte_if_include", network),
                *("--prtemca", "plm_ssh_no_tree_spawn", "1", *arguments),
            ]
        if "HYDRA" in version:
            os.environ.setdefault("MPIR_CVAR_CH4_NETMOD", "ofi")
            os.environ.setdefault("FI_PROVIDER", "tcp")
            return [
                *(program, "-launcher", "ssh", "-launcher-exec", agent, "-bind-to", "none"),
                *("-iface", self.interface(1), "-hosts", ",".join(f"{host}:8" for host in hosts)),
                *arguments,
            ]
        raise NodesError(f"{program} is of neither Open MPI nor MPICH: {version.strip()[:200]!r}")

    def number_of(self, host: str) -> int:
        """The node of a name or an address.

        Raises:
            NodesError: There is no such node.
        """
        for number in NUMBERS:
            if host in {self.hostname(number), self.address(number)}:
                return number
        raise NodesError(f"there is no node {host!r}")

    def _pids(self) -> list[int]:
        """Process ids of the nodes' shells; 0 for one that does not live."""
        found = []
        for number in NUMBERS:
            try:
                with node_shell.connect(self.socket(number)) as connection:
                    found.append(node_shell.pid_of(connection))
            except ShellError:
                found.append(0)
        return found

    def _forget(self) -> None:
        shutil.rmtree(self._state, ignore_errors=True)


def to_keep(more: Iterable[Path]) -> list[Path]:
    """Directories that are to stay visible and would not: each once, and none inside another.

    Args:
        more: Besides those that commands usually need.
    """
    wanted = [ROOT, Path.cwd(), Path(sys.prefix), Path(sys.base_prefix), *more]
    for entry in os.environ.get("PATH", "").split(":"):
        path = Path(entry)
        wanted.append(path.parent if path.name == "bin" else path)
    wanted += map(Path, filter(None, os.environ.get("PYTHONPATH", "").split(":")))
    private = [Path(directory) for directory in PRIVATE]
    hidden = {
        path
        for path in (p.resolve() for p in wanted)
        if path.is_dir() and any(d in path.parents for d in private)
    }
    return sorted(path for path in hidden if not hidden & set(path.parents))


def check_rights() -> None:
    """Looks for what making nodes needs.

    Raises:
        NodesError: What is missing.
    """
    missing = [tool for tool in ("ip", "unshare", "mount") if shutil.which(tool) is None]
    if missing:
        raise NodesError(
            f"{', '.join(missing)} not found (Debian: apt-get install iproute2 util-linux mount)"
        )
    if os.geteuid() != 0:
        raise NodesError("making network namespaces needs root")
    # Inside of containers, some of it is often forbidden.
    probe = subprocess.run(
        [*UNSHARE, "sh", "-c", "mount -t tmpfs tmpfs /dev/shm && ip link add type veth"],
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode != 0:
        raise NodesError(f"namespaces are not permitted here: {probe.stderr.strip()}")


def checked(*command: str) -> str:
    """Runs a command; what it printed.

    Raises:
        NodesError: What it complained about.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NodesError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def agent(nodes: Nodes, arguments: list[str]) -> NoReturn:
    """In place of ssh, which launchers call with options, a host and a command."""
    while arguments and arguments[0].startswith("-"):
        arguments = arguments[1:]
    host, *command = arguments
    node_shell.run(nodes.shell(nodes.number_of(host)), ["sh", "-c", " ".join(command)])


def usual_options(rest: list[str], command: bool) -> argparse.Namespace:
    """Options of `up` and `run`, and the command that follows those of `run`."""
    parser = argparse.ArgumentParser(prog="ci/two_nodes", usage=USAGE[7:], add_help=False)
    parser.add_argument("--rate")
    parser.add_argument("--keep", type=Path, action="append", default=[])
    if command:
        parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args(rest)


def perform(nodes: Nodes, command: str, rest: list[str]) -> int:
    """One command of the command line; its status."""
    if command == "up":
        options = usual_options(rest, False)
        nodes.up(options.rate, options.keep)
    elif command == "down":
        nodes.down()
    elif command == "status":
        print("up" if nodes.is_up() else "down")
        return 0 if nodes.is_up() else 1
    elif command == "exec" and len(rest) > 1 and rest[0] in {"1", "2"}:
        os.environ[NAMED_BY] = nodes.name
        node_shell.run(nodes.shell(int(rest[0])), rest[1:])
    elif command == "mpirun" and rest:
        line = nodes.mpirun(os.environ.get("PROXYSTORE_HPC_MPIRUN", "mpirun"), rest)
        node_shell.run(nodes.shell(1), line)
    elif command == "agent" and len(rest) > 1:
        agent(nodes, rest)
    elif command == "run":
        options = usual_options(rest, True)
        if options.command[:1] not in (["exec"], ["mpirun"]):
            raise NodesError("run takes 'exec NODE ...' or 'mpirun ...'")
        for number in node_shell.FORWARDED:
            signal.signal(number, end)
        try:
            nodes.up(options.rate, options.keep, lasting=False)
            return run_in(nodes, options.command)
        finally:
            nodes.release()
    else:
        print(USAGE, end="", file=sys.stderr)
        return 2
    return 0


def end(number: int, _: FrameType | None) -> NoReturn:
    """Ends the program in good order."""
    sys.exit(128 + number)


def run_in(nodes: Nodes, command: list[str]) -> int:
    """Runs a command of this tool and waits for it, whatever signals come meanwhile."""
    process = subprocess.Popen(nodes.tool(*command), close_fds=False)
    for number in node_shell.FORWARDED:
        signal.signal(number, lambda n, _: process.send_signal(n))
    status = process.wait()
    return status if status >= 0 else 128 - status


def main(arguments: list[str]) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog="ci/two_nodes", usage=USAGE[7:], add_help=False)
    parser.add_argument("--name", default=os.environ.get(NAMED_BY, "psnode"))
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("command", nargs="?", default="")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    if options.help:
        print(USAGE, end="")
        return 0
    try:
        return perform(Nodes(options.name), options.command, options.rest)
    except (NodesError, ShellError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
