"""Two processes with engines, and memory exposed in one of them."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from typing import Any

from support.doors import require_door
from support.peer import Peer

WAYS = ("arena", "process", "ucx", "tcp", "socket")
"""`arena` and `process`: the shm door, to our segments and to private memory."""

_DOORS = {"arena": "shm", "process": "shm", "ucx": "ucx", "tcp": "ucx", "socket": "socket"}


class PlainEngine:
    """What bulk transfers need of an engine: an instance with a single door."""

    def __init__(self, way: str) -> None:
        from proxystore_hpc import _core
        from proxystore_hpc.rpc.events import Hooks

        self._hooks = Hooks()
        self._instance = _core.Instance(
            f"bulk-{way}", capacity=64 << 20, pool_capacity=64 << 20, doors=[_DOORS[way]]
        )
        if _DOORS[way] == "ucx":
            from proxystore_hpc.ucx_runtime import import_ucx_module

            options = {"tls": "tcp,self"} if way == "tcp" else {}
            self._instance.open_door(import_ucx_module().create_door(**options))

    def expose(self, buffers: Any, mode: str) -> Any:
        from proxystore_hpc.rpc.bulk import expose

        return expose(self._instance, buffers, mode)


def make_buffer(kind: str, content: bytes, engine: PlainEngine) -> Any:
    """A writable buffer of this kind with that content."""
    if kind == "arena":
        block = memoryview(engine._instance.allocate(len(content)))
        block[:] = content
        return block
    if kind == "numpy":
        import numpy as np

        return np.frombuffer(bytearray(content), "u1").reshape(2, -1)
    if kind == "cffi":
        import cffi

        ffi = cffi.FFI()
        return ffi.buffer(ffi.new("char[]", content), len(content))
    if kind == "mmap":
        area = mmap.mmap(-1, len(content))
        area[:] = content
        return area
    return memoryview(bytearray(content))


class BulkPeer:
    """A process with an engine. As the owner it keeps the buffers that it exposed last."""

    def __init__(self, peer: Peer, way: str) -> None:
        self.peer = peer
        self.way = way
        peer.addresses.append(peer(_open, way))

    def __call__(self, function: Callable[..., Any], *args: Any, timeout: float = 30.0) -> Any:
        return self.peer(function, *args, timeout=timeout)

    def expose(self, contents: bytes | list[bytes], mode: str) -> Any:
        kind = "arena" if self.way == "arena" else "memoryview"
        return self.peer(_expose, contents, mode, kind)

    def expose_made(self, kind: str, content: bytes) -> Any:
        return self.peer(_expose, content, "rw", kind)

    def contents(self) -> bytes:
        return self.peer(lambda here: b"".join(bytes(buffer) for buffer in here.buffers))

    def close(self) -> None:
        self.peer(lambda here: here.bulk.close())


class Pair:
    """Unpacks to the owner and the other."""

    def __init__(self, make: Callable[..., Peer], way: str) -> None:
        require_door(_DOORS[way])
        self.way = _DOORS[way]
        self.owner, self.other = (BulkPeer(make(), way) for _ in range(2))

    def __iter__(self) -> Iterator[BulkPeer]:
        return iter((self.owner, self.other))


def transfer_ways(here: Any, bulk: Any) -> str:
    """The door that a pull goes through."""
    from proxystore_hpc import _core

    return _core.move_bulk(here.engine._instance, bulk._handle, False, 0, None, None, 10.0)[0]


def _open(here: Any, way: str) -> bytes:
    here.engine = PlainEngine(way)
    return here.engine._instance.address


def _expose(here: Any, contents: bytes | list[bytes], mode: str, kind: str) -> Any:
    parts = contents if isinstance(contents, list) else [contents]
    here.buffers = [make_buffer(kind, part, here.engine) for part in parts]
    here.bulk = here.engine.expose(here.buffers, mode)
    return here.bulk
