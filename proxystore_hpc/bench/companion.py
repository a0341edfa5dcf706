"""A second process of a benchmark, whose methods are called from the first."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

__all__ = ["PATIENCE", "Companion", "CompanionError", "module_path"]

PATIENCE = 120.0
"""Seconds that a companion may take for an answer."""
SERVING = (sys.executable, "-m", "proxystore_hpc.bench.companion")


class CompanionError(Exception):
    """A companion raised, was slow or died."""


class Companion:
    """An object in a process of its own, whose methods are called from here, one at a time.

    Args:
        role: `"module:Class"`; the module is found as in this process. Its `close` is called in
            the end.
        arguments: For its constructor.
        environment: Variables that the process gets besides ours.
        launcher: What starts it, on another node for example.
    """

    def __init__(
        self,
        role: str,
        *,
        environment: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
        **arguments: Any,
    ) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [*launcher, *SERVING, str(theirs.fileno()), role],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": module_path(), **(environment or {})},
            )
        self._pipe = Connection(ours.detach())
        self.role = role
        self.start("__init__", **arguments)
        self.result()

    @property
    def pid(self) -> int:
        """Of its process."""
        return self.process.pid

    def start(self, method: str, *positional: Any, **arguments: Any) -> None:
        """Calls a method without waiting for it."""
        try:
            self._pipe.send((method, positional, arguments))
        except (BrokenPipeError, ConnectionResetError):
            raise self._ended() from None

    def result(self, timeout: float = PATIENCE) -> Any:
        """What the method started last returned."""
        if not self._pipe.poll(timeout):
            raise CompanionError(f"{self.role} gave no answer within {timeout:.0f} s")
        try:
            failed, value = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._ended() from None
        if failed:
            raise CompanionError(f"{self.role} raised\n{value}")
        return value

    def _ended(self) -> CompanionError:
        return CompanionError(f"{self.role} ended with {self.process.wait(timeout=5)}")

    def call(self, method: str, *positional: Any, **arguments: Any) -> Any:
        """Calls a method and waits for what it returns."""
        self.start(method, *positional, **arguments)
        return self.result()

    def close(self) -> None:
        """Ends the process, by force if need be."""
        self._pipe.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Companion:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(descriptor: int, role: str) -> None:
    """The other end of `Companion`; ends with its process."""
    module, _, name = role.partition(":")
    kind = getattr(importlib.import_module(module), name)
    subject: Any = None
    with Connection(descriptor) as pipe:
        while True:
            try:
                method, positional, arguments = pipe.recv()
            except (EOFError, ConnectionResetError):
                break
            try:
                if method == "__init__":
                    subject, value = kind(*positional, **arguments), None
                else:
                    value = getattr(subject, method)(*positional, **arguments)
                answer = False, value
            except Exception:
                answer = True, traceback.format_exc()
            try:
                pipe.send(answer)
            except (BrokenPipeError, ConnectionResetError):
                break
    if hasattr(subject, "close"):
        subject.close()


def module_path() -> str:
    """PYTHONPATH of a process that is to find the modules that this one finds."""
    return os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)


if __name__ == "__main__":
    # By its proper name, else this module would be there twice.
    from proxystore_hpc.bench import companion

    companion.serve(int(sys.argv[1]), sys.argv[2])
