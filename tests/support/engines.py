"""Engines in peers, and what they serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support.peer import Peer


def open_engine(peer: Peer, serve: Callable[..., Any] | None = None, **options: Any) -> str:
    """Gives the peer an engine, `here.engine`, and has it `serve(here)`; its address."""

    def run(here: Any) -> tuple[str, bytes]:
        from proxystore_hpc import Engine

        here.engine = Engine(**{"capacity": "64MiB", **options})
        if serve is not None:
            serve(here)
        return here.engine.address, here.engine._instance.address

    address, packed = peer(run)
    peer.addresses.append(packed)
    return address


def serve_all(here: Any) -> None:
    """Procedures that most tests call."""
    import asyncio
    import os
    import threading
    import time

    from proxystore_hpc.rpc import Request

    engine = here.engine
    here.notes = []
    here.came_to_gate = 0
    here.gate = threading.Event()

    @engine.register
    def null() -> None:
        pass

    @engine.register
    def echo(*args: Any, **kwargs: Any) -> Any:
        return (args, kwargs) if kwargs or len(args) != 1 else args[0]

    @engine.register
    def add(a: Any, b: Any = 1) -> Any:
        return a + b

    @engine.register
    def sleep(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    @engine.register
    async def doze(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @engine.register
    def fail(error: BaseException) -> None:
        raise error

    @engine.register
    async def fail_later(error: BaseException) -> None:
        await asyncio.sleep(0)
        raise error

    @engine.register
    def pid() -> int:
        return os.getpid()

    @engine.register
    def note(what: Any) -> None:
        here.notes.append(what)

    @engine.register
    def notes() -> list[Any]:
        return list(here.notes)

    @engine.register
    def wait_for_gate(request: Request) -> bool:
        here.came_to_gate += 1
        while not here.gate.wait(0.01):
            if request.cancelled:
                here.notes.append("given up")
                return False
        return True

    @engine.register
    def back(request: Request, depth: int) -> int:
        """Calls the caller, which calls back, until `depth` is used up."""
        if depth == 0:
            return 0
        return 1 + int(request.endpoint.call("back", depth - 1, timeout=request.remaining()))

    engine.register("raw", lambda data: bytes(reversed(data)), codec="raw")
