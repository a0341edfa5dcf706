"""Blocking calls for coroutines: a bounded number of threads for all event loops of a process."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from proxystore_hpc.utils.locks import make_lock

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 32
"""How many calls run at once; further ones wait for their turn. They wait rather than compute."""

_pool: ThreadPoolExecutor | None = None
_lock = make_lock()


def _forget_pool() -> None:
    global _pool
    _pool = None  # its threads are the parent's


os.register_at_fork(after_in_child=_forget_pool)


def _shared_pool() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(THREADS, "pshpc-async")
        return _pool


def start(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Runs a blocking function in a thread, in the caller's context."""
    context = contextvars.copy_context()
    return _shared_pool().submit(context.run, functools.partial(function, *args, **kwargs))


async def offload(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs a blocking function in a thread, in the caller's context, and awaits its end.

    A task that is cancelled goes on at once; a function that runs already ends by itself.
    """
    context = contextvars.copy_context()
    call = functools.partial(context.run, functools.partial(function, *args, **kwargs))
    return await asyncio.get_running_loop().run_in_executor(_shared_pool(), call)
