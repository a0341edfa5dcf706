#!/usr/bin/env python3
"""Runs commands on a node of ci/two_nodes: the shell that is process 1 there, and its client.

The namespaces of a node cannot be entered from another node, so a command is sent to the shell, as
ssh does, over a socket of the file system that both see. The command gets the client's
environment, directory and open files.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import process_stacks

PRIVATE = ("/tmp", "/var/tmp", "/dev/shm")
"""Directories that every node has for itself."""
FORWARDED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT, signal.SIGTERM),
    *(signal.SIGUSR1, signal.SIGUSR2),
)
CANNOT_RUN = 127
_MOST_FDS = 250  # a message carries 253
_ABOVE_FDS = 500  # of the client's


class ShellError(Exception):
    """There is no shell, or it refuses."""


def connect(path: Path) -> socket.socket:
    """A connection to the shell of a node.

    Raises:
        ShellError: Nothing answers.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise ShellError(str(error)) from error
    return connection


def pid_of(connection: socket.socket) -> int:
    """Process id of the shell, as seen from here."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", packed)[0])


def run(path: Path, command: Sequence[str]) -> NoReturn:
    """Runs a command on a node in place of this process: with its files, signals and status.

    Raises:
        ShellError: Nothing answers.
    """
    fds = inherited()
    with connect(path) as connection:
        request = os.memfd_create("request")
        with os.fdopen(request, "w", closefd=False) as file:
            environment = {**os.environ, "TMPDIR": "/tmp"}
            cwd = Path.cwd().as_posix()
            json.dump(
                {"command": command, "cwd": cwd, "fds": fds, "environment": environment}, file
            )
        socket.send_fds(connection, [b"run"], [request, *fds])
        os.close(request)
        for fd in fds[3:]:
            os.close(fd)  # or its other end would not see the command close it

        def forward(number: int, _: FrameType | None) -> None:
            with contextlib.suppress(OSError):
                connection.send(bytes([number]))

        for number in FORWARDED:
            signal.signal(number, forward)
        answer = connection.recv(1 << 10)
    if not answer:
        raise ShellError("it ended")
    status = int(answer)
    if status < 0:
        # Whoever waits for this process shall see the same end, but not a second core file.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -status not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


def inherited() -> list[int]:
    """Open files that this process was given, standard ones first."""
    found = [0, 1, 2]
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        with contextlib.suppress(OSError):
            if fd > 2 and os.get_inheritable(fd):
                found.append(fd)
    return sorted(found)[:_MOST_FDS]


class Shell:
    """Process 1 of a node: runs what it is asked to, and collects orphans.

    Args:
        path: Of the socket.
        lifeline: A pipe whose end is the end of the node; -1 for none.
    """

    def __init__(self, path: Path, lifeline: int) -> None:
        self._running: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._lifeline = lifeline
        if lifeline >= 0:
            self._selector.register(lifeline, selectors.EVENT_READ)
        self._wake, self._waker = socket.socketpair()
        for end in (self._wake, self._waker):
            end.setblocking(False)
        self._selector.register(self._wake, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno())

    def serve(self) -> None:
        """Until the lifeline ends."""
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._lifeline:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._wake:
                    self._wake.recv(1 << 10)
                    self._collect()
                else:
                    self._heard(key.data, key.fileobj)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(5)
        try:
            message, fds, _, _ = socket.recv_fds(connection, 16, _MOST_FDS + 1)
        except OSError:
            message, fds = b"", []
        if not message:  # it wanted to know our process id
            connection.close()
            return
        with os.fdopen(fds[0]) as file:
            file.seek(0)
            request = json.load(file)
        pid = os.fork()
        if pid == 0:
            self._become(request, fds[1:])
        for fd in fds[1:]:
            os.close(fd)
        self._running[pid] = connection
        self._selector.register(connection, selectors.EVENT_READ, pid)

    def _become(self, request: dict[str, Any], fds: list[int]) -> NoReturn:
        try:
            os.setsid()
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE_FDS) for fd in fds]
            for fd in fds:
                os.set_inheritable(fd, False)
            for fd, number in zip(high, request["fds"]):  # noqa: B905
                os.dup2(fd, number)
            signal.set_wakeup_fd(-1)
            for default in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
                signal.signal(default, signal.SIG_DFL)
            try:
                os.chdir(request["cwd"])
            except OSError as error:
                raise OSError(
                    f"{request['cwd']}: {error.strerror}; of {', '.join(PRIVATE)} a node sees only "
                    "what was kept: ci/two_nodes up --keep DIRECTORY"
                ) from error
            command = request["command"]
            try:
                os.execvpe(command[0], command, request["environment"])
            except OSError as error:
                raise OSError(f"cannot run {command[0]}: {error.strerror}") from error
        except BaseException as error:
            os.write(2, f"error: on node {socket.gethostname()}: {error}\n".encode())
        finally:
            os._exit(CANNOT_RUN)

    def _heard(self, pid: int, connection: Any) -> None:
        """A signal for a command, or its client's end, which is to be its own."""
        try:
            message = connection.recv(16)
        except OSError:
            message = b""
        if not message:
            self._selector.unregister(connection)
            connection.close()
            if self._running.pop(pid, None) is not None:
                process_stacks.kill([pid, *process_stacks.descendants(pid)])
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, message[0])

    def _collect(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            connection = self._running.pop(pid, None)
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.send(str(os.waitstatus_to_exitcode(status)).encode())
                self._selector.unregister(connection)
                connection.close()


def make_private(keep: Sequence[Path], staging: Path) -> None:
    """Gives this mount namespace empty directories of its own for `PRIVATE`.

    Args:
        keep: Directories below those that stay visible.
        staging: An empty directory outside of them.
    """
    mount("-t", "sysfs", "sysfs", "/sys")  # it shows the network of whoever mounted it
    kept = []
    for number, path in enumerate(keep):
        place = staging / str(number)
        place.mkdir(exist_ok=True)
        mount("--rbind", str(path), str(place))
        kept.append((place, path))
    for directory in PRIVATE:
        if Path(directory).is_dir():
            mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", directory)
    for place, path in kept:
        path.mkdir(parents=True, exist_ok=True)
        mount("--move", str(place), str(path))


def mount(*arguments: str) -> None:
    """A mount in the namespace of this process.

    Raises:
        ShellError: What it complained about.
    """
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ShellError(done.stderr.strip())


def begin(settings: dict[str, Any]) -> None:
    """Makes the node that this process is the first of, and serves it."""
    socket.sethostname(settings["hostname"])
    path = Path(settings["socket"])
    make_private([Path(p) for p in settings["keep"]], Path(settings["staging"]))
    hosts = Path("/dev/shm/hosts")
    hosts.write_text(settings["hosts"])
    mount("--bind", str(hosts), "/etc/hosts")
    hosts.unlink()
    os.chdir("/")
    shell = Shell(path, 0 if settings["lifeline"] else -1)
    print("ready", flush=True)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (1, 2) if settings["lifeline"] else (0, 1, 2):
        os.dup2(nothing, fd)
    shell.serve()


if __name__ == "__main__":
    try:
        begin(json.loads(sys.argv[1]))
    except Exception as error:
        sys.exit(str(error))
