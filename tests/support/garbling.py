"""Adapters of the benchmark suite whose bytes do not arrive as they were sent."""

from __future__ import annotations

import os
import threading
from multiprocessing.connection import Client, Listener
from typing import Any

import numpy as np

from proxystore_hpc.bench.peers.sides import Side


class InFile(Side):
    """Keeps arrays in files.

    Args:
        how: What it does to the bytes: `"whole"`, `"flipped"`, `"shifted"` or `"cut"`.
    """

    def __init__(self, nbytes: int, peer: Any, folder: str, how: str) -> None:
        super().__init__(nbytes, peer)
        self.folder, self.how = folder, how
        self.count = 0

    def put(self, data: Any) -> str:
        self.count += 1
        path = f"{self.folder}/{self.count}"
        garbled(data, self.how).tofile(path)
        return path

    def get(self, ticket: str) -> Any:
        return np.fromfile(ticket, "u1")


class Messages(Side):
    """Sends arrays over a socket; `how` as for `InFile`."""

    def __init__(self, nbytes: int, peer: Any, folder: str, how: str) -> None:
        super().__init__(nbytes, peer)
        self.how = how
        if peer:
            self.pipe = Client(f"{folder}/socket")
        else:
            self.listener = Listener(f"{folder}/socket")
            threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with self.listener.accept() as pipe:
            try:
                while True:
                    data = np.frombuffer(pipe.recv_bytes(), "u1")
                    pipe.send_bytes(garbled(data, self.how).tobytes())
            except EOFError:
                self.listener.close()

    def echo(self, data: Any) -> Any:
        self.pipe.send_bytes(data)
        return self.pipe.recv_bytes()

    def close(self) -> None:
        if self.peer:
            self.pipe.close()


def endlessly() -> None:
    while True:
        pass


def garbled(data: Any, how: str) -> Any:
    data = data.copy()
    if how == "flipped":
        data[-1] ^= 1
    elif how == "shifted":
        data = np.roll(data, 64)
    elif how == "cut":
        data = data[:-1]
    return data


class Counting:
    """Role of something that is kept: what it was told, and bursts that can be told to fail."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def prepare(self, nbytes: int) -> None:
        self.told.append(f"prepare {nbytes}")

    def rest(self) -> None:
        self.told.append("rest")

    def history(self) -> list[str]:
        return self.told

    def spin(self) -> int:
        threading.Thread(target=endlessly, daemon=True).start()
        return os.getpid()

    def measure(self, operation: str, nbytes: int, times: int) -> tuple[float, str]:
        self.told.append("measure")
        return 1.0, "garbled" if nbytes == 13 else ""
