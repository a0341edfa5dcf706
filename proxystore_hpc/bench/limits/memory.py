"""Copies by one processor: within a process, and out of another one."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from proxystore_hpc.bench.bursts import Repeated
from proxystore_hpc.bench.companion import Companion
from proxystore_hpc.bench.contestant import Burst, Kind, Operation, UnavailableError
from proxystore_hpc.bench.data import expect, pattern

__all__ = ["Memcpy", "Readv"]

_HOLDER = "proxystore_hpc.bench.limits.memory:Holder"
_PR_SET_PTRACER = 0x59616D61


class Memcpy:
    """numpy's copy between two arrays whose pages are all there."""

    name = "memcpy"
    kind = Kind.LIMIT
    about = "one copy within a process, into memory that is there already"
    operations = frozenset(
        {
            *(Operation.PUT, Operation.PUT_THERE, Operation.GET, Operation.EXCHANGE),
            *(Operation.RESOLVE, Operation.BATCH, Operation.PULL),
            Operation.PUSH,
        }
    )
    most = None

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        import numpy as np

        return {"numpy": np.__version__}

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return _copies(nbytes)


@contextmanager
def _copies(nbytes: int) -> Iterator[Burst]:
    import numpy as np

    source, target = pattern(nbytes), np.ones(nbytes, "u1")
    yield Repeated(lambda: np.copyto(target, source), lambda _: expect(target, nbytes))


class Readv:
    """The system call that reads another process's memory."""

    name = "process_vm_readv"
    kind = Kind.LIMIT
    about = "the kernel copies out of another process, into memory that is there already"
    operations = frozenset({Operation.GET, Operation.PULL})
    most = None

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        if not hasattr(ctypes.CDLL(None), "process_vm_readv"):
            raise UnavailableError("this system has no process_vm_readv")
        return {"kernel": os.uname().release}

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return _reads(nbytes)


@contextmanager
def _reads(nbytes: int) -> Iterator[Burst]:
    import numpy as np

    with Companion(_HOLDER, nbytes=nbytes) as holder:
        target = np.ones(nbytes, "u1")
        read = _reader(holder.pid, holder.call("address"), target)
        try:
            read()
        except OSError as error:
            raise UnavailableError(
                f"process_vm_readv: {error}; the kernel may forbid it (yama, another container)"
            ) from error
        yield Repeated(read, lambda _: expect(target, nbytes))


class Holder:
    """Role: memory that any process of this user may read."""

    def __init__(self, nbytes: int) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
        self._array = pattern(nbytes)

    def address(self) -> int:
        """Where it lies."""
        return int(self._array.ctypes.data)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _reader(pid: int, address: int, target: Any) -> Callable[[], None]:
    function = ctypes.CDLL(None, use_errno=True).process_vm_readv
    function.restype = ctypes.c_ssize_t
    ulong, pointer = ctypes.c_ulong, ctypes.POINTER(_Iovec)
    function.argtypes = (ctypes.c_int, pointer, ulong, pointer, ulong, ulong)
    nbytes, into = target.nbytes, target.ctypes.data

    def read() -> None:
        done = 0
        while done < nbytes:
            here = _Iovec(into + done, nbytes - done)
            there = _Iovec(address + done, nbytes - done)
            got = function(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
            if got <= 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            done += got

    return read
